"""Accounts of urns and chains against the predictors of the package, loops over outcomes, and automatic gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mechicl.accounts.draws import Draws, draw_accounts
from mechicl.predictors import chains, urns
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.urns import UrnTask

URNS, CHAINS = UrnTask(dim=4, context=12, diversity=6), ChainTask(dim=3, context=12, diversity=6)


def examples_of(task, length=9, n=25):
    balls = task.sample(n, step=(1, 0)).tokens[:, 1:]
    return balls, Draws(balls[:, :length].copy(), task.dim, task.pool, "urns" if task is URNS else "chains")


def said(name, examples, **parameters):
    found = {one.name: one for one in draw_accounts(examples)}[name].predict(examples, **parameters)
    assert found.shape == (len(examples), examples.dim)
    assert found.sum(-1) == pytest.approx(1.0)
    return found


@pytest.mark.parametrize(("task", "predictors"), [(URNS, urns), (CHAINS, chains)])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_bayesian_accounts_are_those_of_the_predictors(task, predictors, length):
    balls, examples = examples_of(task, length)
    memory = predictors.memorising(balls, task.pool)[:, length]
    general = predictors.generalising(balls, task.dim)[:, length]
    assert said("memorising", examples) == pytest.approx(memory, rel=1e-10)
    assert said("generalising", examples) == pytest.approx(general, rel=1e-10)
    assert said("mixture of strategies", examples, log_odds=0.0) == pytest.approx((memory + general) / 2, rel=1e-10)


@pytest.mark.parametrize("task", [URNS, CHAINS])
def test_the_recency_kernel_counts_by_hand(task):
    _, examples = examples_of(task)
    for row, sequence in enumerate(examples.balls):
        votes = np.zeros(task.dim)
        for i, ball in enumerate(sequence):
            if task is URNS or (i > 0 and sequence[i - 1] == sequence[-1]):
                votes[ball] += np.exp(-(len(sequence) - 1 - i) / 3.0)
        exact = (votes + 2.0 / task.dim) / (votes.sum() + 2.0)
        assert said("recency kernel", examples, tau=3.0, alpha=2.0)[row] == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("task", [URNS, CHAINS])
def test_a_kernel_without_recency_is_the_generalising_predictor(task):
    _, examples = examples_of(task)
    found = said("recency kernel", examples, tau=1e12, alpha=float(task.dim))
    assert found == pytest.approx(said("generalising", examples), rel=1e-9)
    assert said("recency kernel", examples, tau=3.0, alpha=4.0) != pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize("task", [URNS, CHAINS])
@pytest.mark.parametrize("loss", ["mean", "sum"])
def test_descent_is_that_of_automatic_gradients(task, loss):
    """Of a table of logits, one row a state; urns have a single row."""
    _, examples = examples_of(task)
    found = said("gradient descent", examples, steps=3, loss=loss, rate=0.7)
    for row, sequence in enumerate(examples.balls[:6]):
        balls = torch.from_numpy(sequence)
        before, after = (torch.zeros_like(balls), balls) if task is URNS else (balls[:-1], balls[1:])
        table = torch.zeros(task.dim, task.dim, dtype=torch.float64, requires_grad=True)
        for _ in range(3):
            value = torch.nn.functional.cross_entropy(table[before], after, reduction=loss)
            (slope,) = torch.autograd.grad(value, table)
            table = (table - 0.7 * slope).detach().requires_grad_()
        last = 0 if task is URNS else int(balls[-1])
        assert found[row] == pytest.approx(table[last].softmax(-1).detach().numpy(), rel=1e-10)


def test_baselines():
    _, examples = examples_of(URNS)
    _, states = examples_of(CHAINS)
    assert said("uniform", examples) == pytest.approx(0.25)
    assert said("pool mean", examples) == pytest.approx(np.tile(URNS.pool.mean(0), (25, 1)))
    assert said("pool mean", states) == pytest.approx(CHAINS.pool.mean(0)[states.balls[:, -1]])
    copied = said("copy last", examples, mix=0.2)
    assert copied[np.arange(25), examples.balls[:, -1]] == pytest.approx(0.8 + 0.05)


def test_urns_know_no_order_but_of_the_last_balls():
    _, examples = examples_of(URNS)
    other = replace(examples, balls=examples.balls[:, ::-1].copy())
    for one in draw_accounts(examples):
        parameters = {name: values[1] for name, values in one.choices.items()} | {f.name: f.at(0.3) for f in one.free}
        same = np.allclose(one.predict(examples, **parameters), one.predict(other, **parameters), rtol=1e-9)
        assert same == (one.name not in ("copy last", "recency kernel")), one.name


def test_many_tasks_are_weighed_in_parts():
    """A pool larger than what is weighed at once: parts make no difference."""
    task = UrnTask(dim=3, context=6, diversity=9000)
    balls = task.sample(40, step=(1, 0)).tokens[:, 1:]
    examples = Draws(balls, 3, task.pool, "urns")
    one = examples.take(np.array([33]))
    assert said("memorising", one)[0] == pytest.approx(said("memorising", examples)[33], rel=1e-10)
    assert said("memorising", one)[0] == pytest.approx(
        urns.memorising(np.column_stack([balls[33:34], [[0]]]), task.pool)[0, -1], rel=1e-10
    )


def test_errors():
    balls, examples = examples_of(URNS)
    with pytest.raises(ValueError, match="without an outcome"):
        Draws(balls[:, :0], 4, URNS.pool, "urns")
    with pytest.raises(ValueError, match="start token"):
        Draws(URNS.sample(3, step=0).tokens, 4, URNS.pool, "urns")
    with pytest.raises(ValueError, match="pool of shape"):
        Draws(balls, 4, URNS.pool, "chains")
    with pytest.raises(ValueError, match="kind"):
        Draws(balls, 4, URNS.pool, "balls")
    with pytest.raises(ValueError, match="expected Draws"):
        draw_accounts("urns")
    assert len(draw_accounts(examples)) == len(draw_accounts(URNS)) == 8
