"""What correlation of attention and kernels chance can bring: kernels that belong to other prompts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

_TIES = 1 - 1e-10  # a permutation that gives the same value up to rounding is as extreme
_LEAST = 1e-6  # of a kernel that lies in the nuisances: its products are rounding


def kernel_null(
    heads: Float[np.ndarray, "item demo head"],
    kernels: Float[np.ndarray, "item demo kernel"],
    nuisances: Float[np.ndarray, "row rank"],
    groups: Int[np.ndarray, " item"],
    *,
    n_permutations: int,
    seed: int,
) -> tuple[Float[np.ndarray, "head kernel"], Float[np.ndarray, "head kernel"]]:
    """p of every |correlation|, and p adjusted for all heads and kernels by the largest of a permutation.

    Columns have norm 1 (or 0) over items and demonstrations, and mean 0 within an item; nuisances: an orthonormal basis
    of those that were taken out of both. A permutation hands each prompt the kernel values of another one,
    demonstration by demonstration. So whatever attention and kernel owe to the place of a demonstration stays in the
    null, also where the nuisances miss its form; what is tested is that this query is like this demonstration. Prompts
    of one group (query) get those of one other group, for they are not independent. What a permuted kernel owes to
    nuisances is taken out again, or few prompts with many nuisances would find too much.

    With N permutations p = (1 + #{|r*| >= |r|}) / (1 + N), p_fwe likewise with the largest |r*| over heads and kernels
    (Westfall and Young 1993).
    """
    n_items, n_demos, n_heads = heads.shape
    rows = np.ascontiguousarray(heads.reshape(n_items * n_demos, n_heads).T)
    observed = np.abs(rows @ kernels.reshape(n_items * n_demos, -1))
    above = np.zeros(observed.shape, dtype=np.int64)
    largest = np.empty(n_permutations)
    basis = np.ascontiguousarray(nuisances.T)
    for number, order in zip(range(n_permutations), _orders(groups, np.random.default_rng(seed)), strict=False):
        shuffled = kernels[order].reshape(n_items * n_demos, -1)
        left = np.einsum("rk,rk->k", shuffled, shuffled) - ((basis @ shuffled) ** 2).sum(0)
        drawn = np.abs(rows @ shuffled) / np.sqrt(np.maximum(left, _LEAST))
        above += drawn >= _TIES * observed
        largest[number] = drawn.max()
    beaten = n_permutations - np.searchsorted(np.sort(largest), _TIES * observed.ravel(), side="left")
    return (1 + above) / (1 + n_permutations), (1 + beaten.reshape(observed.shape)) / (1 + n_permutations)


def _orders(groups: Int[np.ndarray, " item"], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """For each prompt one of the group that its own group is given; a larger group takes those in turn."""
    names, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order, starts = np.argsort(codes, kind="stable"), np.cumsum(sizes) - sizes
    within = np.empty(len(codes), dtype=np.int64)
    within[order] = np.arange(len(codes)) - np.repeat(starts, sizes)
    while True:
        given = rng.permutation(len(names))[codes]
        yield order[starts[given] + within % sizes[given]]
