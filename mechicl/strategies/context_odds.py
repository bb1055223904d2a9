"""Odds that also see the context: does a transformer weigh strategies anew within every sequence?

The model of training has one weight a step and diversity. A Bayesian who had these odds before a sequence would change
them as it goes, by what each strategy said of the items so far:

    log odds of item t = log odds(N, D) + strength sum_{i < t} log M(y_i) / G(y_i)

strength 0 is the model, 1 that Bayesian. The fit at several strengths says which comes closest. An extension of
2506.17859, which finds the odds of training sufficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.strategies.cluster_losses import cluster_losses, loss_row
from mechicl.strategies.data import strategy_data
from mechicl.strategies.inputs import check_offsets
from mechicl.strategies.optimise import Objective, fit_odds
from mechicl.strategies.posterior_odds import NAMES
from mechicl.strategies.refits import draw_times, judged


@dataclass(frozen=True)
class ContextOdds(Result):
    """One row a strength in `table`: strength, alpha, beta, gamma, converged, and for "fitted" and "held_out" cells:
    *_loss, *_excess (loss beyond that of strength 0) with *_excess_low and *_excess_high (seeds and sequences
    resampled, parameters as they are), *_d_rel (correlation). best: the strength of least held-out loss (fitted, where
    nothing is held out).
    """

    level: float

    table: pd.DataFrame
    best: float

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()


def context_evidence(
    memorising: Float[np.ndarray, "seed diversity item label"],
    generalising: Float[np.ndarray, "seed diversity item label"],
    truth: Int[np.ndarray, "seed diversity item"],
    clusters: Int[np.ndarray, " item"],
) -> Float[np.ndarray, "seed diversity item"]:
    """The log likelihood ratio of M and G, nats, of the items before each in its cluster; 0 for the first.

    Items of a cluster stand in the order of the sequence. Errors (ValueError): arrays that do not go together, labels
    out of range, probabilities of 0.
    """
    n_labels = memorising.shape[-1]
    if generalising.shape != memorising.shape or truth.shape != memorising.shape[:-1]:
        raise ValueError(
            f"got memorising {memorising.shape}, generalising {generalising.shape} and truth {truth.shape}; expected "
            "[seed, diversity, item, label] twice and [seed, diversity, item]"
        )
    if clusters.shape != truth.shape[-1:]:
        raise ValueError(f"got clusters of shape {clusters.shape}; expected one an item, {truth.shape[-1]}")
    if truth.min() < 0 or truth.max() >= n_labels:
        raise ValueError(f"got truth from {truth.min()} to {truth.max()}; expected 0 to {n_labels - 1}")
    if min(memorising.min(), generalising.min()) <= 0:
        raise ValueError("got probabilities that are not above 0; clamp them first")
    m, g = (np.take_along_axis(part, truth[..., None], axis=-1)[..., 0] for part in (memorising, generalising))
    ratio = np.log(m) - np.log(g)
    evidence = np.zeros(truth.shape)
    for cluster in np.unique(clusters):
        items = np.flatnonzero(clusters == cluster)
        evidence[..., items[1:]] = np.cumsum(ratio[..., items[:-1]], axis=-1)
    return evidence


def compare_context_odds(
    predictions: Float[np.ndarray, "seed step diversity item label"],
    memorising: Float[np.ndarray, "seed diversity item label"],
    generalising: Float[np.ndarray, "seed diversity item label"],
    *arguments: Any,
    evidence: Float[np.ndarray, "seed diversity item"],
    strengths: Sequence[float] = (0.25, 0.5, 1.0),
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    **options: Any,
) -> ContextOdds:
    """The model fitted at several strengths of the context's evidence, beside strength 0.

    Other arguments: those of `mechicl.strategies.data.strategy_data`. evidence: of each item's context, such as
    `context_evidence` gives. Cells are kept and held out as at strength 0.
    Errors (ValueError): those of `strategy_data`; evidence that does not go with the items.
    """
    check_level(level)
    arrays = (predictions, memorising, generalising, *arguments)
    check_offsets(evidence, memorising.shape[:3])
    plain = strategy_data(*arrays, **options, seed=seed)
    times = draw_times(plain.terms.shape[0], len(plain.profiles.counts), n_boot, seed)
    reference: dict[str, np.ndarray] = {}
    rows = []
    for strength in (0.0, *(float(value) for value in strengths if value != 0)):
        data = plain
        if strength:
            shifted = options | {"threshold": 1.0}  # which checkpoints count was said without the context
            data = strategy_data(*arrays, **shifted, seed=seed, offsets=strength * evidence)
            data = replace(data, kept=plain.kept, fitted=plain.fitted)
        fit = fit_odds(Objective(data.terms, data.average.profiles, data.fitted))
        d_rel, _ = judged(data, data.average, fit)
        row = {"strength": strength} | {name: getattr(fit.parameters, name) for name in NAMES}
        row["converged"] = fit.converged
        for name in ("fitted", "held_out"):
            if not data.cells[name].any():
                continue
            losses = cluster_losses(data, data.terms.log_odds(fit.parameters), data.cells[name])
            row |= loss_row(name, losses, reference.setdefault(name, losses), data.profiles.counts, times, level)
            row[f"{name}_d_rel"] = d_rel[name]
        rows.append(row)
    table = pd.DataFrame(rows)
    judge = table["held_out_loss" if "held_out_loss" in table else "fitted_loss"].to_numpy()
    return ContextOdds(level=level, table=table, best=float(table["strength"].iloc[int(judge.argmin())]))
