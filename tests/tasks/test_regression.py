"""In-context regression: what is drawn has the moments, the noise and the independence that the task says."""

import numpy as np
import pytest

from mechicl.tasks.regression import RegressionTask

N = 40_000
COVARIANCE = np.array([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 0.5]])


@pytest.mark.parametrize(
    ("task", "variance", "fourth"),
    [
        (RegressionTask(3, 2, "uniform", scale=0.5), 1 / 12, 1 / 80),
        (RegressionTask(3, 2, "uniform"), 1 / 3, 1 / 5),
        (RegressionTask(3, 2, "normal", scale=2.0), 4.0, 48.0),
    ],
)
def test_inputs_have_the_moments_that_the_task_tells(task, variance, fourth):
    assert task.moments == pytest.approx((variance, fourth))
    x = task.sample(N, seed=1).x.ravel()
    for power, true in ((1, 0.0), (2, variance), (4, fourth)):
        assert (x**power).mean() == pytest.approx(true, abs=5 * (x**power).std() / np.sqrt(x.size))
    assert task.input_covariance == pytest.approx(variance * np.eye(3))


def test_a_covariance_is_that_of_inputs_and_queries():
    task = RegressionTask(3, 2, "normal", covariance=COVARIANCE)
    c = task.sample(N, seed=1)
    for rows in (c.x.reshape(-1, 3), c.query):
        assert rows.T @ rows / len(rows) == pytest.approx(COVARIANCE, abs=0.08)
    assert task.input_covariance == pytest.approx(COVARIANCE)
    assert hash(task) == hash(RegressionTask(3, 2, "normal", covariance=COVARIANCE.tolist()))
    with pytest.raises(ValueError, match="best_preconditioner"):
        _ = task.moments


def test_labels_follow_the_law_and_noise_is_added_to_demonstrations_alone():
    clean, noisy = (RegressionTask(4, 5, noise=s, weight_scale=3.0).sample(8000, seed=2) for s in (0.0, 0.7))
    assert clean.y == pytest.approx(np.einsum("bnd,bd->bn", clean.x, clean.weights), abs=1e-12)
    assert clean.target == pytest.approx(np.einsum("bd,bd->b", clean.query, clean.weights), abs=1e-12)
    assert np.array_equal(clean.x, noisy.x)  # common random numbers: only the noise differs
    assert np.array_equal(clean.target, noisy.target)
    noise = noisy.y - clean.y
    assert noise.std() == pytest.approx(0.7, rel=0.02)
    assert abs(np.corrcoef(noise.ravel(), clean.y.ravel())[0, 1]) < 0.02
    assert clean.weights.std() == pytest.approx(3.0, rel=0.02)
    assert abs(np.corrcoef(clean.weights[:, 0], clean.weights[:, 1])[0, 1]) < 0.05


def test_contexts_are_a_pure_function_of_the_seed():
    task = RegressionTask(3, 4)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (task.sample(5, seed=s) for s in ((3, 1), (3, 1), (3, 2)))
    assert np.array_equal(first.x, again.x)
    assert np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.x, other.x)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert len(first) == 5
    assert [a.shape for a in (first.x, first.y, first.query, first.target)] == [(5, 4, 3), (5, 4), (5, 3), (5,)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "got dim=0"),
        ({"n_demos": 0}, "got n_demos=0"),
        ({"inputs": "cauchy"}, "expected one of uniform, normal"),
        ({"scale": 0.0}, "got scale=0.0; expected a finite number, above 0"),
        ({"noise": -1.0}, "got noise=-1.0"),
        ({"weight_scale": np.inf}, "got weight_scale=inf"),
        ({"covariance": np.eye(2)}, "it is for inputs='normal'"),
        ({"inputs": "normal", "covariance": np.eye(3)}, "expected (2, 2)"),
        ({"inputs": "normal", "covariance": -np.eye(2)}, "all eigenvalues above 0"),
    ],
)
def test_tasks_without_a_meaning_are_refused(options, message):
    with pytest.raises(ValueError) as error:
        RegressionTask(**{"dim": 2, "n_demos": 3} | options)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="n_contexts=0"):
        RegressionTask(2, 3).sample(0, seed=0)
