"""A head's kernel is chosen on one half and judged on the other: scikit-learn's numbers, and nothing found in noise."""

from collections import namedtuple
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from mechicl.analyses.kernels.head_kernels import (
    Regressed,
    block_shares,
    chosen_kernels,
    fit_all,
    follows_kernel,
    head_kind,
    judged,
    predictions,
    query_folds,
    readable_kernels,
    softmax,
)
from mechicl.analyses.kernels.nuisances import Nuisances
from mechicl.kernel_fit import fit_kernels

ITEMS, HEADS, KERNELS, DEMOS = 40, 4, 3, 6
HALF = np.arange(ITEMS) % 2 == 0
BOOT: dict[str, Any] = {"n_boot": 200, "seed": 0}


def make(seed: int = 0, n_kernels: int = KERNELS, n_demos: int = DEMOS, n_tokens: int = 7) -> Regressed:
    """Noise, and nuisances as real ones are: places, a distance that follows from them, a constant length, labels."""
    rng = np.random.default_rng(seed)
    normal = lambda n: rng.normal(size=(ITEMS, n, n_demos))  # noqa: E731
    columns = np.zeros((ITEMS, n_demos + 2, n_demos))
    columns[:, range(n_demos - 1), range(1, n_demos)] = 1
    columns[:, -3] = np.log(np.arange(n_demos, 0, -1) * n_tokens + 3)
    columns[:, -2] = rng.integers(2, size=(ITEMS, n_demos))
    columns[:, -1] = np.log(n_tokens)
    nuisances = Nuisances(columns, ("position",) * n_demos + ("label", "length"))
    return Regressed(normal(HEADS), normal(n_kernels), normal(n_kernels), nuisances, np.arange(ITEMS))


def rows(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(-1, keepdims=True)).transpose(0, 2, 1).reshape(-1, values.shape[1])


def test_prompts_of_one_query_share_a_fold() -> None:
    queries = np.repeat([3, 8, 1, 900, 12, 7, 5], [1, 2, 3, 1, 4, 1, 2])
    found = query_folds(queries, 3, seed=0)
    sizes = [len(np.unique(queries[found == fold])) for fold in range(3)]
    assert sorted(sizes) == [2, 2, 3] and sum(sizes) == 7
    assert any((query_folds(queries, 3, seed=seed) != found).any() for seed in range(1, 4))
    with pytest.raises(ValueError, match="7 different queries for 8 folds"):
        query_folds(queries, 8, seed=0)


def test_all_is_fitted_with_queries_kept_together() -> None:
    data = replace(make(), queries=np.arange(ITEMS) // 3)
    found = fit_all(data, n_folds=4, n_permutations=20, seed=5)
    again = fit_kernels(
        data.response, data.kernels, data.nuisances.columns, folds=query_folds(data.queries, 4, 5),
        salience=data.salience, groups=data.queries, n_permutations=20, seed=5,
    )  # fmt: skip
    for name in ("unique_r2", "slope", "p_fwe"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))


def test_a_kernel_that_adds_and_fits_is_chosen() -> None:
    data = make()
    fits = fit_kernels(data.response[:, :1], data.kernels, data.nuisances.columns, folds=np.arange(ITEMS) % 5,
                       n_permutations=0)  # fmt: skip
    cases = [  # unique R^2, joint R^2, slope of three kernels, and the one to be chosen
        ([0.3, 0.2, 0.1], [0.5, 0.9, 0.99], [1, 1, 1], 1),  # half as much as the most, and the best whole
        ([0.3, 0.2, 0.1], [0.5, 0.9, 0.99], [1, -1, 1], 0),  # attention to what is unlike is no kernel regression
        ([-0.1, 0.0, -0.2], [0.5, 0.9, 0.99], [1, 1, 1], -1),
        ([np.nan, 0.1, np.nan], [np.nan, 0.4, np.nan], [np.nan, 1, np.nan], 1),
        ([np.nan] * 3, [np.nan] * 3, [np.nan] * 3, -1),
    ]
    for unique, joint, slope, expected in cases:
        one = replace(fits, unique_r2=np.array([unique], float), joint_r2=np.array([joint], float),
                      slope_beyond=np.array([slope], float))  # fmt: skip
        assert chosen_kernels(one).tolist() == [expected]
    found = [chosen_kernels(replace(fits, unique_r2=np.array([[0.3, 0.2, 0.1]]), joint_r2=np.array([[0.9, 0.8, 0.7]]),
                                    slope_beyond=np.ones((1, 3))), np.array([own])).tolist()
             for own in ([True] * 3, [False, True, True], [False] * 3)]  # fmt: skip
    assert found == [[0], [1], [-1]]


