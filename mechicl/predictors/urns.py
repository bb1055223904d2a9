"""The memorising, the generalising and the constant predictor of balls and urns (`mechicl.tasks.urns`).

Each gives the probability of every colour at every position t, from the balls before t alone (t = 0: from nothing).
With n_v balls of colour v among those t:

    M          P(v) = sum_k u_k theta_kv,    u = softmax_k[sum_v n_v log theta_kv]     knows the D urns of the pool
    G          P(v) = (n_v + 1)/(t + d)                                   knows the prior Dirichlet(1, ..., 1) alone
    constant   P(v) = mean_k theta_kv                                          knows the pool, but sees no context

M and G are the exact posteriors on sequences of the pool and of fresh urns, so no predictor has a lower expected loss
there; the constant has the lowest one among predictions that never change. Probabilities sum to 1; chance is 1/d.
Float64, in log-space, a few sequences at a time: memory grows with D, not with D times the sequences.

Errors (ValueError): balls out of range (the start token left in, say), a pool that is empty, holds other than
probabilities above 0, or does not sum to 1.

Source: 2506.17859.

    urns = UrnTask(dim=8, context=64, diversity=64)
    balls = urns.sample(100, step=(1, 0)).tokens[:, 1:]         # without the start token
    memorising(balls, urns.pool)                                # [100, 64, 8]
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

CHUNK = 2**17  # numbers in one array [sequences, D]: 1 MB, which the processor's cache holds


def memorising(
    balls: Int[np.ndarray, "batch pos"], pool: Float[np.ndarray, "_ dim"]
) -> Float[np.ndarray, "batch pos label"]:
    """M: the posterior over the pool's urns, each weighed by its probability of the balls so far."""
    check_pool(pool)
    check_tokens(balls, pool.shape[-1])
    logs = np.log(pool).T.copy()
    found = np.empty((*balls.shape, pool.shape[-1]))
    for rows in chunks(len(balls), len(pool)):
        evidence = np.zeros((rows.stop - rows.start, len(pool)))
        for t, drawn in enumerate(balls[rows].T):
            found[rows, t] = softmax(evidence, axis=-1) @ pool
            evidence += logs[drawn]
    return found


def generalising(balls: Int[np.ndarray, "batch pos"], dim: int) -> Float[np.ndarray, "batch pos label"]:
    """G: counts of the colours so far, each raised by one."""
    check_tokens(balls, dim)
    shown = np.eye(dim)[balls]
    before = shown.cumsum(1) - shown
    return np.asarray((before + 1) / (np.arange(balls.shape[1])[:, None] + dim))


def constant(
    balls: Int[np.ndarray, "batch pos"], pool: Float[np.ndarray, "_ dim"]
) -> Float[np.ndarray, "batch pos label"]:
    """The pool's mean urn at every position. For sequences of fresh urns pass the prior's, `np.full((1, d), 1/d)`."""
    check_pool(pool)
    check_tokens(balls, pool.shape[-1])
    return np.broadcast_to(pool.mean(0), (*balls.shape, pool.shape[-1])).copy()


def chunks(n: int, diversity: int) -> Iterator[slice]:
    """Slices of n sequences, each so long that an array [sequences, diversity] stays in the processor's cache."""
    size = max(1, CHUNK // diversity)
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def check_tokens(tokens: Int[np.ndarray, "batch pos"], dim: int) -> None:
    """A ValueError for tokens that are no outcome."""
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < dim:
        raise ValueError(
            f"got tokens from {tokens.min()} to {tokens.max()}; expected 0 to {dim - 1}, without the start token "
            f"(pass tokens[:, 1:])"
        )


def check_pool(pool: Float[np.ndarray, "... dim"]) -> None:
    """A ValueError for an empty pool and for other than probabilities above 0 that sum to 1."""
    if pool.size == 0:
        raise ValueError(f"got an empty pool, of shape {pool.shape}; expected one task or more")
    if not (pool > 0).all() or not np.allclose(pool.sum(-1), 1, rtol=0, atol=1e-6):
        raise ValueError("expected a pool of probabilities above 0 that sum to 1 over the last axis; clamp zeros first")
