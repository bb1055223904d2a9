"""What the fit is to be compared with: single strategies, one weight for all cells, and a weight for every cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from mechicl.strategies.data import StrategyData
from mechicl.strategies.optimise import Objective, OddsFit
from mechicl.strategies.refits import correlation

BASELINES = ("memorising", "generalising", "constant", "model", "free")


def constant_log_odds(data: StrategyData) -> float:
    """The one log odds that serve all fitted cells best."""
    objective = Objective(data.terms, data.average.profiles, data.fitted)
    ones = np.ones(objective.weights.shape)
    low, high = data.average.profiles.range
    return float(minimize_scalar(lambda x: objective.at(x * ones), bounds=(low, high), method="bounded").x)


def baseline_losses(data: StrategyData, fit: OddsFit) -> pd.DataFrame:
    """For fitted and held_out cells: *_loss, *_d_rel (correlation with the observed; a constant weight may have some,
    from how M and G differ) and *_explained, the share of the way from the loss of the constant to the free weights.

    "memorising", "generalising": one strategy in all cells. "constant": one weight, fitted. "model": the fit. "free":
    the best weight of every cell, held out ones included: no interpolation does better. The share is NaN where a
    constant weight is as good as free ones.
    """
    low, high = data.average.profiles.range
    of = {"memorising": high, "generalising": low, "constant": constant_log_odds(data)}
    odds = {name: np.full(data.terms.shape, value) for name, value in of.items()}
    odds["model"], odds["free"] = data.terms.log_odds(fit.parameters), data.best_log_odds
    frame = pd.DataFrame({"baseline": BASELINES})
    for name in ("fitted", "held_out"):
        cells = data.cells[name]
        if not cells.any():
            frame[f"{name}_loss"] = frame[f"{name}_d_rel"] = frame[f"{name}_explained"] = np.nan
            continue
        objective = Objective(data.terms, data.average.profiles, cells)
        losses = np.array([objective.at(odds[baseline][:, cells].ravel()) for baseline in BASELINES])
        way = losses[2] - losses[4]
        frame[f"{name}_loss"] = losses
        seen = data.average.d_rel[:, cells]
        frame[f"{name}_d_rel"] = [correlation(seen, data.average.predicted(odds[row])[:, cells]) for row in BASELINES]
        frame[f"{name}_explained"] = (losses[2] - losses) / way if way > 1e-9 * abs(losses[0] + losses[1]) else np.nan
    return frame