def test_a_head_reads_no_later_stream() -> None:
    table = pd.DataFrame([("rbf", "ask", 0), ("rbf", "ask", 1), ("rbf", "ask", 2), ("prediction", "alone", -1)],
                         columns=["kind", "place", "layer"])  # fmt: skip
    found = readable_kernels(table, n_layers=2, n_heads=2)  # stream l is what layer l reads
    first, second = [True, False, False, True], [True, True, False, True]
    np.testing.assert_array_equal(found, [first, first, second, second])


def test_judgement_is_scikit_learns_on_the_other_half() -> None:
    data = make()
    data.response[:, 0] += 0.8 * data.kernels[:, 2] + data.salience[:, 2]
    data.response[:, 1] += 2 * data.kernels[:, 1] + 3 * data.nuisances.columns[:, -2]
    chosen = np.array([2, 1, 1, -1])
    frame = judged(data.taken(HALF), data.taken(~HALF), chosen, **BOOT)
    shares = softmax(predictions(data.taken(HALF), data.taken(~HALF), chosen)["joint"])
    train, test = np.repeat(HALF, DEMOS), np.repeat(~HALF, DEMOS)
    for head, kernel in enumerate(chosen):
        y, extra = rows(data.response)[:, head], rows(data.nuisances.columns)
        designs = {"nuisance_r2": extra}
        if kernel >= 0:
            own, salient = rows(data.kernels)[:, [kernel]], rows(data.salience)[:, [kernel]]
            designs |= {"r2": own, "without": np.hstack([extra, salient]), "joint_r2": np.hstack([extra, salient, own])}
        found, said = {}, {}
        for name, x in designs.items():
            said[name] = LinearRegression(fit_intercept=False).fit(x[train], y[train]).predict(x[test])
            found[name] = 1 - ((y[test] - said[name]) ** 2).sum() / (y[test] ** 2).sum()
        if kernel >= 0:
            found["unique_r2"] = found["joint_r2"] - max(found.pop("without"), 0)
            weights = np.exp(said["joint_r2"].reshape(-1, DEMOS))
            np.testing.assert_allclose(shares[:, head], weights / weights.sum(-1, keepdims=True), atol=1e-10)
            true = np.exp(data.response[~HALF, head])
            true /= true.sum(-1, keepdims=True)
            left = ((true - shares[:, head]) ** 2).sum() / ((true - 1 / DEMOS) ** 2).sum()
            assert frame["share_r2"][head] == pytest.approx(1 - left)
        for name, value in found.items():
            assert frame[name][head] == pytest.approx(value, abs=1e-10)
            assert frame[f"{name}_low"][head] <= value <= frame[f"{name}_high"][head]
    assert frame.loc[3, ["r2", "unique_r2", "joint_r2", "share_r2"]].isna().all()
    assert frame["unique_r2"][0] > 0.2 and frame["unique_r2"][1] > 0.4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("item", [0, 1])
def test_a_head_that_is_not_finite_has_no_judgement(item: int) -> None:
    """In either half: what is fitted to the rest would be judged by it, or the other way round."""
    data = make()
    data.response[item, 2, 4] = -np.inf
    chosen = np.array([0, 1, 2, 0])
    frame = judged(data.taken(HALF), data.taken(~HALF), chosen, **BOOT)
    assert frame.loc[2].isna().all()
    assert frame.drop(index=2).notna().all(axis=None)
    blocks, recency = block_shares(data.taken(HALF), data.taken(~HALF))
    assert np.isnan(blocks["position"][2]) and np.isfinite(np.delete(recency, 2)).all()


