"""The tables of the Bayesian account's report, from frames to words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.strategies.words import measure, unit_of
from mechicl.wording import MISSING, number, p_value, with_interval

Table = dict[str, Any]
MEASURES = {
    "d_rel": "Correlation of d_rel",
    "spearman": "Rank correlation of predictions",
    "r2": "R² of predictions",
    "agreement": "Same likeliest label",
    "loss": "Distance to the predictions",
}
CELLS = {"fitted": "Fitted", "held_out": "Not fitted", "held_out_steps": "Later steps",
         "held_out_diversities": "Larger D"}  # fmt: skip
MEANINGS = {
    "alpha": "how much less each further step counts: evidence grows with N to the power of 1 − alpha",
    "beta": "how steeply long descriptions are disfavoured: the prior has K to the power of beta",
    "gamma": "how much a step of training counts",
}
BASELINES = {
    "memorising": "memorising alone",
    "generalising": "generalising alone",
    "constant": "one weight for all cells",
    "free": "best weight of each cell",
}


def all_tables(found: Any) -> list[Table]:
    """In the page's order."""
    return [
        measures_table(found.fit),
        parameters_table(found.fit),
        transitions_table(found.transitions, n_seeds=len(found.fit.d_rel)),
        transience_table(found.transience, unit_of(found.fit)),
        ablations_table(found.ablations, found.fit),
        strategies_table(found),
    ]


def measures_table(fit: Any) -> Table:
    """Every measure over every set of cells, with the control."""
    rows = []
    for name, words in MEASURES.items():
        found = {cells: measure(fit, name, cells) for cells in CELLS}
        if all(math.isnan(row["value"]) for row in found.values()):
            continue
        held = found["held_out"]
        cells = [_interval(row, "value", small=name == "loss") for row in found.values()]
        control = _small(held["control"]) if name == "loss" else number(held["control"], 2)
        rows.append([words, *cells, control, p_value(held["p"], name=False)])
    unit = "nats" if fit.distance == "kl" else "squared errors"
    caption = (
        "The model of training against the transformers, over checkpoints and diversities that it was fitted to and "
        "over those that it was not, of which later steps and larger diversities are parts. Control: the same, not "
        "fitted; of d_rel and the distance with cells shuffled and the model fitted again (p: share of shuffles that "
        f"do as well), of the others with one weight for all cells. Distance: divergence a prediction, {unit}."
    )
    return {"caption": caption, "heads": ["Measure", *CELLS.values(), "Control", "p"], "rows": rows}


def parameters_table(fit: Any) -> Table:
    """The three numbers and what they mean."""
    rows = [
        [
            str(row["parameter"]),
            _interval(row, "estimate", digits=3),
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
                _steps(row, "observed"),
                _steps(row, "predicted"),
                f"{row['n_turned']:.0f} of {n_seeds}",
                why,
            ]
        )
    exponents = [
        f"{str(row['time']).replace('_', ' ')} {_interval(row, 'slope')} ({int(row['n'])} diversities)"
        for row in transitions.scaling.to_dict("records")
        if math.isfinite(row["slope"])
    ]
    caption = (
        "When transformers turn from generalising to memorising: the step N* at which d_rel last rises through .5, "
        "and the step at which the model's odds are even. Exponents (slopes of log N* on log D; above 1: faster than "
        f"in proportion): {'; '.join(exponents) or 'too few times for any'}."
    )
    heads = ["D", "Observed N*", "Predicted N*", "Seeds that turn", "Where there is none"]
    return {"caption": caption, "heads": heads, "rows": rows, "words": True}


