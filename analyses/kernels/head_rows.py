"""The heads of a model as a table: what their attention agrees with, follows, and owes to nuisances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Int

from mechicl.analyses.kernels.head_kernels import Regressed, block_shares, follows_kernel, head_kind
from mechicl.analyses.kernels.rebuilt import Answers, head_agreement
from mechicl.hooks.demos.readings import DemoReadings
from mechicl.kernel_fit import KernelFits

Head = tuple[int, int]
ALPHA = 0.05


def head_table(
    readings: DemoReadings,
    answers: Answers,
    fits: KernelFits,
    chosen: Int[np.ndarray, " head"],
    judgement: pd.DataFrame,
    halves: tuple[Regressed, Regressed],
) -> pd.DataFrame:
    """One row a head; the columns are those of `mechicl.analyses.kernel_regression.KernelRegression.heads`."""
    layer, head = (axis.ravel() for axis in np.indices(readings.elsewhere.shape[1:3]))
    columns: dict[str, Any] = {"layer": layer, "head": head}
    columns["demos"] = readings.attention["sum"].sum(-1).mean(0).ravel()
    for number, name in ((0, "start"), (2, "query")):
        columns[name] = readings.elsewhere[..., number].mean(0).ravel()
    with_model, with_truth = head_agreement(readings, answers)
    for how in readings.attention:
        columns[f"agreement_{how}"], columns[f"accuracy_{how}"] = with_model[how].ravel(), with_truth[how].ravel()
    rows, at = np.arange(len(layer)), np.maximum(chosen, 0)
    named = np.array(readings.kernel_names, dtype=object)[at]
    columns["kernel"] = [name if number >= 0 else "none" for name, number in zip(named, chosen, strict=True)]
    for name in ("slope", "slope_beyond", "partial_r", "p_fwe"):
        columns[name] = np.where(chosen >= 0, getattr(fits, name)[rows, at], np.nan)
    is_rbf = readings.kernel_table["kind"].to_numpy()[at] == "rbf"
    positive = np.where(is_rbf & (columns["slope"] > 0), columns["slope"], np.nan)
    columns["bandwidth"] = positive**-0.5
    frame = pd.concat([pd.DataFrame(columns), judgement], axis=1)
    blocks, frame["recency"] = block_shares(*halves)
    for block, shares in blocks.items():
        frame[f"{block}_r2"] = shares
    frame["follows_kernel"] = [follows_kernel(row, ALPHA) for _, row in frame.iterrows()]
    frame["kind"] = [head_kind(row, list(blocks)) for _, row in frame.iterrows()]
    frame.loc[~fits.defined, "kind"] = "constant"
    frame.loc[~(halves[0].finite & halves[1].finite), "kind"] = "undefined"
    return frame


def named_heads(
    readings: DemoReadings,
    answers: Answers,
    selection: Bool[np.ndarray, " item"],
    picked: KernelFits,
    chosen: Int[np.ndarray, " head"],
    heads: pd.DataFrame,
    n_named: int,
) -> dict[str, tuple[Head, ...]]:
    """Heads by agreement of their labels' votes, and those that follow their kernel (p over all heads and kernels), by
    its unique R^2; all on the prompts for selection alone."""
    best = head_agreement(_only(readings, selection), answers.taken(selection))[0]["label"].ravel()
    best = np.where(picked.defined, best, -np.inf)
    rows, at = np.arange(len(chosen)), np.maximum(chosen, 0)
    follows = (chosen >= 0) & (picked.p_fwe[rows, at] <= ALPHA)
    by_kernel = np.where(follows, picked.unique_r2[rows, at], -np.inf)
    found: dict[str, tuple[Head, ...]] = {}
    for name, values in (("agreement", best), ("kernel", by_kernel)):
        order = [i for i in np.argsort(-values, kind="stable")[:n_named] if values[i] > 0]
        found[name] = tuple((int(heads["layer"][i]), int(heads["head"][i])) for i in order)
    return found


def _only(readings: DemoReadings, items: Bool[np.ndarray, " item"]) -> DemoReadings:
    return DemoReadings(
        {how: attention[items] for how, attention in readings.attention.items()},
        readings.elsewhere[items],
        readings.kernels[items],
        readings.salience[items],
        readings.kernel_table,
        readings.label_log_probs[items],
    )
