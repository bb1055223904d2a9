"""The tables of the Bayesian account's report, from frames to words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mechicl.analyses.strategies.report_cells import interval, over_seeds, small, small_interval, steps
from mechicl.analyses.strategies.report_rivals import ablations_table, rivals_table
from mechicl.analyses.strategies.words import measure
from mechicl.analyses.strategies.words_shared import unit_of
from mechicl.analyses.strategies.words_transience import RISE, turning_points
from mechicl.wording import MINUS, MISSING, number, p_value

Table = dict[str, Any]
MEASURES = {
    "d_rel": "Correlation of d_rel",
    "spearman": "Rank correlation of predictions",
    "r2": "R² of predictions",
    "agreement": "Same likeliest label",
    "loss": "Distance to the predictions",
}
CELLS = ("fitted", "held_out", "held_out_steps", "held_out_diversities")
MEANINGS = {
    "alpha": f"how much less each further step counts: evidence grows with N to the power of 1 {MINUS} alpha",
    "beta": "how steeply long descriptions are disfavoured: the prior has K to the power of beta",
    "gamma": "how much a step of training counts",
}


def all_tables(found: Any) -> list[Table]:
    """In the page's order."""
    tables = [
        measures_table(found.fit),
        parameters_table(found.fit),
        transitions_table(found.transitions, n_seeds=len(found.fit.d_rel)),
        transience_table(found),
        ablations_table(found.ablations, found.fit),
    ]
    if found.three is not None or found.context is not None:
        tables.append(rivals_table(found))
    return [*tables, strategies_table(found)]


def measures_table(fit: Any) -> Table:
    """Every measure over every set of cells, with the control."""
    rows = []
    for name, words in MEASURES.items():
        found = {cells: measure(fit, name, cells) for cells in CELLS}
        if all(math.isnan(row["value"]) for row in found.values()):
            continue
        held = found["held_out"]
        one = small if name == "loss" else number
        cells = [
            small_interval(found[kind], "value") if name == "loss" else interval(found[kind], "value", 3)
            for kind in ("fitted", "held_out")
        ]
        parts = [one(found[kind]["value"]) for kind in ("held_out_steps", "held_out_diversities")]
        rows.append([words, *cells, one(held["control"]), p_value(held["p"], name=False), *parts])
    unit = "nats" if fit.distance == "kl" else "squared errors"
    caption = (
        "The model of training against the transformers, over checkpoints and diversities that it was fitted to and "
        "over those that it was not, of which later steps and larger diversities are parts. Control, of what was not "
        "fitted: of d_rel and the distance with cells shuffled and the model fitted again (p: share of shuffles that "
        f"do as well), of the others with one weight for all cells. Distance: divergence a prediction, {unit}."
    )
    heads = ["Measure", "Fitted", "Not fitted", "Control", "p", "Later steps", "Larger D"]
    return {"caption": caption, "heads": heads, "rows": rows}


def parameters_table(fit: Any) -> Table:
    """The three numbers and what they mean."""
    rows = [
        [
            str(row["parameter"]),
            interval(row, "estimate", 3),
            f"{row['bound']} bound" if row["bound"] else "inside",
            MEANINGS[str(row["parameter"])],
        ]
        for row in fit.parameters.to_dict("records")
    ]
    failed = f"; {fit.n_failed} refits failed" if fit.n_failed else ""
    caption = (
        f"The fitted numbers. Intervals: {len(fit.draws)} refits on redrawn seeds and sequences{failed}. A number at a "
        "bound of the search is no estimate."
    )
    return {"caption": caption, "heads": ["Number", "Estimate", "Search", "Meaning"], "rows": rows, "words": True}


