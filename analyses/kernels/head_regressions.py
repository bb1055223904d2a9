"""All heads regressed onto all kernels, and what follows for a few: their kernel, its weights, its curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechicl.analyses.kernels.curves import kernel_curves
from mechicl.analyses.kernels.head_kernels import (
    Regressed,
    chosen_kernels,
    fit_all,
    judged,
    predictions,
    readable_kernels,
    softmax,
)
from mechicl.analyses.kernels.head_rows import Head, head_table, named_heads
from mechicl.analyses.kernels.nuisances import demo_nuisances
from mechicl.analyses.kernels.rebuilt import Answers
from mechicl.hooks.demos.readings import DemoReadings
from mechicl.kernel_fit import KernelFits
from mechicl.tasks.fewshot import FewShotPrompt


@dataclass(frozen=True)
class HeadRegressions:
    """fits: cross-validated over all prompts. heads, named, curves, kernel_weights, nuisance_weights: as in
    `mechicl.analyses.kernel_regression.KernelRegression`."""

    fits: KernelFits
    heads: pd.DataFrame
    named: dict[str, tuple[Head, ...]]
    curves: pd.DataFrame
    kernel_weights: Float[np.ndarray, "item named demo"]
    nuisance_weights: Float[np.ndarray, "item named demo"]


def regressed(readings: DemoReadings, prompts: Sequence[FewShotPrompt], aggregate: str) -> Regressed:
    """Log attention of all heads in a row, with kernels and nuisances; heads that are not finite are NaN everywhere."""
    n_items, n_layers, n_heads, n_demos = readings.attention[aggregate].shape
    with np.errstate(divide="ignore"):
        log_attention = np.log(readings.attention[aggregate]).reshape(n_items, n_layers * n_heads, n_demos)
    queries = np.array([one.query for one in prompts])
    data = Regressed(log_attention, readings.kernels, readings.salience, demo_nuisances(prompts), queries)
    data.response[:, ~data.finite] = np.nan  # or they would be fitted on one half and unknown on the other
    return data


def regress_heads(
    data: Regressed,
    readings: DemoReadings,
    answers: Answers,
    selection: Bool[np.ndarray, " item"],
    *,
    n_named: int,
    n_folds: int,
    n_permutations: int,
    seed: int,
    boot: dict[str, Any],
) -> HeadRegressions:
    """Fit all, choose each head's kernel on the prompts for selection, judge it on the others."""
    n_layers, n_heads = readings.elsewhere.shape[1:3]
    how = {"n_folds": n_folds, "n_permutations": n_permutations, "seed": seed}
    fits = fit_all(data, **how)
    train, test = data.taken(selection), data.taken(~selection)
    picked = fit_all(train, **how)
    chosen = chosen_kernels(picked, readable_kernels(readings.kernel_table, n_layers, n_heads))
    judgement = judged(train, test, chosen, **boot)
    heads = head_table(readings, answers, fits, chosen, judgement, (train, test))
    named = named_heads(readings, answers, selection, picked, chosen, heads, n_named)
    order = sorted({head for own in named.values() for head in own})
    flat = [layer * n_heads + head for layer, head in order]
    weights = {name: softmax(log[:, flat]) for name, log in predictions(train, data, chosen).items()}
    curves = kernel_curves(test, chosen, heads, order, readings.kernel_names)
    return HeadRegressions(fits, heads, named, curves, weights["joint"], weights["nuisance"])
