"""From which checkpoint on two strategies describe a transformer at all: the two-hypothesis threshold of 2506.17859.

For each diversity the distance to the best interpolation, min over w of the profile, falls during training. The first
checkpoint at which it is below

    min + share (max - min)       over all checkpoints; share .2, for regression .1

is where that diversity is near the line between the strategies; the last of these over diversities is the threshold,
and earlier checkpoints are left out: d_rel of those means nothing, an untrained model may seem to memorise. (A distance
below 1% of d(M, G) is near whatever the range: else a transformer that the strategies describe perfectly would be
judged by rounding.)
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

NEAR = 0.01
SHARES = {"kl": 0.2, "mse": 0.1}


def first_described(
    distances: Float[np.ndarray, "seed step diversity"],
    between: Float[np.ndarray, "seed diversity"],
    *,
    share: float = 0.2,
) -> Int[np.ndarray, " diversity"]:
    """The number of the first checkpoint of each diversity below its threshold, of distances averaged over seeds.

    between: d(M, G), in the unit of the distances.

    Errors (ValueError): a share outside 0 to 1; distances that are not finite.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"got share={share}; expected a number from 0 to 1")
    if not np.isfinite(distances).all():
        raise ValueError("got distances that are not finite (NaN or infinite); drop these checkpoints")
    mean = distances.mean(0)
    low, high = mean.min(0), mean.max(0)
    return np.asarray(np.argmax(mean <= np.maximum(low + share * (high - low), NEAR * between.mean(0)), axis=0))


def kept_checkpoints(
    distances: Float[np.ndarray, "seed step diversity"],
    between: Float[np.ndarray, "seed diversity"],
    *,
    share: float = 0.2,
) -> Bool[np.ndarray, " step"]:
    """Which checkpoints are at or after the threshold of every diversity.

    kept_checkpoints(best_distances, between, share=0.2)
    """
    first = int(first_described(distances, between, share=share).max())
    return np.arange(distances.shape[1]) >= first
