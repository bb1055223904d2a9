"""Many kernels on many heads at once: scikit-learn's numbers, exact where the truth is known, honest in the null."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from mechicl.kernel_fit import KernelFits, fit_kernels
from mechicl.kernel_permutations import kernel_null

ITEMS, HEADS, KERNELS, DEMOS = 30, 4, 3, 6
FOLDS = np.arange(ITEMS) % 5


def draw(seed: int = 0, collinear: bool = True) -> dict[str, np.ndarray]:
    """Log attention, kernels, nuisances and salience, in part made of each other."""
    rng = np.random.default_rng(seed)
    normal = lambda n: rng.normal(size=(ITEMS, n, DEMOS))  # noqa: E731
    nuisance, salience = normal(5), normal(KERNELS)
    if collinear:
        nuisance[:, 3] = 2 * nuisance[:, 2] - nuisance[:, 1]
        nuisance[:, 4] = 0.7
    kernels = normal(KERNELS) + 0.5 * salience + 0.3 * nuisance[:, :1]
    response = normal(HEADS)
    response[:, 0] += 2 * kernels[:, 1] + salience[:, 1] + 3 * nuisance[:, 1]
    response[:, 1] -= kernels[:, 0]
    return {"response": response, "kernels": kernels, "nuisance": nuisance, "salience": salience}


def rows(values: np.ndarray) -> np.ndarray:
    """Centred within prompts, a row a demonstration."""
    return (values - values.mean(-1, keepdims=True)).transpose(0, 2, 1).reshape(-1, values.shape[1])


def held_out_r2(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """scikit-learn, fold by fold; what is to be predicted is centred, so nothing predicts 0."""
    errors = 0.0
    for one in np.unique(fold):
        fitted = LinearRegression(fit_intercept=False).fit(x[fold != one], y[fold != one])
        errors += ((y[fold == one] - fitted.predict(x[fold == one])) ** 2).sum()
    return float(1 - errors / (y**2).sum())


@pytest.mark.parametrize("collinear", [False, True])
@pytest.mark.parametrize("salient", [False, True])
def test_it_is_scikit_learns_regression(salient: bool, collinear: bool) -> None:
    data = draw(collinear=collinear)
    folds = np.random.default_rng(1).choice([7, 3, 3, 12], size=ITEMS)  # of unequal sizes, by any number
    if not salient:
        del data["salience"]
    found = fit_kernels(**data, folds=folds, n_permutations=0)
    heads, kernels, nuisance = (rows(data[name]) for name in ("response", "kernels", "nuisance"))
    fold = np.repeat(folds, DEMOS)
    for head in range(HEADS):
        y = heads[:, head]
        assert found.nuisance_r2[head] == pytest.approx(held_out_r2(nuisance, y, fold), abs=1e-10)
        for kernel in range(KERNELS):
            at, own = (head, kernel), kernels[:, [kernel]]
            small = np.hstack([nuisance, rows(data["salience"])[:, [kernel]]]) if salient else nuisance
            whole = np.hstack([small, own])
            without, joint = held_out_r2(small, y, fold), held_out_r2(whole, y, fold)
            assert found.r2[at] == pytest.approx(held_out_r2(own, y, fold), abs=1e-10)
            assert found.joint_r2[at] == pytest.approx(joint, abs=1e-10)
            assert found.unique_r2[at] == pytest.approx(joint - max(without, 0), abs=1e-10)
            for name, x in (("slope", own), ("slope_beyond", whole)):
                slope = LinearRegression(fit_intercept=False).fit(x, y).coef_[-1]
                assert getattr(found, name)[at] == pytest.approx(slope, abs=1e-10)
            left = [z - LinearRegression(fit_intercept=False).fit(small, z).predict(small) for z in (y, own[:, 0])]
            assert found.partial_r[at] == pytest.approx(np.corrcoef(left)[0, 1], abs=1e-10)


def test_attention_that_is_a_kernel_is_found_exactly() -> None:
    data = draw()
    anywhere = np.random.default_rng(3).normal(size=(ITEMS, 1))  # the softmax's constant, which differs by prompt
    data["response"][:, 2] = 2.5 * data["kernels"][:, 1] + anywhere
    data["response"][:, 3] = data["response"][:, 2] - 4 * data["salience"][:, 1] + data["nuisance"][:, 0]
    found = fit_kernels(**data, folds=FOLDS, n_permutations=99)
    assert found.r2[2, 1] == pytest.approx(1, abs=1e-12)
    assert found.slope[2, 1] == pytest.approx(2.5, abs=1e-10)
    assert found.r2[3, 1] < 0.9
    for head in (2, 3):
        assert found.joint_r2[head, 1] == pytest.approx(1, abs=1e-12)
        assert found.slope_beyond[head, 1] == pytest.approx(2.5, abs=1e-10)
        assert found.partial_r[head, 1] == pytest.approx(1, abs=1e-10)
        assert found.p[head, 1] == found.p_fwe[head, 1] == 0.01


def test_units_and_constants_of_a_prompt_do_not_matter() -> None:
    data = draw()
    found = fit_kernels(**data, folds=FOLDS, n_permutations=50)
    shift = np.random.default_rng(5).normal(size=(ITEMS, 1, 1))
    other = {
        "response": data["response"] + shift,
        "kernels": 1e4 * data["kernels"] - shift,
        "nuisance": data["nuisance"] * 1e-3,
        "salience": 5 * data["salience"] + shift,
    }
    again = fit_kernels(**other, folds=FOLDS, n_permutations=50)
    for name in ("r2", "joint_r2", "unique_r2", "partial_r", "p", "p_fwe", "nuisance_r2"):
        np.testing.assert_allclose(getattr(again, name), getattr(found, name), atol=1e-8)
    np.testing.assert_allclose(again.slope, found.slope / 1e4, atol=1e-12)


@pytest.mark.filterwarnings("error")
def test_what_does_not_vary_or_is_not_finite_has_no_numbers() -> None:
    data = draw()
    plain = fit_kernels(**data, folds=FOLDS, n_permutations=20)
    wider = {name: np.concatenate([values, values[:, :2]], 1) for name, values in data.items() if name != "nuisance"}
    wider["response"][:, -2] = np.arange(ITEMS)[:, None] / 3 + 1e-7 * wider["response"][:, -2]  # alike within prompts
    wider["response"][4, -1, 2] = -np.inf  # the logarithm of no attention
    wider["kernels"][:, -2] = 0.1
    wider["kernels"][0, -1, 0] = np.nan
    found = fit_kernels(**wider, nuisance=data["nuisance"], folds=FOLDS, n_permutations=20)
    assert found.defined.tolist() == [True] * HEADS + [False] * 2
    np.testing.assert_array_equal(np.isnan(found.nuisance_r2), ~found.defined)
    for name in KernelFits.__dataclass_fields__:
        values = getattr(found, name)
        if values.ndim == 2:
            assert np.isnan(values[-2:]).all() and np.isnan(values[:, -2:]).all()
            np.testing.assert_allclose(values[:HEADS, :KERNELS], getattr(plain, name), rtol=1e-9)


def test_a_kernel_inside_the_nuisances_adds_nothing() -> None:
    data = draw()
    data["kernels"][:, 0] = data["nuisance"][:, 0] + 3 * data["nuisance"][:, 1]
    data["kernels"][:, 1] = data["salience"][:, 1] - data["nuisance"][:, 2]
    found = fit_kernels(**data, folds=FOLDS, n_permutations=50)
    np.testing.assert_allclose(found.slope_beyond[:, :2], 0, atol=1e-12)
    np.testing.assert_array_less(found.unique_r2[:, :2], 1e-10)
    assert (found.p[:, :2] == 1).all() and (found.p_fwe[:, :2] == 1).all()


def drawn_to_some(seed: int) -> dict[str, Any]:
    """Demonstrations that draw attention from every query, in every kernel as in every head; no query matters."""
    rng = np.random.default_rng(seed)
    draws = 2 * rng.normal(size=(ITEMS, 1, DEMOS))
    noise = lambda n: rng.normal(size=(ITEMS, n, DEMOS))  # noqa: E731
    return {
        "response": draws + noise(HEADS),
        "kernels": draws + noise(KERNELS),
        "salience": np.repeat(draws, KERNELS, 1),
        "nuisance": noise(2),
    }


def test_a_kernel_that_is_only_salience_is_none() -> None:
    """Attention depends on demonstrations alone: a kernel explains it, but nothing beyond its salience."""
    found = [fit_kernels(**drawn_to_some(seed), folds=FOLDS, n_permutations=99, seed=seed) for seed in range(40)]
    assert min(one.r2.min() for one in found) > 0.3
    assert max(one.unique_r2.max() for one in found) < 0.1
    assert abs(np.mean([one.unique_r2 for one in found])) < 0.01
    assert np.mean([one.p_fwe.min() <= 0.05 for one in found]) <= 0.15  # 2 expected; above 6 with probability .01
    data = drawn_to_some(0)
    del data["salience"]
    blind = fit_kernels(**data, folds=FOLDS, n_permutations=99)
    assert blind.unique_r2.min() > 0.3 and blind.p_fwe.max() == 0.01  # which is why salience is taken out


def test_salience_from_few_queries_leaves_a_trace() -> None:
    """Where it is a mean over 8 queries a part of it passes for a kernel, small but sure; with 64 it does not."""
    found = {}
    for n_references in (8, 64):
        runs = []
        for seed in range(10):
            rng = np.random.default_rng(seed)
            draws, own, noise = rng.normal(size=(3, 120, 1, 8))
            mean = rng.normal(size=(120, 1, 8)) * (4 / n_references) ** 0.5
            fits = fit_kernels(
                draws + 0.5 * noise, draws + 2 * own, np.zeros((120, 0, 8)), salience=draws + mean,
                folds=np.arange(120) % 5, n_permutations=99,
            )  # fmt: skip
            runs.append((fits.unique_r2[0, 0], fits.p[0, 0]))
        found[n_references] = np.array(runs)
    assert 0.01 < found[8][:, 0].mean() < 0.03 and (found[8][:, 1] <= 0.05).all()
    assert abs(found[64][:, 0].mean()) < 0.002 and (found[64][:, 1] <= 0.05).sum() <= 3


def places(rng: np.random.Generator) -> dict[str, Any]:
    """Attention and kernels both owe much to the place, in a form that the nuisance (its number) misses."""
    place = np.linspace(0, 1, DEMOS) ** 4
    return {
        "response": rng.normal(size=(ITEMS, HEADS, DEMOS)) * (1 + 3 * place) + 6 * place,
        "kernels": rng.normal(size=(ITEMS, KERNELS, DEMOS)) * (1 + 2 * place) - 5 * place,
        "nuisance": np.broadcast_to(np.arange(DEMOS, dtype=np.float64), (ITEMS, 1, DEMOS)),
    }


def few(rng: np.random.Generator) -> dict[str, Any]:
    """A few prompts of two demonstrations, and nuisances that take up a third of all that can vary."""
    normal = lambda n: rng.normal(size=(20, n, 2))  # noqa: E731
    return {"response": normal(3), "kernels": normal(3), "nuisance": normal(6), "folds": np.arange(20) % 5}


def shared(rng: np.random.Generator) -> dict[str, Any]:
    """Prompts that are nearly copies of each other, four of each query."""
    normal = lambda n: np.repeat(rng.normal(size=(8, n, DEMOS)), 4, 0) + 0.1 * rng.normal(size=(32, n, DEMOS))  # noqa: E731
    query = np.repeat(np.arange(8), 4)
    return {"response": normal(3), "kernels": normal(3), "nuisance": normal(1), "folds": query % 4, "groups": query}


@pytest.mark.parametrize("make", [places, few, shared])
def test_chance_finds_as_often_as_it_says(make: Any) -> None:
    """Draws in which attention owes nothing to the query: p and p_fwe at most .05 in a twentieth of them."""
    alone, together = [], []
    for seed in range(120):
        data = {"folds": FOLDS, **make(np.random.default_rng(seed))}
        found = fit_kernels(**data, n_permutations=59, seed=seed)
        alone.append((found.p <= 0.05).mean())
        together.append(found.p_fwe.min() <= 0.05)
    assert 1 <= np.sum(together) <= 13  # the central .99 of a binomial
    assert 0.03 < np.mean(alone) < 0.08


def test_the_null_tells_apart_what_it_should() -> None:
    """Without its own null the place effect would be found; with an effect of the query, this is found."""
    rng = np.random.default_rng(0)
    data = places(rng)
    found = fit_kernels(**data, folds=FOLDS, n_permutations=99)
    assert (found.unique_r2 > 0.02).mean() > 0.5 and found.p_fwe.min() > 0.05  # R^2 alone would mislead
    data["response"][:, 1] += 1.5 * data["kernels"][:, 2]
    found = fit_kernels(**data, folds=FOLDS, n_permutations=199)
    assert found.p_fwe[1, 2] == 1 / 200
    others = np.ones((HEADS, KERNELS), dtype=bool)
    others[1, 2] = False
    assert found.p_fwe[others].min() > 0.05


def test_p_is_counted_as_a_plain_loop_counts() -> None:
    rng = np.random.default_rng(0)
    unit = lambda x: x / np.sqrt((x**2).sum((0, 1)))  # noqa: E731
    heads, kernels = (unit(rng.normal(size=(12, 4, n))) for n in (3, 2))
    basis, _ = np.linalg.qr(rng.normal(size=(48, 5)))
    p, p_fwe = kernel_null(heads, kernels, basis, np.arange(12), n_permutations=60, seed=7)
    orders, drawn = np.random.default_rng(7), []
    for _ in range(60):
        moved = kernels[orders.permutation(12)].reshape(48, 2)
        size = np.linalg.norm(moved - basis @ basis.T @ moved, axis=0)
        drawn.append(np.abs(np.einsum("rh,rk->hk", heads.reshape(48, 3), moved)) / size)
    observed = np.abs(np.einsum("idh,idk->hk", heads, kernels))
    for h in range(3):
        for k in range(2):
            assert p[h, k] == (1 + sum(one[h, k] >= observed[h, k] for one in drawn)) / 61
            assert p_fwe[h, k] == (1 + sum(one.max() >= observed[h, k] for one in drawn)) / 61
    assert (p_fwe >= p).all()


def test_prompts_of_one_query_are_permuted_together() -> None:
    """With one query for all there is no other: every permutation is the sample itself, whatever the sizes."""
    rng = np.random.default_rng(0)
    heads, kernels = (x / np.linalg.norm(x) for x in rng.normal(size=(2, 9, 4, 1)))
    none = np.zeros((36, 0))
    p, _ = kernel_null(heads, kernels, none, np.full(9, 3), n_permutations=30, seed=0)
    assert p[0, 0] == 1
    groups = np.array([0, 2, 0, 1, 0, 1, 0, 2, 0])  # unequal: a smaller group's prompts are taken in turn
    p, _ = kernel_null(heads, kernels, none, groups, n_permutations=30, seed=3)
    orders, drawn, members = np.random.default_rng(3), [], [np.flatnonzero(groups == g) for g in range(3)]
    for _ in range(30):
        given, moved = orders.permutation(3), np.zeros_like(kernels)
        for group, own in enumerate(members):
            for place, item in enumerate(own):
                other = members[given[group]]
                moved[item] = kernels[other[place % len(other)]]
        drawn.append(abs((heads * moved).sum()) / np.linalg.norm(moved))
    observed = abs((heads * kernels).sum())
    assert p[0, 0] == (1 + sum(one >= observed * (1 - 1e-10) for one in drawn)) / 31
    data = draw()
    by_number = fit_kernels(**data, folds=FOLDS, n_permutations=40)
    by_name = fit_kernels(**data, folds=FOLDS, n_permutations=40, groups=10 * np.arange(ITEMS))
    np.testing.assert_array_equal(by_number.p, by_name.p)


def test_no_permutations_leave_p_open() -> None:
    found = fit_kernels(**draw(), folds=FOLDS, n_permutations=0)
    assert np.isnan(found.p).all() and np.isnan(found.p_fwe).all() and np.isfinite(found.unique_r2).all()


def test_equal_seeds_give_equal_p() -> None:
    first, second, other = (fit_kernels(**draw(), folds=FOLDS, n_permutations=99, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.p, second.p)
    assert (first.p != other.p).any()


def test_it_refuses_what_it_cannot_fit() -> None:
    data = draw()
    with pytest.raises(ValueError, match="single fold"):
        fit_kernels(**data, folds=np.zeros(ITEMS, dtype=int))
    with pytest.raises(ValueError, match="one demonstration"):
        fit_kernels(**{name: values[..., :1] for name, values in data.items()}, folds=FOLDS)
    data["nuisance"][3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="nuisance 2 is not finite"):
        fit_kernels(**data, folds=FOLDS)
