"""How well does a representation predict a number per verb? Ridge regression, each verb left out in turn.

Information that can be decoded need not be used: the causal effect of a head stands beside this, never in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_PENALTY = 0.1  # ridge penalty in units of the representation's mean variance over verbs times the number of verbs
_ROUNDING = 1e-6  # a spread below this share of the largest head's size is rounding


@dataclass(frozen=True)
class Decoding:
    """Left-out R^2 of each head, and its p, family-wise over heads.

    r2: 1 - sum of squared left-out errors / that of predicting the others' mean: 1 is perfect, 0 or less is chance.
    p_fwe: share of permutations of x over verbs (the same for all heads) whose largest R^2 over heads is as large.
    """

    r2: Float[np.ndarray, " head"]
    p_fwe: Float[np.ndarray, " head"]


def decode_over_verbs(
    states: Float[np.ndarray, "head verb d_head"],
    x: Float[np.ndarray, " verb"],
    *,
    n_permutations: int = 1_000,
    seed: int = 0,
) -> Decoding:
    """Predict x of every verb from the head's states of the other verbs.

    Ridge regression with intercept; the penalty is a tenth of the trace of the states' Gram matrix, fixed beforehand.
    Left-out predictions are exact: x - (x - Hx) / (1 - diag H) with the hat matrix H. States that do not vary over
    verbs, or by less than a millionth of the largest head's states, have R^2 = 0 and p = 1. Raises `ValueError` for
    fewer than 4 verbs, or numbers that are not finite.
    """
    if len(x) < 4 or states.shape[1] != len(x):
        raise ValueError(
            f"got states of {states.shape[1]} verbs and {len(x)} x; expected one x a verb, at least 4 verbs"
        )
    if not np.isfinite(states).all() or not np.isfinite(x).all() or np.ptp(x) == 0:
        raise ValueError("got states or x that are not finite, or an x that does not vary; drop these verbs first")
    n = len(x)
    centred = states - states.mean(1, keepdims=True)
    gram = centred @ centred.transpose(0, 2, 1)
    trace = np.trace(gram, axis1=1, axis2=2)
    # a head at rest still holds what it read, in digits that nothing else could read
    varies = trace > _ROUNDING**2 * max(1e-300, (states**2).sum((1, 2)).max())
    scaled = np.divide(gram, trace[:, None, None], out=np.zeros_like(gram), where=varies[:, None, None])
    hat = np.linalg.solve(scaled + _PENALTY * np.eye(n), scaled).transpose(0, 2, 1) + 1 / n
    # the residual makers of all heads: (I - H) / (1 - diag H), left-out errors are its product with x
    errors = (np.eye(n) - hat) / (1 - np.diagonal(hat, axis1=1, axis2=2))[:, :, None]
    rng = np.random.default_rng(seed)
    orders = np.stack([x, *(rng.permutation(x) for _ in range(n_permutations))])
    left_out_mean = ((orders - orders.mean(1, keepdims=True)) * n / (n - 1)) ** 2
    squares = np.einsum("hvw,pw->phv", errors, orders, optimize=True) ** 2
    r2 = np.where(varies, 1 - squares.sum(2) / left_out_mean.sum(1)[:, None], 0.0)
    largest = r2[1:].max(1)
    p = (1 + (largest[:, None] >= r2[0] - 1e-12).sum(0)) / (1 + n_permutations)
    return Decoding(r2[0], np.where(varies, p, 1.0))
