"""In-context classification: what is drawn has the law that the task says, and hangs on the seeds alone."""

from dataclasses import replace

import numpy as np
import pytest

from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.mixtures import STREAMS, stream

TASK = ClassificationTask(dim=4, n_pairs=5, diversity=7, task_seed=3)


def test_items_and_pool_have_the_moments_that_the_task_tells():
    task = ClassificationTask(dim=5, n_pairs=3, diversity=20_000, noise=0.8)
    assert task.pool.shape == (20_000, 5)
    assert task.pool.T @ task.pool / 20_000 == pytest.approx(np.eye(5) / 5, abs=0.01)
    assert task.pool_labels.mean() == pytest.approx(0.5, abs=0.02)
    assert set(task.pool_labels.tolist()) == {0, 1}
    c = task.sample(5000, step=0)
    for seen in (c.x.reshape(-1, 5), c.query):
        assert seen.T @ seen / len(seen) == pytest.approx(np.eye(5) / 5, abs=0.02)  # noise leaves the variance as it is


def test_every_sight_of_an_item_has_noise_of_its_own():
    c = TASK.sample(6000, step=1)
    shown = TASK.pool[c.items]
    noise = np.sqrt(1.5) * c.x - shown
    again = np.sqrt(1.5) * c.query - TASK.pool[c.query_item]
    assert noise.var() == pytest.approx(0.5 / 4, rel=0.02)
    assert again.var() == pytest.approx(0.5 / 4, rel=0.04)
    source = noise[np.arange(len(c)), c.source]
    assert abs(np.corrcoef(source.ravel(), again.ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(noise.ravel(), shown.ravel())[0, 1]) < 0.02


def test_the_query_is_one_of_the_items_and_labels_never_change():
    c = TASK.sample(4000, step=2)
    assert np.array_equal(c.items[np.arange(len(c)), c.source], c.query_item)
    assert np.array_equal(TASK.pool_labels[c.items], c.y)
    assert np.array_equal(TASK.pool_labels[c.query_item], c.target)
    assert np.bincount(c.source) / len(c) == pytest.approx(1 / 5, abs=0.03)
    assert np.bincount(c.items.ravel()) / c.items.size == pytest.approx(1 / 7, abs=0.02)  # with replacement
    repeats = np.mean([len(set(row)) < 5 for row in c.items.tolist()])
    assert repeats == pytest.approx(1 - 7 * 6 * 5 * 4 * 3 / 7**5, abs=0.03)


def test_contexts_are_a_pure_function_of_seeds_and_step():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, later = (TASK.sample(6, step=step) for step in (4, 4, 5))
    for name in ("x", "y", "query", "target", "items", "source"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.items, later.items)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert not np.array_equal(first.x, TASK.sample(6, step=(4, 1)).x)
    assert len(first) == 6
    assert [part.shape for part in (first.x, first.y, first.query, first.target)] == [(6, 5, 4), (6, 5), (6, 4), (6,)]


def test_each_seed_changes_its_own_part_alone():
    base = TASK.sample(6, step=0)
    pool, data, noise = (replace(TASK, **{name: 9}) for name in ("task_seed", "data_seed", "noise_seed"))
    assert not np.array_equal(pool.pool, TASK.pool)
    assert np.array_equal(pool.sample(6, step=0).items, base.items)
    assert np.array_equal(data.pool, TASK.pool)
    assert not np.array_equal(data.sample(6, step=0).items, base.items)
    other = noise.sample(6, step=0)
    assert np.array_equal(other.items, base.items)
    assert not np.allclose(other.x, base.x)
    louder = replace(TASK, noise=2.0).sample(6, step=0)  # the same draws, scaled
    eps = (np.sqrt(3) * louder.x - TASK.pool[base.items]) / np.sqrt(2)
    assert eps == pytest.approx((np.sqrt(1.5) * base.x - TASK.pool[base.items]) / np.sqrt(0.5))


def test_no_two_streams_share_numbers():
    """Small seeds and steps too, which numpy would pad with zeros to the same entropy."""
    places = [(seed, kind, step) for seed in range(3) for kind in STREAMS for step in ((), (0,), (1,), (2,))]
    first = [stream(*place).integers(2**62) for place in places]
    assert len(set(first)) == len(places)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 0}, "got dim=0"),
        ({"n_pairs": 0}, "got n_pairs=0"),
        ({"diversity": 0}, "got diversity=0"),
        ({"noise": 0.0}, "got noise=0.0; expected a finite number above 0"),
        ({"noise": np.nan}, "got noise=nan"),
    ],
)
def test_tasks_without_a_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassificationTask(**options)
    with pytest.raises(ValueError, match="n=0"):
        TASK.sample(0, step=0)
