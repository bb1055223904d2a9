"""The tables of the kernel account's report, from frames to words."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mechicl.wording import MINUS, number, p_value, with_interval

Table = dict[str, Any]
HEADS = 10  # rows of the table of heads
ACCOUNTS = 2  # columns of the table of phenomena


def rebuilt_table(regression: Any) -> Table:
    """Every way to rebuild the answers, with chance and rivals."""
    rows = [
        [
            f"{row['name']}" + (f" ({row['chosen']})" if row["chosen"] else ""),
            _interval(row, "agreement", "low", "high"),
            number(row["chance"], 2),
            p_value(row["p"], name=False),
            "" if row["name"] == "recency" else _interval(row, "gain", "gain_low", "gain_high"),
            _interval(row, "accuracy", "accuracy_low", "accuracy_high"),
            number(row["r"], 2),
        ]
        for _, row in regression.rebuilt.iterrows()
    ]
    own = regression.accuracy
    caption = (
        "The model's answers rebuilt from the demonstrations' labels, weighed by attention, by kernels between texts, "
        "or by rivals that look at no text; in brackets what was chosen on the other prompts. Chance: agreement "
        "expected from how often labels are given. Beyond place: agreement less that of labels weighed by their place "
        f"alone. The model itself is right for {with_interval(own['estimate'], own['low'], own['high'], 2)} of the "
        "prompts."
    )
    heads = ["Labels weighed by", "Agreement", "Chance", "p", "Beyond place", "Accuracy", "r"]
    return {"caption": caption, "heads": heads, "rows": rows}


def heads_table(regression: Any) -> Table:
    """The heads whose kernel adds most, with nuisances beside it."""
    best = regression.heads.dropna(subset=["unique_r2"]).nlargest(HEADS, "unique_r2")
    how = f"agreement_{regression.aggregate}"
    rows = [
        [
            f"L{int(row['layer'])}H{int(row['head'])}",
            str(row["kernel"]),
            _interval(row, "unique_r2", "unique_r2_low", "unique_r2_high"),
            p_value(row["p_fwe"], name=False),
            number(row["r2"], 2),
            _interval(row, "nuisance_r2", "nuisance_r2_low", "nuisance_r2_high"),
            number(row["position_r2"], 2),
            number(row["label_r2"], 2),
            number(row[how], 2),
            str(row["kind"]),
        ]
        for _, row in best.iterrows()
    ]
    caption = (
        f"The {len(rows)} heads whose kernel adds most to nuisances and salience. Kernel: kind, place of the residual "
        "stream, layer. Added: held-out R² that the kernel adds; p: corrected over all heads and kernels; alone: R² of "
        "the kernel by itself. Nuisances: place, label, length and words in common together; place and label also "
        "alone. Agreement: of the head's votes with the model. These are the largest of many, and so are their rivals."
    )
    columns = ["Head", "Kernel", "Added", "p", "Alone", "Nuisances", "Place", "Label", "Agreement", "Follows"]
    return {"caption": caption, "heads": columns, "rows": rows}


def causality_table(causality: Any) -> Table:
    """Faithfulness of the kernel's weights for every set and reference, with the controls."""
    rows = []
    chosen = causality.frame.query("condition == 'kernel' and measure == 'faithfulness'")
    for (name, reference), own in chosen.groupby(["set", "reference"], sort=False):
        by_control = own.set_index("control")
        plain = by_control.loc["none"]
        controls = [
            number(by_control["estimate"].get(control, float("nan")), 2)
            for control in ("nuisance weights", "random heads", "permuted weights")
        ]
        gains = [
            _interval(by_control.loc[control], "difference", "diff_low", "diff_high")
            if control in by_control.index
            else "n/a"
            for control in ("permuted weights", "nuisance weights")
        ]
        rows.append([f"{name}, from {reference}", _interval(plain, "estimate", "low", "high"), *controls, *gains])
    named = [
        f"{name}: {', '.join(f'L{a}H{b}' for a, b in heads)}"
        for name, heads in zip(causality.sets, causality.heads, strict=True)
        if not name.startswith("random for ")
    ]
    caption = (
        "Faithfulness when the kernel's weights take the place of heads' attention to demonstrations: 1 gives the "
        "clean run's log-probabilities back, 0 is as far off as the reference. Beside it weights of nuisances in the "
        "same heads, the kernel's in random heads, and the kernel's in another order; last the gains on permuted "
        "weights and on nuisances: kernel weights hold the nuisances' part as well, so only the last is the kernel's "
        f"own. Heads named by {'; by '.join(named)}."
    )
    heads = ["Heads, reference", "Kernel", "Nuisances", "Random heads", "Permuted", "Less permuted", "Less nuisances"]
    return {"caption": caption, "heads": heads, "rows": rows}


