"""The predictors of Markov chains against posteriors computed by hand: products of probabilities, and integrals."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp

from mechicl.predictors import urns
from mechicl.predictors.chains import constant, generalising, memorising
from mechicl.tasks.chains import ChainTask

TASK = ChainTask(dim=3, context=6, diversity=5)


def losses(predictions, states):
    return -np.log(np.take_along_axis(predictions, states[..., None], -1)[..., 0])


def chance_of(states, chain):
    """Of a whole sequence: a uniform first state, then one move after another; exact where the chain is."""
    found = Fraction(1, len(chain))
    for before, after in pairwise(states):
        found *= chain[before][after]
    return found


def test_m_is_the_posterior_of_who_knows_the_pool():
    states = TASK.sample(8, step=0).tokens[:, 1:]
    found = memorising(states, TASK.pool)
    pool = [[[Fraction(p) for p in row] for row in chain] for chain in TASK.pool.tolist()]
    for row, t, state in product(range(8), range(1, 6), range(3)):
        past = states[row, :t].tolist()
        exact = sum(chance_of([*past, state], chain) for chain in pool) / sum(chance_of(past, chain) for chain in pool)
        assert found[row, t, state] == pytest.approx(float(exact), rel=1e-13)
    assert found[:, 0] == pytest.approx(1 / 3)


def test_g_is_the_posterior_of_who_knows_the_prior():
    """Two states, so that each row of a chain is one number, p = P(to 0): its integral by quadrature."""
    states = np.array([[0, 0, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])
    found = generalising(states, 2)
    for row, t in product(range(2), range(1, 7)):
        last = states[row, t - 1]
        moves = [after for before, after in pairwise(states[row, :t].tolist()) if before == last]
        zeros, ones = moves.count(0), moves.count(1)
        next_zero, so_far = (
            quad(lambda p, more=more, a=zeros, b=ones: p ** (a + more) * (1 - p) ** b, 0, 1)[0] for more in (1, 0)
        )
        assert found[row, t, 0] == pytest.approx(next_zero / so_far, rel=1e-10)
    assert found.sum(-1) == pytest.approx(1.0)
    assert found[:, 0] == pytest.approx(0.5)


def test_the_constant_has_the_lowest_expected_loss_of_all_constants():
    """That is the expected share of each state, over every sequence that there is."""
    pool = ChainTask(dim=2, context=4, diversity=3).pool
    share = np.zeros(2)
    for states in product(range(2), repeat=4):
        share += np.mean([float(chance_of(states, chain)) for chain in pool]) * np.bincount(states, minlength=2) / 4
    found = constant(np.zeros((2, 4), dtype=int), pool)
    assert found == pytest.approx(np.broadcast_to(share, (2, 4, 2)), rel=1e-12)


def test_a_pool_of_one_chain_is_that_chain():
    states = TASK.sample(5, step=0).tokens[:, 1:]
    found = memorising(states, TASK.pool[:1])
    np.testing.assert_allclose(found[:, 1:], TASK.pool[0][states[:, :-1]], rtol=1e-12)


def test_each_is_the_best_where_its_assumption_holds():
    task = ChainTask(dim=3, context=24, diversity=6)
    for fresh in (False, True):
        states = task.sample(300, step=1, fresh=fresh).tokens[:, 1:]
        m, g = losses(memorising(states, task.pool), states).mean(1), losses(generalising(states, 3), states).mean(1)
        better = m - g if fresh else g - m
        assert better.mean() > 4 * better.std() / np.sqrt(300)
    states = task.sample(300, step=1).tokens[:, 1:]
    assert losses(constant(states, task.pool), states).mean() > losses(memorising(states, task.pool), states).mean()


@pytest.mark.parametrize("fresh", [False, True])
def test_each_is_calibrated_where_its_assumption_holds_and_not_elsewhere(fresh):
    """Truth less prediction is a martingale difference, so its sum has variance sum p (1 - p) exactly."""
    task = ChainTask(dim=3, context=20, diversity=4)
    states = task.sample(1500, step=2, fresh=fresh).tokens[:, 1:]
    right, wrong = memorising(states, task.pool)[..., 0], generalising(states, 3)[..., 0]
    if fresh:
        right, wrong = wrong, right
    worst = []
    for p in (right, wrong):
        bins = np.digitize(p, np.quantile(p[:, 1:], [0.25, 0.5, 0.75]))
        parts = [(states[bins == part] == 0, p[bins == part]) for part in range(4)]
        worst.append(max(abs((truth - p).sum()) / np.sqrt((p * (1 - p)).sum()) for truth, p in parts))
    assert worst[0] < 3.5
    assert worst[1] > 5


def test_the_largest_sizes_agree_with_counts():
    task = ChainTask(dim=4, context=320, diversity=4096)
    states = task.sample(2, step=0).tokens[:, 1:]
    found = memorising(states, task.pool)
    for row, path in enumerate(states):
        moves = np.zeros((4, 4))
        np.add.at(moves, (path[:-2], path[1:-1]), 1)
        weights = np.einsum("ij,kij->k", moves, np.log(task.pool))
        weights = np.exp(weights - logsumexp(weights))
        np.testing.assert_allclose(found[row, -1], weights @ task.pool[:, path[-2]], rtol=1e-9)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


def test_chunks_change_nothing(monkeypatch):
    states = TASK.sample(7, step=0).tokens[:, 1:]
    whole = memorising(states, TASK.pool), generalising(states, 3)
    monkeypatch.setattr(urns, "CHUNK", 10)
    assert len([*urns.chunks(7, 5)]) == 4
    np.testing.assert_allclose(memorising(states, TASK.pool), whole[0], rtol=1e-14)
    assert np.array_equal(generalising(states, 3), whole[1])


def test_what_has_no_meaning_is_refused():
    sequences = TASK.sample(3, step=0)
    states = sequences.tokens[:, 1:]
    for refused in (
        lambda: memorising(sequences.tokens, TASK.pool),  # the start token left in
        lambda: generalising(sequences.tokens, 3),
        lambda: constant(sequences.tokens, TASK.pool),
        lambda: generalising(states - 3, 3),
    ):
        with pytest.raises(ValueError, match="expected 0 to 2, without the start token"):
            refused()
    with pytest.raises(ValueError, match="empty pool"):
        memorising(states, TASK.pool[:0])
    for pool in (TASK.pool * 0.9, TASK.pool * np.nan, np.eye(3)[None]):
        with pytest.raises(ValueError, match="above 0 that sum to 1"):
            memorising(states, pool)
