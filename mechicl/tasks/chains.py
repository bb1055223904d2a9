"""Mixtures of Markov chains: sequences of states, each from one chain of a pool.

A chain is a matrix of transition probabilities over d states, its rows drawn from Dirichlet(1, ..., 1); the pool holds
D of them. A sequence is a start token (d) and C states: the first uniform, each further one by the chain. The setting
of 2412.01003 (there d = 10 and C = 512), except that the first state is uniform there only in the long run: so both
Bayesian predictors are exact at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from mechicl.tasks.mixtures import as_steps, check_count, check_sizes, draw, stream
from mechicl.tasks.urns import TokenSequences


@dataclass(frozen=True)
class ChainTask:
    """What sequences are drawn from.

    dim: d, the number of states. context: C, states a sequence. diversity: D, chains in the pool.

    Errors (ValueError): sizes below 1 (dim below 2), more chains than a pool can hold.
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
            raise ValueError(f"got dim={self.dim}; expected 2 states or more")

    @cached_property
    def pool(self) -> Float[np.ndarray, "_ dim dim"]:
        """The chains: [k, i, j] is the probability that chain k goes from i to j."""
        return stream(self.task_seed, "pool").dirichlet(np.ones(self.dim), (self.diversity, self.dim))

    def sample(self, n: int, *, step: int | Sequence[int], fresh: bool = False) -> TokenSequences:
        """Sequences, a pure function of the seeds and the step; fresh: of chains drawn anew, one a sequence."""
        check_count(n)
        rng = stream(self.data_seed, "data", as_steps(step))
        task = rng.integers(0, self.diversity, n)
        first, uniform = rng.integers(0, self.dim, n), rng.random((self.context - 1, n))
        if fresh:
            chains = stream(self.data_seed, "fresh", as_steps(step)).dirichlet(np.ones(self.dim), (n, self.dim))
            task = np.full(n, -1)
        else:
            chains = self.pool[task]
        states = [np.full(n, self.dim), first]
        for moves in uniform:
            states.append(draw(moves, chains[np.arange(n), states[-1]]))
        return TokenSequences(np.column_stack(states), task)
