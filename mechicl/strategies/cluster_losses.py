"""The loss of given log odds, kept apart by seed and sequence: intervals of it then cost nothing."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mechicl.strategies.curves import Curves, Parabolas
from mechicl.strategies.data import StrategyData
from mechicl.strategies.measures import Times, percentiles


def cluster_losses(
    data: StrategyData, log_odds: Float[np.ndarray, "seed step diversity"], cells: Bool[np.ndarray, "step diversity"]
) -> Float[np.ndarray, "seed batch"]:
    """The profile at these log odds, summed over the items of each cluster, averaged over cells."""
    found = []
    for values, odds in zip(data.profiles.profiles, log_odds, strict=True):
        rows = values[cells]
        table = Parabolas(rows) if data.profiles.low is None else Curves.through(data.profiles.low, rows)
        found.append(table.at(np.repeat(odds[cells][:, None], rows.shape[1], axis=1))[0].mean(0))
    return np.array(found)


def loss_row(
    name: str,
    losses: Float[np.ndarray, "seed batch"],
    reference: Float[np.ndarray, "seed batch"],
    counts: Float[np.ndarray, " batch"],
    times: Times,
    level: float,
) -> dict[str, float]:
    """{name}_loss an item, and {name}_excess beyond the reference's with its interval (seeds and clusters resampled).

    losses: sums over the items of each cluster. The parameters behind the losses stay as they are.
    """
    excess = losses - reference
    low, high = percentiles(_drawn(excess, counts, times), level)
    whole = (np.ones((1, len(losses))), np.ones((1, len(counts))))
    return {
        f"{name}_loss": float(_drawn(losses, counts, whole)[0]),
        f"{name}_excess": float(_drawn(excess, counts, whole)[0]),
        f"{name}_excess_low": low,
        f"{name}_excess_high": high,
    }


def _drawn(values: np.ndarray, counts: np.ndarray, times: Times) -> np.ndarray:
    """The mean an item, where seeds and clusters were drawn so many times."""
    seeds, clusters = times
    return np.asarray(np.einsum("ns,sc,nc->n", seeds, values, clusters) / (seeds.sum(1) * (clusters @ counts)))
