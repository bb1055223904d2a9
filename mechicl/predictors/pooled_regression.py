"""The memorising and the generalising predictor of regression over a pool of laws (`mechicl.tasks.pooled_regression`).

Each predicts every label y_t from its own x_t and the pairs before it: the mean of the posterior, for
y = w . x + noise of variance s:

    M   y_t = sum_k u_k w_k . x_t,    u = softmax_k[-sum_{i<t} (y_i - w_k . x_i)^2/(2 s)]     knows the pool of D laws
    G   y_t = w . x_t,    w = (X'X + s I)^-1 X'y of the pairs before t             knows the prior N(0, I_d) alone

G is ridge regression. Both are the exact posterior means on sequences of the pool and of fresh laws, so no predictor
has a lower expected squared error there; the best prediction that ignores everything is 0, with squared error d + s.
Float64, in log-space, a few sequences at a time: memory grows with D, not with D times the sequences.

Errors (ValueError): shapes that do not go together, an empty pool, numbers that are not finite, noise out of range.

Source: 2306.15063 (there M is dMMSE), 2506.17859.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.special import softmax

from mechicl.predictors.urns import chunks


def memorising(
    x: Float[np.ndarray, "batch pos dim"],
    y: Float[np.ndarray, "batch pos"],
    pool: Float[np.ndarray, "_ _"],
    *,
    noise_variance: float,
) -> Float[np.ndarray, "batch pos"]:
    """M: the pool's laws, each weighed by its probability of the labels so far."""
    _check(x, y, noise_variance)
    if pool.size == 0 or pool.shape[-1] != x.shape[-1] or not np.isfinite(pool).all():
        raise ValueError(f"got a pool of shape {pool.shape}; expected [1 law or more, {x.shape[-1]}], finite")
    found = np.empty(y.shape)
    laws = pool.T.copy()
    for rows in chunks(len(y), len(pool)):
        evidence = np.zeros((rows.stop - rows.start, len(pool)))
        for t in range(y.shape[1]):
            guesses = x[rows, t] @ laws
            found[rows, t] = np.einsum("bk,bk->b", softmax(evidence, axis=-1), guesses)
            evidence -= (y[rows, t, None] - guesses) ** 2 / (2 * noise_variance)
    return found


def generalising(
    x: Float[np.ndarray, "batch pos dim"], y: Float[np.ndarray, "batch pos"], *, noise_variance: float
) -> Float[np.ndarray, "batch pos"]:
    """G: ridge regression on the pairs so far."""
    _check(x, y, noise_variance)
    n, context, dim = x.shape
    found = np.empty(y.shape)
    for rows in chunks(n, dim * dim):
        # the Gaussian posterior N(mean, covariance) of w, brought up to date by each pair in turn (Sherman-Morrison)
        mean = np.zeros((rows.stop - rows.start, dim))
        covariance = np.broadcast_to(np.eye(dim), (len(mean), dim, dim)).copy()
        for t in range(context):
            now = x[rows, t]
            found[rows, t] = (mean * now).sum(-1)
            spread = (covariance @ now[..., None])[..., 0]
            gain = spread / ((spread * now).sum(-1, keepdims=True) + noise_variance)
            mean += gain * (y[rows, t] - found[rows, t])[:, None]
            covariance -= gain[..., None] * spread[:, None]
    return found


def _check(x: Float[np.ndarray, "_ _ dim"], y: Float[np.ndarray, "_ _"], noise_variance: float) -> None:
    if x.shape[:2] != y.shape:
        raise ValueError(f"got labels of shape {y.shape} for inputs of {x.shape}; expected one label an input")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("got numbers that are not finite (NaN or infinite); drop these sequences first")
    if not 0 < noise_variance < np.inf:
        raise ValueError(f"got noise_variance={noise_variance}; expected a finite number above 0")
