"""The Bayesian model of training, fitted to a transformer's predictions: `fit_strategies`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Num

from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result
from mechicl.strategies.baselines import baseline_losses
from mechicl.strategies.data import Pair, StrategyData, strategy_data
from mechicl.strategies.measures import measure_table, parameter_table
from mechicl.strategies.optimise import Objective, fit_odds
from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms
from mechicl.strategies.refits import bootstrap_fits, draw_times, shuffled_fits
from mechicl.strategies.words import fit_warnings


@dataclass(frozen=True)
class StrategyFit(Result):
    """A fitted model of training.

    distance: "kl" or "mse".
    parameters: one row each of alpha, beta, gamma: estimate, low, high (bootstrap), bound ("", "lower", "upper").
    measures: one row a measure and set of cells: measure, cells, value, low, high, control, control_low, control_high,
        p. d_rel: correlation of the observed d_rel with the model's; its control: cells shuffled and fitted again
        (range of the shuffles; p: share of them that do as well). loss: mean divergence a prediction, with the same
        control. spearman, r2, agreement: of the predictions themselves (`mechicl.strategies.agreement`); their
        control: one weight for all cells; intervals with the parameters as they are. cells: "all", "fitted",
        "held_out" (kept, not fitted), of which "held_out_steps" and "held_out_diversities" are parts.
    baselines: losses beside single strategies, a constant weight and free weights (`mechicl.strategies.baselines`).
    terms: steps, diversities, losses and complexities that the odds are made of.
    d_rel, predicted: relative distance, observed and the model's: 1 is memorising, 0 generalising.
    log_odds: the model's. best_log_odds: those of each cell's best interpolation.
    residual: distance of the transformer to the best interpolation, over d(M, G): where it is near 1, d_rel means
        nothing. to_memorising, to_generalising, between: the distances of which d_rel is made.
    kept: checkpoints past the two-hypothesis threshold. fitted: cells that the parameters were fitted to.
    draws: parameters of every bootstrap refit, NaN for the n_failed that did not converge.
    warnings: what to know before the numbers are believed.
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
    draws: Float[np.ndarray, "boot 3"]
    n_failed: int
    converged: bool
    seed: int
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Parameters, correlations and every warning."""
        found = [
            f"{row.parameter}={row.estimate:.3g} [{row.low:.3g}, {row.high:.3g}]"
            for row in self.parameters.itertuples()
        ]
        for cells in ("fitted", "held_out"):
            found.append(f"d_rel {cells} {self.measure('d_rel', cells):.3f}")
        return "\n".join([f"StrategyFit({', '.join(found)})", *(f"  warning: {text}" for text in self.warnings)])

    @property
    def estimate(self) -> OddsParameters:
        """The fitted parameters."""
        values = self.parameters.set_index("parameter")["estimate"]
        return OddsParameters(*(float(values[name]) for name in ("alpha", "beta", "gamma")))

    @property
    def weight(self) -> Float[np.ndarray, "seed step diversity"]:
        """The model's weight of memorising, 0 to 1."""
        return np.asarray(1 / (1 + np.exp(-np.clip(self.log_odds, -700, 700))))

    def measure(self, name: str, cells: str = "all") -> float:
        """The value of a measure over a set of cells."""
        rows = self.measures[(self.measures["measure"] == name) & (self.measures["cells"] == cells)]
        if len(rows) != 1:
            raise ValueError(f"got measure {name!r} of cells {cells!r}; see the frame `measures` for those there are")
        return float(rows["value"].iloc[0])

    def to_frame(self) -> pd.DataFrame:
        """One row a seed, step and diversity."""
        seeds, steps, diversities = np.indices(self.d_rel.shape).reshape(3, -1)
        cells = ("d_rel", "predicted", "log_odds", "best_log_odds", "residual", "to_memorising", "to_generalising")
        return pd.DataFrame(
            {
                "seed": seeds,
                "step": self.terms.steps[steps],
                "diversity": self.terms.diversities[diversities],
                "kept": self.kept[steps],
                "fitted": self.fitted[steps, diversities],
            }
            | {name: getattr(self, name).ravel() for name in cells}
        )

    def plot(self, ax: Any = None) -> Any:
        """Observed d_rel over steps and diversities beside the model's."""
        from mechicl.views.strategies import plot_strategy_fit

        return plot_strategy_fit(self, ax=ax)


