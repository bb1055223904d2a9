"""What a context does, written as an update of every MLP's weights: its size and direction, layer by layer.

For a context C and a query q, in every layer dW = W (n_C - n_0) n_0^T / |n_0|^2 for each matrix that reads the MLP's
input n, and an update of bias, W_out or the gain of a norm for what attention adds by another way (see
`mechicl.hooks.mlps.mlp_updates`). The model so updated gives without C what it gives with C at the last token of q.
Reported are |dW|_F (no unit; |dW| / |W| is the relative one, 0 where the context changes nothing) and the cosine of n_C
and n_0 (-1 to 1; 1 where the context does not turn the MLP's input). Chance has no fixed level here: beside each number
stands the same query after another item's context and, on request, the same in a model with shuffled weights.
Sources: Dherin et al., arXiv:2507.16003; Goldwaser, Munn, Gonzalvo & Dherin 2025 (gated MLPs, norms behind blocks).

    updates = measure_mlp_updates(model, ["The capital of France is Paris."], [" The capital of Italy is"], ...)

Caveats:
- The identity holds for any weights, any context and any query: it is a way of writing, and no evidence of learning.
- Many updates would replace the context as well; this one is of rank 1 and belongs to one query. Whether it carries
  others is `mechicl.analyses.updates.update_transfer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.updates.update_checks import RANDOM, verification
from mechicl.analyses.updates.update_items import (
    CAVEAT,
    Given,
    Items,
    checked_clusters,
    mean_interval,
    other_of,
    read_items,
)
from mechicl.hooks.mlps.mlp_parts import MLPParts
from mechicl.hooks.mlps.mlp_patches import Updates
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.mlps.mlp_updates import build_updates
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.untrained import shuffled_weights

MEASURES = ("norm", "relative", "cosine")


@dataclass(frozen=True)
class MLPUpdates(Result):
    """The updates of every item and layer, beside their controls, and how exactly they replace the context.

    updates: one row an item, layer and matrix (W_in, or W_gate and W_up; then b_out, b_norm, gain or W_out): norm
        |dW|_F, relative |dW|_F / |W|_F (NaN where the parameter is 0), cosine of n_C and n_0; each again with _other
        (same query, another item's context) and, where asked for, _untrained (shuffled weights, same texts).
    layers: one row a layer, matrix and measure: mean over items and its interval, and for each control its mean with
        interval and the mean difference to it (minus_<control>) with interval; by cluster bootstrap, percentiles.
    checks: one row an item and run ("hooks": updates as factors; "weights": in the model's weights, no hook in the
        run). layer_error: largest relative error of a block's output at the last token, |out - out_C| / |out_C|, in
        layer worst_layer; logit_error and probability_error: largest absolute ones. random_error: layer_error of a
        random update of the same norms, times_larger than layer_error; unchanged_error: that of no update at all.
    tolerance: what layer_error and probability_error may be in the model's dtype. n_tokens: rows (context, query).
    """

    updates: pd.DataFrame
    layers: pd.DataFrame
    checks: pd.DataFrame
    tolerance: float
    level: float
    provenance: Provenance

    @property
    def caveat(self) -> str:
        """What such updates cannot show."""
        return CAVEAT

    @property
    def verified(self) -> bool:
        """Is every error within the tolerance, and does the random update fail it?"""
        errors = self.checks[["layer_error", "probability_error"]].to_numpy()
        return bool((errors <= self.tolerance).all() and (self.checks["random_error"] > self.tolerance).all())

    def to_frame(self) -> pd.DataFrame:
        """The updates, one row an item, layer and matrix."""
        return self.updates.copy()

    def plot(self, ax: Any = None) -> Any:
        """Relative norms over layers, one line a matrix, beside the control; returns matplotlib Axes."""
        from mechicl.views.updates import plot_update_norms

        return plot_update_norms(self.layers, ax=ax)

    def report(self) -> str:
        """The identity, the sizes and the caveat in plain text."""
        lines = [_heading(self), *(_check_line(self, run) for run in self.checks["run"].unique())]
        rows = self.layers[self.layers["measure"] == "relative"]
        for matrix, own in rows.groupby("matrix", sort=False):
            lines.append(
                f"  |d{matrix}| / |{matrix}|, mean over layers: {own['estimate'].mean():.3g}; after another context "
                f"{own['other'].mean():.3g}; the difference excludes 0 in {_excluding(own)} of {len(own)} layers"
            )
        return "\n".join([*lines, self.caveat])

    def __repr__(self) -> str:
        """The report: numbers do not go without their caveat."""
        return self.report()


def measure_mlp_updates(
    model: Any,
    contexts: Sequence[Given],
    queries: Sequence[Given],
    *,
    prepend_bos: bool = True,
    clusters: Sequence[Any] | None = None,
    untrained: bool = False,
    proof_items: int = 1,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> MLPUpdates:
    """The updates that replace each context for its query, and the check that they do.

    Contexts and queries are texts or token ids, tokenised apart (a query in the middle of a text starts with its
    space). prepend_bos: BOS before the context, and before the query alone. clusters: one label an item, where items
    share contexts or queries; intervals resample clusters. untrained: measure a copy with shuffled weights as well.
    proof_items: for how many items the updates are put into the weights and run without any hook (one pass a layer).
    `seed` draws the other contexts, the random updates, the shuffled weights and the bootstrap.

    Raises `ValueError` as `read_items`, `find_mlps` and `build_updates` do: an empty context, texts longer than the
    context window, fewer than 2 different contexts, a model without MLPs, undefined updates.
    """
    wrapped = wrap(model)
    items = read_items(wrapped, contexts, queries, prepend_bos)
    labels, others = checked_clusters(clusters, len(items)), other_of(items.contexts, seed)
    if not 0 < level < 1 or n_boot < 100 or proof_items < 0:
        raise ValueError(
            f"got level={level}, n_boot={n_boot} and proof_items={proof_items}, expected a share, at least 100, and at "
            "least 0"
        )
    parts = find_mlps(wrapped)
    frame = _frame(wrapped, parts, items, range(len(items)), "")
    frame = frame.merge(_frame(wrapped, parts, items, others, "_other"), on=["item", "layer", "matrix"])
    if untrained:
        control = wrap(shuffled_weights(wrapped.model, seed=seed))
        rows = _frame(control, find_mlps(control), items, range(len(items)), "_untrained")
        frame = frame.merge(rows, on=["item", "layer", "matrix"])
    checks, tolerance = verification(wrapped, parts, items, proof_items, seed)
    controls = ["other", *(["untrained"] if untrained else [])]
    return MLPUpdates(
        updates=frame,
        layers=_layers(frame, controls, labels, n_boot, level, seed),
        checks=checks,
        tolerance=tolerance,
        level=level,
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepend_bos},
            seeds={"all": seed},
            options={"n_items": len(items), "untrained": untrained, "proof_items": proof_items, "n_boot": n_boot},
        ),
    )


def _frame(
    wrapped: WrappedModel, parts: Sequence[MLPParts], items: Items, contexts: Sequence[int], suffix: str
) -> pd.DataFrame:
    """Norms and cosines, a row an item, layer and matrix; item i has the context of item contexts[i]."""
    whole = [items.whole(c, i) for i, c in enumerate(contexts)]
    updates, _, _ = build_updates(wrapped, parts, whole, [items.alone(i) for i in range(len(items))], logits=False)
    columns = {name: f"{name}{suffix}" for name in MEASURES}
    return tidy_norms(parts, updates).rename(columns=columns)


def tidy_norms(parts: Sequence[MLPParts], updates: Updates) -> pd.DataFrame:
    """norm, relative and cosine of every row ("item"), layer and matrix."""
    frames = []
    for part, own in zip(parts, updates, strict=True):
        for matrix, norm in own.norms(part).items():
            size = part.size(matrix)
            values = norm.double().cpu().numpy()
            frames.append(
                pd.DataFrame(
                    {
                        "item": np.arange(len(values)),
                        "layer": part.layer,
                        "matrix": matrix,
                        "norm": values,
                        "relative": values / size if size > 0 else np.nan,
                        "cosine": own.cosine.double().cpu().numpy(),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True).sort_values(["item", "layer"], kind="stable", ignore_index=True)


def _layers(
    frame: pd.DataFrame, controls: Sequence[str], labels: Sequence[Any], n_boot: int, level: float, seed: int
) -> pd.DataFrame:
    rows = []
    for (layer, matrix), own in frame.groupby(["layer", "matrix"], sort=False):
        for measure in MEASURES:
            values = own[measure].to_numpy()
            columns = {"": values}
            for control in controls:
                beside = own[f"{measure}_{control}"].to_numpy()
                columns |= {control: beside, f"minus_{control}": values - beside}
            row: dict[str, Any] = {"layer": layer, "matrix": matrix, "measure": measure}
            for name, column in columns.items():
                mean, low, high = mean_interval(column, labels, n_boot, level, seed)
                prefix = f"{name}_" if name else ""
                row |= {name or "estimate": mean, f"{prefix}low": low, f"{prefix}high": high}
            rows.append(row | {"n_items": len(own)})
    return pd.DataFrame(rows)


def _heading(result: MLPUpdates) -> str:
    n_items, n_layers = result.updates["item"].nunique(), result.updates["layer"].nunique()
    facts = result.provenance
    words = "holds" if result.verified else "NOT VERIFIED"
    return (
        f"MLP updates in {facts.model}: {n_items} items, {n_layers} layers. Updated model without context = model with "
        f"context: {words} (tolerance {result.tolerance:.2g} in {facts.dtype})"
    )


def _check_line(result: MLPUpdates, run: str) -> str:
    rows = result.checks[result.checks["run"] == run]
    worst = rows.sort_values("layer_error").iloc[-1]
    return (
        f"  by {run}: largest relative error of a block's output {worst['layer_error']:.2g} (layer "
        f"{worst['worst_layer']}), of a logit {rows['logit_error'].max():.2g}, of a probability "
        f"{rows['probability_error'].max():.2g}; {RANDOM} {worst['random_error']:.2g}, "
        f"{worst['times_larger']:.2g} times as large; no update {worst['unchanged_error']:.2g}"
    )


def _excluding(rows: pd.DataFrame) -> int:
    return int(((rows["minus_other_low"] > 0) | (rows["minus_other_high"] < 0)).sum())
