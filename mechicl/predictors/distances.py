"""How far a model's predictions lie from two predictors', and nearer to which: the measure of 2506.17859.

`divergence` is half the symmetrised Kullback-Leibler divergence of probabilities, in nats; `squared_distance` is that
between means (regression). Both are 0 for the same predictions; `distance` gives the one of a setting.

    relative distance   d_rel = (clip[(d(h, G) - d(h, M)) / d(M, G), -1, 1] + 1) / 2,    1: h is M, 0: h is G

Where h is near neither, d_rel means nothing: see `residual`, min(d(h, G), d(h, M)) / d(M, G), 0 where h is one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float


def divergence(
    p: Float[np.ndarray, "*batch label"], q: Float[np.ndarray, "*batch label"]
) -> Float[np.ndarray, "*batch"]:
    """(KL(p, q) + KL(q, p)) / 2 = sum_y (p - q)(log p - log q) / 2 of each pair of distributions.

    Raises ValueError for probabilities that are not above 0 (clamp them first) or do not sum to 1.
    """
    for part in (p, q):
        if not (part > 0).all() or not np.allclose(part.sum(-1), 1, atol=1e-6):
            raise ValueError("expected probabilities above 0 that sum to 1 over the last axis; clamp them first")
    return np.asarray(((p - q) * (np.log(p) - np.log(q))).sum(-1) / 2)


def squared_distance(
    p: Float[np.ndarray, "*batch label"], q: Float[np.ndarray, "*batch label"]
) -> Float[np.ndarray, "*batch"]:
    """sum (p - q)^2 over the last axis of each pair of means, in units of the label squared.

    Raises ValueError for numbers that are not finite.
    """
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        raise ValueError("got means that are not finite (NaN or infinite); drop these sequences first")
    return np.asarray(((p - q) ** 2).sum(-1))


DISTANCES: dict[str, Callable[..., np.ndarray[Any, Any]]] = {
    "balls_and_urns": divergence,
    "markov_chains": divergence,
    "classification": divergence,
    "linear_regression": squared_distance,
}


def distance(setting: str) -> Callable[..., np.ndarray[Any, Any]]:
    """The distance between predictions [*batch, label] that a setting is judged by; ValueError for another name."""
    if setting not in DISTANCES:
        raise ValueError(f"got setting={setting!r}; expected one of {', '.join(DISTANCES)}")
    return DISTANCES[setting]


def relative_distance(
    to_memorising: Float[np.ndarray, "*batch"],
    to_generalising: Float[np.ndarray, "*batch"],
    between: Float[np.ndarray, "*batch"],
) -> Float[np.ndarray, "*batch"]:
    """d_rel of mean distances; NaN where the two predictors agree."""
    apart = np.where(between > 0, between, np.nan)
    return np.asarray((np.clip((to_generalising - to_memorising) / apart, -1, 1) + 1) / 2)


def residual(
    to_memorising: Float[np.ndarray, "*batch"],
    to_generalising: Float[np.ndarray, "*batch"],
    between: Float[np.ndarray, "*batch"],
) -> Float[np.ndarray, "*batch"]:
    """The distance to the nearer predictor as a share of that between them; NaN where they agree."""
    return np.asarray(np.minimum(to_memorising, to_generalising) / np.where(between > 0, between, np.nan))
