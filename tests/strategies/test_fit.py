import numpy as np
import pytest
from jaxtyping import config

from mechicl import results
from mechicl.strategies.data import strategy_data
from mechicl.strategies.fit import fit_data, fit_strategies
from mechicl.strategies.optimise import Objective, fit_odds
from mechicl.strategies.posterior_odds import OddsParameters
from mechicl.strategies.refits import bootstrap_fits, correlation, draw_times, shuffled_fits

TRUE = OddsParameters(alpha=0.55, beta=0.22, gamma=0.9)
OFF = {"n_boot": 0, "n_permutations": 0, "threshold": 1.0}


def as_tuple(parameters):
    return parameters.alpha, parameters.beta, parameters.gamma


@pytest.mark.parametrize(("distance", "labels"), [("kl", 4), ("mse", 1)])
def test_parameters_of_a_transformer_that_is_the_model_are_found(training, distance, labels):
    made = training(labels=labels)
    fit = fit_strategies(*made.arguments, **made.options, distance=distance, **OFF)
    np.testing.assert_allclose(as_tuple(fit.estimate), as_tuple(TRUE), rtol=1e-3)
    assert fit.converged
    assert fit.warnings == ()
    assert fit.measure("loss", "all") < 1e-6
    for cells in ("all", "fitted", "held_out", "held_out_steps", "held_out_diversities"):
        assert fit.measure("d_rel", cells) > 0.999999
        assert fit.measure("r2", cells) > 0.99999
        assert fit.measure("spearman", cells) > 0.9999
    np.testing.assert_allclose(fit.predicted, fit.d_rel, atol=1e-3)
    np.testing.assert_allclose(fit.log_odds, made.terms.log_odds(TRUE), atol=0.02)
    assert np.nanmax(fit.residual) < 1e-5
    assert np.isnan(fit.measure("agreement")) == (labels == 1)


def test_gradient_of_the_loss_is_that_of_finite_differences(training):
    made = training(spread=0.02)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    objective = Objective(data.terms, data.average.profiles, data.fitted, weights=np.array([2.0, 1.0]))
    at, step = OddsParameters(0.4, 0.2, 0.5), 1e-5
    loss, gradient = objective.gradient(at)
    assert loss == pytest.approx(objective.loss(at), abs=1e-15)
    for number, name in enumerate(("alpha", "beta", "gamma")):
        size = step * (at.gamma if name == "gamma" else 1.0)  # the derivative is by log gamma

        def moved(by, name=name):
            return objective.loss(OddsParameters(**(vars(at) | {name: getattr(at, name) + by})))

        assert gradient[number] == pytest.approx((moved(size) - moved(-size)) / (2 * step), rel=1e-4)


def test_the_search_ends_where_a_simplex_search_from_there_finds_nothing_better(training):
    from scipy.optimize import minimize

    made = training(spread=0.05)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    objective = Objective(data.terms, data.average.profiles, data.fitted)
    found = fit_odds(objective)

    def loss(point):
        inside = 0 <= point[0] < 0.99 and point[1] >= 0
        return objective.loss(OddsParameters(point[0], point[1], float(np.exp(point[2])))) if inside else np.inf

    start = [found.parameters.alpha, found.parameters.beta, np.log(found.parameters.gamma)]
    other = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-12})
    assert other.fun == pytest.approx(found.loss, rel=1e-6)


def test_only_fitted_cells_matter_and_the_last_ones_are_held_out(training):
    made = training(n_steps=10, n_diversities=5)
    fit = fit_strategies(*made.arguments, **made.options, **OFF)
    expected = np.zeros((10, 5), bool)
    expected[:8, :4] = True
    np.testing.assert_array_equal(fit.fitted, expected)
    rest = made.predictions.copy()
    rest[:, 8:] = rest[:, 8:, :, ::-1]
    rest[:, :, 4] = rest[:, :, 4, ::-1]
    other = fit_strategies(rest, *made.arguments[1:], **made.options, **OFF)
    assert other.estimate == fit.estimate
    assert other.measure("d_rel", "held_out") < fit.measure("d_rel", "held_out")
    everything = fit_strategies(*made.arguments, **made.options, **OFF, held_out=0.0)
    assert everything.fitted.all()
    assert np.isnan(everything.measure("d_rel", "held_out"))


@pytest.fixture(scope="module")
def noisy(training):
    """A transformer near the model, and its fit with intervals and control."""
    made = training(spread=0.05, n_clusters=10, n_items=1, n_seeds=3, n_steps=6, n_diversities=4)
    return made, fit_strategies(*made.arguments, **made.options, n_boot=100, n_permutations=2, threshold=1.0, seed=3)


