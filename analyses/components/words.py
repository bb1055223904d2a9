"""What is said of the parts of one model, in words; rules that hold for null results too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from mechicl.wording import number, percent, with_interval

BROKEN = 1.0  # a residual above which d_rel means nothing
MOST = 0.5  # a share from which on one part carries most of the change


def components_verdict(
    curve: pd.DataFrame, before: int, after: int, transplants: Any, patches: Any, ablations: Sequence[Any], probes: Any
) -> str:
    """A sentence a measurement, of those that were made."""
    words = [curve_sentence(curve, before, after)]
    words += [transplants_sentence(transplants)] if transplants is not None else []
    words += [patches_sentence(patches)] if patches is not None else []
    words += [ablations_sentence(own, step) for own, step in zip(ablations, (before, after), strict=bool(ablations))]
    words += [probes_sentence(probes)] if probes is not None else []
    return " ".join(words)


def curve_sentence(curve: pd.DataFrame, before: int, after: int) -> str:
    """Where both checkpoints are."""
    d_rel, left = (curve.set_index("step")[name].astype(float).to_dict() for name in ("d_rel", "residual"))
    said = [
        f"{number(d_rel[step], 2)} after {step:,} steps (residual {number(left[step], 2)})" for step in (before, after)
    ]
    return f"The relative distance (0 generalising, 1 memorising) is {said[0]} and {said[1]}."


def transplants_sentence(found: Any) -> str:
    """Which weights carry the change."""
    direction = "all orders" if (found.frame["direction"] == "all orders").any() else "after into before"
    own = found.frame[(found.frame["donor"] == "other checkpoint") & (found.frame["direction"] == direction)]
    own = own[~own["part"].isin(["sum of parts", "interaction"])].dropna(subset=["share"])
    if own.empty:
        return "The checkpoints do not differ, so their weights carry nothing."
    best = own.nlargest(3, "share")
    said = ", ".join(f"{row['part']} {_interval(row)}" for _, row in best.iterrows())
    single = found.frame.query("part == 'interaction' and direction == 'after into before'").iloc[0]
    control = found.frame.query("donor == 'change shuffled'")
    return (
        "Of that change the weights that carry most are "
        f"({'mean over all orders of transplanting' if direction == 'all orders' else direction}): {said}. Put in "
        f"alone, parts leave {_interval(single)} to what they do together; the same change in random order moves at "
        f"most {number(float(control['share'].abs().max()), 2)} of it. Of the {len(found.sets)} sets of parts "
        f"{int((found.sets['residual'] > BROKEN).sum())} leave a model that is near neither strategy."
    )


def patches_sentence(found: Any) -> str:
    """Which activations carry it."""
    own = found.frame.query("donor == 'other checkpoint' and where == 'all' and head == -1")
    own = own[~own["site"].isin(["interaction", "both outputs"])]
    names = [name for name in ("pattern", "attention output", "MLP output") if name in set(own["site"])]
    last = own["layer"].max()
    said = []
    for name in names:
        rows = own[(own["site"] == name) & (own["layer"] == last)].set_index("direction")
        into, back = (_interval(rows.loc[way]) for way in ("after into before", "before into after"))
        said.append(f"{name} {into} (the other way {back})")
    return f"Activations of the later checkpoint in the earlier move, as a share: {', '.join(said)}."


def ablations_sentence(found: Any, step: int) -> str:
    """What each named part carries."""
    said = []
    for strength, rows in found.frame.groupby("strength", sort=False):
        how = "taken out" if strength == 1 else f"weakened by {percent(strength)}"
        for name, own in rows[rows["carries"] != "neither"].groupby("carries", sort=False):
            parts = ", ".join(
                f"{row['component']}{_layer(found, row)}"
                + (f" ({_interval(row, 'beyond')} of d_rel beyond random changes)" if name != "both" else "")
                for _, row in own.iterrows()
            )
            words = "leave a model that is near neither strategy" if name == "both" else f"show that they carry {name}"
            said.append(f"{how}: {parts} {words}")
    if not said:
        return f"After {step:,} steps no part carries one strategy more than random changes as large do."
    return f"After {step:,} steps, {'; '.join(said)}."


def probes_sentence(found: Any) -> str:
    """When what each strategy works with can be read."""
    rows = found.rises[found.rises["place"] == "stream after block"]
    rows = rows[rows["layer"] == rows["layer"].max()]
    said = []
    for _, row in rows.iterrows():
        what = f"{row['strategy']} {row['target']}"
        if row["step"] != row["step"]:
            said.append(f"{what} no better than at the first checkpoint")
        else:
            said.append(f"{what} from step {int(row['step']):,} (at most {number(row['largest'], 2)})")
    return (
        "From the last residual stream can be read, beyond the other strategy's quantities and half way from the first "
        f"checkpoint to the largest: {'; '.join(said)}."
    )


def kernels_sentence(found: Any) -> str:
    """How far the kernel goes with d_rel."""
    said = [
        f"{int(row['diversity']):,}: {number(float(row['unique_r2_peak']), 2)} at most (step "
        f"{int(row['kernel_peak']):,}), {number(float(row['unique_r2_last']), 2)} at last, rank correlation "
        f"{_interval(row, 'rho')}"
        for _, row in found.together.iterrows()
    ]
    return (
        "R² of the generalising kernel in attention beyond nuisances, and its correlation with 1 less d_rel over "
        f"training, by diversity: {'; '.join(said)}. Over models, at their ends: {_interval(found.across, 'rho')}."
    )


def card(found: Any) -> tuple[str, str]:
    """The kind of answer, and its few words."""
    if found.transplants is None:
        return "none", "Not measured"
    frame = found.transplants.frame
    own = frame[(frame["donor"] == "other checkpoint") & (frame["direction"] == "all orders")].dropna(subset=["share"])
    if own.empty:
        return "none", "No change to share out, or too many parts"
    best = own.sort_values("share", ascending=False)
    shuffled = float(frame.loc[frame["donor"] == "change shuffled", "share"].abs().max())
    first, second = best.iloc[0], best.iloc[1]
    if not first["low"] > 0 or not first["share"] > shuffled:
        return "none", "No part more than its change in random order"
    if first["share"] >= MOST:
        return "yes", f"Mostly one part: {first['part']}"
    return "yes", f"No single part: {first['part']} and {second['part']} most"


def _layer(found: Any, row: Any) -> str:
    return f" of layer {row['layer']}" if found.frame["layer"].max() else ""


def _interval(row: Any, name: str = "share") -> str:
    low, high = ("low", "high") if name in ("share", "rho") else (f"{name}_low", f"{name}_high")
    return with_interval(float(row[name]), float(row[low]), float(row[high]), 2)
