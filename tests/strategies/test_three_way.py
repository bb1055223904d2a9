import numpy as np
import pytest
from scipy.special import softmax

from mechicl.strategies.context_odds import compare_context_odds, context_evidence
from mechicl.strategies.data import strategy_data
from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms
from mechicl.strategies.three_way import SampledMixture, fit_three_strategies

TRUE = OddsParameters(alpha=0.5, beta=0.2, gamma=0.8)


def three(training, labels=4, seed=5):
    """A transformer that mixes three strategies by the model, and the third's terms."""
    made = training(n_steps=8, n_diversities=4, labels=labels)
    rng = np.random.default_rng(seed)
    shape = made.memorising.shape
    constant = rng.normal(size=shape) if labels == 1 else rng.dirichlet(np.ones(labels), shape[:-1]) * 0.96 + 0.01
    losses, bits = (np.full((2, 4), 1.9), np.full((2, 4), 1.88)), np.full((2, 4), 300.0)
    third = OddsTerms(
        made.terms.steps, made.terms.diversities, losses[1] - losses[0], bits, made.terms.bits_generalising
    )
    odds = np.stack([made.terms.log_odds(TRUE), third.log_odds(TRUE), np.zeros(made.terms.shape)])
    weights = softmax(odds, axis=0)[..., None, None]
    parts = (part[:, None] for part in (made.memorising, constant, made.generalising))
    made.predictions = sum(weight * part for weight, part in zip(weights, parts, strict=True))
    return made, constant, losses, bits, third, weights


@pytest.mark.parametrize(("distance", "labels"), [("kl", 4), ("mse", 1)])
def test_a_third_strategy_is_found_where_there_is_one(training, distance, labels):
    made, constant, losses, bits, _, weights = three(training, labels)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0, distance=distance)
    found = fit_three_strategies(data, constant, losses, bits, n_boot=100)
    table = found.table.set_index("strategies")
    assert table.loc["three", ["alpha", "beta", "gamma"]].tolist() == pytest.approx([0.5, 0.2, 0.8], rel=2e-3)
    assert table.loc["three", "fitted_loss"] < 1e-8
    assert table.loc["three", "held_out_excess_high"] < 0
    np.testing.assert_allclose(found.weights, np.moveaxis(weights[..., 0, 0], 0, -1), atol=2e-3)


@pytest.mark.parametrize(("distance", "labels"), [("kl", 4), ("mse", 1)])
def test_gradient_of_three_strategies_is_that_of_finite_differences(training, distance, labels):
    made, constant, _, _, third, _ = three(training, labels)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0, distance=distance)
    parts = [data.sample.memorising, constant[:, :, data.sample.items], data.sample.generalising]
    objective = SampledMixture(data, [data.terms, third], parts, data.fitted)
    at, step = OddsParameters(0.4, 0.25, 0.5), 1e-5
    _, gradient = objective.gradient(at)
    for number, name in enumerate(("alpha", "beta", "gamma")):
        size = step * (at.gamma if name == "gamma" else 1.0)
        low, high = (
            objective.loss(OddsParameters(**(vars(at) | {name: getattr(at, name) + by}))) for by in (-size, size)
        )
        assert gradient[number] == pytest.approx((high - low) / (2 * step), rel=1e-4)
    assert objective.cluster_losses(at).mean() == pytest.approx(objective.loss(at), abs=1e-14)


def test_a_third_strategy_that_plays_no_part_does_not_help(training):
    made, constant, losses, bits, _, _ = three(training)
    made.predictions = made.mixed(made.terms.log_odds(TRUE))
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    found = fit_three_strategies(data, constant, losses, bits, n_boot=100)
    assert found.table["fitted_excess"].iloc[1] > 0
    np.testing.assert_allclose(found.weights.sum(-1), 1.0)
    assert found.to_frame().equals(found.table)


@pytest.mark.usefixtures("as_users_run")
def test_a_constant_that_does_not_fit_is_refused(training):
    made, constant, losses, bits, _, _ = three(training)
    data = strategy_data(*made.arguments, **made.options, threshold=1.0)
    for wrong, said in (
        (constant[:1], "constant of shape"),
        (constant[:, :, :3], "3 items"),
        (constant * 0, "above 0"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_three_strategies(data, wrong, losses, bits)
    offset = strategy_data(*made.arguments, **made.options, threshold=1.0, offsets=np.ones((2, 4, 24)))
    with pytest.raises(ValueError, match="offsets"):
        fit_three_strategies(offset, constant, losses, bits)


def test_context_evidence_is_the_sum_over_earlier_items(training):
    made = training(n_steps=2)
    truth = np.random.default_rng(0).integers(0, 4, (2, 6, 24))
    clusters = np.random.default_rng(1).permutation(made.clusters)
    found = context_evidence(made.memorising, made.generalising, truth, clusters)
    for seed, diversity, item in [(0, 0, 0), (1, 5, 23), (1, 2, 11), (0, 3, 17)]:
        earlier = [i for i in range(item) if clusters[i] == clusters[item]]
        m, g = made.memorising[seed, diversity], made.generalising[seed, diversity]
        expected = sum(np.log(m[i, truth[seed, diversity, i]] / g[i, truth[seed, diversity, i]]) for i in earlier)
        assert found[seed, diversity, item] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="truth from 0 to 4"):
        context_evidence(made.memorising, made.generalising, np.where(truth == 3, 4, truth), clusters)


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_strength_of_the_context_is_found(training, strength):
    made = training(n_steps=8, n_diversities=4)
    truth = np.random.default_rng(0).integers(0, 4, (2, 4, 24))
    evidence = context_evidence(made.memorising, made.generalising, truth, made.clusters)
    odds = made.terms.log_odds(TRUE)[..., None] + strength * evidence[:, None]
    weight = 1 / (1 + np.exp(-odds))[..., None]
    made.predictions = weight * made.memorising[:, None] + (1 - weight) * made.generalising[:, None]
    found = compare_context_odds(
        *made.arguments, **made.options, threshold=1.0, evidence=evidence, strengths=(0.5, 1.0), n_boot=100
    )
    assert found.best == strength
    table = found.table.set_index("strength")
    assert table.loc[strength, "fitted_loss"] < 1e-6
    assert table.loc[strength, ["alpha", "beta", "gamma"]].tolist() == pytest.approx([0.5, 0.2, 0.8], rel=1e-3)
    if strength:
        assert table.loc[1.0, "held_out_excess_high"] < 0
    else:
        assert (table.loc[[0.5, 1.0], "held_out_excess_low"] > 0).all()
