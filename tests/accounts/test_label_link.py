"""The link of label accounts: planted numbers come back, scipy finds no nearer fit, masks and signs hold."""

import numpy as np
import pytest
from scipy.optimize import minimize

from mechicl.accounts.label_link import fit_log_linear, linked, mixed_votes


def made(n_labels: int, *, n: int = 50, masked: bool = False, seed: int = 0):
    """Two sets of features, and which labels may be answered."""
    rng = np.random.default_rng(seed)
    allowed = np.ones((n, n_labels), dtype=bool)
    if masked:
        allowed[np.arange(n), rng.integers(n_labels, size=n)] = False
    features = np.where(allowed[..., None], rng.normal(size=(2, n, n_labels, 2)), 0.0)
    return rng, features, allowed


@pytest.mark.parametrize("n_labels", [2, 5])
def test_planted_weights_and_biases_come_back(n_labels: int) -> None:
    rng, features, allowed = made(n_labels)
    bias = rng.normal(size=n_labels)
    bias -= bias.mean()
    target = linked(features[0], allowed, np.array([1.3, 0.4]), bias)
    found = fit_log_linear(features, target, allowed, with_bias=True)
    np.testing.assert_allclose(found.weights[0], [1.3, 0.4], atol=1e-5)
    np.testing.assert_allclose(found.bias[0], bias, atol=1e-5)
    assert found.distance[0] < 1e-10 < found.distance[1]


@pytest.mark.parametrize("with_bias", [True, False])
def test_no_general_search_finds_a_nearer_fit(with_bias: bool) -> None:
    rng, features, allowed = made(4, masked=not with_bias)
    target = np.where(allowed, rng.random(allowed.shape), 0.0)
    target /= target.sum(-1, keepdims=True)
    found = fit_log_linear(features[:1], target, allowed, with_bias=with_bias)

    def distance(theta: np.ndarray) -> float:
        p = linked(features[0], allowed, theta[:2], theta[2:] if with_bias else np.zeros(4))
        own = target[allowed]
        return float((own * (np.log(own) - np.log(p[allowed]))).sum() / len(target))

    size = 6 if with_bias else 2
    best = minimize(distance, np.zeros(size), bounds=[(0, None)] * 2 + [(None, None)] * (size - 2), tol=1e-14)
    assert found.distance[0] == pytest.approx(best.fun, abs=1e-7)
    assert (linked(features[0], allowed, found.weights[0], found.bias[0])[~allowed] == 0).all()


def test_what_points_the_wrong_way_is_worth_nothing() -> None:
    _, features, allowed = made(3)
    own = features[:, :, :, :1]
    target = linked(own[0], allowed, np.array([-2.0]), np.zeros(3))
    found = fit_log_linear(own, target, allowed, with_bias=True)
    nothing = fit_log_linear(np.zeros_like(own), target, allowed, with_bias=True)
    assert found.weights[0, 0] == 0
    assert found.distance[0] == pytest.approx(nothing.distance[0], abs=1e-9)


def test_without_features_the_biases_give_the_mean_answer() -> None:
    rng, features, allowed = made(4)
    target = rng.dirichlet(np.ones(4), size=len(allowed))
    found = fit_log_linear(features[..., :0], target, allowed, with_bias=True)
    np.testing.assert_allclose(np.exp(found.bias[0]) / np.exp(found.bias[0]).sum(), target.mean(0), atol=1e-6)


def test_mixed_votes_by_hand_and_refusals() -> None:
    allowed = np.array([[True, True, False]])
    q = np.array([[1.0, 0.0, 0.0]])
    np.testing.assert_allclose(np.exp(mixed_votes(q, allowed, 0.2)), [[0.9, 0.1, 1.0]])
    for mixed in (0.0, 1.0):
        with pytest.raises(ValueError, match="mixed"):
            mixed_votes(q, allowed, mixed)
    with pytest.raises(ValueError, match="votes"):
        mixed_votes(-q, allowed, 0.2)
