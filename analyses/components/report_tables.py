"""The tables of the report on a model's parts, from frames to words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mechicl.wording import MISSING, number, p_value, with_interval

Table = dict[str, Any]


def transplants_table(found: Any) -> Table:
    """Shares of every part, both ways and over all orders, with residual and controls."""
    frame = found.frame
    own = frame[frame["donor"] == "other checkpoint"]
    ways = list(dict.fromkeys(own["direction"]))
    controls = [donor for donor in dict.fromkeys(frame["donor"]) if donor != "other checkpoint"]
    by_way, by_donor = own.set_index(["part", "direction"]), frame.set_index(["part", "donor", "direction"])
    rows = []
    for part in dict.fromkeys(own["part"]):
        cells = [_interval(by_way.loc[(part, way)]) if (part, way) in by_way.index else "" for way in ways]
        left = number(float(by_way.loc[(part, ways[0]), "residual"]), 2)
        beside = [
            number(float(by_donor.loc[(part, donor, ways[0]), "share"]), 2)
            if (part, donor, ways[0]) in by_donor.index
            else ""
            for donor in controls
        ]
        rows.append([part, *cells, "" if left == MISSING else left, *beside])
    caption = (
        "Weights of one checkpoint put into the other: the share of the change of d_rel that each part moves. Sum of "
        "parts: of single shares; interaction: 1 less that. Over all orders shares sum to 1. Residual: of the earlier "
        "checkpoint with the part; above 1 it is near neither strategy. Controls are put into the earlier checkpoint."
    )
    return {
        "caption": caption,
        "heads": ["Part", *map(_capital, ways), "Residual", *map(_capital, controls)],
        "rows": rows,
    }


def patches_table(found: Any) -> Table:
    """Shares of every place, both ways, at all positions and at the last."""
    frame = found.frame
    ways = list(dict.fromkeys(frame["direction"]))
    wheres = list(dict.fromkeys(frame["where"]))
    keys = ["site", "layer", "head"]
    places = frame[keys].drop_duplicates()
    deep = bool(places["layer"].max() > 0)
    rows = []
    for _, place in places.iterrows():
        own = frame[(frame[keys] == place).all(axis=1) & (frame["donor"] == "other checkpoint")]
        by = own.set_index(["direction", "where"])
        control = frame[(frame[keys] == place).all(axis=1) & (frame["donor"] == "in another basis")]
        name = _named(place["site"], place["layer"], deep)
        name += f", head {place['head']}" if place["head"] >= 0 else ""
        cells = [_interval(by.loc[(way, where)]) for way in ways for where in wheres]
        left = number(float(by.loc[(ways[0], wheres[0]), "residual"]), 2)
        beside = number(float(control["share"].iloc[0]), 2) if len(control) else ""
        rows.append([name, *cells, "" if left == MISSING else left, beside])
    caption = (
        "Activations of one checkpoint put into the other's run on the same sequences: the share of the change of "
        "d_rel. Interaction: both outputs together less the sum of theirs. Residual: of the earlier checkpoint "
        "patched at all positions. In another basis: the later checkpoint with its residual stream in another order, "
        "a donor that says the same."
    )
    words = {"all": "all positions", "last": "the last"}
    heads = [f"{_capital(way)}, {words[where]}" for way in ways for where in wheres]
    return {"caption": caption, "heads": ["Place", *heads, "Residual", "In another basis"], "rows": rows}


def ablations_table(found: Sequence[Any], steps: Sequence[int]) -> Table:
    """Every part of both checkpoints."""
    rows = []
    for own, step in zip(found, steps, strict=True):
        deep = bool(own.frame["layer"].max() > 0)
        for _, row in own.frame.iterrows():
            rows.append(
                [
                    f"{step:,}",
                    _named(row["component"], row["layer"], deep),
                    f"{row['strength']:g}",
                    *(
                        with_interval(row[name], row[f"{name}_low"], row[f"{name}_high"], 2)
                        for name in ("moved", "beyond")
                    ),
                    number(float(row["residual"]), 2),
                    with_interval(row["loss_moved"], row["loss_moved_low"], row["loss_moved_high"]),
                    p_value(float(row["p_fwe"]), name=False),
                    str(row["carries"]),
                ]
            )
    caption = (
        "What parts compute, moved towards its mean over sequences (strength 1: all the way). Moved: d_rel less the "
        "model's; beyond: less that of changes as large in random directions. p, on the other half of the sequences, "
        "corrected over parts and strengths. Both: neither strategy is left without the part."
    )
    heads = ["Step", "Part", "Strength", "Moved", "Beyond", "Residual", "Loss moved", "p", "Carries"]
    return {"caption": caption, "heads": heads, "rows": rows}


def probes_table(found: Any) -> Table:
    """First and last checkpoint, and when each target rises, by place."""
    steps = sorted(found.frame["step"].unique())
    keys = ["place", "layer", "strategy", "target"]
    by = found.frame.set_index([*keys, "step"])
    deep = bool(found.frame["layer"].max() > 0)
    rows = []
    for _, rise in found.rises.iterrows():
        key = tuple(rise[name] for name in keys)
        first, last = by.loc[(*key, steps[0])], by.loc[(*key, steps[-1])]
        unique = [with_interval(row["unique_r2"], row["unique_low"], row["unique_high"], 2) for row in (first, last)]
        found_at = MISSING if rise["step"] != rise["step"] else f"{int(rise['step']):,}"
        rows.append(
            [
                _named(key[0], key[1], deep), f"{key[2]}: {key[3]}", number(float(last["r2"]), 2), *unique,
                number(float(last["unique_control"]), 2), found_at,
            ]
        )  # fmt: skip
    caption = (
        "Ridge probes of states, held out by sequence. Alone: R² at the last checkpoint; beyond: what states add to "
        f"the other strategy's quantities, after {steps[0]:,} and {steps[-1]:,} steps; control: states of other "
        "sequences. Rise: the first checkpoint half way from the first to the largest, where training adds anything."
    )
    heads = ["Place", "Read", "Alone", "Beyond, first", "Beyond, last", "Control", "Rise"]
    return {"caption": caption, "heads": heads, "rows": rows}


def kernels_table(found: Any) -> Table:
    """One row a model."""
    rows = [
        [
            f"{row['diversity']:,}" + (f" (seed {row['seed']})" if found.together["seed"].nunique() > 1 else ""),
            number(float(row["unique_r2_peak"]), 2), f"{row['kernel_peak']:,}", f"{row['generalising_peak']:,}",
            number(float(row["unique_r2_last"]), 2), with_interval(row["rho"], row["low"], row["high"], 2),
        ]
        for _, row in found.together.iterrows()
    ]  # fmt: skip
    caption = (
        "The generalising predictor's kernel in attention over training, one row a model: the largest R² beyond "
        "nuisances and its step, the step of the smallest d_rel, R² at the last checkpoint, and the rank correlation "
        "of both over checkpoints."
    )
    heads = ["Diversity", "Largest", "at step", "Smallest d_rel at", "Last", "Correlation with 1 less d_rel"]
    return {"caption": caption, "heads": heads, "rows": rows}


def _interval(row: Any) -> str:
    return with_interval(float(row["share"]), float(row["low"]), float(row["high"]), 2)


def _named(part: str, layer: int, deep: bool) -> str:
    return f"{part} {layer}" if deep else part


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
