"""Which of the model's parts a transformer's training needs: parts taken out, the rest fitted again.

    alpha = 0          every step counts alike
    beta = 1           description lengths enter as they are
    gamma = 1          no free scale of the evidence
    linear K           prior -b (K_M - K_G), with b free in the place of the power
    alpha = 0, beta = 1
    none free          alpha = 0, beta = 1, gamma = 1

Source: 2506.17859. Compared on cells that the fit did not see, where a needless parameter does not help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.strategies.cluster_losses import cluster_losses, loss_row
from mechicl.strategies.data import StrategyData
from mechicl.strategies.optimise import Objective, OddsFit, fit_odds
from mechicl.strategies.posterior_odds import OddsTerms
from mechicl.strategies.refits import correlation, draw_times

FIXED: dict[str, Mapping[str, float]] = {
    "model": {},
    "alpha = 0": {"alpha": 0.0},
    "beta = 1": {"beta": 1.0},
    "gamma = 1": {"gamma": 1.0},
    "linear K": {},
    "alpha = 0, beta = 1": {"alpha": 0.0, "beta": 1.0},
    "none free": {"alpha": 0.0, "beta": 1.0, "gamma": 1.0},
}
_NATS = 20.0  # prior of a middle diversity at beta = 1, which puts beta among its bounds


class LinearTerms(OddsTerms):
    """Odds whose prior is linear in K; beta is its scale."""

    @property
    def per_bit(self) -> float:
        """Nats a bit at beta = 1."""
        return _NATS / float(np.median(self.bits_memorising))

    def prior(self, beta: float) -> Float[np.ndarray, "seed diversity"]:
        """-b (K_M - K_G), b = beta per_bit."""
        return -beta * self.per_bit * (self.bits_memorising - self.bits_generalising)

    def prior_slope(self, beta: float) -> Float[np.ndarray, "seed diversity"]:
        """Its derivative with respect to beta."""
        return self.prior(1.0)


@dataclass(frozen=True)
class StrategyAblations(Result):
    """One row an ablation in `table`: ablation, alpha, beta, gamma ("linear K": beta is b, nats a bit), n_free,
    converged, and for "fitted" and "held_out" cells: *_loss, *_excess (loss beyond the model's) with *_excess_low and
    *_excess_high (seeds and sequences resampled, parameters as they are), *_d_rel (correlation).
    """

    level: float
    table: pd.DataFrame

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()

    def plot(self, ax: Any = None) -> Any:
        """Losses beyond the model's."""
        from mechicl.views.strategy_judged import plot_ablations

        return plot_ablations(self, ax=ax)


def ablate_strategies(
    data: StrategyData, *, n_boot: int = 2_000, level: float = 0.95, seed: int = 0
) -> StrategyAblations:
    """Every ablation fitted to the same cells as the model.

    ablate_strategies(strategy_data(h, m, g, losses, complexities, steps=steps, diversities=diversities)).table
    """
    check_level(level)
    times = draw_times(data.terms.shape[0], len(data.profiles.counts), n_boot, seed)
    sets = {name: data.cells[name] for name in ("fitted", "held_out")}
    rows: list[dict[str, Any]] = []
    model_losses: dict[str, np.ndarray] = {}
    observed = data.average.d_rel
    for name, fixed in FIXED.items():
        parts = (data.terms.steps, data.terms.diversities, data.terms.advantage, data.terms.bits_memorising)
        terms = LinearTerms(*parts, data.terms.bits_generalising) if name == "linear K" else data.terms
        fit = fit_odds(Objective(terms, data.average.profiles, data.fitted), fixed=fixed)
        odds = terms.log_odds(fit.parameters)
        row = _row(name, fit, 3 - len(fixed), terms)
        for cells_name, cells in sets.items():
            if not cells.any():
                continue
            losses = cluster_losses(data, odds, cells)
            reference = model_losses.setdefault(cells_name, losses)
            row |= loss_row(cells_name, losses, reference, data.profiles.counts, times, level)
            corr = correlation(observed[:, cells], data.average.predicted(odds)[:, cells])
            row[f"{cells_name}_d_rel"] = corr
        rows.append(row)
    return StrategyAblations(level=level, table=pd.DataFrame(rows))


def _row(name: str, fit: OddsFit, n_free: int, terms: OddsTerms) -> dict[str, Any]:
    beta = fit.parameters.beta * (terms.per_bit if isinstance(terms, LinearTerms) else 1.0)
    return {
        "ablation": name,
        "alpha": fit.parameters.alpha,
        "beta": beta,
        "gamma": fit.parameters.gamma,
        "n_free": n_free,
        "converged": fit.converged,
    }
