"""Pictures of strategies inside models: transplants, patches, ablations, probes and kernels over training.

All read the frames of results, draw on ``ax`` (or on a new figure), return the Axes, never call ``show()`` and leave
matplotlib's settings as they are. Filled marks are measurements, open grey ones controls.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mechicl.views import BLUE, GREY, INK, MARKS, PALE, VERMILION, _axes, _require

__all__ = [
    "plot_ablations", "plot_d_rel_curve", "plot_kernels_in_training", "plot_patches", "plot_strategy_probes",
    "plot_transplants",
]  # fmt: skip
OPEN_MARKS = ("x", "d", "+", "*")
WIDEST = 2.5  # shares beyond are drawn at the edge
LABELS = {
    "unique_r2": "R² beyond the other strategy's quantities (held out)",
    "r2": "R² (held out)",
    "d_rel": "Relative distance (1: memorising)",
    "bandwidth": "Bandwidth of the kernel that fits attention",
}


def plot_transplants(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the share of the change that each part of the weights moves, one mark a direction, controls grey."""
    _require(result.frame, ["direction", "donor", "part", "share", "low", "high"], "frame")
    parts = [part for part in dict.fromkeys(result.frame["part"]) if part not in ("sum of parts", "interaction")]
    frame = result.frame.assign(row=result.frame["part"])
    return _shares(frame[frame["part"].isin(parts)], parts, ax)


def plot_patches(result: Any, *, where: str = "all", ax: Axes | None = None) -> Axes:
    """Draw the share of the change that each activation moves; where: patched at "all" positions or the "last"."""
    _require(result.frame, ["direction", "donor", "site", "layer", "head", "where", "share", "low", "high"], "frame")
    frame = result.frame[(result.frame["where"] == where) & (result.frame["site"] != "interaction")]
    if frame.empty:
        raise ValueError(f"Got where={where!r}, expected one of: {', '.join(dict.fromkeys(result.frame['where']))}.")
    deep = frame["layer"].nunique() > 1
    names = [
        str(row["site"]) + (f" {row['layer']}" if deep and row["site"] != "embedding" else "")
        + (f", head {row['head']}" if row["head"] >= 0 else "")
        for _, row in frame.iterrows()
    ]  # fmt: skip
    return _shares(frame.assign(row=names), list(dict.fromkeys(names)), ax)


