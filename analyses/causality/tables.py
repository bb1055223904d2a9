"""How far predictions follow replaced attention: measures of many prompts, their controls, and intervals.

An outcome is the vector of a prompt's label log-probabilities, centred: log-odds between labels, whatever else is
likely. With L the outcome under a condition, L_0 that of the clean run and L_r that of a reference (uniform attention
over the demonstrations, or none):

    faithfulness   1 - sum |L - L_0|^2 / sum |L_r - L_0|^2; 1: as in the clean run, 0: as far off as the reference,
                   below 0: farther. No upper end but 1
    slope          of L - L_r on L_0 - L_r, through 0: what share of the reference's change is taken back
    correlation    of L - L_r and L_0 - L_r about 0, from -1 to 1
    agreement      share of prompts with the clean run's prediction, 0 to 1; where labels tie each counts in part
    moved          root mean square change of a log-odds between two labels from the clean run, nats, 0 or more

Sums run over prompts and labels. Where the reference itself moves nothing, the first three are undefined (NaN).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

MEASURES = ("faithfulness", "slope", "correlation", "agreement", "moved")
RELATIVE = MEASURES[:3]  # to a reference
COLUMNS = ("set", "condition", "reference", "measure", "control", "estimate", "low", "high", "difference", "diff_low",
           "diff_high")  # fmt: skip
NOTHING = 1e-4  # nats: a reference that moves log-odds by less than rounding has no change to explain
Interval = tuple[float, float, float]
Members = tuple[Sequence[int], Sequence[int]]  # numbers of sets and of conditions whose sums are averaged


@dataclass(frozen=True)
class Outcomes:
    """Centred label log-probabilities, scaled so that a squared norm is the mean square over pairs' log-odds."""

    found: Float[np.ndarray, "set condition item label"]
    clean: Float[np.ndarray, "item label"]

    @classmethod
    def of(cls, log_probs: Float[np.ndarray, "set condition item label"], clean: Float[np.ndarray, "item label"]
           ) -> Outcomes:  # fmt: skip
        """Centre and scale: of two labels the squared norm is that of their log-odds."""
        scale = np.sqrt(2 / (clean.shape[-1] - 1))
        return cls(*(scale * (x - x.mean(-1, keepdims=True)) for x in (log_probs, clean)))

    def sums(self, members: Members, reference: int | None) -> Float[np.ndarray, "item sum"]:
        """By prompt, averaged over members: squares and products that all measures are made of."""
        sets, conditions = members
        own = self.found[np.ix_(sets, conditions)]
        away = ((own - self.clean) ** 2).sum(-1)
        same = (_best(own) * _best(self.clean)).sum(-1)
        columns = [np.ones_like(away), away, same]
        if reference is not None:
            base = self.found[list(sets)][:, [reference]]
            back, change = own - base, np.broadcast_to(self.clean - base, own.shape)
            columns += [(change**2).sum(-1), (back**2).sum(-1), (back * change).sum(-1)]
        return np.stack([column.mean((0, 1)) for column in columns], -1)


def _best(scores: Float[np.ndarray, "*item label"]) -> Float[np.ndarray, "*item label"]:
    """1 for the predicted label, shared by those that are alike but for rounding (uniform weights make ties)."""
    best = (scores >= scores.max(-1, keepdims=True) - NOTHING).astype(float)
    return best / best.sum(-1, keepdims=True)


def measure(name: str, sums: Float[np.ndarray, "*boot sum"]) -> Float[np.ndarray, "*boot"]:
    """A measure from sums over prompts; NaN where it is undefined."""
    n, away, same = (sums[..., i] for i in range(3))
    if name == "agreement":
        return np.asarray(same / n)
    if name == "moved":
        return np.asarray(np.sqrt(away / n))
    change, back, product = (sums[..., i] for i in range(3, 6))
    known = change > n * NOTHING**2
    with np.errstate(all="ignore"):
        value = {
            "faithfulness": 1 - away / change,
            "slope": product / change,
            "correlation": np.where(back > n * NOTHING**2, product / np.sqrt(back * change), np.nan),
        }[name]
    return np.where(known, value, np.nan)


@dataclass(frozen=True)
class Table:
    """Rows of the table: each measure, then each control beside it with the paired difference.

    sets: numbers of the named sets and, by name, those of their random sets. conditions: their numbers, several for the
    permuted kernel. clusters: which prompts are resampled together.
    """

    outcomes: Outcomes
    sets: dict[str, tuple[int, tuple[int, ...]]]
    conditions: dict[str, tuple[int, ...]]
    references: tuple[str, ...]
    clusters: np.ndarray
    n_boot: int
    level: float
    seed: int

    def frame(self) -> pd.DataFrame:
        """All rows, columns as `COLUMNS`."""
        codes, names = pd.factorize(self.clusters)
        draws = np.random.default_rng(self.seed).multinomial(
            len(names), np.full(len(names), 1 / len(names)), size=self.n_boot
        )
        return pd.DataFrame([row for name in self.sets for row in self._rows(name, codes, draws)], columns=COLUMNS)

    def _rows(self, name: str, codes: np.ndarray, draws: Int[np.ndarray, "boot item"]) -> Iterator[tuple[object, ...]]:
        own, random = self.sets[name]
        for condition, numbers in self.conditions.items():
            if condition in ("own", "permuted"):  # a check of the method, and a control
                continue
            controls: dict[str, Members] = {}
            if condition == "kernel" and "permuted" in self.conditions:
                controls["permuted weights"] = ([own], self.conditions["permuted"])
            if condition == "kernel" and "nuisance" in self.conditions:
                controls["nuisance weights"] = ([own], self.conditions["nuisance"])
            if random:
                controls["random heads"] = (random, numbers)
            for reference in (None, *self.references):
                if reference == condition or (condition, reference) == ("knocked out", "uniform"):
                    continue
                base = None if reference is None else self.conditions[reference][0]
                for what in MEASURES[3:] if reference is None else RELATIVE:
                    head = (name, condition, reference or "clean", what)
                    first = self._value(what, ([own], numbers), base, codes, draws)
                    yield (*head, "none", *self._interval(first), np.nan, np.nan, np.nan)
                    for control, members in controls.items():
                        second = self._value(what, members, base, codes, draws)
                        gap = (first[0] - second[0], first[1] - second[1])
                        yield (*head, control, *self._interval(second), *self._interval(gap))

    def _value(
        self, what: str, members: Members, base: int | None, codes: np.ndarray, draws: Int[np.ndarray, "boot item"]
    ) -> tuple[float, Float[np.ndarray, " boot"]]:
        """A measure of all prompts, and of every resample."""
        sums = self.outcomes.sums(members, base)
        by_cluster = np.zeros((draws.shape[1], sums.shape[1]))
        np.add.at(by_cluster, codes, sums)
        return float(measure(what, by_cluster.sum(0))), measure(what, draws @ by_cluster)

    def _interval(self, value: tuple[float, Float[np.ndarray, " boot"]]) -> Interval:
        """Estimate and percentile interval over the resamples in which it is defined; NaN if it is not."""
        estimate, drawn = value
        drawn = drawn[np.isfinite(drawn)]
        if not np.isfinite(estimate) or len(drawn) < self.n_boot / 2:
            return estimate, np.nan, np.nan
        low, high = np.quantile(drawn, [(1 - self.level) / 2, (1 + self.level) / 2])
        return estimate, float(low), float(high)