def test_intervals_hold_estimate_and_truth(noisy):
    _, fit = noisy
    assert fit.n_failed == 0
    assert fit.draws.shape == (100, 3)
    rows = fit.parameters.set_index("parameter")
    assert (rows["low"] < rows["estimate"]).all()
    assert (rows["estimate"] < rows["high"]).all()
    for name, truth in vars(TRUE).items():
        slack = 0.5 * (rows.loc[name, "high"] - rows.loc[name, "low"])  # one sample, not a study of coverage
        assert rows.loc[name, "low"] - slack < truth < rows.loc[name, "high"] + slack
    known = fit.measures[fit.measures["low"].notna()]
    assert set(known["measure"]) == {"d_rel", "loss", "r2", "spearman", "agreement"}
    assert (known["low"] <= known["value"]).all()
    assert (known["value"] <= known["high"]).all()


def test_intervals_shrink_with_more_sequences(training):
    spreads = []
    for n_clusters in (10, 90):
        made = training(spread=0.05, n_clusters=n_clusters, n_items=1, n_steps=6, n_diversities=3)
        data = strategy_data(*made.arguments, **made.options, threshold=1.0)
        fit = fit_odds(Objective(data.terms, data.average.profiles, data.fitted))
        _, clusters = draw_times(2, n_clusters, 25, 0)
        spreads.append(bootstrap_fits(data, fit.parameters, np.ones((25, 2)), clusters).parameters[:, 1].std())
    assert 2 < spreads[0] / spreads[1] < 5  # the square root of 9


