"""How far d_rel moves when a model is changed, as a share of what lies between two models; with intervals.

share = [d_rel(changed) - d_rel(host)] / [d_rel(other) - d_rel(host)]     0: not at all, 1: as far as the other model
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from mechicl.analyses.components.held_out import Distances, ends

NUMBERS = ("share", "low", "high", "moved", "d_rel", "residual", "loss_moved")


class Moves:
    """d_rel, residual and loss of many models on the same sequences: column 0 is the sample, the others resamples."""

    def __init__(self, found: Distances, counts: Float[np.ndarray, "boot batch"], level: float) -> None:
        self.level = level
        self.d_rel, self.residual, self.loss = (
            np.concatenate([measure(), measure(counts)], axis=1)
            for measure in (found.d_rel, found.residual, found.mean_loss)
        )

    def share(self, at: Any, host: int, other: int) -> Float[np.ndarray, "*set boot"]:
        """The share of one model or several; NaN where host and other do not differ."""
        whole = self.d_rel[other] - self.d_rel[host]
        return np.asarray((self.d_rel[at] - self.d_rel[host]) / np.where(whole == 0, np.nan, whole))

    def row(self, at: int, host: int, other: int) -> dict[str, float]:
        """The numbers of a changed model: share with interval, d_rel moved, its d_rel and residual, loss moved."""
        return self.numbers(self.share(at, host, other)) | {
            "moved": float(self.d_rel[at, 0] - self.d_rel[host, 0]),
            "d_rel": float(self.d_rel[at, 0]),
            "residual": float(self.residual[at, 0]),
            "loss_moved": float(self.loss[at, 0] - self.loss[host, 0]),
        }

    def numbers(self, draws: Float[np.ndarray, " boot"]) -> dict[str, float]:
        """The numbers of a share that is made of several models: no model has its d_rel."""
        low, high = ends(draws[1:], self.level)
        return dict.fromkeys(NUMBERS, float("nan")) | {"share": float(draws[0]), "low": float(low), "high": float(high)}
