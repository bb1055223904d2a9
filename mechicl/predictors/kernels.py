"""Kernel regression: a prediction is the average of the demonstrations' labels, weighted by likeness to the query.

    prediction = sum_i K(x_q, x_i) y_i / sum_i K(x_q, x_i)        (Nadaraya and Watson)

Kernels are given as logarithms, up to a constant of the context, and sums are formed after the largest is taken off: no
bandwidth makes all weights vanish. A softmax attention head over the demonstrations is such a regression, its scores
the log-kernel. Arrays are numpy, float64 inside; leading axes are contexts, all computed at once. Labels are vectors
(one-hot for classes, one number for a real y).

    rbf           -|x - x'|^2 / (2 h^2)        h: bandwidth, in the unit of x
    cosine        cos(x, x') / temperature
    dot           x . x' / temperature
    prediction    log sum_o P(o | x) P(o | x')

Errors (ValueError): no demonstrations, shapes that do not go together, numbers that are not finite, bandwidths and
temperatures that are not above 0. Source: 2305.12766 for the kernels' place in language models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from mechicl.predictors.examples import check_shapes

KERNELS = ("rbf", "cosine", "dot")
_NORMALISED = 0.05  # how far from 0 the log of the summed probabilities may be: half precision passes, scores do not


def nadaraya_watson(
    log_weights: Float[np.ndarray, "*batch demo"], y: Float[np.ndarray, "*batch demo label"]
) -> Float[np.ndarray, "*batch label"]:
    """The average of y with weights exp(log_weights), normalised over the demonstrations of each context.

    In the unit of y, and never outside the range of the y. A log-weight of -inf leaves a demonstration out; a
    ValueError where none is left.

        nadaraya_watson(rbf_log_kernel(query, x, bandwidth=0.5), y)
    """
    log_weights, y = np.asarray(log_weights, dtype=np.float64), np.asarray(y, dtype=np.float64)
    check_label_shapes(log_weights.shape, y.shape)
    if not np.isfinite(y).all():
        raise ValueError("got y with numbers that are not finite (NaN or infinite); drop these contexts first")
    if np.isnan(log_weights).any() or np.isposinf(log_weights).any():
        raise ValueError(
            "got log-weights that are NaN or +infinite; expected finite numbers, or -inf for a weight of 0"
        )
    lost = np.isneginf(log_weights).all(-1)
    if lost.any():
        raise ValueError(f"all weights are 0 in {int(lost.sum())} of {lost.size} contexts: no average is defined")
    return np.asarray((softmax(log_weights, axis=-1)[..., None, :] @ y)[..., 0, :])


def rbf_log_kernel(
    query: Float[np.ndarray, "*batch dim"], x: Float[np.ndarray, "*batch demo dim"], *, bandwidth: float
) -> Float[np.ndarray, "*batch demo"]:
    """-|x_q - x_i|^2 / (2 bandwidth^2), 0 at most. Small bandwidths give the nearest neighbour, large ones the mean.

    A ValueError too where the bandwidth is so small beside the distances that numbers overflow.
    """
    query, x = checked_inputs(query, x)
    _check_scale("bandwidth", bandwidth)
    with np.errstate(over="ignore"):
        found = -((np.sqrt(_squared_distances(query, x)) / bandwidth) ** 2) / 2
    if not np.isfinite(found).all():
        raise ValueError(f"got bandwidth={bandwidth}, too small beside the distances: their squares overflow")
    return found


def cosine_log_kernel(
    query: Float[np.ndarray, "*batch dim"], x: Float[np.ndarray, "*batch demo dim"], *, temperature: float
) -> Float[np.ndarray, "*batch demo"]:
    """cos(x_q, x_i) / temperature, between -1 / temperature and 1 / temperature; a ValueError for vectors of 0."""
    query, x = checked_inputs(query, x)
    _check_scale("temperature", temperature)
    return _cosines(query, x) / temperature


def dot_log_kernel(
    query: Float[np.ndarray, "*batch dim"], x: Float[np.ndarray, "*batch demo dim"], *, temperature: float
) -> Float[np.ndarray, "*batch demo"]:
    """x_q . x_i / temperature; with temperature = sqrt(d_head) the scores of attention with these queries and keys."""
    query, x = checked_inputs(query, x)
    _check_scale("temperature", temperature)
    return _products(query, x) / temperature


def prediction_log_kernel(
    query: Float[np.ndarray, "*batch vocab"], x: Float[np.ndarray, "*batch demo vocab"]
) -> Float[np.ndarray, "*batch demo"]:
    """log sum_o P(o | x_q) P(o | x_i), of two log-probability vectors each: are the same next words expected?

    exp of it is the probability that two words drawn from the two distributions are equal, so the result is 0 at most;
    -inf where they share no word. A ValueError where a row is not the log of probabilities that sum to 1.
    Source: 2305.12766, section 5 (there without the logarithm).
    """
    query, x = np.asarray(query, dtype=np.float64), np.asarray(x, dtype=np.float64)
    check_shapes(x.shape, x.shape[:-1], query.shape)
    for name, logs in (("query", query), ("x", x)):
        total = logsumexp(logs, axis=-1)
        if not (np.abs(total) < _NORMALISED).all():
            raise ValueError(f"got {name} that are not log-probabilities: a row's probabilities do not sum to 1")
    return np.asarray(np.minimum(logsumexp(query[..., None, :] + x, axis=-1), 0.0))


def best_bandwidth(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo label"],
    query: Float[np.ndarray, "*batch dim"] | None = None,
    target: Float[np.ndarray, "*batch label"] | None = None,
    *,
    kernel: str = "rbf",
    n_grid: int = 60,
) -> float:
    """The bandwidth (rbf) or temperature (cosine, dot) with the lowest mean squared error, one for all contexts.

    On queries with their targets where these are given; otherwise leave-one-out: every demonstration is predicted from
    the others of its context, and queries are never looked at. Searched on a logarithmic grid from a hundredth of the
    smallest spread of scores to a hundred times the largest (where the regression is the nearest neighbour, or the
    mean), then refined around the best grid point. The scale is arbitrary where all of them predict alike, and at an
    end of the grid where the nearest neighbour, or the mean, is best.

    Raises ValueError for an unknown kernel, a query without target or the reverse, fewer than 3 demonstrations when one
    is left out, and inputs that are all alike.
    """
    if kernel not in KERNELS:
        raise ValueError(f"got kernel={kernel!r}; expected one of {KERNELS}")
    if (query is None) != (target is None):
        raise ValueError("got a query without its target, or a target without its query; give both, or neither")
    if n_grid < 3:
        raise ValueError(f"got n_grid={n_grid}; expected 3 or more")
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if query is None or target is None:
        n = x.shape[-2]
        if n < 3:
            raise ValueError(f"got {n} demonstration(s); expected 3 or more to leave one out, or a query and target")
        check_label_shapes(x.shape[:-1], y.shape)
        _, x = checked_inputs(np.zeros((*x.shape[:-2], x.shape[-1])), x)
        scores = np.stack([_scores(x[..., i, :], x, kernel) for i in range(n)], axis=-2)  # [*batch, query, demo]
        scores[..., np.arange(n), np.arange(n)] = -np.inf
        labels, wanted = y[..., None, :, :], y
    else:
        query, x = checked_inputs(query, x)
        scores, labels, wanted = _scores(query, x, kernel), y, np.asarray(target, dtype=np.float64)
    error = _error_of(scores, labels, wanted)
    power = 2 if kernel == "rbf" else 1
    finite = np.isfinite(scores)
    spread = np.where(finite, scores, -np.inf).max(-1) - np.where(finite, scores, np.inf).min(-1)
    if not (spread > 0).any():
        raise ValueError("all inputs are equally like each other: every bandwidth predicts the same")
    spread = spread[spread > 0]
    low, high = float(np.log(spread.min() * 1e-4)) / power, float(np.log(spread.max() * 1e4)) / power
    grid = np.linspace(low, high, n_grid)
    at = int(np.argmin([error(power * one) for one in grid]))
    around = (grid[max(at - 1, 0)], grid[min(at + 1, n_grid - 1)])
    fine = minimize_scalar(lambda one: error(power * one), bounds=around, method="bounded", options={"xatol": 1e-6})
    return float(np.exp(fine.x if fine.fun < error(power * grid[at]) else grid[at]))


def checked_inputs(
    query: np.ndarray, x: np.ndarray
) -> tuple[Float[np.ndarray, "*batch dim"], Float[np.ndarray, "*batch demo dim"]]:
    """Return query and x in float64; a ValueError for shapes that do not go together and numbers not finite."""
    query, x = np.asarray(query, dtype=np.float64), np.asarray(x, dtype=np.float64)
    check_shapes(x.shape, x.shape[:-1], query.shape)
    if not (np.isfinite(query).all() and np.isfinite(x).all()):
        raise ValueError("got inputs with numbers that are not finite (NaN or infinite); drop these contexts first")
    return query, x


def check_label_shapes(weights: tuple[int, ...], y: tuple[int, ...]) -> None:
    """Raise a ValueError unless the shapes are [*batch, demo] and [*batch, demo, label]."""
    if not weights or weights[-1] == 0:
        raise ValueError(f"got weights of shape {weights}; expected [*batch, demo], at least 1 demonstration")
    if y[:-1] != weights or not y[-1]:
        raise ValueError(f"got y of shape {y}; expected {(*weights, 'label')}: a vector for each demonstration")


def _error_of(scores: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> Callable[[float], float]:
    """Mean squared error as a function of log(temperature)."""
    top = scores.max(-1, keepdims=True)

    def error(log_temperature: float) -> float:
        weights = softmax((scores - top) * np.exp(-log_temperature), axis=-1)
        found = (weights[..., None, :] @ labels)[..., 0, :]
        return float(((found - wanted) ** 2).mean())

    return error


def _scores(query: np.ndarray, x: np.ndarray, kernel: str) -> Float[np.ndarray, "*batch demo"]:
    """The log-kernel at bandwidth, or temperature, 1."""
    if kernel == "rbf":
        return -_squared_distances(query, x) / 2
    return _cosines(query, x) if kernel == "cosine" else _products(query, x)


def _products(query: np.ndarray, x: np.ndarray) -> Float[np.ndarray, "*batch demo"]:
    return np.asarray((x @ query[..., None])[..., 0])


def _squared_distances(query: np.ndarray, x: np.ndarray) -> Float[np.ndarray, "*batch demo"]:
    return np.asarray(((x - query[..., None, :]) ** 2).sum(-1))


def _cosines(query: np.ndarray, x: np.ndarray) -> Float[np.ndarray, "*batch demo"]:
    lengths = np.linalg.norm(query, axis=-1)[..., None], np.linalg.norm(x, axis=-1)
    if not all((length > 0).all() for length in lengths):
        raise ValueError("got a vector of 0, whose direction, and cosine, are undefined; drop these contexts first")
    return np.clip(_products(query / lengths[0], x / lengths[1][..., None]), -1, 1)


def _check_scale(name: str, value: float) -> None:
    if not 0 < value < np.inf:
        raise ValueError(f"got {name}={value}; expected a finite number above 0")
