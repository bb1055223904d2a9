from dataclasses import replace

import numpy as np
import pytest

from mechicl.strategies.fit import fit_strategies
from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms
from mechicl.strategies.transitions import crossing_times, predicted_times, transition_times
from mechicl.strategies.vector_field import strategy_field

TRUE = OddsParameters(alpha=0.55, beta=0.22, gamma=0.9)
FAST = replace(TRUE, gamma=1.6)  # four diversities turn within the steps


def test_odds_are_even_at_the_predicted_time(training):
    terms = training(n_seeds=1).terms
    times = predicted_times(terms, TRUE)
    at = OddsTerms(
        times, *(getattr(terms, name) for name in ("diversities", "advantage", "bits_memorising", "bits_generalising"))
    )
    np.testing.assert_allclose(np.diagonal(at.log_odds(TRUE)[0]), 0.0, atol=1e-9)


def test_times_grow_as_the_power_law_they_are_made_of():
    diversities = 2.0 ** np.arange(2, 9)
    # ln2 (K^beta - 1) / gamma dL with K^beta - 1 ~ D^.4 and dL ~ D^-.3, to the power 1 / (1 - .5)
    terms = OddsTerms(
        np.array([1.0, 2.0]),
        diversities,
        diversities[None] ** -0.3,
        (1 + diversities[None] ** 0.4) ** 5,
        np.ones((1, 7)),
    )
    times = predicted_times(terms, OddsParameters(0.5, 0.2, 1.0))
    np.testing.assert_allclose(np.diff(np.log(times)) / np.log(2), 1.4, atol=1e-9)


def test_a_crossing_lies_on_the_line_over_log_steps():
    steps = np.array([1.0, 10.0, 100.0, 1000.0])
    curves = np.array([[0.0, 0.0, 0.25, 0.75], [0.9, 0.2, 0.6, 0.9], [0.9, 0.8, 0.7, 0.9], [0.6, 0.4, 0.6, 0.4]]).T
    found = crossing_times(curves, steps)
    np.testing.assert_allclose(found[:2], [10**2.5, 10**1.75], rtol=1e-12)
    assert np.isnan(found[2:]).all()  # never below; below again at the end
    noisy = crossing_times(np.array([[0.4, 0.6, 0.4, 0.6]]).T, steps)
    np.testing.assert_allclose(noisy, [10**1.5], rtol=1e-12)
    assert crossing_times(np.full((4, 1), np.nan), steps).tolist() == pytest.approx([np.nan], nan_ok=True)
    with pytest.raises(ValueError, match="above 0"):
        crossing_times(curves, steps - 1)


@pytest.fixture(scope="module")
def fitted(training):
    made = training(parameters=FAST, spread=0.005, n_steps=30, n_items=2, n_seeds=3)
    return fit_strategies(*made.arguments, **made.options, threshold=1.0, held_out=0.0, n_boot=100, n_permutations=0)


def test_observed_and_predicted_times_agree_for_a_transformer_of_the_model(fitted):
    found = transition_times(fitted, n_boot=200)
    times = found.times
    seen = times[times["observed"].notna()]
    assert len(seen) >= 4
    np.testing.assert_allclose(np.log(seen["modelled"]), np.log(seen["observed"]), atol=0.3)
    ratios = np.log(seen["predicted"] / seen["observed"])
    assert found.log_ratio == pytest.approx(ratios.mean(), abs=1e-12)
    assert found.log_error == pytest.approx(np.sqrt((ratios**2).mean()), abs=1e-12)
    assert found.log_error < 0.4
    for name in ("predicted", "observed"):
        known = times[times[name].notna()]
        assert (known[f"{name}_low"] <= known[name] * (1 + 1e-9)).all()
        assert (known[name] <= known[f"{name}_high"] * (1 + 1e-9)).all()
    scaling = found.scaling.set_index("time")
    truth = predicted_times(fitted.terms, FAST)
    slope = np.polyfit(np.log(times["diversity"]), np.log(truth), 1)[0]
    assert scaling.loc["predicted", "low"] < slope < scaling.loc["predicted", "high"]
    assert scaling.loc["predicted", "n"] == 6
    assert scaling.loc["observed", "n"] == len(seen)
    assert scaling.loc["predicted", "superlinear"] == (scaling.loc["predicted", "low"] > 1)
    assert found.to_frame().equals(times)


def test_missing_times_have_reasons(fitted):
    d_rel = fitted.d_rel.copy()
    d_rel[:, :, 0], d_rel[:, :, 1], d_rel[:, :, 2] = 0.9, 0.1, np.nan
    terms = replace(fitted.terms, advantage=fitted.terms.advantage * np.array([1, 1, 1, 1, 1, -1.0]))
    terms = replace(terms, bits_generalising=np.where(np.arange(6) == 0, 1e6, terms.bits_generalising))
    times = transition_times(replace(fitted, d_rel=d_rel, terms=terms), n_boot=100).times
    said = times["no_observation"].tolist()
    assert said[0].startswith("d_rel is above .5")
    assert said[1] == "d_rel ends below .5"
    assert said[2] == "d_rel is undefined"
    assert times["observed"].isna().tolist()[:3] == [True] * 3
    assert times["nearest"].isna().tolist() == [False, False, True, False, False, False]
    assert times["no_prediction"].tolist() == [
        "memorising is no longer description", "", "", "", "", "memorising has no smaller loss",
    ]  # fmt: skip


@pytest.mark.usefixtures("as_users_run")  # the other fields keep their seeds
def test_one_seed_has_no_interval_and_flat_curves_no_slope(fitted):
    one = replace(fitted, d_rel=np.full((1, 30, 6), 0.3))
    found = transition_times(one)
    assert found.times[["observed", "observed_low", "n_turned"]].isna().sum().tolist() == [6, 6, 0]
    assert "one seed" in found.warnings[0]
    assert np.isnan(found.scaling.set_index("time").loc["observed", "slope"])
    assert np.isnan(found.log_error)
    with pytest.raises(ValueError, match="level"):
        transition_times(one, level=1.5)


def test_field_is_the_derivative_of_the_odds(training):
    terms = training(n_seeds=2).terms
    field = strategy_field(terms, TRUE)
    np.testing.assert_allclose(field.log_odds, terms.log_odds(TRUE).mean(0), atol=1e-12)
    step = 1e-6
    moved = replace(terms, steps=terms.steps * np.exp(step)).log_odds(TRUE).mean(0)
    np.testing.assert_allclose(field.by_log_step, (moved - field.log_odds) / step, rtol=1e-4)
    # central differences are exact on a straight line over log D
    slope = np.polyfit(np.log(terms.diversities[1:4:2]), field.log_odds[:, 1:4:2].T, 1)[0]
    np.testing.assert_allclose(field.by_log_diversity[:, 2], slope, rtol=1e-9)
    assert (field.prior_by_log_diversity < 0).all()
    assert len(field.to_frame()) == field.evidence.size
    with pytest.raises(ValueError, match="expected 2 or more"):
        strategy_field(OddsTerms(np.ones(1), np.ones(1), *[np.ones((1, 1))] * 3), TRUE)
