"""Mixtures of tasks: what is drawn has the law that each task says, and hangs on the seeds alone."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from mechicl.predictors import chains, urns
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.mixtures import LARGEST_POOL, draw
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.urns import UrnTask

TASKS = [
    UrnTask(dim=3, context=5, diversity=6),
    ChainTask(dim=3, context=5, diversity=6),
    PooledRegressionTask(dim=3, context=5, diversity=6),
    ClassificationTask(dim=3, n_pairs=4, diversity=6),
]
every = pytest.mark.parametrize("task", TASKS, ids=lambda task: type(task).__name__)
tokens_only = pytest.mark.parametrize("kind", [UrnTask, ChainTask])


def same(one, other):
    return all(np.array_equal(part, getattr(other, name)) for name, part in vars(one).items())


@every
@pytest.mark.parametrize("fresh", [False, True])
def test_draws_are_a_pure_function_of_seeds_and_step(task, fresh):
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = task.sample(20, step=4, fresh=fresh)
    task.sample(3, step=0)
    assert same(first, task.sample(20, step=4, fresh=fresh))
    assert same(first, replace(task).sample(20, step=(4,), fresh=fresh))
    for step in (5, (4, 0), (4, 1)):
        assert not same(first, task.sample(20, step=step, fresh=fresh))
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert len(first) == 20
    assert task.context == 5


@every
def test_a_pool_is_the_beginning_of_a_larger_one(task):
    larger = replace(task, diversity=12)
    assert larger.pool.shape == (12, *task.pool.shape[1:])
    assert np.array_equal(larger.pool[:6], task.pool)
    if isinstance(task, ClassificationTask):
        assert np.array_equal(larger.pool_labels[:6], task.pool_labels)


@every
def test_each_seed_changes_its_own_part_alone(task):
    numbers = "query_item" if isinstance(task, ClassificationTask) else "task"
    base, fresh = task.sample(30, step=0), task.sample(30, step=0, fresh=True)
    other = replace(task, task_seed=9)
    assert not np.isclose(other.pool, task.pool).any()
    assert np.array_equal(getattr(other.sample(30, step=0), numbers), getattr(base, numbers))
    assert not same(other.sample(30, step=0), base)
    assert same(other.sample(30, step=0, fresh=True), fresh)  # fresh tasks know nothing of the pool
    data = replace(task, data_seed=9)
    assert np.array_equal(data.pool, task.pool)
    assert not np.array_equal(getattr(data.sample(30, step=0), numbers), getattr(base, numbers))
    assert not same(data.sample(30, step=0, fresh=True), fresh)


@tokens_only
def test_sequences_begin_with_the_start_token(kind):
    task = kind(dim=3, context=5, diversity=6)
    for fresh in (False, True):
        found = task.sample(200, step=0, fresh=fresh)
        assert found.tokens.shape == (200, 6)
        assert (found.tokens[:, 0] == 3).all()
        assert set(found.tokens[:, 1:].ravel().tolist()) == {0, 1, 2}
        assert set(found.task.tolist()) == ({-1} if fresh else set(range(6)))


@tokens_only
@pytest.mark.parametrize("fresh", [False, True])
def test_whole_sequences_are_as_frequent_as_the_pool_or_the_prior_makes_them(kind, fresh):
    """The chance of every sequence is the product of what the exact predictor gives its tokens, one after another."""
    task = kind(dim=2, context=4, diversity=3)
    cells = np.array([*product(range(2), repeat=4)])
    predictors = urns if kind is UrnTask else chains
    chances = {}
    for name, p in (("M", predictors.memorising(cells, task.pool)), ("G", predictors.generalising(cells, 2))):
        chances[name] = np.take_along_axis(p, cells[..., None], -1)[..., 0].prod(1)
        assert chances[name].sum() == pytest.approx(1.0)
    drawn = task.sample(4000, step=0, fresh=fresh).tokens[:, 1:]
    counts = np.bincount(drawn @ [8, 4, 2, 1], minlength=16)
    right, wrong = ("G", "M") if fresh else ("M", "G")
    assert chisquare(counts, 4000 * chances[right]).pvalue > 0.01
    assert chisquare(counts, 4000 * chances[wrong]).pvalue < 1e-6


@tokens_only
def test_each_task_has_sequences_of_its_own_law(kind):
    task = kind(dim=3, context=60, diversity=4)
    found = task.sample(400, step=1)
    assert chisquare(np.bincount(found.task)).pvalue > 0.01
    for number in range(4):
        shown = found.tokens[found.task == number, 1:]
        if kind is UrnTask:
            counts, expected = np.bincount(shown.ravel(), minlength=3), task.pool[number] * shown.size
        else:
            counts = np.zeros((3, 3))
            np.add.at(counts, (shown[:, :-1].ravel(), shown[:, 1:].ravel()), 1)
            expected = task.pool[number] * counts.sum(1, keepdims=True)
        assert (chisquare(counts, expected, axis=-1).pvalue > 0.005).all()
    if kind is ChainTask:
        assert chisquare(np.bincount(found.tokens[:, 1])).pvalue > 0.01


def test_pools_have_the_law_of_the_prior():
    """Each probability of a flat Dirichlet over d outcomes is Beta(1, d - 1)."""
    for pool in (UrnTask(dim=4, diversity=2000).pool, ChainTask(dim=4, diversity=500).pool):
        np.testing.assert_allclose(pool.sum(-1), 1)
        assert kstest(pool[..., 1].ravel(), "beta", (1, 3)).pvalue > 0.01
    laws = PooledRegressionTask(dim=4, diversity=2000).pool
    assert kstest(laws.ravel(), "norm").pvalue > 0.01
    assert laws.T @ laws / 2000 == pytest.approx(np.eye(4), abs=0.1)


def test_regression_has_the_moments_that_the_task_tells():
    task = PooledRegressionTask(dim=6, context=10, diversity=8)
    found = task.sample(3000, step=0)
    noise = found.y - np.einsum("btd,bd->bt", found.x, task.pool[found.task])
    assert noise.var() == pytest.approx(6 / 256, rel=0.03)
    assert kstest(noise.ravel() / np.sqrt(6 / 256), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(noise.T) - np.eye(10)).max() < 0.08
    x = found.x.reshape(-1, 6)
    assert x.T @ x / len(x) == pytest.approx(np.eye(6), abs=0.04)
    assert chisquare(np.bincount(found.task)).pvalue > 0.01
    fresh = task.sample(3000, step=0, fresh=True)
    assert (fresh.task == -1).all()
    assert fresh.y.var() == pytest.approx(6 + 6 / 256, rel=0.06)
    assert np.array_equal(fresh.x, found.x)  # the same inputs and noise, other laws
    laws = np.array([np.linalg.lstsq(x, y - e, rcond=None)[0] for x, y, e in zip(fresh.x, fresh.y, noise, strict=True)])
    assert laws.T @ laws / 3000 == pytest.approx(np.eye(6), abs=0.1)
    apart = np.linalg.norm(laws[:, None] - task.pool, axis=-1)
    assert apart.min() > 0.05


def test_regression_noise_has_a_seed_of_its_own():
    task = TASKS[2]
    base, other = task.sample(50, step=0), replace(task, noise_seed=1).sample(50, step=0)
    assert np.array_equal(base.x, other.x)
    assert np.array_equal(base.task, other.task)
    assert not np.isclose(base.y, other.y, atol=1e-9).any()


def test_fresh_items_of_classification_are_of_no_pool_and_never_shared():
    task = ClassificationTask(dim=5, n_pairs=4, diversity=2, noise=1e-6)  # so little noise that items are seen as such
    found = task.sample(2000, step=0, fresh=True)
    seen = found.x.reshape(-1, 5)
    assert seen.T @ seen / len(seen) == pytest.approx(np.eye(5) / 5, abs=0.01)
    assert len(np.unique(found.items)) == found.items.size == len(np.unique(seen.round(2), axis=0))
    assert np.linalg.norm(seen[:, None] - task.pool, axis=-1).min() > 0.02
    assert found.y.mean() == pytest.approx(0.5, abs=0.03)
    each = np.arange(2000)
    assert found.query == pytest.approx(found.x[each, found.source], abs=0.01)
    assert np.array_equal(found.target, found.y[each, found.source])
    assert np.array_equal(found.query_item, found.items[each, found.source])
    assert chisquare(np.bincount(found.source)).pvalue > 0.01


def test_draws_are_inverse_cumulative_sums():
    p = np.array([0.2, 0.5, 0.3])
    uniform = np.array([0.0, 0.19, 0.2, 0.69, 0.71, 1 - 2**-53])
    assert draw(uniform, np.broadcast_to(p, (6, 3))).tolist() == [0, 0, 1, 1, 2, 2]
    short = np.array([[0.5, 0.5 - 1e-9]])  # a sum that rounding left below 1
    assert draw(np.array([1 - 1e-10]), short).tolist() == [1]


@every
def test_sizes_without_a_meaning_are_refused(task):
    context = {"n_pairs": 0} if isinstance(task, ClassificationTask) else {"context": 0}
    for wrong in ({"diversity": 0}, {"dim": 0}, context):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=f"got {name}={value}; expected 1 or more"):
            replace(task, **wrong)
    with pytest.raises(ValueError, match=f"a pool holds {LARGEST_POOL} tasks at most"):
        replace(task, diversity=LARGEST_POOL + 1)
    assert replace(task, diversity=LARGEST_POOL).diversity == LARGEST_POOL
    with pytest.raises(ValueError, match="got n=0; expected 1 sequence or more"):
        task.sample(0, step=0)


@tokens_only
def test_one_outcome_is_too_few(kind):
    with pytest.raises(ValueError, match="got dim=1; expected 2"):
        kind(dim=1)
