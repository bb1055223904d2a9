"""What the kernel account says of a model, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mechicl.wording import number, p_value, with_interval


def kernel_verdict(heads: pd.DataFrame, rebuilt: pd.DataFrame, accuracy: Mapping[str, float]) -> str:
    """Two sentences: answers rebuilt by the best head, and heads whose attention follows a kernel."""
    return f"{rebuilt_sentence(rebuilt, accuracy)} {kernel_sentence(heads)}"


def rebuilt_sentence(rebuilt: pd.DataFrame, accuracy: Mapping[str, float]) -> str:
    """How well one head's votes tell the model's answers, and whether better than places alone."""
    rows: dict[str, Any] = {str(row["name"]): row for row in rebuilt.to_dict("records")}
    best, rival = rows["best head"], rows["recency"]
    held = with_interval(accuracy["estimate"], accuracy["low"], accuracy["high"], 2)
    agreed, right, gain = (
        with_interval(best[name], best[low], best[high], 2)
        for name, low, high in (
            ("agreement", "low", "high"),
            ("accuracy", "accuracy_low", "accuracy_high"),
            ("gain", "gain_low", "gain_high"),
        )
    )
    beyond = (
        "more than" if best["gain_low"] > 0 else "less than" if best["gain_high"] < 0 else "no clear difference from"
    )
    return (
        f"The model answers {held} of the queries rightly (chance {number(accuracy['chance'], 2)}). Labels weighed by "
        f"the attention of {best['chosen']} give its answer for {agreed} of the prompts (chance "
        f"{number(best['chance'], 2)}, {p_value(best['p'])}), {beyond} labels weighed by their place alone "
        f"({number(rival['agreement'], 2)}; difference {gain}), and the right one for {right}."
    )


def kernel_sentence(heads: pd.DataFrame) -> str:
    """How many heads follow a kernel, and the best of them."""
    found = heads[heads["follows_kernel"]]
    if found.empty:
        return (
            "No head's attention follows a kernel between query and demonstration beyond the latter's place, label, "
            "length and words, and beyond what it draws from any query."
        )
    best = found.iloc[int(found["unique_r2"].to_numpy().argmax())]
    unique = with_interval(best["unique_r2"], best["unique_r2_low"], best["unique_r2_high"], 2)
    most = int((found["kind"] == "kernel").sum())
    place = number(best["position_r2"], 2)
    name = f"L{int(best['layer'])}H{int(best['head'])}"
    return (
        f"{len(found)} of {len(heads)} heads follow a kernel beyond nuisances, {most} of them more than anything else; "
        f"the clearest is {name} by {best['kernel']}: unique R\u00b2 {unique}, place alone {place}."
    )


def account_verdict(regression: Any, causality: Any, phenomena: Any) -> str:
    """The regression's verdict, and what replaced attention and experiments say of it."""
    said = [regression.verdict]
    if causality is not None:
        said += causality_sentences(causality)
    if phenomena is not None:
        said.append(phenomena_sentence(phenomena))
    return " ".join(said)


def causality_sentences(found: Any) -> list[str]:
    """A sentence a named set of heads: what its kernel's weights give back of the answers."""
    said = []
    if "kernel" not in found.sets:
        said.append("No head followed its kernel clearly enough to be put to the test.")
    rows = found.frame.query("condition == 'kernel' and reference == 'uniform' and measure == 'faithfulness'")
    for name, own in rows.groupby("set", sort=False):
        by_control = own.set_index("control")
        plain = by_control.loc["none"]
        if math.isnan(plain["estimate"]):
            said.append(f"Uniform attention of the heads by {name} moves no answer, so there is nothing to give back.")
            continue
        share = with_interval(plain["estimate"], plain["low"], plain["high"], 2)
        words = f"With their kernel's weights in place of their attention the heads by {name} give back {share} of what"
        words += " uniform attention takes from the answers"
        for control, what in (("permuted weights", "those weights permuted"), ("nuisance weights", "nuisances alone")):
            if control in by_control.index:
                other = by_control.loc[control]
                more = with_interval(other["difference"], other["diff_low"], other["diff_high"], 2)
                words += f", {more} more than {what}"
        said.append(words + ".")
    return said


def phenomena_sentence(found: Any) -> str:
    """For how many of the conditions that move the model the account moves as well; and the order of demonstrations."""
    verdicts = found.accounts["verdict"]
    moved = verdicts.isin(["both change", "only the model changes", "opposite changes"])
    conditions = found.accounts.loc[moved, "condition"].nunique()
    both = found.accounts.loc[verdicts == "both change", "condition"].nunique()
    order = found.orders[found.orders["predictor"] == "ICL"]
    total = found.accounts["condition"].nunique()
    words = f"None of {total} conditions changes the model's accuracy beyond chance."
    if conditions:
        words = (
            f"{conditions} of {total} conditions change the model's accuracy beyond chance; in {both} of them some "
            "kernel account changes with it."
        )
    if len(order):
        row = order.iloc[0]
        often = with_interval(row["disagreement"], row["low"], row["high"], 2)
        words += f" Two orders of the same demonstrations give different answers for {often} of the queries."
    return words
