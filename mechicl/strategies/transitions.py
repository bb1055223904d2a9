"""When a transformer turns from generalising to memorising, N*(D), observed and predicted: `transition_times`.

The model's odds are even at

    N*(D) = [ln 2 (K_M^beta - K_G^beta) / (gamma (L_G - L_M))]^(1 / (1 - alpha))

Observed is the step at which d_rel, averaged over seeds, rises through .5 (a straight line over log steps between two
checkpoints past the threshold). N* grows like a power of D where its logarithm goes straight over log D; a slope
above 1 is superlinear: twice the tasks take more than twice the steps. Source: 2506.17859.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.stats import slopes
from mechicl.strategies.fit import StrategyFit
from mechicl.strategies.measures import percentiles
from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms

LEAST = 3  # diversities for a slope


@dataclass(frozen=True)
class Transitions(Result):
    """Transition times, in the unit of the fit's steps.

    times: one row a diversity: diversity, predicted with predicted_low and predicted_high (the fit's bootstrap),
        observed with observed_low and observed_high (seeds resampled), nearest (checkpoint with d_rel nearest .5),
        modelled (the same crossing of the model's d_rel, which is .5 near even odds, not at them), n_turned (seeds that
        turn by themselves), no_prediction and no_observation (why a time is NaN, else "").
    scaling: one row each of "predicted", "observed" and "predicted_where_observed" (for the same diversities as
        observed): slope of log N* on log D, low, high, n (diversities), superlinear (the interval is above 1). NaN for
        fewer than 3 diversities.
    log_ratio: mean of log(predicted / observed) where both are known: 0 is no bias; log_error: its root mean square.
    """

    level: float
    times: pd.DataFrame
    scaling: pd.DataFrame
    log_ratio: float
    log_error: float
    warnings: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """The times."""
        return self.times.copy()

    def plot(self, ax: Any = None) -> Any:
        """N* over D, both axes logarithmic."""
        from mechicl.views.strategy_times import plot_transitions

        return plot_transitions(self, ax=ax)


def predicted_times(terms: OddsTerms, parameters: OddsParameters) -> Float[np.ndarray, " diversity"]:
    """N*(D), of losses and prior odds averaged over seeds; NaN where there is none."""
    against, gain = -terms.prior(parameters.beta).mean(0), parameters.gamma * terms.advantage.mean(0)
    with np.errstate(all="ignore"):  # a time too long for a float is infinite
        log_times = np.log(against / gain) / (1 - parameters.alpha)
        return np.where((gain > 0) & (against > 0), np.exp(log_times), np.nan)


def crossing_times(
    d_rel: Float[np.ndarray, "*boot step diversity"], steps: Float[np.ndarray, " step"]
) -> Float[np.ndarray, "*boot diversity"]:
    """The step at which each curve rises through .5; NaN where it never does, or ends below.

    A noisy curve may rise more than once: the middle, over log steps, of the first and the last time.
    """
    if len(steps) < 2 or (steps <= 0).any():
        raise ValueError(f"got steps {steps.tolist()}; expected 2 or more, above 0")
    before, after = d_rel[..., :-1, :], d_rel[..., 1:, :]
    rises = (before < 0.5) & (after >= 0.5)
    log_steps = np.log(steps)
    share = np.divide(0.5 - before, after - before, out=np.zeros_like(before), where=rises)
    times = log_steps[:-1, None] + share * np.diff(log_steps)[:, None]
    first = np.where(rises, times, log_steps[-1]).min(-2)
    last = np.where(rises, times, log_steps[0]).max(-2)
    return np.where(rises.any(-2) & (d_rel[..., -1, :] >= 0.5), np.exp((first + last) / 2), np.nan)


def transition_times(
    fit: StrategyFit, *, n_boot: int = 2_000, level: float | None = None, seed: int = 0
) -> Transitions:
    """N*(D) of a fit: observed and predicted, with intervals, and how they grow with D.

    level: of the intervals; None: the fit's. Intervals of what is observed need 2 seeds, and are too narrow for few.
    Errors (ValueError): fewer than 2 checkpoints past the threshold.
    """
    level = fit.level if level is None else level
    check_level(level)
    used = fit.kept & (fit.terms.steps > 0)
    steps, d_rel = fit.terms.steps[used], fit.d_rel[:, used]
    n_seeds, diversities = len(d_rel), fit.terms.diversities
    observed = crossing_times(d_rel.mean(0), steps)
    predicted = predicted_times(fit.terms, fit.estimate)
    rows = np.random.default_rng(seed).integers(n_seeds, size=(n_boot if n_seeds > 1 else 0, n_seeds))
    observed_draws = crossing_times(d_rel[rows].mean(1), steps)
    good = fit.draws[np.isfinite(fit.draws).all(1)]
    drawn = [predicted_times(fit.terms, OddsParameters(*map(float, row))) for row in good]
    predicted_draws = np.reshape(np.array(drawn), (-1, len(diversities)))
    times = pd.DataFrame({"diversity": diversities})
    for name, values, draws in (("predicted", predicted, predicted_draws), ("observed", observed, observed_draws)):
        bounds = np.reshape([percentiles(column, level) for column in draws.T], (-1, 2))
        times[name] = values
        times[f"{name}_low"], times[f"{name}_high"] = np.where(np.isfinite(values), bounds.T, np.nan)
    mean = d_rel.mean(0)
    known = np.isfinite(mean).all(0)
    times["nearest"] = np.where(known, steps[np.argmin(np.abs(np.where(known, mean, 0) - 0.5), axis=0)], np.nan)
    times["modelled"] = crossing_times(fit.predicted[:, used].mean(0), steps)
    times["n_turned"] = np.isfinite(crossing_times(d_rel, steps)).sum(0)
    times["no_prediction"] = _no_prediction(fit, predicted)
    times["no_observation"] = _no_observation(mean, observed)
    seen = np.isfinite(observed)
    scaling = pd.DataFrame(
        [
            {"time": name} | _scaling(diversities, np.where(where, values, np.nan), draws, level)
            for name, values, draws, where in (
                ("predicted", predicted, predicted_draws, np.ones_like(seen)),
                ("observed", observed, observed_draws, seen),
                ("predicted_where_observed", predicted, predicted_draws, seen),
            )
        ]
    )
    both = np.log(predicted / observed)[seen & np.isfinite(predicted)]
    found = [] if n_seeds > 1 else ["one seed: observed times have no interval"]
    few = scaling[scaling["n"] < LEAST]
    found += [
        f"{name}: {n} transition times, too few for a slope" for name, n in zip(few["time"], few["n"], strict=True)
    ]
    return Transitions(
        level=level,
        times=times,
        scaling=scaling,
        log_ratio=float(both.mean()) if len(both) else float("nan"),
        log_error=float(np.sqrt((both**2).mean())) if len(both) else float("nan"),
        warnings=tuple(found),
    )


def _scaling(diversities: np.ndarray, times: np.ndarray, draws: np.ndarray, level: float) -> dict[str, Any]:
    """The slope over diversities with a finite time; a draw without all of them has none."""
    with np.errstate(invalid="ignore"):
        use = np.isfinite(times)
    nothing = {"slope": np.nan, "low": np.nan, "high": np.nan, "n": int(use.sum()), "superlinear": False}
    if use.sum() < LEAST:
        return nothing
    x = np.log(diversities[use])
    slope = float(slopes(x, np.log(times[use])))
    whole = draws[np.isfinite(draws[:, use]).all(1)][:, use]
    low, high = (
        percentiles(slopes(np.broadcast_to(x, whole.shape), np.log(whole)), level) if len(whole) else (np.nan,) * 2
    )
    return nothing | {"slope": slope, "low": low, "high": high, "superlinear": bool(low > 1)}


def _no_prediction(fit: StrategyFit, predicted: np.ndarray) -> list[str]:
    worse = fit.terms.advantage.mean(0) <= 0
    words = np.where(worse, "memorising has no smaller loss", "memorising is no longer description")
    return np.where(np.isfinite(predicted), "", np.where(np.isinf(predicted), "later than any float", words)).tolist()


def _no_observation(d_rel: np.ndarray, observed: np.ndarray) -> list[str]:
    words = np.select(
        [np.isnan(d_rel).any(0), d_rel[-1] < 0.5], ["d_rel is undefined", "d_rel ends below .5"],
        "d_rel is above .5 from the first checkpoint that is kept",
    )  # fmt: skip
    return np.where(np.isfinite(observed), "", words).tolist()