def phenomena_table(phenomena: Any) -> Table:
    """The model by condition, beside the accounts."""
    frame = phenomena.frame
    names = [name for name in dict.fromkeys(frame["predictor"]) if name != "ICL"]
    names = [*names[-1:], *names[: min(ACCOUNTS, len(names)) - 1]]  # the head's votes come last
    wide = frame.set_index(["condition", "predictor"])["accuracy"]
    rows = []
    for _, row in frame[frame["predictor"] == "ICL"].iterrows():
        accounts = [number(wide.get((row["condition"], name), float("nan")), 2) for name in names]
        accounts_said = phenomena.accounts.query(f"condition == {row['condition']!r} and predictor == {names[0]!r}")
        says = str(accounts_said["verdict"].iloc[0]) if len(accounts_said) else ""
        rows.append(
            [
                str(row["condition"]),
                _interval(row, "accuracy", "low", "high"),
                _interval(row, "difference", "diff_low", "diff_high"),
                p_value(row["p_holm"], name=False),
                *accounts,
                says,
            ]
        )
    order = phenomena.orders.query("predictor == 'ICL'")
    said = (
        f" Over {int(order['n_orders'].iloc[0])} orders of the same demonstrations the model's accuracy goes from "
        f"{number(order['accuracy_min'].iloc[0], 2)} to {number(order['accuracy_max'].iloc[0], 2)}."
        if len(order)
        else ""
    )
    caption = (
        f"Accuracy by condition on the same queries (chance {number(phenomena.chance, 2)}): the model, its difference "
        "from random demonstrations, p corrected over conditions, then kernel accounts on the same prompts, and "
        f"whether model and the first of these change.{said}"
    )
    heads = ["Condition", "Model", "Difference", "p (Holm)", *names, f"Model and {names[0]}"]
    return {"caption": caption, "heads": heads, "rows": rows}


def probes_table(probes: Any) -> Table:
    """The best head for each source, target and offset around the label."""
    best: pd.DataFrame = probes.best()
    rows = [
        [
            f"{row['source']} to {row['target']}",
            f"{row['offset']:+d}".replace("-", MINUS) if row["offset"] else "0",
            f"L{int(row['layer'])}, {int(row['head'])}",
            _interval(row, "r2", "low", "high"),
            number(row["control"], 2),
            _interval(row, "selectivity", "selectivity_low", "selectivity_high"),
            f"{int(row['n']):,}",
        ]
        for _, row in best[best["offset"].between(-1, 1)].iterrows()
    ]
    caption = (
        "What keys and values tell near a demonstration's label: held-out R² of ridge probes, the best key-value head "
        "of each row (a maximum, so too high by chance). Offset: from the label's first token, at 0 the label itself "
        "can be seen. Control: targets permuted within prompts; selectivity: R² less control."
    )
    heads = ["Read", "Offset", "Layer, head", "R²", "Control", "Selectivity", "n"]
    return {"caption": caption, "heads": heads, "rows": rows}


def _interval(row: Any, estimate: str, low: str, high: str) -> str:
    return with_interval(float(row[estimate]), float(row[low]), float(row[high]), 2)
