"""Few-shot prompts from a mixture of HMMs: [x_1, y_1, delimiter, ..., x_n, y_n, delimiter, x_test].

Every x is the first `length` observations of a sequence of the prompt's task, y the observation after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from mechicl.tasks.hmm import HMMMixture


@dataclass(frozen=True, eq=False)
class HMMPrompts:
    """Prompts: demonstrations (x, y), the query x_test, the observation that followed it (`answer`), and the task."""

    x: Int[np.ndarray, "batch demo pos"]
    y: Int[np.ndarray, "batch demo"]
    query: Int[np.ndarray, "batch pos"]
    answer: Int[np.ndarray, "batch"]
    task: Int[np.ndarray, "batch"]
    delimiter: int

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.task)

    def tokens(self) -> Int[np.ndarray, "batch _"]:
        """The prompts as token numbers, ready for a language model; its prediction at the last position is P(Y)."""
        ends = np.full_like(self.y, self.delimiter)
        demos = np.concatenate([self.x, self.y[..., None], ends[..., None]], axis=-1)
        return np.concatenate([demos.reshape(len(self), -1), self.query], axis=-1)

    def first(self, n_demos: int) -> HMMPrompts:
        """The same queries after the first demonstrations alone."""
        if not 0 <= n_demos <= self.y.shape[1]:
            raise ValueError(f"got n_demos={n_demos}; expected 0 to {self.y.shape[1]}, the demonstrations there are")
        return replace(self, x=self.x[:, :n_demos], y=self.y[:, :n_demos])

    def permuted(self, *, seed: int) -> HMMPrompts:
        """A control: inputs in random order against their labels, so that x no longer says anything about y."""
        rng = np.random.default_rng(seed)
        order = rng.permuted(np.broadcast_to(np.arange(self.y.shape[1]), self.y.shape), axis=1)
        return replace(self, x=np.take_along_axis(self.x, order[..., None], axis=1))


def sample_prompts(
    mixture: HMMMixture,
    n_prompts: int,
    n_demos: int,
    length: int,
    *,
    task: int | None = None,
    seed: int | Sequence[int],
) -> HMMPrompts:
    """Fresh prompts, a pure function of mixture and seed. Each has one task, drawn from the prior unless it is given.

    length: the observations of an x; 1 or more. Tasks and sequences have generators of their own.
    Raises ValueError for sizes out of range, and a task that does not exist.
    """
    for name, value, least in (("n_prompts", n_prompts, 1), ("n_demos", n_demos, 0), ("length", length, 1)):
        if value < least:
            raise ValueError(f"got {name}={value}; expected {least} or more")
    if task is not None and not 0 <= task < mixture.n_tasks:
        raise ValueError(f"got task={task}; expected a number from 0 to {mixture.n_tasks - 1}, or None to draw it")
    for_tasks, for_sequences = np.random.default_rng(seed).spawn(2)
    tasks = for_tasks.choice(mixture.n_tasks, size=n_prompts, p=mixture.prior)
    if task is not None:
        tasks = np.full(n_prompts, task)
    repeated = np.broadcast_to(tasks[:, None], (n_prompts, n_demos + 1))
    drawn = sample_sequences(mixture, repeated.ravel(), length + 1, rng=for_sequences)
    drawn = drawn.reshape(n_prompts, n_demos + 1, length + 1)
    return HMMPrompts(
        x=drawn[:, :-1, :-1],
        y=drawn[:, :-1, -1],
        query=drawn[:, -1, :-1],
        answer=drawn[:, -1, -1],
        task=tasks,
        delimiter=mixture.n_observations,
    )


def sample_sequences(
    mixture: HMMMixture, tasks: Int[np.ndarray, "item"], length: int, *, rng: np.random.Generator
) -> Int[np.ndarray, "item _"]:
    """One sequence of observations for each of the tasks, from the task's start state on."""
    emit, move = _ladder(mixture.emissions), _ladder(mixture.transitions)
    state = mixture.start[tasks]
    found = np.empty((len(tasks), length), dtype=np.int32)
    for position in range(length):
        row = tasks * mixture.n_states + state
        found[:, position] = _draw(emit, row, rng.random(len(tasks)))
        if position + 1 < length:
            state = _draw(move, row, rng.random(len(tasks)))
    return found


def _ladder(probs: Float[np.ndarray, "task state choice"]) -> Float[np.ndarray, "row choice"]:
    """Cumulative probabilities of every row, row r lifted by r: one sorted search then draws from all rows."""
    rows = probs.reshape(-1, probs.shape[-1])
    cumulative = np.cumsum(rows, axis=-1)
    cumulative /= cumulative[:, -1:]
    return cumulative + np.arange(len(rows))[:, None]


def _draw(
    ladder: Float[np.ndarray, "row choice"], row: Int[np.ndarray, "item"], uniform: Float[np.ndarray, "item"]
) -> Int[np.ndarray, "item"]:
    width = ladder.shape[1]
    place = np.searchsorted(ladder.ravel(), row + uniform, side="right")
    return np.minimum(place - row * width, width - 1)
