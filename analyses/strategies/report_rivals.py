"""What the model of training is compared with in the report: parts taken out, other strategies, odds of the context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd

from mechicl.analyses.strategies.report_cells import small, small_interval
from mechicl.wording import number

Table = dict[str, Any]
BASELINES = {
    "memorising": "memorising alone",
    "generalising": "generalising alone",
    "constant": "one weight for all cells",
    "free": "best weight of each cell",
}


def ablations_table(ablations: Any, fit: Any) -> Table:
    """Every ablation, and the baselines below."""
    rows = []
    table = ablations.to_frame()
    cells = "held_out" if "held_out_loss" in table else "fitted"
    for at, row in enumerate(table.to_dict("records")):
        excess = "" if at == 0 else small_interval(row, f"{cells}_excess")
        numbers = [small(row[name]) for name in ("alpha", "beta", "gamma")]
        loss, r = small(row[f"{cells}_loss"]), number(row[f"{cells}_d_rel"], 2)
        name = str(row["ablation"]) + ("" if row["converged"] else " (did not converge)")
        rows.append([name, *numbers, small(row["fitted_loss"]), loss, excess, r])
    for row in fit.baselines.to_dict("records"):
        if row["baseline"] in BASELINES:
            losses = [small(row[f"{kind}_loss"]) for kind in ("fitted", cells)]
            rows.append([BASELINES[str(row["baseline"])], "", "", "", *losses, "", ""])
    caption = (
        "What the model is worth with parts taken out and the rest fitted again: distance to the transformers' "
        "predictions where it was fitted and where it was not, the latter beyond the whole model's, and the "
        "correlation of d_rel there. Linear K: a prior in proportion to K, beta then in nats a bit. Below: single "
        "strategies and weights without a model; the best weight of each cell is what no mixture can beat."
    )
    heads = ["Model", "alpha", "beta", "gamma", "Fitted", "Not fitted", "Beyond the model's", "r of d_rel"]
    return {"caption": caption, "heads": heads, "rows": rows}


def rivals_table(found: Any) -> Table:
    """A constant as a third strategy, and odds that see the context, each beside what it adds to."""
    rows = []
    if found.three is not None:
        names = {"two": "two strategies, every checkpoint", "three": "and the best constant as a third"}
        rows += _rival_rows(found.three.to_frame(), lambda row: names.get(str(row["strategies"]), "n/a"))
    if found.context is not None:
        rows += _rival_rows(found.context.to_frame(), _strength_words)
    caption = (
        "What else might predict the transformers: a constant as a third strategy, whose time is before the threshold "
        "(fitted and judged from the first checkpoint on), and odds that change within a sequence with what both "
        "strategies said of it so far (strength 0 is the model of training, 1 a Bayesian who goes on within the "
        "sequence). Distances as above; last what is added to the first of each kind, below 0 where it helps."
    )
    heads = ["Model", "alpha", "beta", "gamma", "Fitted", "Not fitted", "Added"]
    return {"caption": caption, "heads": heads, "rows": rows}


def _rival_rows(table: pd.DataFrame, words: Callable[[Any], str]) -> list[list[str]]:
    cells = "held_out" if "held_out_loss" in table else "fitted"
    rows = []
    for at, row in enumerate(table.to_dict("records")):
        numbers = [small(float(row[name])) for name in ("alpha", "beta", "gamma")]
        losses = [small(float(row[f"{kind}_loss"])) for kind in ("fitted", cells)]
        name = words(row) + ("" if row["converged"] else " (did not converge)")
        rows.append([name, *numbers, *losses, small_interval(row, f"{cells}_excess") if at else ""])
    return rows


def _strength_words(row: Any) -> str:
    return f"odds of the context, strength {row['strength']:g}"
