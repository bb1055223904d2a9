"""Nearest neighbours: a predictor that remembers the demonstrations and learns nothing from their errors."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechicl.predictors.examples import check_count, checked_examples


def nearest_neighbours(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    k: int,
) -> Float[np.ndarray, "*batch"]:
    """Mean y of the k demonstrations nearest to the query by Euclidean distance; the earlier ones where they tie.

    Shapes, units and errors as of `mechicl.predictors.gradient`; a ValueError too for k above the number of
    demonstrations.
    """
    x, y, query = checked_examples(x, y, query)
    check_count("k", k, least=1)
    if k > y.shape[-1]:
        raise ValueError(f"got k={k} with {y.shape[-1]} demonstrations; expected at most their number")
    distance = ((x - query[..., None, :]) ** 2).sum(-1)
    nearest = np.argsort(distance, axis=-1, kind="stable")[..., :k]
    return np.asarray(np.take_along_axis(y, nearest, axis=-1).mean(-1))
