"""Hand-made weights are gradient descent: identities to 1e-12 in float64, over many seeds; and what must break them."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from mechicl.organisms.gradient_constructions import (
    attentions,
    descending_transformer,
    plus_transformer,
    preconditioned_transformer,
)
from mechicl.predictors.gradient import (
    gradient_descent,
    gradient_descent_plus,
    gradient_descent_plus_weights,
    gradient_descent_weights,
    preconditioned_gradient,
)
from mechicl.tasks.regression import RegressionTask

SEEDS = range(25)


def contexts(seed, dim=5, n_demos=7, n=20):
    c = RegressionTask(dim, n_demos, noise=0.2).sample(n, seed=seed)
    return c.x, c.y, c.query


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gradient_descent(steps):
    for seed in SEEDS:
        x, y, query = contexts(seed)
        rate = 0.2 + 0.1 * seed
        model = descending_transformer(5, rate=rate, steps=steps)
        expected = gradient_descent(x, y, query, rate=rate, steps=steps)
        assert np.abs(model.predict(x, y, query) - expected).max() < 1e-12
        weights = gradient_descent_weights(x, y, rate=rate, steps=steps)
        assert np.abs(model.sensitivity(x, y, query) - weights).max() < 1e-12


def test_gradient_descent_from_start_weights():
    for seed in SEEDS:
        x, y, query = contexts(seed)
        start = np.random.default_rng(seed).standard_normal(5)
        model = descending_transformer(5, rate=0.8, steps=3, start=start)
        expected = query @ start + gradient_descent(x, y - x @ start, query, rate=0.8, steps=3)
        assert np.abs(model.predict(x, y, query) - expected).max() < 1e-12


def test_preconditioned_descent():
    for seed in SEEDS:
        x, y, query = contexts(seed)
        matrices = 0.4 * np.random.default_rng(seed).standard_normal((3, 5, 5))  # not symmetric
        model = preconditioned_transformer(matrices)
        expected = preconditioned_gradient(x, y, query, matrices=matrices)
        assert np.abs(model.predict(x, y, query) - expected).max() < 1e-12
        turned = preconditioned_gradient(x, y, query, matrices=matrices.swapaxes(1, 2))
        assert np.abs(model.predict(x, y, query) - turned).max() > 1e-3


def test_gradient_descent_plus():
    for seed in SEEDS:
        x, y, query = contexts(seed)
        rates, gammas = np.random.default_rng(seed).uniform([[0.3], [0.0]], [[1.0], [0.2]], (2, 4)).tolist()
        model = plus_transformer(5, 7, rate=rates, gamma=gammas, steps=4)
        expected = gradient_descent_plus(x, y, query, rate=rates, gamma=gammas, steps=4)
        assert np.abs(model.predict(x, y, query) - expected).max() < 1e-12
        weights = gradient_descent_plus_weights(x, y, rate=rates, gamma=gammas, steps=4)
        assert np.abs(model.sensitivity(x, y, query) - weights).max() < 1e-12


def test_layers_of_plus_divide_by_the_number_of_demonstrations():
    x, y, query = contexts(0, n_demos=10)
    found = plus_transformer(5, 7, rate=0.6, gamma=0.1, steps=3).predict(x, y, query)
    expected = gradient_descent_plus(x, y, query, rate=0.6, gamma=0.07, steps=3)
    assert np.abs(found - expected).max() < 1e-12


def test_after_every_layer_the_stream_holds_residuals_and_minus_the_prediction():
    x, y, query = contexts(1)
    model = descending_transformer(5, rate=0.7, steps=3)
    states = model.states(x, y, query)
    _, cache = model.run_with_cache(*model.tensors(x, y, query))
    for step in range(4):
        weights = gradient_descent_weights(x, y, rate=0.7, steps=step)
        assert np.abs(states[step, :, -1] + (weights * query).sum(-1)).max() < 1e-12
        assert np.array_equal(states[step, :, :-1], query)
        if step:
            labels = cache[f"blocks.{step - 1}.hook_resid_post"][:, :-1, -1].numpy()
            assert np.abs(labels - (y - np.einsum("bnd,bd->bn", x, weights))).max() < 1e-12


def test_float32_holds_to_its_own_tolerance():
    x, y, query = contexts(2)
    found = descending_transformer(5, rate=0.7, steps=3, dtype=torch.float32).predict(x, y, query)
    assert np.abs(found - gradient_descent(x, y, query, rate=0.7, steps=3)).max() < 1e-5


def test_only_products_of_weights_matter():
    x, y, query = contexts(3)
    model = descending_transformer(5, rate=0.7, steps=2)
    before = model.predict(x, y, query)
    mix = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    with torch.no_grad():
        for attention in attentions(model):
            attention.W_Q.copy_(attention.W_Q @ mix * 3)
            attention.W_K.copy_(attention.W_K @ mix / 3)
            attention.W_V.copy_(attention.W_V @ mix)
            attention.W_O.copy_(mix.T @ attention.W_O)
    assert np.abs(model.predict(x, y, query) - before).max() < 1e-12


def test_other_weights_and_other_rates_are_not_gradient_descent():
    """The null control: what holds to 1e-12 above fails by far for weights that were not made for it."""
    x, y, query = contexts(4)
    expected = gradient_descent(x, y, query, rate=0.7, steps=2)
    model = descending_transformer(5, rate=0.7, steps=2)
    model.randomise(seed=0, spread=0.4)
    assert np.abs(model.predict(x, y, query) - expected).max() > 0.1
    assert np.abs(descending_transformer(5, rate=0.71, steps=2).predict(x, y, query) - expected).max() > 1e-3
    assert np.abs(descending_transformer(5, rate=0.7, steps=3).predict(x, y, query) - expected).max() > 1e-2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: descending_transformer(3, rate=1.0, steps=0), "got steps=0; expected 1 or more"),
        (lambda: plus_transformer(3, 0, rate=1.0, gamma=0.1, steps=1), "got n_demos=0"),
        (lambda: plus_transformer(3, 5, rate=[1.0, 2.0], gamma=0.1, steps=3), "got 2 values of rate for 3 steps"),
        (lambda: preconditioned_transformer([]), "got the number of matrices=0"),
        (lambda: descending_transformer(3, rate=1.0, start=np.ones(4)), "expected (3,)"),
        (lambda: preconditioned_transformer([np.eye(3), np.eye(2)]), "expected (3, 3) as the first has"),
    ],
)
def test_constructions_without_a_meaning_are_refused(make, message):
    with pytest.raises((ValueError, TypeCheckError)) as error:
        make()
    assert message in str(error.value) or isinstance(error.value, TypeCheckError)