def plot_ablations(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how far d_rel moves without each part (filled where named), beside a change as large in random directions."""
    needed = ["component", "layer", "head", "moved", "moved_low", "moved_high", "control", "named"]
    _require(result.frame, needed, "frame")
    frame = result.frame
    deep = frame["layer"].nunique() > 1
    names = [f"{row['component']}" + (f", layer {row['layer']}" if deep else "") for _, row in frame.iterrows()]
    places = np.arange(len(frame))[::-1]
    with _axes(ax, (6.4, 1.8 + 0.34 * len(frame))) as ax:
        ax.axvline(0, color=INK, linewidth=1, zorder=1)
        ax.hlines(places, frame["moved_low"], frame["moved_high"], color=BLUE, linewidth=1.6, zorder=2)
        for named, face, words in ((True, BLUE, "mean in its place"), (False, "white", "the same, not named")):
            own = (frame["named"] == named).to_numpy()
            if own.any():
                ax.plot(frame["moved"][own], places[own], "o", color=BLUE, markerfacecolor=face, label=words, zorder=4)
        ax.plot(
            frame["control"], places - 0.22, OPEN_MARKS[1], color=GREY, markerfacecolor="white", zorder=3,
            label="as large, random directions",
        )  # fmt: skip
        ax.set_yticks(places, names)
        ax.set_ylim(-1.7, len(frame) - 0.5)  # room for the legend
        ax.set_xlabel("d_rel without the part less d_rel (above 0: it carried generalising)")
        ax.legend(loc="lower left", ncols=3, frameon=True, framealpha=1, edgecolor="none")
    return ax


def plot_strategy_probes(
    result: Any, *, place: str = "stream after block", measure: str = "unique_r2", ax: Axes | None = None
) -> Axes:
    """Draw what can be read from a place over training, a line a target; dotted: controls. ``measure``: or "r2"."""
    bounds = {"unique_r2": ("unique_low", "unique_high", "unique_control"), "r2": ("low", "high", "control")}
    if measure not in bounds:
        raise ValueError(f"Got the measure {measure!r}, expected one of: {', '.join(bounds)}.")
    low, high, control = bounds[measure]
    _require(result.frame, ["step", "place", "layer", "strategy", "target", measure, low, high, control], "frame")
    rows = result.frame[result.frame["place"] == place]
    if rows.empty:
        known = ", ".join(dict.fromkeys(result.frame["place"]))
        raise ValueError(f"Got the place {place!r}, expected one of: {known}.")
    rows = rows[rows["layer"] == rows["layer"].max()]
    with _axes(ax, (6.6, 4.2)) as ax:
        for (keys, own), mark in zip(rows.groupby(["strategy", "target"], sort=False), MARKS, strict=False):
            own = own.sort_values("step")
            _banded(ax, own, measure, low, high, mark, ": ".join(str(key) for key in keys))
            ax.plot(own["step"], own[control], color=mark[0], linewidth=0.9, linestyle=":", label="_control")
        _over_steps(ax, LABELS[measure])
        ax.legend(loc="best")
    return ax


def plot_kernels_in_training(result: Any, *, measure: str = "unique_r2", ax: Axes | None = None) -> Axes:
    """Draw a measure of the ideal kernel, or "d_rel", over training, a line a diversity (darker: larger)."""
    _require(result.frame, ["diversity", "step", measure, f"{measure}_low", f"{measure}_high", "control"], "frame")
    frame = result.frame.groupby(["diversity", "step"], as_index=False).mean(numeric_only=True)
    diversities = sorted(frame["diversity"].unique())
    with _axes(ax, (6.6, 4.2)) as ax:
        from matplotlib import colormaps

        shades = colormaps["viridis_r"](np.linspace(0.08, 0.95, len(diversities)))
        for at, (diversity, shade) in enumerate(zip(diversities, shades, strict=True)):
            own = frame[frame["diversity"] == diversity].sort_values("step")
            _, marker, filled, style = MARKS[at % len(MARKS)]
            mark = (shade, marker, filled, style)
            _banded(ax, own, measure, f"{measure}_low", f"{measure}_high", mark, f"D = {diversity}")
        if measure == "unique_r2":
            control = frame.groupby("step")["control"].mean()
            ax.plot(control.index, control, color=GREY, linestyle=":", label="attention of other contexts")
        if measure == "bandwidth" and "known" in frame:
            ax.axhline(frame["known"].iloc[0], color=INK, linewidth=1, linestyle="--", label="of the predictor")
        _over_steps(ax, LABELS.get(measure, measure))
        ax.legend(loc="best", ncols=2, fontsize=7.5)
    return ax


def plot_d_rel_curve(
    frame: pd.DataFrame, *, marked: Sequence[int] = (), ax: Axes | None = None
) -> Axes:
    """Draw d_rel over training with its interval, the residual beside it, and lines at marked steps."""
    _require(frame, ["step", "d_rel", "low", "high", "residual"], "frame")
    with _axes(ax, (6.4, 3.8)) as ax:
        _banded(ax, frame, "d_rel", "low", "high", MARKS[0], "d_rel (1: memorising)")
        shown = frame[frame["residual"] <= 1]  # before, the model is near neither
        ax.plot(shown["step"], shown["residual"], color=VERMILION, linestyle="--", linewidth=1.4, label="residual")
        for step in marked:
            ax.axvline(step, color=GREY, linewidth=1, linestyle=":", zorder=0)
            ax.annotate(f"{step:,}", (step, 1.0), xytext=(3, -8), textcoords="offset points", fontsize=8, color=GREY)
        ax.set_ylim(-0.02, 1.02)
        _over_steps(ax, "Share of the distance between the strategies")
        ax.legend(loc="upper left", bbox_to_anchor=(0, 0.92))
    return ax


def _shares(frame: pd.DataFrame, names: Sequence[str], ax: Axes | None) -> Axes:
    """Marks of directions and controls, a row a name."""
    lines = [(direction, "other checkpoint") for direction in dict.fromkeys(frame["direction"])]
    controls = [donor for donor in dict.fromkeys(frame["donor"]) if donor != "other checkpoint"]
    lines += [("after into before", donor) for donor in controls]
    with _axes(ax, (7.0, 1.9 + 0.42 * len(names))) as ax:
        for at in (0, 1):
            ax.axvline(at, color=INK if at == 0 else PALE, linewidth=1, zorder=1)
        for number, (direction, donor) in enumerate(lines):
            own = frame[(frame["direction"] == direction) & (frame["donor"] == donor)].set_index("row")
            own = own[~own.index.duplicated()].reindex(names)
            y = np.arange(len(names)) + ((number + 1) / (len(lines) + 1) - 0.5) * 0.85
            share, low, high = (own[column].to_numpy(float).clip(-WIDEST, WIDEST) for column in ("share", "low", "high"))
            if donor == "other checkpoint":
                colour, marker, filled, _ = MARKS[number % len(MARKS)]
                face, words = (colour if filled else "white"), direction
            else:
                colour, marker, face = GREY, OPEN_MARKS[(number - len(lines)) % len(OPEN_MARKS)], "white"
                words = f"control: {donor}"
            ax.hlines(y, low, high, color=colour, linewidth=1.2, zorder=2)
            ax.plot(share, y, marker, linestyle="", color=colour, markerfacecolor=face, markersize=5, zorder=3, label=words)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4 + 0.22 * len(lines), -0.6)  # the first on top, and room for the legend
        ax.set_xlabel("Share of the change of d_rel between the checkpoints")
        ax.legend(loc="lower left", ncols=2, frameon=True, framealpha=1, edgecolor="none")
    return ax


def _banded(ax: Axes, own: pd.DataFrame, y: str, low: str, high: str, mark: tuple[Any, ...], label: str) -> None:
    colour, marker, filled, style = mark
    ax.fill_between(own["step"], own[low], own[high], color=colour, alpha=0.13, linewidth=0, zorder=1)
    ax.plot(
        own["step"], own[y], marker=marker, color=colour, markerfacecolor=colour if filled else "white", linestyle=style,
        markersize=4, linewidth=1.5, zorder=2, label=label,
    )  # fmt: skip


def _over_steps(ax: Axes, label: str) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set(xlabel="Training step", ylabel=label)
