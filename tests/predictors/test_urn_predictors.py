"""The predictors of balls and urns against posteriors computed by hand: products of probabilities, and integrals."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp

from mechicl.predictors import urns
from mechicl.predictors.urns import constant, generalising, memorising
from mechicl.tasks.urns import UrnTask

TASK = UrnTask(dim=3, context=6, diversity=5)


def losses(predictions, balls):
    return -np.log(np.take_along_axis(predictions, balls[..., None], -1)[..., 0])


def test_m_is_the_posterior_of_who_knows_the_pool():
    balls = TASK.sample(8, step=0).tokens[:, 1:]
    found = memorising(balls, TASK.pool)
    pool = [[Fraction(p) for p in urn] for urn in TASK.pool.tolist()]
    for row, t, colour in product(range(8), range(6), range(3)):
        likelihoods = [np.prod([urn[ball] for ball in balls[row, :t]] + [Fraction(1)]) for urn in pool]
        exact = sum(p * urn[colour] for p, urn in zip(likelihoods, pool, strict=True)) / sum(likelihoods)
        assert found[row, t, colour] == pytest.approx(float(exact), rel=1e-13)


def test_g_is_the_posterior_of_who_knows_the_prior():
    """Two colours, so that an urn is one number: its integral by quadrature."""
    balls = np.array([[0, 0, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0]])
    found = generalising(balls, 2)
    for row, t in product(range(2), range(7)):
        zeros = int((balls[row, :t] == 0).sum())
        next_zero, so_far = (
            quad(lambda p, more=more, n=zeros, t=t: p ** (n + more) * (1 - p) ** (t - n), 0, 1)[0] for more in (1, 0)
        )
        assert found[row, t, 0] == pytest.approx(next_zero / so_far, rel=1e-10)
    assert found.sum(-1) == pytest.approx(1.0)


def test_the_constant_has_the_lowest_expected_loss_of_all_constants():
    """That is the expected share of each colour, over every sequence that there is."""
    task = UrnTask(dim=2, context=3, diversity=4)
    share = np.zeros(2)
    for balls in product(range(2), repeat=3):
        chance = np.mean([np.prod(urn[list(balls)]) for urn in task.pool])
        share += chance * np.bincount(balls, minlength=2) / 3
    found = constant(np.array([[0, 1, 1], [1, 1, 1]]), task.pool)
    assert found == pytest.approx(np.broadcast_to(share, (2, 3, 2)), rel=1e-12)


def test_a_pool_of_one_urn_is_that_urn():
    balls = TASK.sample(5, step=0).tokens[:, 1:]
    assert memorising(balls, TASK.pool[:1]) == pytest.approx(np.broadcast_to(TASK.pool[0], (5, 6, 3)))


@pytest.mark.parametrize("predict", [lambda balls: memorising(balls, TASK.pool), lambda balls: generalising(balls, 3)])
def test_the_past_counts_whatever_its_order_and_the_future_does_not(predict):
    balls = TASK.sample(5, step=0).tokens[:, 1:]
    turned, later = balls.copy(), balls.copy()
    turned[:, :4] = balls[:, 3::-1]
    later[:, 4:] = (balls[:, 4:] + 1) % 3
    np.testing.assert_allclose(predict(turned)[:, 4:], predict(balls)[:, 4:], rtol=1e-12)
    assert np.abs(predict(turned)[:, 1:4] - predict(balls)[:, 1:4]).max() > 1e-3
    assert np.array_equal(predict(later)[:, :5], predict(balls)[:, :5])
    assert np.abs(predict(later)[:, 5] - predict(balls)[:, 5]).max() > 1e-3


def test_each_is_the_best_where_its_assumption_holds():
    task = UrnTask(dim=4, context=24, diversity=6)
    for fresh in (False, True):
        balls = task.sample(400, step=1, fresh=fresh).tokens[:, 1:]
        m, g = losses(memorising(balls, task.pool), balls).mean(1), losses(generalising(balls, 4), balls).mean(1)
        better = g - m if not fresh else m - g
        assert better.mean() > 4 * better.std() / np.sqrt(400)
    balls = task.sample(400, step=1).tokens[:, 1:]
    assert losses(constant(balls, task.pool), balls).mean() > losses(memorising(balls, task.pool), balls).mean()


@pytest.mark.parametrize("fresh", [False, True])
def test_each_is_calibrated_where_its_assumption_holds_and_not_elsewhere(fresh):
    """Truth less prediction is a martingale difference, so its sum has variance sum p (1 - p) exactly."""
    task = UrnTask(dim=3, context=20, diversity=4)
    balls = task.sample(1500, step=2, fresh=fresh).tokens[:, 1:]
    found = {"M": memorising(balls, task.pool)[..., 0], "G": generalising(balls, 3)[..., 0]}
    right, wrong = ("G", "M") if fresh else ("M", "G")
    worst = {}
    for name, p in found.items():
        bins = np.digitize(p, np.quantile(p[:, 1:], [0.25, 0.5, 0.75]))
        z = []
        for part in range(4):
            here = bins == part
            z.append(((balls[here] == 0) - p[here]).sum() / np.sqrt((p[here] * (1 - p[here])).sum()))
        worst[name] = np.abs(z).max()
    assert worst[right] < 3.5
    assert worst[wrong] > 5


def test_products_too_small_for_a_float_are_no_trouble():
    pool = np.array([[1e-200, 1.0], [1e-199, 1.0]])
    balls = np.zeros((1, 6), dtype=int)
    for t, row in enumerate(memorising(balls, pool)[0]):  # weights 1 and 10^t
        assert row[0] == pytest.approx((1e-200 + 10**t * 1e-199) / (1 + 10**t), rel=1e-11)
    assert memorising(balls, pool)[..., 1] == pytest.approx(1.0)


def test_the_largest_sizes_agree_with_counts():
    task = UrnTask(dim=8, context=320, diversity=4096)
    balls = task.sample(2, step=0).tokens[:, 1:]
    found = memorising(balls, task.pool)
    counts = np.stack([np.bincount(row[:-1], minlength=8) for row in balls])
    weights = counts @ np.log(task.pool).T
    weights = np.exp(weights - logsumexp(weights, axis=-1, keepdims=True))
    np.testing.assert_allclose(found[:, -1], weights @ task.pool, rtol=1e-9)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


def test_chunks_change_nothing(monkeypatch):
    balls = TASK.sample(7, step=0).tokens[:, 1:]
    whole = memorising(balls, TASK.pool)
    monkeypatch.setattr(urns, "CHUNK", 2 * len(TASK.pool))
    assert [rows.stop - rows.start for rows in urns.chunks(7, 5)] == [2, 2, 2, 1]
    np.testing.assert_allclose(memorising(balls, TASK.pool), whole, rtol=1e-14)


def test_what_has_no_meaning_is_refused():
    sequences = TASK.sample(3, step=0)
    balls = sequences.tokens[:, 1:]
    for refused in (
        lambda: memorising(sequences.tokens, TASK.pool),  # the start token left in
        lambda: generalising(sequences.tokens, 3),
        lambda: constant(sequences.tokens, TASK.pool),
        lambda: generalising(balls - 3, 3),
    ):
        with pytest.raises(ValueError, match="expected 0 to 2, without the start token"):
            refused()
    with pytest.raises(ValueError, match="empty pool"):
        memorising(balls, TASK.pool[:0])
    for pool in (TASK.pool * 0.9, np.array([[0.0, 0.5, 0.5]]), np.array([[-0.5, 1.0, 0.5]]), TASK.pool * np.nan):
        with pytest.raises(ValueError, match="above 0 that sum to 1"):
            memorising(balls, pool)
