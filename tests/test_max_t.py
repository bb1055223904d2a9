"""Family-wise tests against naive loops, full enumeration, and their error rates on simulated heads."""

import warnings
from itertools import permutations, product

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from jaxtyping import TypeCheckError

from mechicl.max_t import HeadTests, max_t_over_heads
from mechicl.stats import benjamini_hochberg, slope_permutation_p


def heads(n_heads: int, n_verbs: int, seed: int = 0, shared: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Effects of dependent heads (all hold one common part) and a bias that has nothing to do with them."""
    rng = np.random.default_rng(seed)
    common = shared * rng.normal(size=n_verbs)
    return rng.normal(size=(n_heads, n_verbs)) + common, rng.uniform(size=n_verbs)


def all_t(effects: np.ndarray, x: np.ndarray | None) -> np.ndarray:
    """t by statsmodels, head by head."""
    design = np.ones(effects.shape[1]) if x is None else sm.add_constant(x)
    return np.array([sm.OLS(row, design).fit().tvalues[-1] for row in effects])


@pytest.mark.parametrize("with_x", [True, False])
def test_t_is_that_of_statsmodels(with_x: bool) -> None:
    effects, x = heads(6, 12)
    tests = max_t_over_heads(effects, x if with_x else None, n_permutations=50)
    np.testing.assert_allclose(tests.t, all_t(effects, x if with_x else None), rtol=1e-10)


@pytest.mark.parametrize("step_down", [False, True])
@pytest.mark.parametrize("with_x", [True, False])
def test_tiny_cases_equal_all_permutations_counted(with_x: bool, step_down: bool) -> None:
    effects, x = heads(4, 5, seed=3)
    effects[2] = 0.3 * x + 0.02 * effects[2] + 0.1
    if with_x:
        null = abs(np.array([all_t(effects, np.array(order)) for order in permutations(x)]))
    else:
        null = abs(np.array([all_t(effects * signs, None) for signs in product([-1, 1], repeat=5)]))
    observed = abs(all_t(effects, x if with_x else None))
    tests = max_t_over_heads(effects, x if with_x else None, step_down=step_down)
    assert tests.exhaustive and tests.n_permutations == len(null) == (120 if with_x else 32)
    np.testing.assert_allclose(tests.p, (null >= observed - 1e-9).mean(0), atol=1e-12)
    if step_down:
        rivals = [observed <= t for t in observed]
        one_step = np.array([(null[:, r].max(1) >= t - 1e-9).mean() for r, t in zip(rivals, observed, strict=True)])
        expected = np.array([one_step[observed >= t].max() for t in observed])
    else:
        expected = (null.max(1)[:, None] >= observed - 1e-9).mean(0)
    np.testing.assert_allclose(tests.p_fwe, expected, atol=1e-12)
    np.testing.assert_array_equal(tests.p_bh, benjamini_hochberg(tests.p))


@pytest.mark.parametrize("with_x", [True, False])
def test_drawn_permutations_approach_the_exact_p(with_x: bool) -> None:
    effects, x = heads(5, 6, seed=1)
    options = {"x": x if with_x else None}
    exact = max_t_over_heads(effects, **options)
    exhaustive = exact.n_permutations
    drawn = [max_t_over_heads(effects, **options, n_permutations=exhaustive - 1, seed=s) for s in range(60)]
    assert exact.exhaustive and not drawn[0].exhaustive
    for name in ("p", "p_fwe"):
        expected = (1 + (exhaustive - 1) * getattr(exact, name)) / exhaustive
        spread = np.sqrt(0.25 / (60 * (exhaustive - 1)))
        np.testing.assert_allclose(np.mean([getattr(d, name) for d in drawn], axis=0), expected, atol=4.5 * spread)


def test_naive_loop_over_the_same_permutations() -> None:
    effects, x = heads(7, 15, seed=2)
    effects[3] += 4 * x
    n, seed = 300, 11
    rng = np.random.default_rng(seed)
    centred = x - x.mean()
    orders = rng.permuted(np.broadcast_to(centred / np.linalg.norm(centred), (n, 15)), axis=1)
    null = np.array([[abs(scipy.stats.pearsonr(order, row).statistic) for row in effects] for order in orders])
    observed = np.array([abs(scipy.stats.pearsonr(x, row).statistic) for row in effects])
    tests = max_t_over_heads(effects, x, n_permutations=n, seed=seed)
    np.testing.assert_allclose(tests.p, (1 + (null >= observed).sum(0)) / (1 + n), atol=1e-12)
    np.testing.assert_allclose(tests.p_fwe, [(1 + (null.max(1) >= r).sum()) / (1 + n) for r in observed], atol=1e-12)
    assert tests.p[3] == slope_permutation_p(x, effects[3], n_permutations=n, seed=seed), "one head alone: as in stats"


def test_one_head_needs_no_correction_and_more_heads_never_help() -> None:
    effects, x = heads(20, 12, seed=5)
    alone = max_t_over_heads(effects[:1], x, n_permutations=400)
    np.testing.assert_array_equal(alone.p_fwe, alone.p)
    single = max_t_over_heads(effects, x, n_permutations=400)
    down = max_t_over_heads(effects, x, n_permutations=400, step_down=True)
    assert (single.p_fwe >= down.p_fwe).all() and (down.p_fwe >= down.p).all()
    assert (single.p_fwe > down.p_fwe).any()
    first = np.argmax(abs(single.t))
    assert single.p_fwe[first] == down.p_fwe[first]


def test_silent_heads_have_no_effect_and_nothing_warns() -> None:
    effects, x = heads(3, 20)
    effects[0] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_mean = max_t_over_heads(effects, n_permutations=200)
        effects[1] = 0.1 + 0.2
        by_slope = max_t_over_heads(effects, x, n_permutations=200)
        none = max_t_over_heads(np.zeros((4, 20)), x, n_permutations=200)
    for tests, silent in ((by_mean, [0]), (by_slope, [0, 1]), (none, [0, 1, 2, 3])):
        assert all(tests.t[h] == 0 and tests.p[h] == tests.p_fwe[h] == tests.p_bh[h] == 1 for h in silent)
    assert by_mean.p[2] < 1


def test_perfect_fits_and_tiny_numbers() -> None:
    x = np.linspace(0, 1, 9)
    tests = max_t_over_heads(np.array([-2 * x, 1e-200 * x, x + 1e6, 1e-6 * x**2]), x, n_permutations=99)
    assert list(tests.t[:2]) == [-np.inf, np.inf] and tests.t[2] > 1e6
    np.testing.assert_allclose(tests.t[3], all_t(x[None] ** 2, x)[0])
    np.testing.assert_array_equal(tests.p, 1 / 100)
    constant = max_t_over_heads(np.full((1, 5), 0.3))
    assert constant.t[0] == np.inf and constant.p[0] == 2 / 32


def test_single_precision_is_good_enough() -> None:
    effects, x = heads(4, 5)
    rough = effects.astype(np.float32)
    exact = max_t_over_heads(rough.astype(np.float64), x)
    for name in ("t", "p", "p_fwe"):
        np.testing.assert_array_equal(getattr(max_t_over_heads(rough, x), name), getattr(exact, name))


def test_order_of_heads_batches_and_scale_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    effects, x = heads(30, 14)
    scale = np.random.default_rng(1).uniform(0.01, 100, size=(30, 1))
    whole = max_t_over_heads(effects, x, n_permutations=500)
    mixed = max_t_over_heads((scale * effects)[::-1].copy(), 3 - 2 * x, n_permutations=500)
    np.testing.assert_allclose(mixed.t[::-1], -whole.t, rtol=1e-9)
    np.testing.assert_array_equal(mixed.p_fwe[::-1], whole.p_fwe)
    monkeypatch.setattr("mechicl.resampling._CELLS", 30 * 70)
    parts = max_t_over_heads(effects, x, n_permutations=500)
    for name in ("t", "p", "p_fwe", "p_bh"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def false_positives(correct: str, with_x: bool, runs: int) -> float:
    """The share of null samples with any head at .05; heads depend on each other, and one is skewed and loud."""
    found = 0
    for seed in range(runs):
        effects, x = heads(25, 16, seed=1000 + seed)
        effects[4] *= 30
        tests = max_t_over_heads(effects, x if with_x else None, n_permutations=199, seed=seed)
        found += bool((getattr(tests, correct) <= 0.05).any())
    return found / runs


@pytest.mark.parametrize("with_x", [True, False])
def test_family_wise_error_is_nominal_with_dependent_heads(with_x: bool) -> None:
    rate = false_positives("p_fwe", with_x, 400)
    low, high = scipy.stats.binom.ppf([0.001, 0.999], 400, 0.05) / 400
    assert low <= rate <= high
    assert false_positives("p", with_x, 100) > 0.2, "the control: without the correction null heads are found often"


@pytest.mark.parametrize("step_down", [False, True])
def test_planted_heads_are_found_and_no_others(step_down: bool) -> None:
    hits, wrong, runs = 0, 0, 50
    for seed in range(runs):
        effects, x = heads(40, 22, seed=seed, shared=0.5)
        effects[[7, 19]] -= np.array([[5.0], [-5.0]]) * x
        effects[11] += 3.0  # a mean is not a slope
        tests = max_t_over_heads(effects, x, n_permutations=299, step_down=step_down, seed=seed)
        found = set(np.flatnonzero(tests.p_fwe <= 0.05))
        hits += len(found & {7, 19})
        wrong += bool(found - {7, 19})
        assert set(np.flatnonzero(max_t_over_heads(effects, n_permutations=299, seed=seed).p_fwe <= 0.05)) >= {11}
    assert hits / (2 * runs) > 0.6 and wrong / runs < 0.2


def test_bad_input_is_named() -> None:
    effects, x = heads(3, 8)
    for arguments, options, message in [
        ((effects, np.full(8, 0.5)), {}, "for all 8 verbs"),
        ((effects[:, :2], x[:2]), {}, "got 2 verbs"),
        ((effects[:, :1],), {}, "got 1 verbs"),
        ((effects[:0], x), {}, "no head"),
        ((np.where(effects > 1, np.nan, effects), x), {}, "not finite"),
        ((effects, x), {"n_permutations": 0}, "n_permutations=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            max_t_over_heads(*arguments, **options)
    with pytest.raises((ValueError, TypeCheckError)):  # jaxtyping may see the lengths first
        max_t_over_heads(effects, x[:-1])


def test_seeds() -> None:
    effects, x = heads(5, 20)

    def p(seed: int) -> HeadTests:
        return max_t_over_heads(effects, x, n_permutations=99, seed=seed)

    assert (p(1).p == p(1).p).all() and (p(1).p != p(2).p).any()
