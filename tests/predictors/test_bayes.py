"""One door to the predictors of every setting: it passes on what they give, in one shape."""

import numpy as np
import pytest

from mechicl.predictors import chains, classification, pooled_regression, urns
from mechicl.predictors.bayes import predict_strategies, prediction_losses
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.regression import RegressionTask
from mechicl.tasks.urns import UrnTask

TASKS = [
    UrnTask(dim=3, context=8, diversity=4),
    ChainTask(dim=3, context=12, diversity=4),
    PooledRegressionTask(dim=3, context=6, diversity=4),
    ClassificationTask(dim=4, n_pairs=9, diversity=4),
]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(("task", "predictors"), [(TASKS[0], urns), (TASKS[1], chains)])
def test_tokens_go_to_their_predictors_without_the_start_token(task, predictors, fresh):
    batch = task.sample(5, step=0, fresh=fresh)
    found, outcomes = predict_strategies(task, batch), batch.tokens[:, 1:]
    assert np.array_equal(found.memorising, predictors.memorising(outcomes, task.pool))
    assert np.array_equal(found.generalising, predictors.generalising(outcomes, 3))
    assert np.array_equal(found.constant, predictors.constant(outcomes, task.pool))
    assert np.array_equal(found.truth, outcomes)
    assert found.memorising.shape == (5, task.context, 3)
    assert len(found) == 5


def test_regression_has_one_mean_a_position():
    task = TASKS[2]
    batch = task.sample(5, step=0)
    found = predict_strategies(task, batch)
    options = {"noise_variance": 3 / 256}
    expected = pooled_regression.memorising(batch.x, batch.y, task.pool, **options)
    assert np.array_equal(found.memorising, expected[..., None])
    expected = pooled_regression.generalising(batch.x, batch.y, **options)
    assert np.array_equal(found.generalising, expected[..., None])
    assert found.constant is None
    assert np.array_equal(found.truth, batch.y)


@pytest.mark.parametrize("fresh", [False, True])
def test_classification_has_the_query_alone(fresh, monkeypatch):
    task = TASKS[3]
    batch = task.sample(5, step=0, fresh=fresh)
    monkeypatch.setattr(urns, "CHUNK", 18)  # two contexts at a time
    found = predict_strategies(task, batch)
    memorising = classification.memorising(batch.query, task.pool, task.pool_labels)
    np.testing.assert_allclose(found.memorising, memorising[:, None], rtol=1e-12)
    generalising = classification.generalising(batch.query, batch.x, batch.y)
    np.testing.assert_allclose(found.generalising, generalising[:, None], rtol=1e-12)
    assert found.constant is None
    assert np.array_equal(found.truth, batch.target[:, None])


@pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
def test_m_is_better_on_the_pool_and_g_off_it(task):
    for fresh in (False, True):
        found = predict_strategies(task, task.sample(500, step=1, fresh=fresh))
        losses = [prediction_losses(p, found.truth).mean(1) for p in (found.memorising, found.generalising)]
        better = losses[0] - losses[1] if fresh else losses[1] - losses[0]
        assert better.mean() > 4 * better.std() / np.sqrt(500)


def test_losses_are_nats_or_squared_errors():
    p = np.array([[[0.2, 0.8], [0.5, 0.5]]])
    assert prediction_losses(p, np.array([[1, 0]])) == pytest.approx(-np.log([[0.8, 0.5]]))
    assert prediction_losses(np.array([[[1.5], [2.0]]]), np.array([[1.0, 4.0]])) == pytest.approx(
        np.array([[0.25, 4.0]])
    )


def test_losses_without_a_meaning_are_refused():
    p, truth = np.full((2, 3, 4), 0.25), np.zeros((2, 3), dtype=int)
    for wrong in (p * 0.9, p * np.nan, np.eye(4)[None, :3].repeat(2, 0)):
        with pytest.raises(ValueError, match="above 0 that sum to 1"):
            prediction_losses(wrong, truth)
    for wrong in (truth - 1, truth + 4):
        with pytest.raises(ValueError, match="expected 0 to 3"):
            prediction_losses(p, wrong)
    with pytest.raises(ValueError, match="got 4 labels for a truth of numbers"):
        prediction_losses(p, truth.astype(float))


def test_other_tasks_and_batches_are_refused():
    other = RegressionTask(dim=3, n_demos=4)
    with pytest.raises(TypeError, match="got RegressionTask with TokenSequences; expected a task and its batch"):
        predict_strategies(other, TASKS[0].sample(2, step=0))
    with pytest.raises(TypeError, match="got UrnTask with PooledRegressions"):
        predict_strategies(TASKS[0], TASKS[2].sample(2, step=0))
    with pytest.raises(ValueError, match="expected 0 to 1, without the start token"):  # of more colours
        predict_strategies(UrnTask(dim=2), TASKS[0].sample(2, step=0))
