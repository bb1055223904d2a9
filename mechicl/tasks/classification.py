"""In-context classification: noisy items with labels, and a query whose item is one of them.

A pool holds D items mu_k ~ N(0, I/d), each with a label in {0, 1} that never changes. A context shows n items of the
pool, drawn with replacement, with their labels, and then one of them again without its label; every sight of an item
has noise of its own:

    x = (mu + sqrt(s) eps) / sqrt(1 + s),    eps ~ N(0, I/d)

so a model may find the label by knowing the pool, or by comparing the query with the context. The setting of 2506.17859
(there s = 1/2, and C = n + 1 counts the query), after 2306.15063.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from mechicl.tasks.mixtures import as_steps, check_count, check_sizes, stream


@dataclass(frozen=True, eq=False)
class Classifications:
    """Contexts: seen items x with labels y in {0, 1}, a query and its label (`target`).

    items, query_item: which items of the pool they are. source: the number of the pair whose item the query shows.
    """

    x: Float[np.ndarray, "batch demo dim"]
    y: Int[np.ndarray, "batch demo"]
    query: Float[np.ndarray, "batch dim"]
    target: Int[np.ndarray, " batch"]
    items: Int[np.ndarray, "batch demo"]
    query_item: Int[np.ndarray, " batch"]
    source: Int[np.ndarray, " batch"]

    def __len__(self) -> int:
        """The number of contexts."""
        return len(self.target)


@dataclass(frozen=True)
class ClassificationTask:
    """What contexts are drawn from.

    dim: d. n_pairs: pairs before the query, C - 1. diversity: D, the number of items in the pool. noise: s. task_seed
    draws the pool and its labels, data_seed which items a context shows, noise_seed what is added to them; so tasks
    that differ in one of them alone share all else.

    Errors (ValueError): sizes below 1, noise that is not a finite number above 0.

        task = ClassificationTask(dim=8, n_pairs=31, diversity=1024)
        contexts = task.sample(64, step=0)
        generalising(contexts.query, contexts.x, contexts.y, noise=task.noise)
    """

    dim: int = 8
    n_pairs: int = 31
    diversity: int = 64
    noise: float = 0.5
    task_seed: int = 0
    data_seed: int = 0
    noise_seed: int = 0

    def __post_init__(self) -> None:
        """Check every field."""
        check_sizes(self, "dim", "n_pairs", "diversity")
        if not 0 < self.noise < np.inf:
            raise ValueError(f"got noise={self.noise}; expected a finite number above 0")

    @cached_property
    def pool(self) -> Float[np.ndarray, "_ dim"]:
        """The items mu_k, without noise."""
        rng = stream(self.task_seed, "pool")
        return rng.standard_normal((self.diversity, self.dim)) / np.sqrt(self.dim)

    @cached_property
    def pool_labels(self) -> Int[np.ndarray, " _"]:
        """The label of each item, fair coins."""
        return stream(self.task_seed, "labels").integers(0, 2, self.diversity)

    @property
    def context(self) -> int:
        """C: the pairs and the query."""
        return self.n_pairs + 1

    def sample(self, n: int, *, step: int | Sequence[int], fresh: bool = False) -> Classifications:
        """Contexts, a pure function of the seeds and the step, in float64.

        fresh: their items and labels are drawn anew, as many for each context as it has pairs; `items` then numbers
        those.
        """
        check_count(n)
        steps = as_steps(step)
        data, noise = stream(self.data_seed, "data", steps), stream(self.noise_seed, "noise", steps)
        items = data.integers(0, self.diversity, (n, self.n_pairs))
        source = data.integers(0, self.n_pairs, n)
        pool, pool_labels = self.pool, self.pool_labels
        if fresh:
            anew = stream(self.data_seed, "fresh", steps)
            items = np.arange(n * self.n_pairs).reshape(n, self.n_pairs)
            pool = anew.standard_normal((items.size, self.dim)) / np.sqrt(self.dim)
            pool_labels = anew.integers(0, 2, items.size)
        shown = np.column_stack([items, items[np.arange(n), source]])
        eps = noise.standard_normal((*shown.shape, self.dim)) / np.sqrt(self.dim)
        x = (pool[shown] + np.sqrt(self.noise) * eps) / np.sqrt(1 + self.noise)
        y = pool_labels[shown]
        return Classifications(
            x[:, :-1].copy(), y[:, :-1].copy(), x[:, -1].copy(), y[:, -1].copy(), items, shown[:, -1].copy(), source
        )
