"""In-context linear regression over a pool of laws: each sequence has one of D vectors of weights.

    y = w . x + noise,    x ~ N(0, I_d),    w one of D draws from N(0, I_d),    variance of the noise d / 256

The setting of 2506.17859 (there d = 8, 12, 16 and C = 16, 32, 64) after 2306.15063. `mechicl.tasks.regression` is the
same without a pool: there every context has a law of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from mechicl.tasks.mixtures import as_steps, check_count, check_sizes, stream

NOISE_SHARE = 1 / 256  # of the variance of w . x


@dataclass(frozen=True, eq=False)
class PooledRegressions:
    """Sequences of inputs x and noisy labels y. task: which law of the pool each has; -1 for a fresh one."""

    x: Float[np.ndarray, "batch pos dim"]
    y: Float[np.ndarray, "batch pos"]
    task: Int[np.ndarray, " batch"]

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.y)


@dataclass(frozen=True)
class PooledRegressionTask:
    """What sequences are drawn from.

    dim: d. context: C, pairs a sequence. diversity: D, laws in the pool.

    Errors (ValueError): sizes below 1, more laws than a pool can hold.
    """

    dim: int = 8
    context: int = 16
    diversity: int = 64
    task_seed: int = 0
    data_seed: int = 0
    noise_seed: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        check_sizes(self, "dim", "context", "diversity")

    @property
    def noise_variance(self) -> float:
        """The variance of what is added to each label, d / 256."""
        return self.dim * NOISE_SHARE

    @cached_property
    def pool(self) -> Float[np.ndarray, "_ dim"]:
        """The laws, each a vector of weights."""
        return stream(self.task_seed, "pool").standard_normal((self.diversity, self.dim))

    def sample(self, n: int, *, step: int | Sequence[int], fresh: bool = False) -> PooledRegressions:
        """Sequences, a pure function of the seeds and the step; fresh: of laws drawn anew, one a sequence."""
        check_count(n)
        rng = stream(self.data_seed, "data", as_steps(step))
        task = rng.integers(0, self.diversity, n)
        x = rng.standard_normal((n, self.context, self.dim))
        if fresh:
            laws = stream(self.data_seed, "fresh", as_steps(step)).standard_normal((n, self.dim))
            task = np.full(n, -1)
        else:
            laws = self.pool[task]
        noise = stream(self.noise_seed, "noise", as_steps(step)).standard_normal((n, self.context))
        y = (x @ laws[..., None])[..., 0] + np.sqrt(self.noise_variance) * noise
        return PooledRegressions(x, y, task)
