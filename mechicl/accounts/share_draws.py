"""Bootstrap draws of mean distances over clusters of contexts, and the shares and differences made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from mechicl.stats import holm

CEILING = "ceiling"


@dataclass(frozen=True, eq=False)
class ShareDraws:
    """Sums of distances by name [name, cluster, length], numbers of contexts [cluster, length], and draws of clusters.

    All that is asked of one object rests on the same draws, so differences are paired.
    """

    names: tuple[str, ...]
    sums: Float[np.ndarray, "account cluster length"]
    counts: Float[np.ndarray, "cluster length"]
    drawn: Int[np.ndarray, "boot cluster"]

    def at(self, place: int) -> ShareDraws:
        """One length alone, with the same draws."""
        return ShareDraws(self.names, self.sums[:, :, [place]], self.counts[:, [place]], self.drawn)

    def mean(self, name: str) -> float:
        """The mean distance over all contexts."""
        return float(self.sums[self.names.index(name)].sum() / self.counts.sum())

    def means(self, name: str) -> Float[np.ndarray, " boot"]:
        """The mean distance of each draw."""
        own = self.sums[self.names.index(name)].sum(-1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.drawn @ own) / (self.drawn @ self.counts.sum(-1)))

    def interval(self, values: Float[np.ndarray, " boot"], level: float) -> tuple[float, float]:
        """Percentiles of the defined draws, as wide as t intervals are (`expanded_tail`); NaN where more draws are
        undefined than a tail holds."""
        if np.isnan(values).mean() > (1 - level) / 2:
            return np.nan, np.nan
        tail = expanded_tail(level, self.sums.shape[1])
        low, high = np.nanquantile(values, [tail, 1 - tail])
        return float(low), float(high)

    def rooms(self, anchor: str) -> Float[np.ndarray, " boot"]:
        """The room of each draw; NaN where there is none."""
        found = self.means(anchor) - self.means(CEILING)
        return np.where(found > 0, found, np.nan)

    def share(self, name: str, anchor: str, level: float) -> tuple[float, float, float]:
        """Share of the room with its interval."""
        return self._of_room(self.mean(anchor) - self.mean(name), self.means(anchor) - self.means(name), anchor, level)

    def difference(self, name: str, other: str, anchor: str, level: float) -> tuple[float, float, float]:
        """By how much of the room the first account is nearer than the other."""
        return self._of_room(self.mean(other) - self.mean(name), self.means(other) - self.means(name), anchor, level)

    def p_value(self, name: str, other: str) -> float:
        """Two-sided, of the difference: how often draws fall on either side of 0, counting the sample itself."""
        apart = self.means(other) - self.means(name)
        above, below = float((apart >= 0).mean()), float((apart <= 0).mean())
        n = len(apart)
        return min(1.0, 2 * (n * min(above, below) + 1) / (n + 1))

    def _of_room(
        self, value: float, drawn: Float[np.ndarray, " boot"], anchor: str, level: float
    ) -> tuple[float, float, float]:
        room = self.mean(anchor) - self.mean(CEILING)
        if not room > 0:
            return np.nan, np.nan, np.nan
        return (value / room, *self.interval(drawn / self.rooms(anchor), level))


def expanded_tail(level: float, n_clusters: int) -> float:
    """The share of draws beyond either end: that of a normal distribution beyond the t interval's end.

    A bootstrap of n clusters knows n - 1 degrees of freedom as if they were endless, and a variance over n: plain
    percentiles are too narrow for few clusters. .025 for many, .010 for 11, .004 for 7. Source: Hesterberg, What
    Teachers Should Know about the Bootstrap, arXiv 1411.5279 (expanded percentile intervals).
    """
    if n_clusters < 2:
        raise ValueError(f"got {n_clusters} cluster(s); expected 2 or more, the spread between them is unknown")
    end = stats.t.ppf((1 + level) / 2, n_clusters - 1) * np.sqrt(n_clusters / (n_clusters - 1))
    return float(stats.norm.sf(end))


def draw_sums(
    distances: Mapping[str, Sequence[Float[np.ndarray, " _"]]],
    clusters: Sequence[Int[np.ndarray, " _"]],
    *,
    n_boot: int,
    seed: int,
) -> ShareDraws:
    """Sum distances over clusters and lengths, and draw clusters with replacement.

    Raises ValueError for fewer than 2 clusters.
    """
    names = np.unique(np.concatenate(list(clusters)))
    if len(names) < 2:
        raise ValueError(f"got {len(names)} cluster(s) of contexts to judge by; expected 2 or more")
    shape = (len(names), len(clusters))
    sums, counts = np.zeros((len(distances), *shape)), np.zeros(shape)
    for place, own in enumerate(clusters):
        codes = np.searchsorted(names, own)
        np.add.at(counts[:, place], codes, 1.0)
        for number, parts in enumerate(distances.values()):
            np.add.at(sums[number, :, place], codes, parts[place])
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_boot)
    return ShareDraws(tuple(distances), sums, counts, drawn)


def pair_table(draws: ShareDraws, names: Sequence[str], anchor: str, level: float) -> pd.DataFrame:
    """One row a pair: by how much of the room `account` is nearer than `other`; p corrected over all pairs (Holm)."""
    rows = []
    for name, other in combinations(sorted(names, key=draws.mean), 2):
        rows.append((name, other, *draws.difference(name, other, anchor, level), draws.p_value(name, other)))
    table = pd.DataFrame(rows, columns=["account", "other", "difference", "low", "high", "p"])
    return table.assign(p_holm=holm(table["p"].to_numpy(float)) if len(table) else [])
