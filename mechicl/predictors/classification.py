"""The memorising and the generalising predictor of in-context classification (`mechicl.tasks.classification`).

With d dimensions and noise s, for a query x, a pool of items mu_k with labels, and a context of pairs (c_i, y_i):

    M   P(y) = sum_k u_k [label_k = y],    u = softmax_k[-d/(2 s) |sqrt(1 + s) x - mu_k|^2]
    G   P(y) = sum_i w_i [y_i = y],        w = softmax_i[-d (1 + s)^2/(2 s (2 + s)) |x - c_i/(1 + s)|^2]

M is the posterior of who knows the pool and ignores the context. G is that of who knows the law that items are drawn
by, but no item, and takes each pair for an item of its own; it is a kernel regression: a Gaussian kernel of bandwidth
h = sqrt(s (2 + s)/d)/(1 + s) between the query and c_i/(1 + s) (`bandwidth`). Probabilities lie between `floor` and
1 - floor (n_labels - 1), so that no divergence is infinite. Exact in float64, by sums of exponentials that neither
overflow nor vanish. Source: 2506.17859.

Errors (ValueError): shapes that do not go together, labels out of range, numbers that are not finite, noise or floor
out of range.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

FLOOR = 1e-5


def memorising(
    query: Float[np.ndarray, "*batch dim"],
    pool: Float[np.ndarray, "_ dim"],
    pool_labels: Int[np.ndarray, " _"],
    *,
    noise: float = 0.5,
    n_labels: int = 2,
    floor: float = FLOOR,
) -> Float[np.ndarray, "*batch label"]:
    """M: the probability of each label, given the pool, whatever the context."""
    if pool.shape[-1:] != query.shape[-1:] or pool_labels.shape != pool.shape[:-1]:
        raise ValueError(f"got queries of {query.shape}, a pool of {pool.shape} and its labels of {pool_labels.shape}")
    seen = np.sqrt(1 + _checked_noise(noise)) * query
    return _votes(_posterior(seen, pool, noise / query.shape[-1]), pool_labels, n_labels, floor)


def generalising(
    query: Float[np.ndarray, "*batch dim"],
    x: Float[np.ndarray, "*batch demo dim"],
    y: Int[np.ndarray, "*batch demo"],
    *,
    noise: float = 0.5,
    n_labels: int = 2,
    floor: float = FLOOR,
) -> Float[np.ndarray, "*batch label"]:
    """G: the probability of each label, given the context's pairs."""
    if y.shape != x.shape[:-1]:
        raise ValueError(f"got labels of {y.shape} for pairs of {x.shape}; expected one label a pair")
    return _votes(generalising_weights(query, x, noise=noise), y, n_labels, floor)


def generalising_weights(
    query: Float[np.ndarray, "*batch dim"], x: Float[np.ndarray, "*batch demo dim"], *, noise: float = 0.5
) -> Float[np.ndarray, "*batch demo"]:
    """The weights w_i of G, which sum to 1: what the attention of a model that runs G would be."""
    if query.shape != (*x.shape[:-2], x.shape[-1]) or x.shape[-2] == 0:
        raise ValueError(f"got queries of {query.shape} for pairs of {x.shape}; expected [*batch, dim], 1 pair or more")
    return _posterior(query, x / (1 + _checked_noise(noise)), bandwidth(query.shape[-1], noise=noise) ** 2)


def bandwidth(dim: int, *, noise: float = 0.5) -> float:
    """The h of G's kernel exp(-|x - c_i/(1 + s)|^2 / 2 h^2), in units of x."""
    return float(np.sqrt(_checked_noise(noise) * (2 + noise) / dim) / (1 + noise))


def _posterior(
    query: Float[np.ndarray, "*batch dim"], centres: Float[np.ndarray, "... _ dim"], variance: float
) -> Float[np.ndarray, "*batch _"]:
    """The weight of each centre, for equal priors and a Gaussian of this variance in every direction."""
    if not (np.isfinite(query).all() and np.isfinite(centres).all()):
        raise ValueError("got numbers that are not finite (NaN or infinite); drop these contexts first")
    # |a - b|^2 without an array of all differences; float64, and rounding is small beside the noise
    product = (centres @ query[..., None])[..., 0] if centres.ndim > 2 else query @ centres.T
    return np.asarray(softmax((product - (centres**2).sum(-1) / 2) / variance, axis=-1))


def _votes(
    weights: Float[np.ndarray, "*batch demo"], labels: Int[np.ndarray, "*#batch demo"], n_labels: int, floor: float
) -> Float[np.ndarray, "*batch label"]:
    if n_labels < 2 or (labels < 0).any() or (labels >= n_labels).any():
        raise ValueError(f"got labels from {labels.min()} to {labels.max()}; expected 0 to {max(n_labels, 2) - 1}")
    if not 0 <= floor < 1 / n_labels:
        raise ValueError(f"got floor={floor}; expected 0 or more, below 1/{n_labels}")
    found = np.stack([(weights * (labels == label)).sum(-1) for label in range(n_labels)], axis=-1)
    found = found.clip(floor, 1 - (n_labels - 1) * floor)
    return found / found.sum(-1, keepdims=True)


def _checked_noise(noise: float) -> float:
    if not 0 < noise < np.inf:
        raise ValueError(f"got noise={noise}; expected a finite number above 0")
    return noise