def transience_table(transience: pd.DataFrame, unit: str) -> Table:
    """How far models came from memorising, and what they lost afterwards, a row a diversity."""
    rows = []
    for diversity, own in transience.groupby("diversity"):
        rows.append(
            [
                f"{diversity:g}",
                _over_seeds(own["lowest"], 2),
                f"{own['lowest_step'].median():,.0f}",
                _over_seeds(own["last"], 2),
                _over_seeds(own["rise"], 2),
                _over_seeds(own["fresh_rise"], 3),
            ]
        )
    caption = (
        "Where models generalise first and memorise later: the lowest d_rel past the threshold, the step of it (median "
        "over seeds), the last d_rel, their difference, and by how much the loss on fresh tasks rises from its lowest "
        f"({unit}). Brackets hold the range over seeds."
    )
    heads = ["D", "Lowest d_rel", "At step", "Last d_rel", "Rise", "Rise of the loss on fresh tasks"]
    return {"caption": caption, "heads": heads, "rows": rows}


def ablations_table(ablations: Any, fit: Any) -> Table:
    """Every ablation, and the baselines below."""
    rows = []
    table = ablations.to_frame()
    cells = "held_out" if "held_out_loss" in table else "fitted"
    for at, row in enumerate(table.to_dict("records")):
        excess = "" if at == 0 else _interval(row, f"{cells}_excess", small=True)
        numbers = [_small(row[name]) for name in ("alpha", "beta", "gamma")]
        loss, r = _small(row[f"{cells}_loss"]), number(row[f"{cells}_d_rel"], 2)
        name = str(row["ablation"]) + ("" if row["converged"] else " (did not converge)")
        rows.append([name, *numbers, _small(row["fitted_loss"]), loss, excess, r])
    for row in fit.baselines.to_dict("records"):
        if row["baseline"] in BASELINES:
            losses = [_small(row[f"{kind}_loss"]) for kind in ("fitted", cells)]
            rows.append([BASELINES[str(row["baseline"])], "", "", "", *losses, "", ""])
    caption = (
        "What the model is worth with parts taken out and the rest fitted again: distance to the transformers' "
        "predictions where it was fitted and where it was not, the latter beyond the whole model's, and the correlation "
        "of d_rel there. Linear K: a prior in proportion to K, beta then in nats a bit. Below: single strategies and "
        "weights without a model; the best weight of each cell is what no mixture can beat."
    )
    heads = ["Model", "alpha", "beta", "gamma", "Fitted", "Not fitted", "Beyond the model's", "r of d_rel"]
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
        f"Both strategies, means over seeds: M memorises, G generalises. Losses ({unit_of(fit)}) on the tasks that were "
        "trained on and on fresh ones; K, bits of the description; their distance d(M, G); and how far transformers are "
        "from the best mixture, as a share of that (median past the threshold; near 1 d_rel means nothing)."
    )
    heads = ["D", "Loss of M", "Loss of G", "Fresh, M", "Fresh, G", "K of M", "K of G", "d(M, G)", "Residual"]
    return {"caption": caption, "heads": heads, "rows": rows}


def _interval(row: Any, name: str, *, digits: int = 2, small: bool = False) -> str:
    stem = "" if name in ("value", "estimate", "slope") else f"{name}_"
    low, high = (float(row[f"{stem}{end}"]) for end in ("low", "high"))
    if not small:
        return with_interval(float(row[name]), low, high, digits)
    ends = f" [{_small(low)}, {_small(high)}]" if math.isfinite(low) and math.isfinite(high) else ""
    return _small(float(row[name])) + ends


def _small(value: float) -> str:
    """Two digits that count, however small the number is."""
    if not math.isfinite(value) or value == 0:
        return number(value, 2)
    return number(value, min(max(1 - math.floor(math.log10(abs(value))), 0), 9))


def _steps(row: Any, name: str) -> str:
    value, low, high = (float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    if not math.isfinite(value):
        return number(value, 0)
    ends = f" [{low:,.0f}, {high:,.0f}]" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{value:,.0f}{ends}"


def _over_seeds(values: pd.Series, digits: int) -> str:
    ends = (float(values.min()), float(values.max())) if len(values) > 1 else (math.nan, math.nan)
    return with_interval(float(values.mean()), *ends, digits)
