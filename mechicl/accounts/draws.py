"""Accounts of sequences drawn from urns or Markov chains: the probability of each next outcome, from those so far.

With n outcomes b_1, ..., b_n of d kinds, the counts of the next outcome's law being those of all balls (urns), or those
of the moves from the last state (chains):

    uniform                  1/d, the anchor
    pool mean                the pool's mean urn; of chains the mean row of the last state
    copy last                (1 - mix) [the last outcome] + mix / d
    gradient descent         softmax of logits after steps on the mean cross-entropy of the outcomes so far, from 0:
                             z <- z + rate (share of each outcome - share of all * softmax(z)); of the summed loss
                             counts stand for shares; of chains a table of logits is learned, so shares are those of
                             all moves
    recency kernel           (sum_i w_i [b_i] + alpha / d) / (sum_i w_i + alpha),    w_i = exp(-age_i / tau); of chains
                             over the moves from the last state; the last outcome has age 0
    generalising             (counts + 1) / (their sum + d), the posterior of who knows the prior of laws alone
    memorising               the posterior of who knows the pool by heart
    mixture of strategies    p memorising + (1 - p) generalising,    p = 1 / (1 + exp(-log_odds)), of all contexts alike

Probabilities sum to 1; chance is 1/d. The recency kernel with an endless tau and alpha = d is the generalising
predictor: where both are as near, the one with nothing free is to be preferred. Sources: 2506.17859 (strategies),
2412.01003 (chains). Errors (ValueError): outcomes out of range, no outcome, a pool of another shape or of none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, softmax

from mechicl.accounts.account import Account, Free
from mechicl.predictors.urns import check_pool, check_tokens, chunks
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.urns import UrnTask

KIND = "draws"
ANCHOR = "uniform"
KINDS = ("urns", "chains")
STEPS = (1, 2, 4, 8, 16, 32, 64)
LOSSES = ("mean", "sum")  # over the outcomes so far
LOG_ODDS = Free("log_odds", -8.0, 8.0, scale="linear", n_grid=9)


@dataclass(frozen=True, eq=False)
class Draws:
    """Sequences of one length, without the start token, and the pool they may come from.

    dim: d. pool: urns [D, d] or chains [D, d, d]. kind: "urns" or "chains".
    """

    balls: Int[np.ndarray, "batch demo"]
    dim: int
    pool: Float[np.ndarray, "_ *dim dim"]
    kind: str

    def __post_init__(self) -> None:
        """Check outcomes and pool."""
        if self.kind not in KINDS:
            raise ValueError(f"got kind={self.kind!r}; expected one of {', '.join(KINDS)}")
        if not self.balls.shape[1]:
            raise ValueError("got sequences without an outcome; expected 1 or more")
        check_tokens(self.balls, self.dim)
        check_pool(self.pool)
        expected = (self.dim,) * (1 if self.kind == "urns" else 2)
        if self.pool.shape[1:] != expected:
            raise ValueError(f"got a pool of shape {self.pool.shape} for {self.kind}; expected (tasks, *{expected})")

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.balls)

    def take(self, rows: Int[np.ndarray, " _"]) -> Draws:
        """Some of the sequences."""
        return replace(self, balls=self.balls[rows])

    @cached_property
    def votes(self) -> Float[np.ndarray, "batch demo dim"]:
        """The outcomes that speak of the next one, one-hot: all balls; of chains those that followed the last state."""
        shown = np.eye(self.dim)[self.balls]
        if self.kind == "chains":
            shown[:, 0] = 0
            shown[:, 1:] *= (self.balls[:, :-1] == self.balls[:, -1:])[..., None]
        return shown

    @cached_property
    def counts(self) -> Float[np.ndarray, "batch dim"]:
        """How often each outcome spoke."""
        return self.votes.sum(1)

    @cached_property
    def generalising(self) -> Float[np.ndarray, "batch dim"]:
        """The posterior of who knows the prior alone."""
        return (self.counts + 1) / (self.counts.sum(-1, keepdims=True) + self.dim)

    @cached_property
    def memorising(self) -> Float[np.ndarray, "batch dim"]:
        """The posterior of who knows the pool, by counts of balls or moves."""
        seen = self._all_counts()
        logs = np.log(self.pool).reshape(len(self.pool), -1).T
        found = np.empty((len(self), self.dim))
        for rows in chunks(len(self), len(self.pool)):
            weights = softmax(seen[rows] @ logs, axis=-1)
            if self.kind == "urns":
                found[rows] = weights @ self.pool
            else:
                last = self.balls[rows, -1]
                for state in np.unique(last):
                    here = np.flatnonzero(last == state)
                    found[rows.start + here] = weights[here] @ self.pool[:, state]
        return found

    def _all_counts(self) -> Float[np.ndarray, "batch _"]:
        """Counts of balls, or of all moves, whatever the last state."""
        if self.kind == "urns":
            return self.counts
        moves = self.balls[:, :-1] * self.dim + self.balls[:, 1:]
        found = np.zeros((len(self), self.dim**2))
        np.add.at(found, (np.arange(len(self))[:, None], moves), 1)
        return found


def draw_accounts(of: object) -> tuple[Account, ...]:
    """The accounts for `Draws`, an UrnTask or a ChainTask."""
    if not isinstance(of, Draws | UrnTask | ChainTask):
        raise ValueError(f"got {type(of).__name__}; expected Draws, UrnTask or ChainTask")
    mix = Free("mix", 0.0, 1.0, scale="linear")
    return (
        Account("uniform", "baseline", _uniform, "every outcome alike"),
        Account("pool mean", "baseline", _pool_mean, "what the pool holds on average"),
        Account("copy last", "baseline", _copy_last, "the last outcome again", (mix,)),
        Account(
            "gradient descent",
            "gradient",
            _descent,
            "steps of gradient descent on the cross-entropy of the outcomes so far, from logits 0",
            (Free("rate", 0.005, 500.0, n_grid=16),),
            {"steps": STEPS, "loss": LOSSES},
        ),
        Account(
            "recency kernel",
            "kernel",
            _recency,
            "counts of the outcomes so far, those of late more",
            (Free("tau", 0.3, 1000.0, n_grid=9), Free("alpha", 0.03, 100.0)),
        ),
        Account("generalising", "bayes", _generalising, "the posterior of who knows the prior of laws alone"),
        Account("memorising", "bayes", _memorising, "the posterior of who knows the pool by heart"),
        Account("mixture of strategies", "bayes", _mixture, "memorising and generalising at fixed odds", (LOG_ODDS,)),
    )


def _uniform(examples: Draws) -> Float[np.ndarray, "batch label"]:
    return np.full((len(examples), examples.dim), 1 / examples.dim)


def _pool_mean(examples: Draws) -> Float[np.ndarray, "batch label"]:
    mean = examples.pool.mean(0)
    if examples.kind == "chains":
        return mean[examples.balls[:, -1]]
    return np.broadcast_to(mean, (len(examples), examples.dim)).copy()


def _copy_last(examples: Draws, *, mix: float) -> Float[np.ndarray, "batch label"]:
    return (1 - mix) * np.eye(examples.dim)[examples.balls[:, -1]] + mix / examples.dim


def _descent(examples: Draws, *, steps: int, loss: str, rate: float) -> Float[np.ndarray, "batch label"]:
    n = examples.balls.shape[1] - (examples.kind == "chains")
    share = examples.counts / (max(n, 1) if loss == "mean" else 1)
    total = share.sum(-1, keepdims=True)
    logits = np.zeros_like(share)
    for _ in range(steps):
        logits = logits + rate * (share - total * softmax(logits, axis=-1))
    return softmax(logits, axis=-1)


def _recency(examples: Draws, *, tau: float, alpha: float) -> Float[np.ndarray, "batch label"]:
    age = np.arange(examples.balls.shape[1])[::-1]
    votes = np.exp(-age / tau) @ examples.votes
    return (votes + alpha / examples.dim) / (votes.sum(-1, keepdims=True) + alpha)


def _generalising(examples: Draws) -> Float[np.ndarray, "batch label"]:
    return examples.generalising


def _memorising(examples: Draws) -> Float[np.ndarray, "batch label"]:
    return examples.memorising


def _mixture(examples: Draws, *, log_odds: float) -> Float[np.ndarray, "batch label"]:
    share = float(expit(log_odds))
    return share * examples.memorising + (1 - share) * examples.generalising
