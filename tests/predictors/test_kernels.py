"""Kernel regression: against loops and scikit-learn, its limits, and what it refuses."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from scipy.special import log_softmax
from sklearn.metrics.pairwise import cosine_similarity, linear_kernel, rbf_kernel

from mechicl.predictors.kernels import (
    best_bandwidth,
    check_label_shapes,
    cosine_log_kernel,
    dot_log_kernel,
    nadaraya_watson,
    prediction_log_kernel,
    rbf_log_kernel,
)
from mechicl.predictors.neighbours import nearest_neighbours
from mechicl.tasks.regression import RegressionTask

REFUSED = (ValueError, TypeCheckError)  # jaxtyping may see wrong shapes first


def draw(batch=(3, 2), n=7, dim=4, labels=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.eye(labels)[rng.integers(labels, size=(*batch, n))]
    return rng.standard_normal((*batch, dim)), rng.standard_normal((*batch, n, dim)), y


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda q, x: rbf_log_kernel(q, x, bandwidth=0.7), lambda q, x: np.log(rbf_kernel(q, x, gamma=0.5 / 0.49))),
        (lambda q, x: cosine_log_kernel(q, x, temperature=0.3), lambda q, x: cosine_similarity(q, x) / 0.3),
        (lambda q, x: dot_log_kernel(q, x, temperature=2.0), lambda q, x: linear_kernel(q, x) / 2),
    ],
)
def test_kernels_are_those_of_scikit_learn(ours, theirs) -> None:
    query, x, _ = draw()
    found = ours(query, x)
    for at in np.ndindex(query.shape[:-1]):
        np.testing.assert_allclose(found[at], theirs(query[at][None], x[at])[0], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(ours(query[at], x[at]), found[at], rtol=1e-12)  # without leading axes


def test_the_prediction_is_the_weighted_mean_of_an_explicit_loop() -> None:
    query, x, y = draw()
    found = nadaraya_watson(rbf_log_kernel(query, x, bandwidth=0.7), y)
    assert found.shape == (3, 2, 3)
    for at in np.ndindex(query.shape[:-1]):
        weights = [np.exp(-sum((a - b) ** 2 for a, b in zip(query[at], one, strict=True)) / 0.98) for one in x[at]]
        expected = sum(w * label for w, label in zip(weights, y[at], strict=True)) / sum(weights)
        np.testing.assert_allclose(found[at], expected, rtol=1e-10)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


def test_a_tiny_bandwidth_is_the_nearest_neighbour_and_a_huge_one_the_mean() -> None:
    task = RegressionTask(4, 9, inputs="normal").sample(30, seed=3)
    y = task.y[..., None]
    tiny = nadaraya_watson(rbf_log_kernel(task.query, task.x, bandwidth=1e-4), y)
    np.testing.assert_allclose(tiny[:, 0], nearest_neighbours(task.x, task.y, task.query, k=1), rtol=1e-12)
    huge = nadaraya_watson(rbf_log_kernel(task.query, task.x, bandwidth=1e6), y)
    np.testing.assert_allclose(huge[:, 0], task.y.mean(-1), atol=1e-9)


def test_constants_cancel_however_large_and_weights_of_zero_leave_out() -> None:
    query, x, y = draw()
    scores = dot_log_kernel(query, x, temperature=1.0)
    expected = nadaraya_watson(scores, y)
    for constant in (-1e6, 1e6):
        np.testing.assert_allclose(nadaraya_watson(scores + constant, y), expected, rtol=1e-8)
    scores[..., 2:] = -np.inf
    np.testing.assert_allclose(nadaraya_watson(scores, y), nadaraya_watson(scores[..., :2], y[..., :2, :]), rtol=1e-12)


def test_prediction_similarity_is_the_chance_of_the_same_word() -> None:
    rng = np.random.default_rng(1)
    query, x = log_softmax(3 * rng.standard_normal((2, 11)), -1), log_softmax(3 * rng.standard_normal((2, 5, 11)), -1)
    loop = [
        [sum(np.exp(q + o) for q, o in zip(a, b, strict=True)) for b in own] for a, own in zip(query, x, strict=True)
    ]
    np.testing.assert_allclose(np.exp(prediction_log_kernel(query, x)), loop, rtol=1e-12)
    sure = np.array([0.0, -900.0, -1000.0])  # exp(-1900) is 0 in float64, its logarithm is not
    np.testing.assert_allclose(prediction_log_kernel(sure, sure[None, ::-1].copy()), [-1000 + np.log(2)], rtol=1e-9)
    with np.errstate(divide="ignore"):
        apart = np.log(np.eye(3))
    assert prediction_log_kernel(apart[0], apart).tolist() == [0.0, -np.inf, -np.inf]


# ------------------------------------------------------------------------------------------- learned bandwidth


def leave_one_out_error(x, y, bandwidth):
    total = 0.0
    for own_x, own_y in zip(x, y, strict=True):
        for i in range(len(own_x)):
            rest = np.arange(len(own_x)) != i
            weights = np.exp(-((own_x[rest] - own_x[i]) ** 2).sum(-1) / (2 * bandwidth**2))
            total += ((weights @ own_y[rest] / weights.sum() - own_y[i]) ** 2).mean()
    return total / (x.shape[0] * x.shape[1])


def test_leave_one_out_finds_the_bandwidth_of_an_exhaustive_search() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(-3, 3, (5, 12, 1))
    y = np.sin(2 * x) + 0.1 * rng.standard_normal(x.shape)
    found = best_bandwidth(x, y)
    grid = np.geomspace(0.15, 1.5, 150)
    errors = [leave_one_out_error(x, y, one) for one in grid]
    assert found == pytest.approx(grid[int(np.argmin(errors))], rel=0.02)
    assert leave_one_out_error(x, y, found) <= min(errors) + 1e-9


@pytest.mark.parametrize(
    ("kernel", "log_kernel", "scale"),
    [
        ("rbf", lambda q, x, h: rbf_log_kernel(q, x, bandwidth=h), 0.8),
        ("cosine", lambda q, x, h: cosine_log_kernel(q, x, temperature=h), 0.15),
        ("dot", lambda q, x, h: dot_log_kernel(q, x, temperature=h), 2.5),
    ],
)
def test_the_bandwidth_that_made_the_targets_is_found(kernel, log_kernel, scale) -> None:
    query, x, y = draw(batch=(40,), n=9)
    target = nadaraya_watson(log_kernel(query, x, scale), y)
    assert best_bandwidth(x, y, query, target, kernel=kernel) == pytest.approx(scale, rel=1e-3)


def test_labels_without_relation_to_inputs_want_the_mean() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((60, 20, 3)), rng.standard_normal((60, 20, 1))
    assert best_bandwidth(x, y) > np.sqrt(6)  # the typical distance: weights are near to equal
    related = x[..., :1] ** 3
    assert best_bandwidth(x, related) < 1


# ------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_scales_without_a_meaning_are_refused(value) -> None:
    query, x, _ = draw()
    with pytest.raises(ValueError, match=r"got bandwidth=.*above 0"):
        rbf_log_kernel(query, x, bandwidth=value)
    for kernel in (cosine_log_kernel, dot_log_kernel):
        with pytest.raises(ValueError, match=r"got temperature=.*above 0"):
            kernel(query, x, temperature=value)


def test_bad_numbers_are_refused() -> None:
    query, x, y = draw()
    broken = np.where(np.arange(4) == 1, np.nan, x)
    for call in (
        lambda: rbf_log_kernel(query, broken, bandwidth=1.0),
        lambda: nadaraya_watson(np.zeros(y.shape[:-1]), y * np.inf),
        lambda: nadaraya_watson(np.full(y.shape[:-1], np.inf), y),
        lambda: best_bandwidth(broken, y),
    ):
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=r"not finite|\+infinite"):
            call()
    with pytest.raises(ValueError, match="squares overflow"):
        rbf_log_kernel(query, x, bandwidth=1e-200)
    with pytest.raises(ValueError, match="all weights are 0 in 6 of 6"):
        nadaraya_watson(np.full(y.shape[:-1], -np.inf), y)
    with pytest.raises(ValueError, match="vector of 0"):
        cosine_log_kernel(query * 0, x, temperature=1.0)
    with pytest.raises(ValueError, match=r"x that are not log-probabilities"):
        prediction_log_kernel(log_softmax(query, -1), x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q, x, y: best_bandwidth(x, y, kernel="laplace"), "expected one of"),
        (lambda q, x, y: best_bandwidth(x, y, q), "without its target"),
        (lambda q, x, y: best_bandwidth(x[:, :2], y[:, :2]), "expected 3 or more"),
        (lambda q, x, y: best_bandwidth(x * 0, y), "equally like"),
        (lambda q, x, y: best_bandwidth(x, y, n_grid=2), "n_grid=2"),
    ],
)
def test_what_no_bandwidth_can_be_learned_from_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(*draw(batch=(3,)))


def test_shapes_that_do_not_go_together_are_refused() -> None:
    query, x, y = draw()
    for bad in (lambda: rbf_log_kernel(query[..., :2], x, bandwidth=1.0), lambda: nadaraya_watson(y[..., :4, 0], y)):
        with pytest.raises(REFUSED):
            bad()
    with pytest.raises(ValueError, match="no demonstrations"):
        rbf_log_kernel(query, x[..., :0, :], bandwidth=1.0)
    for weights, labels in (((2, 0), (2, 0, 3)), ((2, 4), (2, 5, 3)), ((), ())):
        with pytest.raises(ValueError, match="expected"):
            check_label_shapes(weights, labels)
