"""Means and ratios of means of many heads at once, with intervals that resample whole clusters of items."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.resampling import MIN_BOOT


def ratio_intervals(
    above: Float[np.ndarray, "item head"],
    below: Float[np.ndarray, "item head"],
    clusters: np.ndarray,
    *,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, " head"], Float[np.ndarray, " head"]]:
    """mean(above) / mean(below) of each head, and the lower and upper end of its percentile interval.

    With below = 1 it is the mean. Clusters are drawn with replacement, with all their items. NaN where the
    denominator is 0, and no interval where it is 0 in a draw. Raises ValueError for fewer than 2 clusters.
    """
    codes, names = pd.factorize(clusters)
    if len(names) < 2:
        raise ValueError(f"got {len(names)} cluster(s), expected at least 2: the spread between them is unknown")
    if n_boot < MIN_BOOT:
        raise ValueError(f"got n_boot={n_boot}, expected at least {MIN_BOOT}")
    sums = []
    for values in (above, below):
        by_cluster = np.zeros((len(names), values.shape[1]))
        np.add.at(by_cluster, codes, values)
        sums.append(by_cluster)
    counts = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_boot)
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(_ratio(counts @ sums[0], counts @ sums[1]), tails, axis=0)
    return _ratio(sums[0].sum(0), sums[1].sum(0)), low, high


def _ratio(above: Float[np.ndarray, "*any"], below: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    return np.asarray(np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0))
