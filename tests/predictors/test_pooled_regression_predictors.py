"""The predictors of regression over a pool of laws against Gaussian posteriors written out, and ridge regression."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import Ridge

from mechicl.predictors import urns
from mechicl.predictors.pooled_regression import generalising, memorising
from mechicl.tasks.pooled_regression import PooledRegressionTask

TASK = PooledRegressionTask(dim=3, context=7, diversity=5)
NOISE = TASK.noise_variance


def test_m_weighs_each_law_by_its_density():
    s = TASK.sample(6, step=0)
    found = memorising(s.x, s.y, TASK.pool, noise_variance=0.8)  # noise that leaves more than one law likely
    for row, t in product(range(6), range(7)):
        densities = [norm.pdf(s.y[row, :t], s.x[row, :t] @ law, np.sqrt(0.8)).prod() for law in TASK.pool]
        exact = np.dot(densities, TASK.pool @ s.x[row, t]) / np.sum(densities)
        assert found[row, t] == pytest.approx(exact, rel=1e-11, abs=1e-12)


def test_g_is_the_conditional_mean_of_jointly_gaussian_labels():
    """Labels have covariance x . x' + [same] s when w ~ N(0, I); nothing of ridge regression is used."""
    s = TASK.sample(4, step=1, fresh=True)
    found = generalising(s.x, s.y, noise_variance=NOISE)
    for row, t in product(range(4), range(7)):
        covariance = s.x[row] @ s.x[row].T + NOISE * np.eye(7)
        exact = covariance[t, :t] @ np.linalg.solve(covariance[:t, :t], s.y[row, :t]) if t else 0.0
        assert found[row, t] == pytest.approx(exact, rel=1e-9, abs=1e-10)


def test_g_is_ridge_regression():
    s = TASK.sample(4, step=1)
    found = generalising(s.x, s.y, noise_variance=NOISE)
    for row, t in product(range(4), range(1, 7)):
        ridge = Ridge(alpha=NOISE, fit_intercept=False, solver="svd").fit(s.x[row, :t], s.y[row, :t])
        assert found[row, t] == pytest.approx(ridge.predict(s.x[row, t : t + 1])[0], rel=1e-9, abs=1e-10)


def test_a_pool_of_one_law_is_that_law_and_a_pool_of_many_is_the_prior():
    s = TASK.sample(5, step=0)
    np.testing.assert_allclose(
        memorising(s.x, s.y, TASK.pool[:1], noise_variance=NOISE), s.x @ TASK.pool[0], rtol=1e-12
    )
    many = PooledRegressionTask(dim=2, context=4, diversity=20_000)
    s = many.sample(10, step=0, fresh=True)
    m, g = memorising(s.x, s.y, many.pool, noise_variance=1.0), generalising(s.x, s.y, noise_variance=1.0)
    assert m == pytest.approx(g, abs=0.1)
    assert np.abs(g).max() > 0.5


def test_each_is_the_best_and_is_calibrated_where_its_assumption_holds():
    """Calibrated: error and prediction do not go together, the mark of a conditional mean."""
    task = PooledRegressionTask(dim=4, context=8, diversity=6)
    for fresh in (False, True):
        s = task.sample(500, step=1, fresh=fresh)
        m = memorising(s.x, s.y, task.pool, noise_variance=task.noise_variance)
        g = generalising(s.x, s.y, noise_variance=task.noise_variance)
        right, wrong = (g, m) if fresh else (m, g)
        better = ((s.y - wrong) ** 2 - (s.y - right) ** 2).mean(1)
        assert better.mean() > 4 * better.std() / np.sqrt(500)
        z = [(each := ((s.y - p) * p).mean(1)).mean() / (each.std() / np.sqrt(500)) for p in (right, wrong)]
        assert abs(z[0]) < 3
        if fresh:
            assert abs(z[1]) > 5


def test_the_error_of_each_ends_at_the_noise():
    task = PooledRegressionTask(dim=2, context=40, diversity=4)
    s = task.sample(2000, step=3)
    m = memorising(s.x, s.y, task.pool, noise_variance=task.noise_variance)
    assert ((m - s.y)[:, -1] ** 2).mean() == pytest.approx(task.noise_variance, rel=0.1)
    g = generalising(s.x, s.y, noise_variance=task.noise_variance)
    assert ((g - s.y)[:, -1] ** 2).mean() == pytest.approx(task.noise_variance * (1 + 2 / 39), rel=0.1)


def test_the_largest_sizes_stay_exact():
    task = PooledRegressionTask(dim=8, context=320, diversity=4096)
    s = task.sample(1, step=0)
    m = memorising(s.x, s.y, task.pool, noise_variance=task.noise_variance)
    assert m[0, -1] == pytest.approx(task.pool[s.task[0]] @ s.x[0, -1], rel=1e-9)
    g = generalising(s.x, s.y, noise_variance=task.noise_variance)
    past = s.x[0, :-1]
    law = np.linalg.solve(past.T @ past + task.noise_variance * np.eye(8), past.T @ s.y[0, :-1])
    assert g[0, -1] == pytest.approx(law @ s.x[0, -1], rel=1e-9)


def test_laws_that_all_lie_far_off_are_still_told_apart():
    x, y = np.ones((1, 3, 1)), np.full((1, 3), 1e4)  # every density is 0 as a float
    found = memorising(x, y, np.array([[1.0], [2.0]]), noise_variance=0.1)
    assert found == pytest.approx(np.array([[1.5, 2.0, 2.0]]))


def test_chunks_change_nothing(monkeypatch):
    s = TASK.sample(7, step=0)
    whole = memorising(s.x, s.y, TASK.pool, noise_variance=NOISE), generalising(s.x, s.y, noise_variance=NOISE)
    monkeypatch.setattr(urns, "CHUNK", 18)
    assert len([*urns.chunks(7, 5)]) == 3
    np.testing.assert_allclose(memorising(s.x, s.y, TASK.pool, noise_variance=NOISE), whole[0], rtol=1e-12)
    np.testing.assert_allclose(generalising(s.x, s.y, noise_variance=NOISE), whole[1], rtol=1e-12)


def test_what_has_no_meaning_is_refused():
    s = TASK.sample(3, step=0)
    with pytest.raises(ValueError, match="got a pool of shape \\(0, 3\\)"):
        memorising(s.x, s.y, TASK.pool[:0], noise_variance=NOISE)
    with pytest.raises(ValueError, match="got a pool of shape \\(5, 2\\)"):
        memorising(s.x, s.y, TASK.pool[:, :2], noise_variance=NOISE)
    for noise in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="expected a finite number above 0"):
            generalising(s.x, s.y, noise_variance=noise)
    with pytest.raises(ValueError, match="not finite"):
        generalising(s.x * np.inf, s.y, noise_variance=NOISE)
