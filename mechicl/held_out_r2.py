"""R^2 on prompts that nothing was fitted or chosen on, with its interval, for many heads at once.

    R^2 = 1 - sum of squared errors / sum of squares around each prompt's own mean

over the demonstrations of all held-out prompts; its interval resamples prompts, all of them that share a query
together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.resampling import batches, check_level


@dataclass(frozen=True)
class Shares:
    """Estimates with bootstrap percentile intervals, one a head; NaN where nothing varies."""

    estimate: Float[np.ndarray, " head"]
    low: Float[np.ndarray, " head"]
    high: Float[np.ndarray, " head"]


def explained_shares(
    errors: Float[np.ndarray, "item head"],
    reference: Float[np.ndarray, "item head"],
    around: Float[np.ndarray, "item head"],
    clusters: Int[np.ndarray, " item"],
    *,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> Shares:
    """(sum reference - sum errors) / sum around: with reference = around it is R^2, with the errors of a smaller model
    as reference it is what a larger one adds; where the smaller one is worse than nothing, what it adds to nothing.

    All are sums of squares of each prompt. Prompts of one cluster are drawn together.
    """
    check_level(level)
    codes, names = pd.factorize(clusters)
    sums = []
    for values in (errors, reference, around):
        by_cluster = np.zeros((len(names), values.shape[1]))
        np.add.at(by_cluster, codes, values)
        sums.append(by_cluster)

    def share(counts: Float[np.ndarray, "boot _"]) -> Float[np.ndarray, "boot head"]:
        own, other, total = (counts @ by_cluster for by_cluster in sums)
        return np.asarray((np.minimum(other, total) - own) / total)

    rng = np.random.default_rng(seed)
    drawn = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for size in batches(n_boot, len(names)):
            counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=size).astype(np.float64)
            drawn.append(share(counts))
        estimate = share(np.ones((1, len(names))))[0]
    tails = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Shares(estimate, tails[0], tails[1])