def test_rounding_is_not_fitted() -> None:
    """Places and distances are collinear and lengths constant where all texts are equally long."""
    for n_demos, n_tokens in ((3, 4), (11, 39), (12, 38), (13, 11), (13, 19)):  # of these most would be
        data = make(n_demos=n_demos, n_tokens=n_tokens)
        clean = replace(data, nuisances=Nuisances(data.nuisances.columns[:, [*range(data.response.shape[-1] - 1), -2]],
                                                  data.nuisances.blocks[:-2]))  # fmt: skip
        chosen = np.array([0, 0, 1, -1])
        found, expected = (predictions(d.taken(HALF), d.taken(~HALF), chosen) for d in (data, clean))
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-9)


def test_choosing_among_many_kernels_flatters_nobody() -> None:
    """Pure noise and 200 kernels: the best of them looks good on its own half, and is nothing on the other."""
    flattered, honest = [], []
    for seed in range(16):
        data = make(seed, n_kernels=200)
        train, test = data.taken(HALF), data.taken(~HALF)
        picked = fit_all(train, n_folds=5, n_permutations=0, seed=seed)
        chosen = chosen_kernels(picked)
        assert (chosen >= 0).any()
        frame = judged(train, test, chosen, **BOOT)
        flattered += picked.unique_r2[np.flatnonzero(chosen >= 0), chosen[chosen >= 0]].tolist()
        honest += frame["unique_r2"][chosen >= 0].tolist()
    assert len(honest) > 8 and np.mean(flattered) > 0.02
    assert np.mean(honest) < 0 and max(honest) < 0.1


def test_blocks_are_told_apart() -> None:
    data = make()
    place = np.arange(DEMOS, dtype=float)
    data.response[:, 0] = 0.7 * place + np.arange(ITEMS)[:, None]
    data.response[:, 1] = -(place**2)
    data.response[:, 2] = 3 * data.nuisances.columns[:, -2]
    data.response[:, 3] = 0.25  # attends to all alike
    blocks, recency = block_shares(data.taken(HALF), data.taken(~HALF))
    np.testing.assert_allclose(blocks["position"][:2], 1, atol=1e-9)
    np.testing.assert_allclose(blocks["label"][2], 1, atol=1e-9)
    assert blocks["label"][0] < 0.1 and blocks["position"][2] < 0.1 and abs(blocks["length"][:3]).max() < 1e-9
    assert recency[0] == pytest.approx(1) and -1 < recency[1] < -0.9 and abs(recency[2]) < 0.3
    assert np.isnan(blocks["position"][3]) and np.isnan(recency[3])


def test_heads_are_named_after_what_they_follow_most() -> None:
    Row = namedtuple("Row", "p_fwe unique_r2 unique_r2_low position_r2 label_r2 recency")
    cases = [
        (Row(0.01, 0.5, 0.3, 0.1, 0.0, 0.2), "kernel"),
        (Row(0.01, 0.5, -0.1, 0.1, 0.0, -0.2), "primacy"),  # the prompts that chose nothing do not bear it out
        (Row(0.20, 0.5, 0.3, 0.1, 0.3, 0.2), "label"),
        (Row(0.01, 0.2, 0.1, 0.6, 0.0, 0.2), "recency"),
        (Row(0.01, 0.05, 0.01, 0.01, 0.0, 0.2), "other"),
        (Row(np.nan, np.nan, np.nan, 0.05, 0.09, 0.2), "other"),
        (Row(np.nan, np.nan, np.nan, np.nan, np.nan, np.nan), "constant"),
    ]
    for row, expected in cases:
        own = row._asdict()
        assert head_kind({**own, "follows_kernel": follows_kernel(own, 0.05)}, ["position", "label"]) == expected


def test_shares_sum_to_one() -> None:
    logs = np.array([[[1e3, 1e3 + np.log(3)], [-1e4, -1e4], [-np.inf, 0.0]]])
    np.testing.assert_allclose(softmax(logs), [[[0.25, 0.75], [0.5, 0.5], [0, 1]]])
