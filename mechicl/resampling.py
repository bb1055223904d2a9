"""Bootstrap intervals that resample whole clusters.

The unit that was sampled at random is the cluster (in priming a verb, or a sentence that many pairs reuse), so clusters
are drawn with replacement and everything inside a cluster comes with it. `mechicl.stats` offers all of this as well.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import ndtr, ndtri

Method = Literal["bca", "percentile"]
Statistic = Callable[[Int[np.ndarray, "*boot verb"]], Float[np.ndarray, "*boot"]]
MIN_BOOT = 100  # the tails of fewer resamples are noise
MANY_UNDEFINED = 0.01  # share of undefined resamples from which on the user is told
_CELLS = 2_000_000  # indices drawn at once: bounds the memory to a few times 16 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap interval, in the unit of the statistic; `se` is the draws' standard deviation.

    `n_undefined` of the `n_boot` resamples had no defined statistic (all x equal, say); the interval is conditional on
    the others. `method` is the one that was used: "percentile" also where BCa was asked for and is undefined.
    """

    estimate: float
    low: float
    high: float
    se: float
    level: float
    method: str
    n_clusters: int
    n_boot: int
    n_undefined: int


def cluster_bootstrap(
    statistic: Statistic,
    n_clusters: int,
    *,
    n_boot: int = 10_000,
    level: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
) -> Interval:
    """The interval of any statistic of clusters, by drawing clusters with replacement.

    `statistic` maps arrays of cluster numbers (last axis: a sample of clusters) to values, NaN where it is undefined.
    "bca" (bias-corrected and accelerated; Efron 1987) agrees with `scipy.stats.bootstrap`; "percentile" takes quantiles
    of the draws. Coverage is nominal for many clusters and falls short for few: see `slope_interval` for numbers.
    Equal seeds and cluster numbers give equal resamples, so two statistics can be compared draw by draw.
    Warns (RuntimeWarning) where over 1% of the resamples are undefined, and where BCa is undefined and percentiles are
    given instead. Raises ValueError for fewer than 2 clusters, and for a statistic that is undefined on the sample or
    on half the draws.
    """
    check_level(level)
    if n_clusters < 2:
        raise ValueError(f"got {n_clusters} cluster(s), expected at least 2: the spread between clusters is unknown")
    if n_boot < MIN_BOOT:
        raise ValueError(f"got n_boot={n_boot}, expected at least {MIN_BOOT}")
    if method not in ("bca", "percentile"):
        raise ValueError(f"got method {method!r}, expected 'bca' or 'percentile'")
    estimate = float(statistic(np.arange(n_clusters)))
    if not np.isfinite(estimate):
        raise ValueError(f"the statistic is {estimate} on the whole sample: there is nothing to put an interval around")
    rng = np.random.default_rng(seed)
    draws = np.concatenate(
        [statistic(rng.integers(n_clusters, size=(size, n_clusters))) for size in batches(n_boot, n_clusters)]
    )
    defined = draws[np.isfinite(draws)]
    n_undefined = n_boot - len(defined)
    if n_undefined > n_boot / 2:
        raise ValueError(
            f"the statistic is undefined on {n_undefined} of {n_boot} resamples: too few distinct clusters"
        )
    if n_undefined > MANY_UNDEFINED * n_boot:
        _warn(
            f"{n_undefined} of {n_boot} resamples of {n_clusters} clusters had no defined statistic and were left out"
        )
    used: str = method
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        adjusted = _bca_tails(estimate, defined, _jackknife(statistic, n_clusters), tails)
        if adjusted is None:
            used = "percentile"
            _warn(f"BCa is undefined for these {n_clusters} clusters; the interval is the percentile interval")
        else:
            tails = adjusted
    low, high = np.quantile(defined, tails)
    se = float(defined.std(ddof=1))
    return Interval(estimate, float(low), float(high), se, level, used, n_clusters, n_boot, n_undefined)


