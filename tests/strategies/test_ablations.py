import numpy as np
import pytest

from mechicl.strategies.ablations import FIXED, LinearTerms, ablate_strategies
from mechicl.strategies.cluster_losses import cluster_losses, loss_row
from mechicl.strategies.data import strategy_data
from mechicl.strategies.posterior_odds import OddsParameters
from mechicl.strategies.refits import draw_times


def prepared(training, parameters, **options):
    made = training(parameters=parameters, n_steps=10, n_diversities=5, **options)
    return strategy_data(*made.arguments, **made.options, threshold=1.0)


def test_parts_that_are_needed_cost_and_others_do_not(training):
    table = ablate_strategies(prepared(training, OddsParameters(0.55, 0.22, 1.0)), n_boot=100).table.set_index(
        "ablation"
    )
    assert list(table.index) == list(FIXED)
    assert table["n_free"].tolist() == [3, 2, 2, 2, 3, 1, 0]
    assert table["converged"].all()
    assert table.loc["gamma = 1", "held_out_excess"] == pytest.approx(0.0, abs=1e-6)
    assert table.loc["gamma = 1", ["alpha", "beta"]].tolist() == pytest.approx([0.55, 0.22], abs=1e-3)
    for name in ("alpha = 0", "beta = 1", "alpha = 0, beta = 1", "none free"):
        assert table.loc[name, "held_out_excess_low"] > 1e-4
        assert table.loc[name, "held_out_d_rel"] < table.loc["model", "held_out_d_rel"] or np.isnan(
            table.loc[name, "held_out_d_rel"]
        )
    assert table.loc["none free", ["alpha", "beta", "gamma"]].tolist() == [0.0, 1.0, 1.0]
    assert (table["fitted_excess"] > -1e-7).all()
    np.testing.assert_allclose(table["fitted_loss"] - table.loc["model", "fitted_loss"], table["fitted_excess"])


def test_a_linear_prior_is_found_where_there_is_one(training):
    made = training(n_steps=10, n_diversities=5)
    bits = made.terms.bits_memorising - made.terms.bits_generalising
    odds = made.terms.evidence(0.5, 0.7) - 2e-3 * bits[:, None]
    made.predictions = made.mixed(odds)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    table = ablate_strategies(data, n_boot=100).table.set_index("ablation")
    row = table.loc["linear K"]
    assert row[["alpha", "beta", "gamma"]].tolist() == pytest.approx([0.5, 2e-3, 0.7], rel=1e-3)
    assert row["fitted_loss"] < 1e-6
    assert row["held_out_excess"] < 0


def test_linear_terms_have_their_own_slope(training):
    terms = training().terms
    linear = LinearTerms(
        terms.steps, terms.diversities, terms.advantage, terms.bits_memorising, terms.bits_generalising
    )
    np.testing.assert_allclose((linear.prior(0.5) - linear.prior(0.25)) / 0.25, linear.prior_slope(0.3))
    at = OddsParameters(0.5, 0.3, 1.0)
    np.testing.assert_allclose(linear.log_odds_gradient(at)[1, :, 0], linear.prior_slope(0.3))


def test_losses_kept_apart_add_up(training):
    data = prepared(training, OddsParameters(0.5, 0.2, 1.0), spread=0.05)
    odds = np.random.default_rng(0).normal(size=data.terms.shape)
    apart = cluster_losses(data, odds, data.fitted)
    together = data.average.profiles.at(odds.ravel())[0].reshape(odds.shape)[:, data.fitted]
    assert apart.sum() / (2 * data.profiles.counts.sum()) == pytest.approx(together.mean(), abs=1e-12)
    times = draw_times(2, 8, 50, 0)
    row = loss_row("fitted", apart, apart / 2, data.profiles.counts, times, 0.9)
    assert row["fitted_loss"] == pytest.approx(together.mean(), abs=1e-12)
    assert row["fitted_excess"] == pytest.approx(together.mean() / 2, abs=1e-12)
    draws = []
    for seeds, clusters in zip(*times, strict=True):
        average = data.profiles.average(clusters).profiles.at(odds.ravel())[0].reshape(odds.shape)[:, data.fitted]
        draws.append(np.average(average.mean(1), weights=seeds) / 2)
    expected = np.quantile(draws, [0.05, 0.95])
    np.testing.assert_allclose([row["fitted_excess_low"], row["fitted_excess_high"]], expected, atol=1e-12)
