"""Sequences that a model was not trained on, what both strategies say of them, and how far a model's predictions lie.

Distances are means of each sequence over its positions; a set of sequences has

    d_rel = (clip[(d(h, G) - d(h, M)) / d(M, G), -1, 1] + 1) / 2      1: h memorises, 0: h generalises

of the means over its sequences, and its residual min(d(h, G), d(h, M)) / d(M, G): where that is large, the model is
near neither strategy and d_rel means nothing. Intervals resample whole sequences. Source: 2506.17859.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.predictions import held_out, predict
from mechicl.organisms.grid.stack import Stack
from mechicl.predictors.bayes import predict_strategies, prediction_losses
from mechicl.predictors.distances import distance, relative_distance, residual
from mechicl.resampling import MIN_BOOT, check_level

PART = 10  # which sequences: not those that others draw to fit a model of training
WHERE = ("all", "last")


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Sequences of a point's task, with the predictions of both strategies and what came next."""

    point: GridPoint
    batch: Any
    memorising: Float[np.ndarray, "batch pos label"]
    generalising: Float[np.ndarray, "batch pos label"]
    truth: Int[np.ndarray, "batch pos"] | Float[np.ndarray, "batch pos"]

    @classmethod
    def of(cls, point: GridPoint, n: int = 200, *, part: int = PART) -> HeldOut:
        """Draw n sequences of those that training never met; `part`: which such set."""
        if n < 4:
            raise ValueError(f"got n={n}; expected 4 sequences or more, to draw them again and to halve them")
        return cls.over(point, held_out(point, n, part=part))

    @classmethod
    def over(cls, point: GridPoint, batch: Any) -> HeldOut:
        """For sequences that the point's task gave."""
        said = predict_strategies(point.task, batch)
        return cls(point, batch, said.memorising, said.generalising, said.truth)

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.truth)

    def predictions(self, weights: Mapping[str, Tensor]) -> Float[np.ndarray, "batch pos label"]:
        """What a model with these weights predicts."""
        stack = Stack(self.point.config, 1)
        stack.set_model(0, weights)
        return predict(stack, self.point.setting, self.batch)

    def distances(
        self, predictions: Iterable[Float[np.ndarray, "batch pos label"]], *, where: str = "all"
    ) -> Distances:
        """How far predictions lie from each strategy's; where: at all positions, or at the last alone."""
        if where not in WHERE:
            raise ValueError(f"got where={where!r}; expected one of {', '.join(WHERE)}")
        at = slice(-1, None) if where == "last" else slice(None)
        apart = distance(self.point.setting)
        memorising, generalising, truth = self.memorising[:, at], self.generalising[:, at], self.truth[:, at]
        each = [
            [
                part.mean(-1)
                for part in (apart(own, memorising), apart(own, generalising), prediction_losses(own, truth))
            ]
            for own in (said[:, at] for said in predictions)
        ]
        if not each:
            raise ValueError("got no predictions; expected those of one model or more")
        to_memorising, to_generalising, loss = (np.stack(part) for part in zip(*each, strict=True))
        return Distances(to_memorising, to_generalising, apart(memorising, generalising).mean(-1), loss)


@dataclass(frozen=True, eq=False)
class Distances:
    """Means of each sequence, for several models (or one changed in several ways). loss: nats, or squared error."""

    to_memorising: Float[np.ndarray, "set batch"]
    to_generalising: Float[np.ndarray, "set batch"]
    between: Float[np.ndarray, " batch"]
    loss: Float[np.ndarray, "set batch"]

    def d_rel(self, counts: Float[np.ndarray, "boot batch"] | None = None) -> Float[np.ndarray, "set boot"]:
        """d_rel of the sample, one column; or of resamples, given how often each has each sequence."""
        memorising, generalising, between, _ = self._means(counts)
        return relative_distance(memorising, generalising, np.broadcast_to(between, memorising.shape))

    def residual(self, counts: Float[np.ndarray, "boot batch"] | None = None) -> Float[np.ndarray, "set boot"]:
        """The residual, likewise."""
        memorising, generalising, between, _ = self._means(counts)
        return residual(memorising, generalising, np.broadcast_to(between, memorising.shape))

    def mean_loss(self, counts: Float[np.ndarray, "boot batch"] | None = None) -> Float[np.ndarray, "set boot"]:
        """The loss, likewise."""
        return self._means(counts)[3]

    def part(self, chosen: Int[np.ndarray, " _"]) -> Distances:
        """Some of the sequences."""
        own = (self.to_memorising[:, chosen], self.to_generalising[:, chosen], self.between[chosen])
        return Distances(*own, self.loss[:, chosen])

    def _means(self, counts: Float[np.ndarray, "boot batch"] | None) -> tuple[np.ndarray, ...]:
        n = len(self.between)
        weights = np.full((1, n), 1 / n) if counts is None else counts / n
        return tuple(part @ weights.T for part in (self.to_memorising, self.to_generalising, self.between, self.loss))


def resamples(n: int, n_boot: int, seed: int) -> Float[np.ndarray, "boot batch"]:
    """How often each of n sequences is in each resample."""
    if n_boot < MIN_BOOT:
        raise ValueError(f"got n_boot={n_boot}; expected at least {MIN_BOOT}")
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot).astype(np.float64)


def ends(draws: Float[np.ndarray, "*set boot"], level: float) -> tuple[np.ndarray, np.ndarray]:
    """The limits of percentile intervals; NaN where a draw is."""
    check_level(level)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    return np.asarray(low), np.asarray(high)
