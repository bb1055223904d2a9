"""How far a transformer is from every mixture of two strategies: tables a sequence, made once.

With w = 1/(1 + exp(-x)) at log odds x the mixture is p = w M + (1 - w) G. For a transformer's predictions h:

    "kl"    profile(x) = mean over items of KL(h, p) = sum_y h_y (log h_y - log p_y)
    "mse"   profile(x) = mean over items and labels of (h - p)^2, a parabola in w

Beside it stand the distances d of which d_rel is made (half the symmetrised KL, or the squared distance): of the
transformer and of the mixture to M and to G. Everything is summed over the items of a cluster (a sequence), so that a
bootstrap over sequences needs no second look at the predictions. Distances are nats, or squares of the mean's unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.predictors.distances import relative_distance
from mechicl.strategies.block_tables import mean_block, probability_block
from mechicl.strategies.curves import STEP, Curves, Parabolas
from mechicl.strategies.inputs import check_offsets, check_predictions

MOST_CLUSTERS = 128
_SATURATED = 15.0  # log odds at which a weight is 0 or 1 up to 3e-7
_MOST_NODES = 1_000


@dataclass(frozen=True)
class Averages:
    """Means over items. profiles: curves [seed step diversity]; model_to_*: of the mixture, curves [seed diversity]."""

    profiles: Curves | Parabolas
    to_memorising: Float[np.ndarray, "seed step diversity"]
    to_generalising: Float[np.ndarray, "seed step diversity"]
    between: Float[np.ndarray, "seed diversity"]
    model_to_memorising: Curves | Parabolas
    model_to_generalising: Curves | Parabolas

    @property
    def d_rel(self) -> Float[np.ndarray, "seed step diversity"]:
        """The transformer's relative distance: 1 is M, 0 is G, NaN where M and G agree."""
        return relative_distance(self.to_memorising, self.to_generalising, self._apart)

    def predicted(self, log_odds: Float[np.ndarray, "seed step diversity"]) -> Float[np.ndarray, "seed step diversity"]:
        """The mixture's relative distance."""
        tables = (self.model_to_memorising, self.model_to_generalising)
        rows = np.arange(prod(self.between.shape)).reshape(self.between.shape)[:, None, :]
        rows = np.broadcast_to(rows, log_odds.shape).ravel()
        near, far = (table.pick(rows).at(log_odds.ravel())[0].reshape(log_odds.shape) for table in tables)
        return relative_distance(near, far, self._apart)

    @property
    def _apart(self) -> Float[np.ndarray, "seed step diversity"]:
        return np.broadcast_to(self.between[:, None, :], self.to_memorising.shape)


@dataclass(frozen=True)
class Profiles:
    """Sums over the items of each cluster (the last axis but one of tables, the last of distances).

    A table's last axis is a node of the log odds, the first at `low`, or, where `low` is None, a coefficient of 1, w
    and w^2.
    """

    low: float | None
    counts: Float[np.ndarray, " batch"]
    profiles: Float[np.ndarray, "seed step diversity batch weight"]
    to_memorising: Float[np.ndarray, "seed step diversity batch"]
    to_generalising: Float[np.ndarray, "seed step diversity batch"]
    between: Float[np.ndarray, "seed diversity batch"]
    model_to_memorising: Float[np.ndarray, "seed diversity batch weight"]
    model_to_generalising: Float[np.ndarray, "seed diversity batch weight"]

    def average(self, drawn: Float[np.ndarray, " batch"] | None = None) -> Averages:
        """Means over all items; drawn: how often each cluster was drawn, for a bootstrap."""
        times = np.ones(len(self.counts)) if drawn is None else drawn
        share = times / (times @ self.counts)

        def table(values: np.ndarray) -> Curves | Parabolas:
            rows = np.matmul(share, values).reshape(-1, values.shape[-1])
            return Parabolas(rows) if self.low is None else Curves.through(self.low, rows)

        return Averages(
            profiles=table(self.profiles),
            to_memorising=self.to_memorising @ share,
            to_generalising=self.to_generalising @ share,
            between=self.between @ share,
            model_to_memorising=table(self.model_to_memorising),
            model_to_generalising=table(self.model_to_generalising),
        )


