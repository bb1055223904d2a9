"""One question about heads: which functional, on which scale, against which bias, judged by which statistics."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.functionals import Functional
from mechicl.analyses.heads.effects import Rows, SetEffects
from mechicl.crossed import CrossedIntervals, crossed_intervals
from mechicl.max_t import HeadTests, max_t_over_heads
from mechicl.verb_weights import mean_weights, slope_weights, verb_matrix


@dataclass(frozen=True)
class Question:
    """A functional F of item outcomes, and how its estimates are judged.

    bias: verb -> share of the first form without a prime, held at its clean value whatever is replaced.
    """

    functional: Functional
    scale: str
    bias: pd.Series
    level: float
    n_boot: int
    n_permutations: int
    seed: int

    @property
    def fewest_verbs(self) -> int:
        """With fewer verbs no p can reach 1 - level, whatever a head does: 2 / 2^n for means, 1 / n! for slopes."""
        smallest = (1 / math.factorial(n) if self.functional.over == "slope" else 2.0 ** (1 - n) for n in range(3, 100))
        return 3 + next((i for i, p in enumerate(smallest) if p <= 1 - self.level), 0)

    def outcome(self, log_odds: dict[str, Float[np.ndarray, "*set item"]]) -> Float[np.ndarray, "*set item"]:
        """Each item's combined outcome u."""
        return self.functional.combined(log_odds, self.scale)

    def change(self, effects: SetEffects) -> Float[np.ndarray, "set item"]:
        """What sets of heads do to each item's u."""
        clean = {context: values[None] for context, values in effects.clean.items()}
        return self.outcome(effects.patched) - self.outcome(clean)

    def total(self, values: Float[np.ndarray, "*set item"], rows: Rows) -> Float[np.ndarray, "*set"]:
        """F of items' u; linear, so of a change it is the change of F."""
        if self.functional.over == "mean":
            return np.asarray(values @ mean_weights(rows.prime_verb))
        return np.asarray(values @ slope_weights(self.bias, rows.prime_verb, rows.target))

    def intervals(self, values: Float[np.ndarray, "set item"], rows: Rows) -> CrossedIntervals:
        """F of many sets with crossed-bootstrap intervals over prime verbs and targets."""
        with warnings.catch_warnings():
            # Few verbs or targets, or a head that does nothing in all but some: the result says what each interval is.
            warnings.simplefilter("ignore", RuntimeWarning)
            return crossed_intervals(
                values, rows.prime_verb, rows.target, x=self.bias if self.functional.over == "slope" else None,
                n_boot=self.n_boot, level=self.level, seed=self.seed,
            )  # fmt: skip

    def tests(self, values: Float[np.ndarray, "set item"], rows: Rows) -> HeadTests:
        """Permutation tests of F = 0 over prime verbs, family-wise over the sets."""
        verbs, matrix = verb_matrix(rows.prime_verb, rows.target, adjusted=self.functional.over == "slope")
        x = self.bias.reindex(verbs).to_numpy() if self.functional.over == "slope" else None
        return max_t_over_heads(values @ matrix.T, x, n_permutations=self.n_permutations, seed=self.seed)
