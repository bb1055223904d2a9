"""Pictures over task diversity and over sizes: the diversity threshold, transition times, fitted parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mechicl.views import BLUE, GREY, INK, ORANGE, VERMILION, _axes, _require
from mechicl.views.strategy_axes import D_REL, diversity_axis, mean_of_seeds, range_of_seeds
from mechicl.wording import with_interval

SIZES = {
    "d_mlp": "Width of the MLP (neurons)",
    "context": "Length of the context C",
    "dim": "Dimension d",
    "n_layers": "Layers",
}


def plot_diversity_threshold(fit: Any, *, step: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw d_rel over task diversity at one checkpoint, by default the last: transformers as marks, the model a line.

    Marks are means over seeds, bars their range, the line is .5. ``step``: the checkpoint nearest to it is drawn.
    """
    terms = fit.terms
    at = len(terms.steps) - 1 if step is None else int(np.abs(terms.steps - step).argmin())
    low, high = (end[at] for end in range_of_seeds(fit.d_rel))
    with _axes(ax, (5.6, 3.8)) as ax:
        ax.axhline(0.5, color=GREY, linewidth=0.9, zorder=0)
        ax.vlines(terms.diversities, low, high, color=BLUE, linewidth=1.5, zorder=2, label="_range")
        ax.plot(terms.diversities, mean_of_seeds(fit.d_rel)[at], "o", color=BLUE, markersize=5.5, zorder=3,
                label="transformers")  # fmt: skip
        ax.plot(terms.diversities, mean_of_seeds(fit.predicted)[at], color=VERMILION, linestyle="--", marker="D",
                markerfacecolor="white", markersize=4, linewidth=1.6, zorder=1, label="model of training")  # fmt: skip
        diversity_axis(ax, terms.diversities, "x")
        ax.set(ylim=(-0.03, 1.03), xlabel="Task diversity D (tasks)", ylabel=D_REL)
        ax.set_title(f"After {terms.steps[at]:,.0f} steps", loc="left", fontsize=9.5)
        ax.legend(loc="best")
    return ax


def plot_transitions(transitions: Any, *, ax: Axes | None = None) -> Axes:
    """Draw when transformers turn from generalising to memorising, N*(D), observed and predicted, on log axes.

    Predicted: even odds. Beside it, where the result has it, the step at which the model's own d_rel is .5, as that of
    the transformers is where they turn. Bars and bands are intervals; the legend gives exponents, the slopes of log N*
    on log D. A line steeper than the thin one grows faster than in proportion to D.
    """
    times = transitions.times
    columns = [f"{kind}{end}" for kind in ("predicted", "observed") for end in ("", "_low", "_high")]
    _require(times, ["diversity", *columns], "times")
    _require(transitions.scaling, ["time", "slope", "low", "high"], "scaling")
    exponents = {str(row["time"]): row for row in transitions.scaling.to_dict("records")}
    with _axes(ax, (5.6, 4.2)) as ax:
        for kind, colour, marker, style in (("predicted", VERMILION, "D", "--"), ("observed", BLUE, "o", "none")):
            rows = times[np.isfinite(times[kind])]
            x, y, low, high = (rows[c].to_numpy(float) for c in ("diversity", kind, f"{kind}_low", f"{kind}_high"))
            label = f"{kind}{_exponent(exponents.get(kind))}" if len(rows) else f"{kind}: at no diversity"
            if kind == "predicted":
                ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, zorder=1)
            else:
                ax.vlines(x, low, high, color=colour, linewidth=1.5, zorder=2, label="_interval")
            ax.plot(x, y, marker=marker, linestyle=style, color=colour, zorder=3, markersize=5.5,
                    markerfacecolor=colour if kind == "observed" else "white", label=label)  # fmt: skip
        if "modelled" in times and np.isfinite(times["modelled"]).any():
            ax.plot(times["diversity"], times["modelled"], "v", color=ORANGE, markerfacecolor="white", zorder=3,
                    markersize=5, linestyle="none", label="d_rel of the model at .5")  # fmt: skip
        known = times[np.isfinite(times["predicted"])]
        if len(known) > 1:
            x, first = known["diversity"].to_numpy(float), known.iloc[0]
            guide = float(first["predicted"]) * x / float(first["diversity"])
            ax.plot(x, guide, color=INK, linewidth=0.8, linestyle=":", zorder=0, label="in proportion to D")
        diversity_axis(ax, times["diversity"], "x")
        if np.isfinite(times[["predicted", "observed"]]).to_numpy().any():
            ax.set_yscale("log")  # which needs a number to begin with
        ax.set(xlabel="Task diversity D (tasks)", ylabel="Transition time N* (training steps)")
        ax.legend(loc="best")
    return ax


def plot_sizes(frame: pd.DataFrame, *, axis: str, parameter: str = "beta", ax: Axes | None = None) -> Axes:
    """Draw one fitted parameter over a size of the models, with its interval.

    ``frame``: size, parameter, estimate, low, high. ``axis``: which size, such as "d_mlp" or "context".

    To read it: a parameter that goes one way over sizes, by more than the intervals, changes with the size. Intervals
    redraw the seeds and sequences of one size; of few seeds they are too narrow.
    """
    _require(frame, ["size", "parameter", "estimate", "low", "high"], "frame")
    rows = frame[frame["parameter"] == parameter].sort_values("size")
    if rows.empty:
        raise ValueError(f"Got the parameter {parameter!r}, expected one of {sorted(set(frame['parameter']))}.")
    x, y, low, high = (rows[column].to_numpy(float) for column in ("size", "estimate", "low", "high"))
    with _axes(ax, (4.8, 3.6)) as ax:
        ax.vlines(x, low, high, color=BLUE, linewidth=1.5, zorder=2)
        ax.plot(x, y, "o-", color=BLUE, linewidth=1.0, markersize=6, zorder=3)
        diversity_axis(ax, x, "x")
        ax.set(xlabel=SIZES.get(axis, axis), ylabel=f"Fitted {parameter}")
        ax.margins(0.12)
    return ax


def _exponent(row: Any) -> str:
    """What the legend says of an exponent."""
    if row is None or not np.isfinite(row["slope"]):
        return ""
    return f": exponent {with_interval(float(row['slope']), float(row['low']), float(row['high']), 2)}"