def transitions_table(transitions: Any, *, n_seeds: int) -> Table:
    """N*(D), observed and predicted, a row a diversity."""
    rows = []
    for row in transitions.times.to_dict("records"):
        why = "; ".join(dict.fromkeys(text for text in (row["no_observation"], row["no_prediction"]) if text))
        rows.append(
            [
                f"{row['diversity']:g}",
                steps(row, "observed"),
                steps(row, "predicted"),
                MISSING if math.isnan(row["modelled"]) else f"{row['modelled']:,.0f}",
                f"{row['n_turned']:.0f} of {n_seeds}",
                why,
            ]
        )
    exponents = [
        f"{str(row['time']).replace('_', ' ')} {interval(row, 'slope')} ({int(row['n'])} diversities)"
        for row in transitions.scaling.to_dict("records")
        if math.isfinite(row["slope"])
    ]
    caption = (
        "When transformers turn from generalising to memorising: the step N* at which d_rel last rises through .5, "
        "and the step at which the model's odds are even, beside that at which the model's d_rel rises through .5. "
        "Exponents (slopes of log N* on log D; above 1: faster than "
        f"in proportion): {'; '.join(exponents) or 'too few times for any'}."
    )
    heads = ["D", "Observed N*", "Predicted N*", "By the model's d_rel", "Seeds that turn", "Where there is none"]
    return {"caption": caption, "heads": heads, "rows": rows, "words": True}


def transience_table(found: Any) -> Table:
    """How far models came from memorising, and what they lost afterwards, a row a diversity."""
    rows = []
    for diversity, own in turning_points(found.fit, found.transience).groupby("diversity"):
        rows.append(
            [
                f"{diversity:g}",
                over_seeds(own["lowest"], 2),
                MISSING if own["step"].isna().all() else f"{own['step'].median():,.0f}",
                over_seeds(own["last"], 2),
                over_seeds(own["rise"], 2),
                over_seeds(own["fresh_rise"], 3),
                f"{int(own['turned'].sum())} of {len(own)}",
            ]
        )
    caption = (
        "Where models generalise first and memorise later: the lowest d_rel where a mixture of both strategies is "
        "near, the step of it (median over seeds), the last d_rel, their difference, and by how much the loss on fresh "
        f"tasks rises from its lowest ({unit_of(found.fit)}). Transient: seeds in which d_rel rises by "
        f"{number(RISE, 1)} or more from below 0.5. Brackets hold the range over seeds."
    )
    heads = ["D", "Lowest d_rel", "At step", "Last d_rel", "Rise", "Loss on fresh tasks", "Transient"]
    return {"caption": caption, "heads": heads, "rows": rows}


def strategies_table(found: Any) -> Table:
    """What the odds are made of, a row a diversity."""
    terms, fit = found.fit.terms, found.fit
    losses = found.predictor_losses.groupby("diversity").mean()
    rows = []
    for at, diversity in enumerate(terms.diversities):
        own = losses.loc[diversity]
        residual = fit.residual[:, fit.kept, at]
        known = residual[np.isfinite(residual)]
        rows.append(
            [
                f"{diversity:g}",
                *(number(own[name], 3) for name in ("memorising", "generalising")),
                *(number(own[f"fresh_{name}"], 3) for name in ("memorising", "generalising")),
                *(f"{bits[:, at].mean():,.0f}" for bits in (terms.bits_memorising, terms.bits_generalising)),
                number(float(fit.between[:, at].mean()), 3),
                number(float(np.median(known)), 2) if len(known) else MISSING,
            ]
        )
    caption = (
        f"Both strategies, means over seeds: M memorises, G generalises. Losses ({unit_of(fit)}) on the tasks that "
        "were trained on and on fresh ones; K, bits of the description; their distance d(M, G); and how far "
        "transformers are from the best mixture, as a share of that (median past the "
        "threshold; near 1 d_rel means nothing)."
    )
    heads = ["D", "Loss of M", "Loss of G", "Fresh, M", "Fresh, G", "K of M", "K of G", "d(M, G)", "Residual"]
    return {"caption": caption, "heads": heads, "rows": rows}