def test_equal_seeds_give_equal_draws(training):
    made = training(spread=0.05, n_steps=6, n_diversities=3)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    first, again, other = (bootstrap_fits(data, TRUE, *draw_times(2, 8, 4, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.parameters, again.parameters)
    assert (first.parameters != other.parameters).all()
    whole = bootstrap_fits(data, TRUE, np.ones((1, 2)), np.ones((1, 8)))
    fit = fit_odds(Objective(data.terms, data.average.profiles, data.fitted))
    np.testing.assert_allclose(whole.parameters[0], as_tuple(fit.parameters), rtol=1e-3)


def test_a_fit_survives_its_folder_and_becomes_a_frame(noisy, tmp_path):
    made, fit = noisy
    fit.save(tmp_path / "fit")
    assert results.load(tmp_path / "fit") == fit
    frame = fit.to_frame()
    assert len(frame) == 3 * 6 * 4
    row = frame.iloc[1 * 24 + 3 * 4 + 2]
    assert (row["seed"], row["step"], row["diversity"]) == (1, made.terms.steps[3], 16)
    assert row["d_rel"] == fit.d_rel[1, 3, 2]
    np.testing.assert_allclose(fit.weight, 1 / (1 + np.exp(-fit.log_odds)))


def test_shuffled_cells_are_not_explained(training):
    made = training(n_steps=8)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    fit = fit_data(data, n_boot=0, n_permutations=9)
    row = fit.measures.set_index(["measure", "cells"]).loc[("d_rel", "fitted")]
    assert row["control"] == np.nanmean(shuffled_fits(data, 9, seed=0).d_rel["fitted"])
    assert abs(row["control"]) < 0.2
    assert row["control_high"] < 0.7 < row["value"]
    assert row["p"] == 0.1


def test_a_mixture_that_never_changes_is_said_to_have_no_transition(training):
    made = training(n_seeds=1)
    made.predictions = made.mixed(np.zeros(made.terms.shape))
    fit = fit_strategies(*made.arguments, **made.options, n_boot=0, n_permutations=5)
    assert any("gamma is at its lower bound" in text for text in fit.warnings)
    assert any("beta is at its lower bound" in text for text in fit.warnings)
    assert any("d_rel hardly varies" in text for text in fit.warnings)
    assert "warning: gamma is at its lower bound" in repr(fit)
    baselines = fit.baselines.set_index("baseline")
    assert baselines.loc["constant", "fitted_loss"] == pytest.approx(0.0, abs=1e-6)
    assert np.isnan(baselines.loc["model", "fitted_explained"])


def test_predictions_without_order_are_said_to_be_no_better_than_shuffled(training):
    made = training(n_seeds=1)
    odds = np.random.default_rng(0).normal(size=made.terms.shape) * 2
    made.predictions = made.mixed(odds)
    fit = fit_strategies(*made.arguments, **made.options, n_boot=0, n_permutations=19)
    assert any("not above that of shuffled cells" in text for text in fit.warnings) or any(
        "hardly varies" in text for text in fit.warnings
    )
    assert not fit.measure("d_rel", "held_out") > 0.5


def test_baselines_are_in_order_and_the_model_lies_between(training):
    made = training(spread=0.05)
    fit = fit_strategies(*made.arguments, **made.options, **OFF)
    for cells in ("fitted", "held_out"):
        loss = fit.baselines.set_index("baseline")[f"{cells}_loss"]
        assert loss["free"] <= loss["model"] < loss["constant"]
        assert loss["constant"] < min(loss["memorising"], loss["generalising"])
        d_rel = fit.baselines.set_index("baseline")[f"{cells}_d_rel"]
        assert abs(d_rel["constant"]) < 0.6 < d_rel["model"]
        assert np.isnan(d_rel["memorising"])
        assert d_rel["free"] > 0.99
        explained = fit.baselines.set_index("baseline")[f"{cells}_explained"]
        assert explained["constant"] == 0.0
        assert explained["free"] == 1.0
        assert 0.9 < explained["model"] <= 1.0


def test_a_search_that_stops_early_says_so(training, monkeypatch):
    from mechicl.strategies import optimise

    made = training(n_steps=6, n_diversities=3)
    whole = optimise.minimize
    monkeypatch.setattr(optimise, "minimize", lambda *a, **k: whole(*a, **(k | {"options": {"maxiter": 1}})))
    fit = fit_strategies(*made.arguments, **made.options, n_boot=100, n_permutations=0, threshold=1.0)
    assert not fit.converged
    assert any("did not converge: its parameters" in text for text in fit.warnings)
    assert any(f"{fit.n_failed} of 100 bootstrap refits did not converge" in text for text in fit.warnings)
    assert np.isnan(fit.draws).all(1).sum() == fit.n_failed > 0


def test_strategies_that_agree_or_lose_are_named(training):
    made = training()
    made.memorising[:, 0] = made.generalising[:, 0]
    made.terms.advantage[:, 3] = -0.001
    made.predictions = made.mixed(made.terms.log_odds(TRUE))
    fit = fit_strategies(*made.arguments, **made.options, **OFF)
    assert any("larger loss at D = 32" in text for text in fit.warnings)
    assert any("agree in some cells" in text for text in fit.warnings)
    assert np.isnan(fit.d_rel[:, :, 0]).all()
    assert fit.measure("d_rel") > 0.999


def test_a_transformer_that_is_neither_strategy_is_said_to_be_far(training):
    made = training(n_steps=8)
    made.predictions = np.full_like(made.predictions, 0.01 / 3)
    made.predictions[..., 0] = 0.99
    fit = fit_strategies(*made.arguments, **made.options, **OFF)
    assert any("d_rel means little" in text for text in fit.warnings)
    assert np.nanmedian(fit.residual) > 0.5


def test_correlation_is_numpys_for_equal_weights_and_repeats_for_whole_ones():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 7))
    assert correlation(x, y) == pytest.approx(np.corrcoef(x.ravel(), y.ravel())[0, 1], abs=1e-12)
    twice = np.corrcoef(x[[0, 0, 2]].ravel(), y[[0, 0, 2]].ravel())[0, 1]
    assert correlation(x, y, np.array([2.0, 0.0, 1.0])) == pytest.approx(twice, abs=1e-12)
    assert np.isnan(correlation(x, np.ones_like(y)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_boot": 5}, "n_boot=5; expected 100"),
        ({"n_permutations": -1}, "n_permutations=-1"),
        ({"level": 95.0}, "level=95"),
        ({"held_out": 1.0}, "held_out=1"),
        ({"held_out": 0.8}, "expected 2 or more of each"),
        ({"threshold": 2.0}, "threshold=2"),
        ({"steps": np.arange(13)}, r"predictions of \(2, 14, 6\)"),
        ({"steps": np.zeros(14)}, "rising"),
        ({"clusters": np.zeros(3, int)}, "expected one an item, 24"),
    ],
)
@pytest.mark.usefixtures("as_users_run")
def test_options_of_a_fit_are_checked_before_the_work(training, change, said):
    made = training()
    with pytest.raises(ValueError, match=said):
        fit_strategies(*made.arguments, **(made.options | change))


def test_fixed_parameters_stay_and_unknown_ones_are_refused(training):
    made = training()
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    objective = Objective(data.terms, data.average.profiles, data.fitted)
    fit = fit_odds(objective, fixed={"gamma": 0.5})
    assert fit.parameters.gamma == 0.5
    assert fit.converged
    assert fit.loss > fit_odds(objective).loss
    with pytest.raises(ValueError, match="fixed parameters"):
        fit_odds(objective, fixed={"delta": 1.0})
    assert not config.jaxtyping_disable
