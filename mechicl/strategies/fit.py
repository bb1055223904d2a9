"""The Bayesian model of training, fitted to a transformer's predictions: `fit_strategies`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mechicl.results import Result
from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms


@dataclass(frozen=True)
class StrategyFit(Result):
    """A fitted model of training.

    distance: "kl" or "mse".
    parameters: one row each of alpha, beta, gamma: estimate, low, high (bootstrap), free, bound ("", "lower", "upper").
    measures: one row a measure and set of cells: measure, cells, value, low, high, control, p. measure: d_rel
        (correlation of observed and predicted d_rel), spearman, r2, agreement (of predictions, transformer's against
        the model's; agreement: share of items with the same likeliest label, NaN for means), loss. cells: "all",
        "fitted", "held_out" (all not fitted), "held_out_steps", "held_out_diversities". control: the same measure
        where the fit was made to shuffled cells (mean over shuffles), p of the measure against these; NaN where none.
    baselines: fitted_loss and held_out_loss of: "memorising", "generalising" (alone), "constant" (one weight for all
        cells), "model", "free" (a weight of its own a cell: the best possible). explained: share of the way from
        constant to free.
    d_rel, predicted: [seed step diversity], observed and the model's; 1 is memorising, 0 generalising.
    log_odds: the model's. best_log_odds: of the best weight of each cell.
    residual: distance of the transformer to the best interpolation, over d(M, G): where it is near 1 or above, d_rel
        means nothing. to_memorising, to_generalising: [seed step diversity], between: [seed diversity].
    kept: checkpoints past the two-hypothesis threshold. fitted: cells that the parameters were fitted to.
    draws: parameters of each bootstrap refit, NaN where it failed; n_failed of them.
    warnings: sentences; what to know before the numbers are believed.
    """

    distance: str
    level: float
    parameters: pd.DataFrame
    measures: pd.DataFrame
    baselines: pd.DataFrame
    terms: OddsTerms
    d_rel: Float[np.ndarray, "seed step diversity"]
    predicted: Float[np.ndarray, "seed step diversity"]
    log_odds: Float[np.ndarray, "seed step diversity"]
    best_log_odds: Float[np.ndarray, "seed step diversity"]
    residual: Float[np.ndarray, "seed step diversity"]
    to_memorising: Float[np.ndarray, "seed step diversity"]
    to_generalising: Float[np.ndarray, "seed step diversity"]
    between: Float[np.ndarray, "seed diversity"]
    kept: Bool[np.ndarray, " step"]
    fitted: Bool[np.ndarray, "step diversity"]
    draws: Float[np.ndarray, "boot _"]
    n_failed: int
    converged: bool
    warnings: tuple[str, ...]
    seed: int

    @property
    def estimate(self) -> OddsParameters: ...

    def to_frame(self) -> pd.DataFrame:
        """One row a seed, step and diversity."""
        ...

    def plot(self, ax: Any = None) -> Any:
        """Observed and predicted d_rel over steps and diversities."""
        from mechicl.views.strategies import plot_strategy_fit

        return plot_strategy_fit(self, ax=ax)


Pair = tuple[Float[np.ndarray, "seed diversity"], Float[np.ndarray, "seed diversity"]]


def fit_strategies(
    predictions: Float[np.ndarray, "seed step diversity item label"],
    memorising: Float[np.ndarray, "seed diversity item label"],
    generalising: Float[np.ndarray, "seed diversity item label"],
    losses: Pair,
    complexities: Pair,
    *,
    steps: Float[np.ndarray, " step"],
    diversities: Float[np.ndarray, " diversity"],
    clusters: Int[np.ndarray, " item"] | None = None,
    distance: str = "kl",
    held_out: float = 0.2,
    threshold: float | None = None,
    n_boot: int = 200,
    n_permutations: int = 20,
    level: float = 0.95,
    seed: int = 0,
) -> StrategyFit: ...