def fit_strategies(
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
    n_boot: int = 200,
    n_permutations: int = 20,
    level: float = 0.95,
    seed: int = 0,
) -> StrategyFit:
    """The Bayesian model of training for a transformer's predictions at several steps and task diversities.

    The transformer is predicted as w M + (1 - w) G, with the odds of `mechicl.strategies.posterior_odds`, whose three
    parameters are fitted to the divergence from its predictions.

    predictions, memorising, generalising: distributions over labels ("kl") or means ("mse"), of the same items, for
    every seed (pool and transformer) and diversity. losses: of memorising and generalising on what is trained on.
    complexities: their bits (`mechicl.strategies.complexity`). steps: of the checkpoints. clusters: the sequence each
    item belongs to; None: each item its own. held_out: the share of checkpoints and of diversities that the fit does
    not see, the last of each. threshold: share of the two-hypothesis threshold; None: .2, for "mse" .1; 1: keep all.
    n_boot: refits for the intervals, over seeds and sequences. n_permutations: of the control.

    A fit that does not converge or ends at a bound says so in `warnings`. Coverage of 95% intervals of the parameters
    (30 simulations, three seeds, 40 sequences): .97 to 1 where seeds differ by their sequences alone, .80 where each
    diversity of each seed has odds of its own besides (sd .5 nats): few seeds make intervals too narrow.
    Errors (ValueError, before the work): arrays that do not go together; predictions that are no distributions, or not
    finite; fewer than 2 checkpoints or diversities to fit; n_boot below 100 (0 for no intervals).
    Source: 2506.17859; baselines, intervals and the shuffled control are added here.

        fit = fit_strategies(h, m, g, (loss_m, loss_g), (bits_m, bits_g), steps=steps, diversities=diversities)
        fit.parameters; fit.measures; fit.plot()
    """
    _check_repeats(n_boot, n_permutations, level)
    data = strategy_data(
        predictions, memorising, generalising, losses, complexities, steps=steps, diversities=diversities,
        clusters=clusters, distance=distance, held_out=held_out, threshold=threshold, seed=seed,
    )  # fmt: skip
    return fit_data(data, n_boot=n_boot, n_permutations=n_permutations, level=level, seed=seed)


def fit_data(
    data: StrategyData, *, n_boot: int = 200, n_permutations: int = 20, level: float = 0.95, seed: int = 0
) -> StrategyFit:
    """`fit_strategies` on data prepared by `mechicl.strategies.data.strategy_data`."""
    _check_repeats(n_boot, n_permutations, level)
    fit = fit_odds(Objective(data.terms, data.average.profiles, data.fitted))
    times = draw_times(data.terms.shape[0], len(data.profiles.counts), n_boot, seed)
    refits = bootstrap_fits(data, fit.parameters, *times)
    shuffled = shuffled_fits(data, n_permutations, seed=seed)
    log_odds = data.terms.log_odds(fit.parameters)
    apart = np.where(data.average.between > 0, data.average.between, np.nan)[:, None]
    measures = measure_table(data, fit, refits, shuffled, times, level)
    return StrategyFit(
        distance=data.distance,
        level=level,
        parameters=parameter_table(fit, refits, level),
        measures=measures,
        baselines=baseline_losses(data, fit),
        terms=data.terms,
        d_rel=data.average.d_rel,
        predicted=data.average.predicted(log_odds),
        log_odds=log_odds,
        best_log_odds=data.best_log_odds,
        residual=data.best_distance / apart,
        to_memorising=data.average.to_memorising,
        to_generalising=data.average.to_generalising,
        between=data.average.between,
        kept=data.kept,
        fitted=data.fitted,
        draws=refits.parameters,
        n_failed=refits.n_failed,
        converged=fit.converged,
        seed=seed,
        warnings=fit_warnings(data, fit, refits, measures),
    )


def _check_repeats(n_boot: int, n_permutations: int, level: float) -> None:
    check_level(level)
    if n_boot != 0 and n_boot < MIN_BOOT:
        raise ValueError(f"got n_boot={n_boot}; expected {MIN_BOOT} or more, or 0 for no intervals")
    if n_permutations < 0:
        raise ValueError(f"got n_permutations={n_permutations}; expected 0 or more")
