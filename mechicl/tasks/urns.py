"""Balls and urns: sequences of coloured balls, drawn with replacement from one urn of a pool.

An urn is a distribution over d colours, theta ~ Dirichlet(1, ..., 1); the pool holds D of them. A sequence is a start
token (d) and C balls (0 to d - 1) of one urn. The setting of 2506.17859 (there d = 8, 12, 16 and C = 128, 256, 320).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from mechicl.tasks.mixtures import as_steps, check_count, check_sizes, draw, stream


@dataclass(frozen=True, eq=False)
class TokenSequences:
    """Sequences of tokens, the start token first. task: which of the pool each was drawn from, -1 for a fresh one."""

    tokens: Int[np.ndarray, "batch pos"]
    task: Int[np.ndarray, " batch"]

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.tokens)


@dataclass(frozen=True)
class UrnTask:
    """What sequences are drawn from.

    dim: d, the number of colours. context: C, balls a sequence. diversity: D, urns in the pool.

    Errors (ValueError): sizes below 1 (dim below 2), more urns than a pool can hold.

        task = UrnTask(dim=8, context=64, diversity=64)
        sequences = task.sample(64, step=0)
        memorising(sequences.tokens[:, 1:], task.pool)       # mechicl.predictors.urns
    """

    dim: int = 8
    context: int = 64
    diversity: int = 64
    task_seed: int = 0
    data_seed: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        check_sizes(self, "dim", "context", "diversity")
        if self.dim < 2:
            raise ValueError(f"got dim={self.dim}; expected 2 colours or more")

    @cached_property
    def pool(self) -> Float[np.ndarray, "_ dim"]:
        """The urns, each the probabilities of the colours."""
        return stream(self.task_seed, "pool").dirichlet(np.ones(self.dim), self.diversity)

    def sample(self, n: int, *, step: int | Sequence[int], fresh: bool = False) -> TokenSequences:
        """Sequences, a pure function of the seeds and the step; fresh: of urns drawn anew, one a sequence."""
        check_count(n)
        rng = stream(self.data_seed, "data", as_steps(step))
        task = rng.integers(0, self.diversity, n)
        uniform = rng.random((n, self.context))
        if fresh:
            urns = stream(self.data_seed, "fresh", as_steps(step)).dirichlet(np.ones(self.dim), n)
            task = np.full(n, -1)
        else:
            urns = self.pool[task]
        balls = draw(uniform, np.broadcast_to(urns[:, None], (n, self.context, self.dim)))
        return TokenSequences(np.column_stack([np.full(n, self.dim), balls]), task)
