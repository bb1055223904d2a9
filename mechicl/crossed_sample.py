"""A sample of items crossed by verb and target, and its statistics under any counts of verbs and targets.

What `mechicl.crossed` resamples. Counts of 1 are the sample itself, a 0 leaves a verb or target out, and random counts
are a bootstrap draw: one function serves all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array

from mechicl.resampling import MIN_BOOT, batches
from mechicl.verb_weights import (
    Labels,
    VerbValues,
    design_of,
    slope_contrast,
    tells_verbs_from_targets,
    values_of_verbs,
    verb_matrix,
)


@dataclass(frozen=True)
class CrossedSample:
    """Values, adjusted if need be, and where each item lies."""

    values: Float[np.ndarray, "head item"]
    verb: Int[np.ndarray, " item"]
    target: Int[np.ndarray, " item"]
    met: Float[np.ndarray, "verb _target"]
    x: Float[np.ndarray, " verb"] | None

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "head item"],
        verbs: Labels,
        targets: Labels,
        x: VerbValues | None,
        adjusted: bool,
    ) -> CrossedSample:
        """Check the input, and take the targets' terms out of the values where a slope is to be adjusted for them."""
        if values.shape[1] != len(verbs):
            raise ValueError(f"got values of {values.shape[1]} items and {len(verbs)} prime verbs; expected one each")
        if not np.isfinite(values).all():
            raise ValueError(f"got {int((~np.isfinite(values)).sum())} values that are not finite; drop these items")
        verb, names, target, met = design_of(verbs, targets)
        if len(names) < 2:
            raise ValueError(f"got {len(names)} verb(s), expected at least 2: the spread between verbs is unknown")
        if x is None:
            return cls(values.astype(np.float64), verb, target, met, None)
        biases = values_of_verbs(x, names)
        slope_contrast(biases)  # refuses too few verbs and equal x
        if adjusted and tells_verbs_from_targets(verbs, targets):
            values = values - _target_terms(values, verb_matrix(verbs, targets)[1], target, met)
        return cls(values.astype(np.float64), verb, target, met, biases)

    @property
    def n_verbs(self) -> int:
        """How many verbs there are."""
        return self.met.shape[0]

    @property
    def n_targets(self) -> int:
        """How many targets there are."""
        return self.met.shape[1]

    def statistic(
        self, verb_counts: Float[np.ndarray, "boot verb"], target_counts: Float[np.ndarray, "boot _target"]
    ) -> Float[np.ndarray, "boot head"]:
        """The statistic with each verb and target counted so often; NaN where it is undefined."""
        weights = target_counts[:, self.target]
        if self.x is None:
            weights *= verb_counts[:, self.verb]
            total = weights.sum(1)
            scale = np.divide(1.0, total, out=np.full_like(total, np.nan), where=total > 0)[:, None]
        else:
            in_verb = target_counts @ self.met.T
            slope = slope_coefficients(self.x, np.where(in_verb > 0, verb_counts, 0.0))
            scale = np.ones((len(weights), 1))
            weights *= np.divide(slope, in_verb, out=np.zeros_like(slope), where=in_verb > 0)[:, self.verb]
        return scale * (weights @ self.values.T)

    def draws(self, n_boot: int, seed: int) -> Float[np.ndarray, "boot head"]:
        """The statistic of samples of verbs and of targets, both drawn with replacement; NaN where undefined."""
        if n_boot < MIN_BOOT:
            raise ValueError(f"got n_boot={n_boot}, expected at least {MIN_BOOT}")
        # A stream for each, so that batches of any size give the same draws.
        for_verbs, for_targets = np.random.default_rng(seed).spawn(2)
        return np.concatenate(
            [
                self.statistic(_counts(for_verbs, size, self.n_verbs), _counts(for_targets, size, self.n_targets))
                for size in batches(n_boot, len(self.verb))
            ]
        )

    def leave_out(self) -> list[Float[np.ndarray, "_ head"]]:
        """The statistic without each verb in turn and, where there are several targets, without each target."""
        by_verb = [
            self.statistic(counts, np.ones((len(counts), self.n_targets))) for counts in self._but_one(self.n_verbs)
        ]
        if self.n_targets == 1:
            return [np.concatenate(by_verb)]
        by_target = [
            self.statistic(np.ones((len(counts), self.n_verbs)), counts) for counts in self._but_one(self.n_targets)
        ]
        return [np.concatenate(by_verb), np.concatenate(by_target)]

    def _but_one(self, n: int) -> Iterator[Float[np.ndarray, "boot _"]]:
        start = 0
        for size in batches(n, max(n, len(self.verb))):
            yield 1.0 - np.eye(size, n, start)
            start += size


def slope_coefficients(
    x: Float[np.ndarray, " verb"], counts: Float[np.ndarray, "boot verb"]
) -> Float[np.ndarray, "boot verb"]:
    """What each verb's mean is multiplied by in the slope on x when it counts so often; NaN where x does not vary."""
    drawn = counts > 0
    varies = np.where(drawn, x, -np.inf).max(1) > np.where(drawn, x, np.inf).min(1)
    total = np.where(varies, counts.sum(1), 1.0)
    away = counts * (x - (counts @ x / total)[:, None])
    squares = np.where(varies, (away * x).sum(1), np.nan)
    return away / squares[:, None]


def _target_terms(
    values: Float[np.ndarray, "head item"],
    matrix: Float[np.ndarray, "verb item"],
    target: Int[np.ndarray, " item"],
    met: Float[np.ndarray, "verb _target"],
) -> Float[np.ndarray, "head item"]:
    """The targets' terms b of least squares for value = a(verb) + b(target), one an item."""
    own = csr_array((np.ones(len(target)), (np.arange(len(target)), target)), shape=(len(target), met.shape[1]))
    terms = (values @ own - values @ matrix.T @ met) / met.sum(0)
    return terms[:, target]


def _counts(rng: np.random.Generator, size: int, n: int) -> Float[np.ndarray, "boot _"]:
    """How often each of n is drawn in n draws with replacement, for `size` samples."""
    chosen = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
    return np.bincount(chosen.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
