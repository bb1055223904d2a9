"""When a transformer turns from generalising to memorising, N*(D), observed and predicted (signatures)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechicl.results import Result


@dataclass(frozen=True)
class Transitions(Result):
    """Transition times.

    times: one row a diversity: diversity, predicted, predicted_low, predicted_high (bootstrap refits), observed,
        observed_low, observed_high (seeds), nearest (checkpoint with d_rel nearest .5), n_seeds (that turn), reason
        (why there is no predicted or observed time; "" otherwise).
    scaling: rows "predicted", "observed", "predicted_where_observed": slope of log N* on log D, low, high, n (diversities), superlinear (low
        above 1).
    """

    level: float
    times: pd.DataFrame
    scaling: pd.DataFrame
    warnings: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """The times."""
        return self.times.copy()

    def plot(self, ax: Any = None) -> Any:
        """N* over D."""
        from mechicl.views.strategies import plot_transitions

        return plot_transitions(self, ax=ax)