def strategy_profiles(
    predictions: Float[np.ndarray, "seed step diversity item label"],
    memorising: Float[np.ndarray, "seed diversity item label"],
    generalising: Float[np.ndarray, "seed diversity item label"],
    *,
    clusters: Int[np.ndarray, " item"] | None = None,
    distance: str = "kl",
    offsets: Float[np.ndarray, "seed diversity item"] | None = None,
) -> Profiles:
    """The tables of a transformer's predictions h, given M and G of the same items.

    clusters: which sequence each item belongs to; None: each item its own. Sequences beyond MOST_CLUSTERS join others,
    which leaves an interval over them what it was. offsets: added to the log odds item by item (weights that depend on
    the context). Memory: 8 bytes a seed, checkpoint, diversity, cluster and node, of which there are about 100.

    Errors (ValueError): shapes that do not go together; numbers that are not finite; for "kl" predictions that are no
    distributions, and predictors with a probability of 0.
    """
    check_predictions(predictions, memorising, generalising, clusters, distance)
    check_offsets(offsets, (*memorising.shape[:3],))
    n_seeds, n_steps, n_diversities, n_items, _ = predictions.shape
    members = cluster_members(clusters, n_items)
    grid = _grid(memorising, generalising, offsets, distance)
    found: dict[str, np.ndarray] = {}
    for seed, diversity in np.ndindex(n_seeds, n_diversities):
        h, m, g = predictions[seed, :, diversity], memorising[seed, diversity], generalising[seed, diversity]
        offset = None if offsets is None else offsets[seed, diversity]
        if distance == "kl":
            block = probability_block(h, m, g, np.zeros(n_items) if offset is None else offset, members, grid)
        else:
            block = mean_block(h, m, g, offset, members, grid)
        for name, rows in block.items():
            of_steps = name in ("profiles", "to_memorising", "to_generalising")
            if name not in found:
                lead = (n_seeds, n_steps, n_diversities) if of_steps else (n_seeds, n_diversities)
                found[name] = np.empty(lead + rows.shape[of_steps:])
            found[name][(seed, slice(None), diversity) if of_steps else (seed, diversity)] = rows
    low = None if distance == "mse" and offsets is None else float(grid[0])
    return Profiles(low=low, counts=(members >= 0).sum(1).astype(float), **found)


def cluster_members(clusters: Int[np.ndarray, " item"] | None, n_items: int) -> Int[np.ndarray, "batch _"]:
    """The items of each cluster, one row a cluster, -1 beyond its last."""
    codes, names = pd.factorize(np.arange(n_items) if clusters is None else clusters)
    n_clusters = min(len(names), MOST_CLUSTERS)
    codes = codes % n_clusters
    order = np.argsort(codes, kind="stable")
    sizes = np.bincount(codes, minlength=n_clusters)
    members = np.full((n_clusters, sizes.max()), -1)
    place = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    members[codes[order], place] = order
    return members


def _grid(memorising: np.ndarray, generalising: np.ndarray, offsets: np.ndarray | None, distance: str) -> np.ndarray:
    """Nodes so wide that a mixture is one of its strategies at both ends, for every label of every item."""
    low, high = (0.0, 0.0) if offsets is None else (float(offsets.min()), float(offsets.max()))
    least, most = -_SATURATED - max(high, 0.0), _SATURATED - min(low, 0.0)
    if distance == "kl":
        ratios = [np.log(m / g) for m, g in zip(memorising, generalising, strict=True)]
        least -= max(0.0, *(float(ratio.max()) for ratio in ratios))
        most += max(0.0, *(-float(ratio.min()) for ratio in ratios))
    n_nodes = int(np.ceil((most - least) / STEP)) + 1
    if n_nodes > _MOST_NODES:
        raise ValueError(
            f"got predictors (and offsets) that differ by {most - least - 2 * _SATURATED:.0f} nats; clamp them"
        )
    return least + STEP * np.arange(n_nodes)
