"""The tables of a fit: parameters and measures, each with its interval and its control."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.strategies.agreement import MEASURES, prediction_agreement
from mechicl.strategies.baselines import constant_log_odds
from mechicl.strategies.data import StrategyData
from mechicl.strategies.optimise import OddsFit
from mechicl.strategies.posterior_odds import NAMES
from mechicl.strategies.refits import Refits, judged

Times = tuple[Float[np.ndarray, "boot seed"], Float[np.ndarray, "boot batch"]]


def percentiles(draws: Float[np.ndarray, " boot"], level: float) -> tuple[float, float]:
    """The percentile interval of the defined draws; NaN where there are none."""
    known = draws[np.isfinite(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def correlation_percentiles(value: float, draws: Float[np.ndarray, " boot"], level: float) -> tuple[float, float]:
    """The interval of a correlation: of Fisher's z, the draws moved so that their mean is the estimate.

    Resampling adds noise to what is noisy already, so that without this all draws may lie below the estimate.
    """
    z = np.arctanh(np.clip(draws[np.isfinite(draws)], -1 + 1e-12, 1 - 1e-12))
    if not len(z) or np.isnan(value):
        return float("nan"), float("nan")
    low, high = percentiles(z - z.mean() + np.arctanh(np.clip(value, -1 + 1e-12, 1 - 1e-12)), level)
    return float(np.tanh(low)), float(np.tanh(high))


def parameter_table(fit: OddsFit, refits: Refits, level: float) -> pd.DataFrame:
    """One row a parameter: estimate, low, high, bound."""
    rows = []
    for number, name in enumerate(NAMES):
        low, high = percentiles(refits.parameters[:, number], level)
        value = float(getattr(fit.parameters, name))
        rows.append({"parameter": name, "estimate": value, "low": low, "high": high, "bound": fit.bounds[name]})
    return pd.DataFrame(rows)


def measure_table(
    data: StrategyData, fit: OddsFit, refits: Refits, shuffled: Refits, times: Times, level: float
) -> pd.DataFrame:
    """One row a measure and set of cells, as `StrategyFit.measures` describes them."""
    d_rel, loss = judged(data, data.average, fit)
    rows = []
    for name in data.cells:
        for measure, value, sign in (("d_rel", d_rel[name], 1), ("loss", loss[name], -1)):
            draws = getattr(refits, measure)[name]
            corr = measure == "d_rel"
            low, high = correlation_percentiles(value, draws, level) if corr else percentiles(draws, level)
            control = getattr(shuffled, measure)[name]
            rows.append(_row(measure, name, value, low, high) | _against(value, control, sign))
        rows += _prediction_rows(data, fit, name, times, level)
    order = ("d_rel", *MEASURES, "loss")
    frame = pd.DataFrame(rows)
    return frame.sort_values("measure", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _against(value: float, control: Float[np.ndarray, " boot"], sign: int) -> dict[str, Any]:
    """The shuffles' mean and range, and p = (1 + those that do as well) / (1 + all)."""
    known = control[np.isfinite(control)]
    if not len(control) or np.isnan(value):
        return dict.fromkeys(("control", "control_low", "control_high", "p"), float("nan"))
    as_well = (sign * known >= sign * value).sum()
    found = {"control": known.mean(), "control_low": known.min(), "control_high": known.max()} if len(known) else {}
    found = dict.fromkeys(("control", "control_low", "control_high"), float("nan")) | found
    return {name: float(number) for name, number in found.items()} | {"p": float((1 + as_well) / (1 + len(control)))}


def _prediction_rows(data: StrategyData, fit: OddsFit, name: str, times: Times, level: float) -> list[dict[str, Any]]:
    """Spearman, R^2 and agreement over one set of cells, beside a constant weight."""
    cells = data.cells[name]
    if not cells.any():
        return [_row(measure, name, *[float("nan")] * 3) for measure in MEASURES]
    found = prediction_agreement(data.sample, data.terms.log_odds(fit.parameters), cells)
    flat = np.full(data.terms.shape, constant_log_odds(data))
    whole = tuple(np.ones(part.shape[1]) for part in times)
    values, control = found.measures(*whole), prediction_agreement(data.sample, flat, cells).measures(*whole)
    draws = found.measures(*times)
    return [
        _row(measure, name, float(values[measure]), *percentiles(draws[measure], level))
        | {"control": float(control[measure])}
        for measure in MEASURES
    ]


def _row(measure: str, cells: str, value: float, low: float, high: float) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(("control", "control_low", "control_high", "p"), float("nan"))
    return {"measure": measure, "cells": cells, "value": value, "low": low, "high": high} | nothing
