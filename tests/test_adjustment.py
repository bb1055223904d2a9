"""Adjusted means against a regression with dummies, a planted truth, and the artefact that they are there to remove."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from mechicl.adjustment import adjusted_means
from mechicl.stats import ols


def off_diagonal(n_verbs: int, per_verb: int) -> tuple[np.ndarray, np.ndarray]:
    """Every verb meets every target of the other verbs once: prime verb and target number of each item."""
    verb, target = np.meshgrid(np.arange(n_verbs), np.arange(n_verbs * per_verb), indexing="ij")
    keep = target // per_verb != verb
    return verb[keep], target[keep]


def test_equals_a_regression_with_dummies_on_an_unbalanced_design() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"verb": rng.integers(0, 6, 200), "target": rng.integers(0, 15, 200)})
    frame["y"] = rng.normal(size=200) + frame["verb"] * frame["target"] / 20
    found = adjusted_means(frame["y"].to_numpy(), frame["verb"], frame["target"])
    fit = smf.ols("y ~ C(verb) + C(target)", frame).fit()
    expected = np.array([0.0] + [fit.params[f"C(verb)[T.{v}]"] for v in range(1, 6)])
    np.testing.assert_allclose(found - found.iloc[0], expected - expected[0], atol=1e-10)
    assert found.mean() == pytest.approx(frame.groupby("verb")["y"].mean().mean())


def test_a_complete_design_keeps_the_plain_means() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame([(v, t) for v in range(5) for t in range(7)], columns=["verb", "target"])
    frame["y"] = rng.normal(size=len(frame))
    found = adjusted_means(frame["y"].to_numpy(), frame["verb"], frame["target"])
    np.testing.assert_allclose(found, frame.groupby("verb")["y"].mean(), atol=1e-12)


@pytest.mark.parametrize("n_verbs", [6, 22])
def test_the_slope_that_a_design_brings_by_itself_is_taken_out(n_verbs: int) -> None:
    """Targets of a verb lean as the verb does and nothing is primed: plain means fall with slope -1/(V-1)."""
    bias = np.linspace(0.1, 0.9, n_verbs)
    verb, target = off_diagonal(n_verbs, per_verb=3)
    y = bias[target // 3]
    plain = pd.Series(y).groupby(verb).mean().to_numpy()
    assert ols(bias, plain).slope == pytest.approx(-1 / (n_verbs - 1))
    assert ols(bias, adjusted_means(y, verb, target).to_numpy()).slope == pytest.approx(0, abs=1e-10)


def test_a_planted_slope_is_recovered() -> None:
    bias = np.linspace(0.1, 0.9, 8)
    verb, target = off_diagonal(8, per_verb=2)
    y = bias[target // 2] - 0.3 * bias[verb] + np.random.default_rng(2).normal(size=16)[target]
    assert ols(bias, adjusted_means(y, verb, target).to_numpy()).slope == pytest.approx(-0.3)


def test_sets_of_verbs_without_a_common_target_cannot_be_compared() -> None:
    assert adjusted_means(np.arange(4.0), ["a", "b", "c", "d"], [0, 0, 1, 1]) is None


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="expected one each"):
        adjusted_means(np.zeros(2), ["a"], [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        adjusted_means(np.array([np.nan, 1.0]), ["a", "b"], [0, 0])
