"""Weights against refitting: the contraction must be the regression, whatever the values."""

import numpy as np
import pandas as pd
import pytest

from mechicl.adjustment import adjusted_means
from mechicl.stats import ols
from mechicl.verb_weights import (
    mean_weights,
    slope_contrast,
    slope_weights,
    tells_verbs_from_targets,
    verb_matrix,
)


def design(n_verbs: int = 9, n_targets: int = 30, n: int = 200, seed: int = 0) -> tuple[pd.Series, pd.Series, dict]:
    """Prime verbs and targets of an unbalanced random design, under an index that is not 0, 1, ..., and a bias."""
    rng = np.random.default_rng(seed)
    names = rng.permutation([f"verb{i}" for i in range(n_verbs)])
    verb = np.concatenate([np.arange(n_verbs), rng.integers(n_verbs, size=n - n_verbs)])
    index = pd.RangeIndex(1000, 1000 + n)
    x = {str(name): float(value) for name, value in zip(names, rng.uniform(size=n_verbs), strict=True)}
    return pd.Series(names[verb], index=index), pd.Series(rng.integers(n_targets, size=n), index=index), x


@pytest.mark.parametrize("seed", range(5))
def test_weights_equal_refitting_after_adjustment(seed: int) -> None:
    verb, target, x = design(seed=seed)
    weights = slope_weights(x, verb, target)
    for values in np.random.default_rng(seed).normal(size=(4, len(verb))):
        means = adjusted_means(values, verb, target)
        assert weights @ values == pytest.approx(
            ols(np.array([x[v] for v in means.index]), means.to_numpy()).slope, abs=1e-10
        )
    assert weights.sum() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [8, 11, 22, 60])
def test_weights_equal_refitting_where_only_a_verbs_own_target_is_missing(n: int) -> None:
    # The paper's pairing. Its Laplacian has one eigenvalue 0 and all others equal, which a pseudo-inverse by the size
    # of eigenvalues got wrong at 22 verbs.
    verb, target = (
        np.array(part) for part in zip(*[(v, t) for v in range(n) for t in range(n) if v != t], strict=True)
    )
    rng = np.random.default_rng(n)
    x, values = rng.uniform(size=n), rng.normal(size=len(verb))
    means = adjusted_means(values, verb, target)
    expected = ols(x[means.index], means.to_numpy()).slope
    assert slope_weights(dict(enumerate(x)), verb, target) @ values == pytest.approx(expected, abs=1e-10)
    own = x[verb] + 0.5 * x[target]
    assert slope_weights(dict(enumerate(x)), verb, target) @ own == pytest.approx(1, abs=1e-10)


def test_verb_matrix_gives_adjusted_and_plain_means_of_sorted_verbs() -> None:
    verb, target, _ = design()
    values = np.random.default_rng(1).normal(size=len(verb))
    verbs, matrix = verb_matrix(verb, target)
    expected = adjusted_means(values, verb, target)
    assert list(verbs) == list(expected.index) == sorted(verb.unique())
    np.testing.assert_allclose(matrix @ values, expected, atol=1e-12)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
    verbs, matrix = verb_matrix(verb, target, adjusted=False)
    plain = pd.Series(values, index=verb.index).groupby(verb).mean()
    np.testing.assert_allclose(matrix @ values, plain, atol=1e-12)
    assert np.abs(plain - expected).max() > 0.01, "the design must be one where the two differ"


def test_plain_weights_are_the_slope_of_plain_means_spread_over_items() -> None:
    verb, target, x = design()
    weights = slope_weights(pd.Series(x), verb, target, adjusted=False)
    bias = np.array([x[v] for v in sorted(x)])
    by_verb = dict(zip(sorted(x), (bias - bias.mean()) / ((bias - bias.mean()) ** 2).sum(), strict=True))
    counts = verb.value_counts()
    np.testing.assert_allclose(weights, [by_verb[v] / counts[v] for v in verb], atol=1e-14)


def test_a_design_that_cannot_be_adjusted_gives_plain_means() -> None:
    verb = np.repeat(["a", "b", "c"], 4)
    nested = np.arange(12)
    values = np.random.default_rng(0).normal(size=12)
    assert adjusted_means(values, verb, nested) is None and not tells_verbs_from_targets(verb, nested)
    np.testing.assert_allclose(verb_matrix(verb, nested)[1] @ values, values.reshape(3, 4).mean(1), atol=1e-14)
    assert tells_verbs_from_targets(verb, np.tile(np.arange(4), 3))


def test_targets_alone_have_no_slope_once_adjusted() -> None:
    """The control: values that depend on the target only have a slope by the pairing, and none after adjustment."""
    bias = np.linspace(0.1, 0.9, 8)
    verb, target = (axis[~np.eye(8, dtype=bool)] for axis in np.indices((8, 8)))
    x = dict(enumerate(bias))
    assert slope_weights(x, verb, target, adjusted=False) @ bias[target] == pytest.approx(-1 / 7)
    assert slope_weights(x, verb, target) @ bias[target] == pytest.approx(0, abs=1e-12)
    planted = bias[target] - 0.3 * bias[verb]
    assert slope_weights(x, verb, target) @ planted == pytest.approx(-0.3)


def test_mean_weights_are_the_mean() -> None:
    values = np.random.default_rng(0).normal(size=17)
    assert mean_weights(np.arange(17) % 3) @ values == pytest.approx(values.mean(), abs=1e-15)
    with pytest.raises(ValueError, match="no items"):
        mean_weights([])


def test_slope_contrast_is_least_squares() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 11))
    assert slope_contrast(x) @ y == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-12)


def test_bad_input_is_named() -> None:
    verb, target, x = design()
    with pytest.raises(ValueError, match=r"no finite number for the verbs \['verb3'\]"):
        slope_weights({**x, "verb3": np.nan}, verb, target)
    with pytest.raises(ValueError, match=r"\['verb4'\]"):
        slope_weights({v: b for v, b in x.items() if v != "verb4"}, verb, target)
    with pytest.raises(ValueError, match="with 2 verbs"):
        slope_weights({"a": 0.1, "b": 0.2}, ["a", "b"], [0, 0])
    with pytest.raises(ValueError, match="for all 9 verbs"):
        slope_weights(dict.fromkeys(x, 0.5), verb, target)
    with pytest.raises(ValueError, match="200 prime verbs and 199 targets"):
        verb_matrix(verb, target[:-1])
    with pytest.raises(ValueError, match="label is missing"):
        verb_matrix(["a", None], [0, 1])
