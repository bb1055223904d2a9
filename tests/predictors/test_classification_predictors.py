"""The predictors of in-context classification against the densities that they are posteriors of."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mechicl.predictors.classification import bandwidth, generalising, generalising_weights, memorising
from mechicl.predictors.distances import divergence, relative_distance, residual
from mechicl.tasks.classification import ClassificationTask

TASK = ClassificationTask(dim=3, n_pairs=4, diversity=6, noise=0.7)


def seen_covariance(pairs, dim, noise):
    """Of the pairs' items and the query, laid end to end: sights of one item share its variance."""
    same = np.array([[i == j for j in pairs] for i in pairs], dtype=float)
    return np.kron((same + noise * np.eye(len(pairs))) / (1 + noise), np.eye(dim) / dim)


def test_the_memorising_predictor_is_the_posterior_of_who_knows_the_pool():
    c = TASK.sample(20, step=0)
    found = memorising(c.query, TASK.pool, TASK.pool_labels, noise=0.7, floor=0.0)
    for query, row in zip(c.query, found, strict=True):
        density = [
            multivariate_normal.pdf(query, mean=item / np.sqrt(1.7), cov=0.7 / 1.7 / 3 * np.eye(3))
            for item in TASK.pool
        ]
        ones = np.dot(density, TASK.pool_labels) / np.sum(density)
        np.testing.assert_allclose(row, [1 - ones, ones], atol=1e-12)


def test_the_generalising_predictor_is_the_posterior_of_who_knows_the_law_of_items():
    """By the joint density of all pairs and the query, when the query shows the item of pair i and no two pairs one."""
    c = TASK.sample(20, step=1)
    found = generalising(c.query, c.x, c.y, noise=0.7, floor=0.0)
    weights = generalising_weights(c.query, c.x, noise=0.7)
    for row in range(20):
        everything = np.concatenate([c.x[row].ravel(), c.query[row]])
        density = np.array([
            multivariate_normal.pdf(everything, cov=seen_covariance([0, 1, 2, 3, i], 3, 0.7)) for i in range(4)
        ])  # fmt: skip
        np.testing.assert_allclose(weights[row], density / density.sum(), atol=1e-12)
        ones = np.dot(density, c.y[row]) / density.sum()
        np.testing.assert_allclose(found[row], [1 - ones, ones], atol=1e-12)


def test_its_kernel_is_a_gaussian_of_the_known_bandwidth():
    c = TASK.sample(5, step=2)
    distance = ((c.query[:, None] - c.x / 1.7) ** 2).sum(-1)
    kernel = np.exp(-distance / (2 * bandwidth(3, noise=0.7) ** 2))
    np.testing.assert_allclose(generalising_weights(c.query, c.x, noise=0.7), kernel / kernel.sum(-1, keepdims=True))
    assert bandwidth(8, noise=0.5) == pytest.approx(np.sqrt(0.5 * 2.5 / 8 / 2.25))


def test_each_predictor_is_the_best_where_its_assumption_holds():
    """Few items: knowing them is better. Items that are never seen twice: M of another pool is worse than chance's."""
    few, many = ClassificationTask(diversity=8), ClassificationTask(diversity=4096, task_seed=1)
    losses = {}
    for name, task in (("few", few), ("many", many)):
        c = task.sample(3000, step=0)
        for kind, p in (
            ("M", memorising(c.query, few.pool, few.pool_labels)),
            ("G", generalising(c.query, c.x, c.y)),
        ):
            losses[name, kind] = -np.log(p[np.arange(3000), c.target]).mean()
    assert losses["few", "M"] < losses["few", "G"] < np.log(2) < losses["many", "M"]
    assert losses["many", "G"] < np.log(2)


def test_far_queries_neither_overflow_nor_vanish():
    x = np.array([[[1e6, 0.0], [-1e6, 0.0]]])
    query = np.array([[2e6, 1.0]])
    labels = np.array([[1, 0]])
    assert generalising(query, x, labels) == pytest.approx(np.array([[1e-5, 1 - 1e-5]]))
    assert memorising(query, x[0], labels[0]) == pytest.approx(np.array([[1e-5, 1 - 1e-5]]))
    assert memorising(query, x[0], labels[0], floor=0.0) == pytest.approx(np.array([[0.0, 1.0]]))


def test_probabilities_are_clamped_and_axes_kept():
    c = TASK.sample(24, step=3)
    shaped = c.query.reshape(2, 12, 3), c.x.reshape(2, 12, 4, 3), (c.y + (c.items % 3 == 0)).reshape(2, 12, 4)
    found = generalising(*shaped, n_labels=3, floor=0.01)
    assert found.shape == (2, 12, 3)
    assert found.sum(-1) == pytest.approx(1.0)
    assert 0.009 < found.min() < 0.02
    flat = generalising(c.query, c.x, shaped[2].reshape(24, 4), n_labels=3, floor=0.01)
    np.testing.assert_allclose(found.reshape(24, 3), flat)
    pooled = memorising(shaped[0], TASK.pool, TASK.pool_labels)
    np.testing.assert_allclose(pooled.reshape(24, 2), memorising(c.query, TASK.pool, TASK.pool_labels))
    assert memorising(c.query, TASK.pool, np.zeros(6, dtype=int)) == pytest.approx(np.array([[1 - 1e-5, 1e-5]] * 24))


def test_what_has_no_meaning_is_refused():
    c = TASK.sample(3, step=0)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        generalising(c.query, c.x, c.y + 1)
    with pytest.raises(ValueError, match="not finite"):
        generalising(c.query * np.nan, c.x, c.y)
    with pytest.raises(ValueError, match="got noise=-1"):
        memorising(c.query, TASK.pool, TASK.pool_labels, noise=-1.0)
    with pytest.raises(ValueError, match="below 1/2"):
        generalising(c.query, c.x, c.y, floor=0.5)


def test_divergence_is_half_the_symmetrised_kl():
    p, q = np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([[0.6, 0.4], [0.5, 0.5]])
    kl = 0.2 * np.log(0.2 / 0.6) + 0.8 * np.log(0.8 / 0.4), 0.6 * np.log(0.6 / 0.2) + 0.4 * np.log(0.4 / 0.8)
    assert divergence(p, q) == pytest.approx([sum(kl) / 2, 0.0])
    assert divergence(q, p) == pytest.approx(divergence(p, q))
    with pytest.raises(ValueError, match="clamp them first"):
        divergence(np.array([[0.0, 1.0]]), q[:1])


def test_relative_distance_is_one_at_m_and_zero_at_g():
    to_m, to_g, between = np.array([0.0, 2.0, 1.0, 9.0, 0.0]), np.array([2.0, 0.0, 1.0, 3.0, 0.0]), np.array([2.0] * 5)
    assert relative_distance(to_m, to_g, between) == pytest.approx([1.0, 0.0, 0.5, 0.0, 0.5])
    assert residual(to_m, to_g, between) == pytest.approx([0.0, 0.0, 0.5, 1.5, 0.0])
    assert np.isnan(relative_distance(to_m[:1], to_g[:1], np.zeros(1))).all()
    assert np.isnan(residual(to_m[:1], to_g[:1], np.zeros(1))).all()
