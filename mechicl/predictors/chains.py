"""The memorising, the generalising and the constant predictor of mixtures of Markov chains (`mechicl.tasks.chains`).

Each gives the probability of every state at every position t, from the states before t alone. The first state is
uniform and tells nothing of the chain. With n_ij moves from i to j among the states before t, i the last of them:

    M          P(j) = sum_k u_k P_k[i, j],    u = softmax_k[sum_ij n_ij log P_k[i, j]]    knows the D chains of the pool
    G          P(j) = (n_ij + 1)/(sum_j n_ij + d)                    knows the prior Dirichlet(1, ..., 1) of rows alone
    constant   P(j) = mean over k and t of P_k(state t is j)                       knows the pool, but sees no context

M and G are the exact posteriors on sequences of the pool and of fresh chains, so no predictor has a lower expected loss
there; the constant has the lowest one among predictions that never change. Probabilities sum to 1; chance is 1/d.
Float64, in log-space, a few sequences at a time: memory grows with D, not with D times the sequences.

Errors (ValueError): states out of range (the start token left in, say), a pool that is empty, not square, holds other
than probabilities above 0, or does not sum to 1.

Source: 2412.01003, whose bigram retrieval and bigram inference M and G are.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from mechicl.predictors.urns import check_pool, check_tokens, chunks


def memorising(
    states: Int[np.ndarray, "batch pos"], pool: Float[np.ndarray, "_ dim dim"]
) -> Float[np.ndarray, "batch pos label"]:
    """M: the posterior over the pool's chains, each weighed by its probability of the moves so far."""
    check_pool(pool)
    diversity, dim, _ = pool.shape
    check_tokens(states, dim)
    from_state = pool.transpose(1, 0, 2).copy()  # [from, D, to]
    logs = np.log(pool).transpose(1, 2, 0).copy()  # [from, to, D]
    found = np.full((*states.shape, dim), 1 / dim)
    for rows in chunks(len(states), diversity):
        evidence = np.zeros((rows.stop - rows.start, diversity))
        for t in range(1, states.shape[1]):
            last, now = states[rows, t - 1], states[rows, t]
            weights = softmax(evidence, axis=-1)
            for state in np.unique(last):  # one product for all sequences in this state
                here = np.flatnonzero(last == state)
                found[rows.start + here, t] = weights[here] @ from_state[state]
            evidence += logs[last, now]
    return found


def generalising(states: Int[np.ndarray, "batch pos"], dim: int) -> Float[np.ndarray, "batch pos label"]:
    """G: counts of the moves from the last state so far, each raised by one."""
    check_tokens(states, dim)
    found = np.full((*states.shape, dim), 1 / dim)
    for rows in chunks(len(states), dim * dim):
        each = np.arange(rows.stop - rows.start)
        moves = np.ones((len(each), dim, dim))
        for t in range(1, states.shape[1]):
            last = states[rows, t - 1]
            seen = moves[each, last]
            found[rows, t] = seen / seen.sum(-1, keepdims=True)
            moves[each, last, states[rows, t]] += 1
    return found


def constant(
    states: Int[np.ndarray, "batch pos"], pool: Float[np.ndarray, "_ dim dim"]
) -> Float[np.ndarray, "batch pos label"]:
    """How often the pool's chains are in each state, over as many positions as `states` has."""
    check_pool(pool)
    check_tokens(states, pool.shape[-1])
    here = np.full(pool.shape[:2], 1 / pool.shape[-1])
    total = np.zeros(pool.shape[-1])
    for _ in range(states.shape[1]):
        total += here.mean(0)
        here = (here[:, None] @ pool)[:, 0]
    return np.broadcast_to(total / max(1, states.shape[1]), (*states.shape, pool.shape[-1])).copy()
