"""All that a fit needs of a transformer's predictions, made once: fits, ablations and controls share it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from mechicl.strategies.agreement import Sample, draw_sample
from mechicl.strategies.curves import lowest
from mechicl.strategies.posterior_odds import OddsTerms
from mechicl.strategies.profiles import Averages, Profiles, cluster_members, strategy_profiles
from mechicl.strategies.threshold import SHARES, kept_checkpoints

Pair = tuple[Float[np.ndarray, "seed diversity"], Float[np.ndarray, "seed diversity"]]


@dataclass(frozen=True)
class StrategyData:
    """Tables and terms of one transformer, or of several seeds of it.

    profiles: sums a sequence; average: their means. best_log_odds, best_distance: of each cell's best interpolation.
    kept: checkpoints past the two-hypothesis threshold. fitted: cells for the fit; other kept ones are held out.
    """

    distance: str
    terms: OddsTerms
    profiles: Profiles
    average: Averages
    sample: Sample
    best_log_odds: Float[np.ndarray, "seed step diversity"]
    best_distance: Float[np.ndarray, "seed step diversity"]
    kept: Bool[np.ndarray, " step"]
    fitted: Bool[np.ndarray, "step diversity"]

    @property
    def cells(self) -> dict[str, Bool[np.ndarray, "step diversity"]]:
        """Sets of kept cells: all, fitted, held_out, and the held out ones of fitted diversities or steps."""
        kept = np.broadcast_to(self.kept[:, None], self.fitted.shape)
        steps, diversities = np.any(self.fitted, axis=1, keepdims=True), self.fitted.any(0)
        return {
            "all": kept.copy(),
            "fitted": self.fitted,
            "held_out": kept & ~self.fitted,
            "held_out_steps": kept & ~steps & diversities,
            "held_out_diversities": kept & steps & ~diversities,
        }


def strategy_data(
    predictions: Float[np.ndarray, "seed step diversity item label"],
    memorising: Float[np.ndarray, "seed diversity item label"],
    generalising: Float[np.ndarray, "seed diversity item label"],
    losses: Pair,
    complexities: Pair,
    *,
    steps: Num[np.ndarray, " step"],
    diversities: Num[np.ndarray, " diversity"],
    clusters: Int[np.ndarray, " item"] | None = None,
    distance: str = "kl",
    held_out: float = 0.2,
    threshold: float | None = None,
    offsets: Float[np.ndarray, "seed diversity item"] | None = None,
    seed: int = 0,
) -> StrategyData:
    """Checks, tabulates and splits; the arguments are those of `mechicl.strategies.fit.fit_strategies`.

    offsets: added to the log odds item by item. seed: which items are kept for comparing predictions.
    """
    if not 0 <= held_out < 1:
        raise ValueError(f"got held_out={held_out}; expected a share from 0 to below 1")
    share = SHARES.get(distance, 0.0) if threshold is None else threshold
    if not 0 <= share <= 1:
        raise ValueError(f"got threshold={threshold}; expected a share from 0 to 1 (1 keeps every checkpoint)")
    (loss_m, loss_g), (bits_m, bits_g) = losses, complexities
    if loss_m.shape != loss_g.shape:
        raise ValueError(f"got losses of shapes {loss_m.shape} and {loss_g.shape}; expected [seed, diversity] both")
    terms = OddsTerms(*(values.astype(np.float64) for values in (steps, diversities, loss_g - loss_m, bits_m, bits_g)))
    if predictions.shape[:3] != terms.shape:
        raise ValueError(
            f"got predictions of {predictions.shape[:3]} seeds, steps and diversities; losses, steps and diversities "
            f"say {terms.shape}"
        )
    split(np.ones(len(steps), bool), len(diversities), held_out)  # too few are told of before the work
    profiles = strategy_profiles(
        predictions, memorising, generalising, clusters=clusters, distance=distance, offsets=offsets
    )
    average = profiles.average()
    best_log_odds, best_distance = (
        part.reshape(terms.shape) for part in lowest(average.profiles, (prod(terms.shape),))
    )
    kept = kept_checkpoints(best_distance, average.between, share=share)
    return StrategyData(
        distance=distance,
        terms=terms,
        profiles=profiles,
        average=average,
        sample=draw_sample(
            predictions,
            memorising,
            generalising,
            cluster_members(clusters, predictions.shape[3]),
            offsets=offsets,
            seed=seed,
        ),
        best_log_odds=best_log_odds,
        best_distance=best_distance,
        kept=kept,
        fitted=split(kept, len(diversities), held_out),
    )


def split(kept: Bool[np.ndarray, " step"], n_diversities: int, held_out: float) -> Bool[np.ndarray, "step diversity"]:
    """The cells to fit: the first share 1 - held_out of kept checkpoints, and of diversities.

    Errors (ValueError): fewer than 2 checkpoints or diversities left.
    """
    n_steps, n_left = (int((1 - held_out) * n + 1e-9) for n in (int(kept.sum()), n_diversities))
    if n_steps < 2 or n_left < 2:
        raise ValueError(
            f"got {int(kept.sum())} checkpoints past the threshold and {n_diversities} diversities, of which "
            f"{n_steps} and {n_left} remain to fit; expected 2 or more of each: give more, or hold out less"
        )
    steps = kept & (np.cumsum(kept) <= n_steps)
    return steps[:, None] & (np.arange(n_diversities) < n_left)
