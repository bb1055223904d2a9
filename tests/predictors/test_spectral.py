"""Algorithms as curves over eigenvalues, against the predictors that run on the examples themselves."""

import numpy as np
import pytest

from mechicl.predictors.gradient import (
    gradient_descent,
    gradient_descent_plus,
    gradient_descent_plus_weights,
    least_squares,
    ridge,
)
from mechicl.predictors.spectral import decompose, descent_share, newton_share, ridge_share
from mechicl.tasks.regression import RegressionTask


@pytest.mark.parametrize("n_demos", [2, 4, 9])
def test_shares_predict_what_the_predictors_do(n_demos):
    c = RegressionTask(4, n_demos, noise=0.2).sample(30, seed=n_demos)
    context = c.x, c.y, c.query
    spectrum = decompose(*context)
    rates, gammas = [0.9, 0.4, 0.7], [0.05, -0.1, 0.2]
    pairs = [
        (descent_share(spectrum, rates=[0.8] * 7), gradient_descent(*context, rate=0.8, steps=7)),
        (
            descent_share(spectrum, rates=rates, gammas=gammas),
            gradient_descent_plus(*context, rate=rates, gamma=gammas, steps=3),
        ),
        (ridge_share(spectrum, penalty=0.3), ridge(*context, penalty=0.3)),
        (ridge_share(spectrum, penalty=0.0), least_squares(*context)),
    ]
    for share, expected in pairs:
        assert spectrum.predict(share) == pytest.approx(expected, abs=1e-9)
    weights = gradient_descent_plus_weights(c.x, c.y, rate=rates, gamma=gammas, steps=3)
    assert spectrum.weights(pairs[1][0]) == pytest.approx(weights, abs=1e-12)
    assert spectrum.predict(pairs[0][0]) != pytest.approx(pairs[1][1], abs=1e-3)  # algorithms are told apart


def test_closed_forms_of_the_curves():
    c = RegressionTask(3, 5).sample(10, seed=0)
    spectrum = decompose(c.x, c.y, c.query)
    values = spectrum.values
    descent = (1 - (1 - 0.7 / 5 * values) ** 6) / values
    assert descent_share(spectrum, rates=[0.7] * 6) == pytest.approx(descent, rel=1e-9)
    newton = (1 - (1 - (values / values[:, -1:]) ** 2) ** 8) / values
    assert newton_share(spectrum, steps=3) == pytest.approx(newton, rel=1e-9)


def test_the_parts_are_those_of_the_contexts():
    c = RegressionTask(3, 5).sample(10, seed=1)
    spectrum = decompose(c.x, c.y, c.query)
    gram = np.swapaxes(c.x, -1, -2) @ c.x
    rebuilt = (spectrum.vectors * spectrum.values[:, None, :]) @ np.swapaxes(spectrum.vectors, -1, -2)
    assert rebuilt == pytest.approx(gram, abs=1e-12)
    assert spectrum.weights(np.ones_like(spectrum.values)) == pytest.approx((c.y[:, None] @ c.x)[:, 0], abs=1e-12)
    with pytest.raises(ValueError, match="no demonstrations"):
        decompose(np.zeros((2, 0, 3)), np.zeros((2, 0)), np.zeros((2, 3)))


def test_inputs_that_are_all_zero_teach_nothing():
    spectrum = decompose(np.zeros((1, 3, 2)), np.ones((1, 3)), np.ones((1, 2)))
    for share in (newton_share(spectrum, steps=5), ridge_share(spectrum, penalty=0.0)):
        assert spectrum.predict(share) == pytest.approx([0.0])
