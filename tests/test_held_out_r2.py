"""Explained shares: plain sums, scikit-learn's R^2, and intervals that hold the truth as often as they say."""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from mechicl.held_out_r2 import explained_shares

NONE = np.zeros((4, 1))


def test_it_is_r2_of_the_sums() -> None:
    rng = np.random.default_rng(0)
    target, guess = rng.normal(size=(2, 12, 3, 5))  # item head demo
    target -= target.mean(-1, keepdims=True)
    around, errors = (target**2).sum(-1), ((target - guess) ** 2).sum(-1)
    found = explained_shares(errors, around, around, np.arange(12), n_boot=100)
    for head in range(3):
        # every prompt's own mean is 0, so it is the mean of all that scikit-learn compares with
        assert found.estimate[head] == pytest.approx(r2_score(target[:, head].ravel(), guess[:, head].ravel()))
    assert (found.low < found.estimate).all() and (found.estimate < found.high).all()


def test_a_larger_model_adds_the_difference_of_two() -> None:
    rng = np.random.default_rng(0)
    large, small, around = (rng.uniform(low, low + 1, size=(9, 2)) for low in (1, 2, 3))
    queries = rng.integers(4, size=9)
    added = explained_shares(large, small, around, queries, n_boot=200)
    alone = [explained_shares(errors, around, around, queries, n_boot=200) for errors in (large, small)]
    np.testing.assert_allclose(added.estimate, alone[0].estimate - alone[1].estimate)
    # One that is worse than nothing: to undo its harm is no merit.
    added = explained_shares(large, around + 5, around, queries, n_boot=200)
    for name in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(added, name), getattr(alone[0], name))


def test_one_prompt_of_a_query_is_as_good_as_three_alike() -> None:
    """Copies within a query widen nothing and narrow nothing: the query is what is drawn."""
    rng = np.random.default_rng(0)
    errors, around = rng.uniform(1, 2, size=(2, 10, 4))
    once = explained_shares(errors, around, around, np.arange(10), n_boot=300, seed=2)
    thrice = explained_shares(*(np.repeat(x, 3, 0) for x in (errors, around, around)), np.repeat(np.arange(10), 3),
                              n_boot=300, seed=2)  # fmt: skip
    for name in ("estimate", "low", "high"):
        np.testing.assert_allclose(getattr(thrice, name), getattr(once, name), atol=1e-12)


def test_intervals_hold_the_truth() -> None:
    """1,000 heads, each a sample of its own: 40 queries of unequal numbers of prompts, which resemble each other."""
    rng = np.random.default_rng(0)
    heads, queries = 1_000, np.repeat(np.arange(40), rng.integers(1, 4, size=40))
    shared = rng.normal(size=(40, heads, 6))[queries]
    target = shared + rng.normal(size=(len(queries), heads, 6))
    errors = ((target - 0.4 * shared) ** 2).sum(-1)  # per demonstration: .36 + 1 of 2
    found = explained_shares(errors, (target**2).sum(-1), (target**2).sum(-1), queries, n_boot=400)
    truth = 1 - 1.36 / 2
    assert abs(found.estimate.mean() - truth) < 0.005
    assert 0.91 < np.mean((found.low <= truth) & (truth <= found.high)) < 0.97
    wide = np.mean(found.high - found.low)
    ignoring = explained_shares(errors, (target**2).sum(-1), (target**2).sum(-1), np.arange(len(queries)), n_boot=400)
    assert np.mean(ignoring.high - ignoring.low) < 0.9 * wide  # what a bootstrap of prompts would get wrong
    half = explained_shares(errors, (target**2).sum(-1), (target**2).sum(-1), queries, n_boot=400, level=0.5)
    assert 0.44 < np.mean((half.low <= truth) & (truth <= half.high)) < 0.56


def test_seeds_and_gaps() -> None:
    rng = np.random.default_rng(0)
    errors, around = rng.uniform(1, 2, size=(2, 8, 2))
    around[:, 1] = errors[:, 1] = 0.0  # a head that varies nowhere
    first, again, other = (
        explained_shares(errors, around, around, np.arange(8), n_boot=100, seed=s) for s in (1, 1, 2)
    )
    assert first.low[0] == again.low[0] != other.low[0]
    assert np.isnan([first.estimate[1], first.low[1], first.high[1]]).all()
    with pytest.raises(ValueError, match="level"):
        explained_shares(NONE, NONE, NONE, np.arange(4), level=95.0)
