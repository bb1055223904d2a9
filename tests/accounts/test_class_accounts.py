"""Accounts of classification against the predictors of the package, loops over pairs, and automatic gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit

from mechicl.accounts.classes import ClassExamples, class_accounts
from mechicl.predictors import classification
from mechicl.tasks.classification import ClassificationTask

TASK = ClassificationTask(dim=4, n_pairs=7, diversity=10)
DRAWN = TASK.sample(30, step=(1, 0))
EXAMPLES = ClassExamples(DRAWN.x, DRAWN.y, DRAWN.query, TASK.pool, TASK.pool_labels, TASK.noise)


def said(name, examples=EXAMPLES, **parameters):
    found = {one.name: one for one in class_accounts(examples)}[name].predict(examples, **parameters)
    assert found.shape == (len(examples), 2)
    assert found.sum(-1) == pytest.approx(1.0)
    return found


def test_bayesian_accounts_are_those_of_the_predictors():
    memory = classification.memorising(DRAWN.query, TASK.pool, TASK.pool_labels, noise=TASK.noise)
    general = classification.generalising(DRAWN.query, DRAWN.x, DRAWN.y, noise=TASK.noise)
    assert np.array_equal(said("memorising"), memory)
    assert np.array_equal(said("generalising"), general)
    mixed = said("mixture of strategies", log_odds=-np.log(4.0))
    assert mixed == pytest.approx((memory + 4 * general) / 5, rel=1e-12)


def test_the_generalising_predictor_is_a_gaussian_kernel_of_shrunk_pairs():
    """With its own bandwidth, as far as it keeps probabilities off 0."""
    shrunk = replace(EXAMPLES, x=DRAWN.x / (1 + TASK.noise))
    found = said("Gaussian kernel", shrunk, bandwidth=classification.bandwidth(4, noise=TASK.noise), mix=0.0)
    assert found == pytest.approx(said("generalising"), abs=1.1e-5)


def test_kernels_are_votes_by_hand():
    for name, scale, log in (
        ("Gaussian kernel", {"bandwidth": 0.4}, lambda q, x: -((x - q) ** 2).sum(-1) / (2 * 0.4**2)),
        ("dot-product kernel", {"temperature": 0.3}, lambda q, x: x @ q / 0.3),
    ):
        found = said(name, mix=0.1, **scale)
        for row, (x, y, query) in enumerate(zip(DRAWN.x, DRAWN.y, DRAWN.query, strict=True)):
            weights = np.exp(log(query, x))
            one = (weights * y).sum() / weights.sum()
            assert found[row, 1] == pytest.approx(0.9 * one + 0.05, rel=1e-10)


def test_descent_is_that_of_automatic_gradients():
    found = said("gradient descent", steps=3, rate=1.7)
    for row, (x, y, query) in enumerate(zip(DRAWN.x, DRAWN.y, DRAWN.query, strict=True)):
        features = torch.from_numpy(np.column_stack([x, np.ones(len(x))]))
        weights = torch.zeros(5, dtype=torch.float64, requires_grad=True)
        for _ in range(3):
            value = torch.nn.functional.binary_cross_entropy_with_logits(
                features @ weights, torch.from_numpy(y.astype(np.float64))
            )
            (slope,) = torch.autograd.grad(value, weights)
            weights = (weights - 1.7 * slope).detach().requires_grad_()
        assert found[row, 1] == pytest.approx(expit(np.append(query, 1.0) @ weights.detach().numpy()), rel=1e-10)


def test_baselines():
    ones = DRAWN.y.sum(-1)
    assert said("uniform") == pytest.approx(0.5)
    assert said("label frequency", pseudo_count=2.0)[:, 1] == pytest.approx((ones + 2) / (7 + 4))
    assert said("copy last", mix=0.5)[:, 1] == pytest.approx(0.25 + DRAWN.y[:, -1] / 2)
    nearest = [
        y[np.linalg.norm(x - q, axis=-1).argmin()] for x, y, q in zip(DRAWN.x, DRAWN.y, DRAWN.query, strict=True)
    ]
    assert said("nearest neighbour", mix=0.0)[:, 1] == pytest.approx(np.array(nearest, dtype=float))
    assert said("Gaussian kernel", bandwidth=1e-2, mix=0.0) == pytest.approx(said("nearest neighbour", mix=0.0))


def test_only_the_last_label_depends_on_the_order():
    order = np.array([3, 0, 5, 1, 6, 4, 2])
    other = replace(EXAMPLES, x=DRAWN.x[:, order], y=DRAWN.y[:, order])
    for one in class_accounts(TASK):
        parameters = {name: values[1] for name, values in one.choices.items()} | {f.name: f.at(0.4) for f in one.free}
        same = np.allclose(one.predict(EXAMPLES, **parameters), one.predict(other, **parameters), rtol=1e-9)
        assert same == (one.name != "copy last"), one.name


def test_some_of_the_contexts():
    rows = np.array([7, 7, 1])
    few = EXAMPLES.take(rows)
    assert len(few) == 3
    for name in ("generalising", "memorising"):
        assert said(name, few) == pytest.approx(said(name)[rows])


def test_errors():
    with pytest.raises(ValueError, match="expected 0 and 1"):
        replace(EXAMPLES, y=EXAMPLES.y + 1)
    with pytest.raises(ValueError, match="no demonstrations"):
        replace(EXAMPLES, x=EXAMPLES.x[:, :0], y=EXAMPLES.y[:, :0])
    with pytest.raises(ValueError, match="expected ClassExamples"):
        class_accounts(None)
