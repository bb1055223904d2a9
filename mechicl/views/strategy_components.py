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

from mechicl.views import BLUE, GREY, INK, MARKS, PALE, VERMILION, _axes, _legend_on_top, _require

__all__ = [
    "plot_ablations", "plot_d_rel_curve", "plot_kernels_in_training", "plot_patches", "plot_strategy_probes",
    "plot_transplants",
]  # fmt: skip
OPEN_MARKS = ("d", "+", "*", "x")
FAINT = 0.3
BROKEN = 1.0  # a residual above which a model is near neither strategy: its marks are pale
WIDEST = 2.5  # shares beyond are drawn at the edge
LABELS = {
    "unique_r2": "R² beyond the other strategy (held out)",
    "r2": "R² (held out)",
    "d_rel": "Relative distance (1: memorising)",
    "bandwidth": "Bandwidth of the kernel that fits attention",
}


def plot_transplants(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the share of the change that each part of the weights moves; pale: near neither strategy.

    At 1 a part moves as much as all parts together. To read it: a part carries the change where its share is near 1 in
    both directions and the controls are near 0. Leave pale marks out: those models follow neither strategy.
    """
    _require(result.frame, ["direction", "donor", "part", "share", "low", "high", "residual"], "frame")
    parts = [part for part in dict.fromkeys(result.frame["part"]) if part not in ("sum of parts", "interaction")]
    frame = result.frame.assign(row=result.frame["part"])
    return _shares(frame[frame["part"].isin(parts)], parts, ax)


def plot_patches(result: Any, *, where: str = "all", ax: Axes | None = None) -> Axes:
    """Draw the share of the change that each activation moves; where: patched at "all" positions or the "last".

    To read it: a place carries the change where its share is near 1 in both directions, and controls are near 0. Pale
    marks are runs that follow neither strategy. That later places of the residual stream have a share near 1 is no
    finding: all that differs has gone into them.
    """
    needed = ["direction", "donor", "site", "layer", "head", "where", "share", "low", "high", "residual"]
    _require(result.frame, needed, "frame")
    frame = result.frame[(result.frame["where"] == where) & (result.frame["site"] != "interaction")]
    if frame.empty:
        raise ValueError(f"Got where={where!r}, expected one of: {', '.join(dict.fromkeys(result.frame['where']))}.")
    deep = frame["layer"].max() > 0
    names = [
        str(row["site"]) + (f" {row['layer']}" if deep and row["site"] != "embedding" else "")
        + (f", head {row['head']}" if row["head"] >= 0 else "")
        for _, row in frame.iterrows()
    ]  # fmt: skip
    return _shares(frame.assign(row=names), list(dict.fromkeys(names)), ax)


def plot_ablations(result: Any, *, strength: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw how far d_rel moves without each part (filled where named), beside a change as large in random directions.

    ``strength``: of the ablation; by default the weakest, which leaves the model nearest to the strategies. Pale: near
    neither of them.

    To read it: a filled mark right of 0 is a part that carried generalising, left of 0 one that carried memorising, by
    as much as it is away from its diamond.
    """
    needed = ["strength", "component", "layer", "moved", "moved_low", "moved_high", "control", "named", "residual"]
    _require(result.frame, needed, "frame")
    strength = float(result.frame["strength"].min()) if strength is None else strength
    frame = result.frame[result.frame["strength"] == strength]
    if frame.empty:
        raise ValueError(f"Got strength={strength}, expected one of {sorted(set(result.frame['strength']))}.")
    deep = frame["layer"].max() > 0
    names = [f"{row['component']}" + (f", layer {row['layer']}" if deep else "") for _, row in frame.iterrows()]
    places = np.arange(len(frame))[::-1]
    with _axes(ax, (6.4, 1.8 + 0.34 * len(frame))) as ax:
        ax.axvline(0, color=INK, linewidth=1, zorder=1)
        broken = (frame["residual"] > BROKEN).to_numpy()
        for some, alpha in ((~broken, 1.0), (broken, FAINT)):
            own = frame[some]
            ax.hlines(
                places[some], own["moved_low"], own["moved_high"], color=BLUE, linewidth=1.6, alpha=alpha, zorder=2
            )
            face = [BLUE if named else "white" for named in own["named"]]
            ax.scatter(own["moved"], places[some], s=32, color=face, edgecolors=BLUE, alpha=alpha, zorder=4)
            ax.plot(
                own["control"], places[some] - 0.22, OPEN_MARKS[0], color=GREY, markerfacecolor="white", alpha=alpha
            )
        ax.plot([], [], "o", color=BLUE, label=f"moved to its mean by {strength:.0%}")
        ax.plot([], [], OPEN_MARKS[0], color=GREY, markerfacecolor="white", label="as far in random directions")
        ax.set_yticks(places, names)
        ax.set_ylim(-1.7, len(frame) - 0.5)  # room for the legend
        ax.set_xlabel("d_rel without the part less d_rel (above 0: it carried generalising)")
        ax.legend(loc="lower left", ncols=2, frameon=True, framealpha=1, edgecolor="none")
    return ax


def plot_strategy_probes(
    result: Any, *, place: str = "stream after block", measure: str = "unique_r2", ax: Axes | None = None
) -> Axes:
    """Draw what can be read from a place over training, a line a target; dotted: controls. ``measure``: or "r2".

    To read it: a line that rises above its dotted one is something that the states come to hold beyond the other
    strategy's quantities. Untrained states hold much of their context too: look at the rise, not at the height.
    """
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
        _legend_on_top(ax, bounds=None)
    return ax


def plot_kernels_in_training(result: Any, *, measure: str = "unique_r2", ax: Axes | None = None) -> Axes:
    """Draw a measure of the ideal kernel, or "d_rel", over training, a line a diversity (darker: larger).

    Of several seeds the line is their mean at steps that all have, and the band goes from the lowest to the highest.

    To read it: a kernel that was given up for memorising would rise and fall again; the grey line is what attention of
    other contexts gives.
    """
    low, high = f"{measure}_low", f"{measure}_high"
    _require(result.frame, ["diversity", "seed", "step", measure, low, high, "control"], "frame")
    frame = _over_seeds(result.frame, measure, low, high)
    diversities = sorted(frame["diversity"].unique())
    with _axes(ax, (6.6, 4.2)) as ax:
        from matplotlib import colormaps

        shades = colormaps["viridis_r"](np.linspace(0.08, 0.95, len(diversities)))
        for at, (diversity, shade) in enumerate(zip(diversities, shades, strict=True)):
            own = frame[frame["diversity"] == diversity].sort_values("step")
            _, marker, filled, style = MARKS[at % len(MARKS)]
            mark = (shade, marker, filled, style)
            _banded(ax, own, measure, low, high, mark, f"D = {diversity}")
        if measure == "unique_r2":
            control = result.frame.groupby("step")["control"].mean()
            ax.plot(control.index, control, color=GREY, linestyle=":", label="attention of other contexts")
        if measure == "bandwidth":
            ax.axhline(result.frame["known"].iloc[0], color=INK, linewidth=1, linestyle="--", label="of the predictor")
        own_label = {"unique_r2": "R² of the ideal kernel beyond place, label and salience"}
        _over_steps(ax, own_label.get(measure, LABELS.get(measure, measure)))
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def plot_d_rel_curve(frame: pd.DataFrame, *, marked: Sequence[int] = (), ax: Axes | None = None) -> Axes:
    """Draw d_rel over training with its interval, the residual beside it, and lines at marked steps.

    To read it: 0 is the generalising strategy, 1 the memorising one. Believe the line only where the residual is small:
    near 1 the model is as far from both as they are from each other.
    """
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
            share, low, high = (
                own[column].to_numpy(float).clip(-WIDEST, WIDEST) for column in ("share", "low", "high")
            )
            if donor == "other checkpoint":
                colour, marker, filled, _ = MARKS[number % len(MARKS)]
                face, words = (colour if filled else "white"), direction
            else:
                colour, marker, face = GREY, OPEN_MARKS[controls.index(donor) % len(OPEN_MARKS)], "white"
                words = f"control: {donor}"
            style: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markersize": 5, "linestyle": ""}
            broken = own["residual"].to_numpy(float) > BROKEN
            for some, alpha in ((~broken, 1.0), (broken, FAINT)):
                ax.hlines(y[some], low[some], high[some], color=colour, linewidth=1.2, alpha=alpha, zorder=2)
                ax.plot(share[some], y[some], marker, alpha=alpha, zorder=3, **style)
            ax.plot([], [], marker, label=words, **style)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4 + 0.22 * len(lines), -0.6)  # the first on top, and room for the legend
        ax.set_xlabel("Share of the change of d_rel between the checkpoints")
        ax.legend(loc="lower left", ncols=2, frameon=True, framealpha=1, edgecolor="none")
    return ax


def _over_seeds(frame: pd.DataFrame, measure: str, low: str, high: str) -> pd.DataFrame:
    rows = []
    for (diversity, step), own in frame.groupby(["diversity", "step"]):
        seeds = frame.loc[frame["diversity"] == diversity, "seed"].nunique()
        if own["seed"].nunique() == seeds:
            ends = (own[low].min(), own[high].max()) if seeds == 1 else (own[measure].min(), own[measure].max())
            rows.append(
                {"diversity": diversity, "step": step, measure: own[measure].mean(), low: ends[0], high: ends[1]}
            )
    return pd.DataFrame(rows)


def _banded(ax: Axes, own: pd.DataFrame, y: str, low: str, high: str, mark: tuple[Any, ...], label: str) -> None:
    colour, marker, filled, style = mark
    ax.fill_between(own["step"], own[low], own[high], color=colour, alpha=0.13, linewidth=0, zorder=1)
    ax.plot(
        own["step"], own[y], marker=marker, color=colour, markerfacecolor=colour if filled else "white", markersize=4,
        linestyle=style, linewidth=1.5, zorder=2, label=label,
    )  # fmt: skip


def _over_steps(ax: Axes, label: str) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set(xlabel="Training step", ylabel=label)
