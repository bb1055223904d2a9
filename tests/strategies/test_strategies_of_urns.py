"""From urns to parameters: tasks, predictors, losses and bits of the library; transformers that follow the model."""

import numpy as np
import pytest

import mechicl.strategies as strategies
from mechicl.predictors import urns
from mechicl.predictors.bayes import predict_strategies, prediction_losses
from mechicl.tasks.urns import UrnTask

TRUE = strategies.OddsParameters(alpha=0.5, beta=0.15, gamma=1.0)


@pytest.fixture(scope="module")
def trained():
    diversities, steps = 2 ** np.arange(2, 7), (np.linspace(2, 60, 10) ** 2).astype(int)
    m, g, losses, bits = [], [], [], []
    for diversity in diversities:
        task = UrnTask(dim=4, context=12, diversity=int(diversity))
        found = predict_strategies(task, task.sample(20, step=(1, 0)))
        m.append(found.memorising.reshape(-1, 4))
        g.append(found.generalising.reshape(-1, 4))
        many = predict_strategies(task, task.sample(500, step=(2, 0)))
        losses.append([prediction_losses(part, many.truth).mean() for part in (many.memorising, many.generalising)])
        bits.append(strategies.strategy_bits(task.pool, urns.memorising, urns.generalising))
    m, g = np.array(m)[None], np.array(g)[None]
    losses, bits = (tuple(np.array(part).T[:, None]) for part in (losses, bits))
    terms = strategies.OddsTerms(steps.astype(float), diversities.astype(float), losses[1] - losses[0], *bits)
    weight = 1 / (1 + np.exp(-terms.log_odds(TRUE)))[..., None, None]
    predictions = (weight * m[:, None] + (1 - weight) * g[:, None]).astype(np.float32)
    options = {"steps": steps, "diversities": diversities, "clusters": np.repeat(np.arange(20), 12)}
    return terms, (predictions, m, g, losses, bits), options


def test_memorising_gains_less_and_costs_more_with_every_doubling(trained):
    terms, _, _ = trained
    assert (terms.advantage > 0).all()
    assert (np.diff(terms.advantage) < 0).all()
    assert (np.diff(terms.bits_memorising) > 0).all()
    assert (terms.bits_memorising > terms.bits_generalising).all()


def test_parameters_behind_single_precision_predictions_are_found(trained):
    _, arrays, options = trained
    fit = strategies.fit_strategies(*arrays, **options, n_boot=0, n_permutations=0)
    found = [fit.estimate.alpha, fit.estimate.beta, fit.estimate.gamma]
    np.testing.assert_allclose(found, [0.5, 0.15, 1.0], rtol=2e-3)
    assert fit.kept.all()
    assert fit.measure("d_rel", "held_out") > 0.9999


def test_every_name_of_the_package_is_there():
    for name in strategies.__all__:
        assert callable(getattr(strategies, name))
