"""Mixtures of tasks: what transformers are trained on to see whether they memorise a pool of tasks or generalise.

A pool holds D tasks, drawn once from a prior (D is the *task diversity*). Every sequence draws one task of the pool and
then its data, so a model may know the pool by heart, or work from the prior and the context alone. Four settings:

    balls_and_urns     `mechicl.tasks.urns.UrnTask`                  D urns, sequences of balls      2506.17859
    markov_chains      `mechicl.tasks.chains.ChainTask`              D chains, sequences of states   2412.01003
    linear_regression  `mechicl.tasks.pooled_regression`             D vectors of weights            2306.15063
    classification     `mechicl.tasks.classification`                D items with labels             2506.17859

What they share is here. Every draw is a pure function of seeds and a step: task_seed sets the pool, data_seed which
tasks and inputs a step shows, noise_seed what is added to them. A pool of D tasks is the beginning of that of 2 D.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

STREAMS = ("pool", "labels", "data", "noise", "fresh")
LARGEST_POOL = 65_536  # memorising predictors weigh every task of the pool at every position


def stream(seed: int, kind: str, steps: Sequence[int] = ()) -> np.random.Generator:
    """A generator of random numbers for one kind of draw; no two kinds, seeds or steps of one length share numbers."""
    # by spawn key, since numpy takes [1] and [1, 0] for the same entropy
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS.index(kind), *steps)))


def as_steps(step: int | Sequence[int]) -> list[int]:
    """A step as a list. Training counts 0, 1, ...; other uses take two numbers, as (1, 0), which it never meets."""
    return [int(step)] if np.ndim(step) == 0 else [int(part) for part in step]  # type: ignore[union-attr,arg-type]


def check_sizes(task: Any, *names: str) -> None:
    """A ValueError for a size below 1, and for more tasks than a pool can hold."""
    for name in names:
        if getattr(task, name) < 1:
            raise ValueError(f"got {name}={getattr(task, name)}; expected 1 or more")
    if task.diversity > LARGEST_POOL:
        raise ValueError(f"got diversity={task.diversity}; a pool holds {LARGEST_POOL} tasks at most")


def check_count(n: int) -> None:
    """A ValueError where nothing was asked for."""
    if n < 1:
        raise ValueError(f"got n={n}; expected 1 sequence or more")


def draw(
    uniform: Float[np.ndarray, "*batch"], probabilities: Float[np.ndarray, "*batch _"]
) -> Int[np.ndarray, "*batch"]:
    """One outcome of each distribution, by the inverse of its cumulative sum."""
    outcome = (uniform[..., None] >= probabilities.cumsum(-1)).sum(-1)
    return np.asarray(outcome.clip(max=probabilities.shape[-1] - 1))  # rounding may leave the last sum below 1