def cluster_mean_interval(
    values: Float[np.ndarray, "item"],
    clusters: Sequence[Any] | np.ndarray | pd.Series,
    *,
    n_boot: int = 10_000,
    level: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
) -> Interval:
    """The mean over items that repeat within clusters: sum of all values / number of items, in the unit of the values.

    Clusters are resampled, and a resample's mean weights each cluster by its number of items, as the estimate does.
    With one item a cluster it is the ordinary bootstrap of a mean. Coverage of 95% BCa for normal clusters of 1 to 7
    items (4,000 simulations): .81 at 5 clusters, .87 at 10, .91 at 22, .94 at 60; few clusters make it too narrow.
    Raises ValueError for non-finite values, lengths that differ, and fewer than 2 clusters.
    """
    if len(values) != len(clusters):
        raise ValueError(f"got {len(values)} values and {len(clusters)} cluster labels, expected one label a value")
    sums, counts = cluster_sums(values, clusters)

    def weighted_mean(chosen: Int[np.ndarray, "*boot verb"]) -> Float[np.ndarray, "*boot"]:
        return np.asarray(sums[chosen].sum(-1) / counts[chosen].sum(-1))

    return cluster_bootstrap(weighted_mean, len(sums), n_boot=n_boot, level=level, method=method, seed=seed)


def cluster_sums(
    values: Float[np.ndarray, "item"], clusters: Sequence[Any] | np.ndarray | pd.Series
) -> tuple[Float[np.ndarray, "verb"], Int[np.ndarray, "verb"]]:
    """The sum and the number of the values of each cluster, clusters in order of appearance."""
    if not np.isfinite(values).all():
        raise ValueError(f"got {int((~np.isfinite(values)).sum())} values that are not finite; drop these items first")
    codes, names = pd.factorize(np.asarray(clusters))
    if (codes < 0).any():
        raise ValueError("a cluster label is missing; give every item a label")
    return np.bincount(codes, values, len(names)), np.bincount(codes, minlength=len(names))


def batches(total: int, width: int) -> Iterator[int]:
    """Splits `total` rows of `width` cells into batches that fit into little memory; yields the sizes."""
    size = max(1, _CELLS // max(1, width))
    yield from (min(size, total - start) for start in range(0, total, size))


def check_level(level: float) -> None:
    """Refuses (ValueError) a confidence level that is no probability."""
    if not 0 < level < 1:
        raise ValueError(f"got level={level}, expected a number between 0 and 1, such as 0.95")


def _jackknife(statistic: Statistic, n: int) -> Float[np.ndarray, "verb"]:
    """The statistic with each cluster left out in turn."""
    parts, start = [], 0
    for size in batches(n, n):
        left_out = np.arange(start, start + size)[:, None]
        others = np.arange(n - 1)[None, :]
        parts.append(statistic(others + (others >= left_out)))
        start += size
    return np.concatenate(parts)


def _bca_tails(
    estimate: float,
    draws: Float[np.ndarray, "boot"],
    jackknife: Float[np.ndarray, "verb"],
    tails: Float[np.ndarray, "2"],
) -> Float[np.ndarray, "2"] | None:
    """The quantiles to read BCa's limits at, or None where it is undefined: all draws to one side, or no jackknife."""
    if np.ptp(draws) == 0:
        return tails  # a constant has one interval, whatever the quantiles
    below = ((draws < estimate).mean() + (draws <= estimate).mean()) / 2
    if not np.isfinite(jackknife).all() or not 0 < below < 1:
        return None
    spread = jackknife.mean() - jackknife
    squares = (spread**2).sum()
    acceleration = (spread**3).sum() / (6 * squares**1.5) if squares > 0 else 0.0
    bias = ndtri(below)
    shifted = bias + ndtri(tails)
    adjusted = ndtr(bias + shifted / (1 - acceleration * shifted))
    return adjusted if (1 - acceleration * shifted > 0).all() else None


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=3)
