"""Pictures of a regressor beside algorithms: distances, curves, the way between weights, probes of layers.

All take plain frames, draw on ``ax`` (or on a new figure), return the Axes, never call ``show()`` and leave
matplotlib's settings as they are. Filled marks are distances to the model, open ones errors on the task or controls.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechicl.views import BLUE, GREY, INK, MARKS, PALE, VERMILION, _axes, _require
from mechicl.wording import number

__all__ = ["plot_algorithm_fit", "plot_conditions", "plot_interpolation", "plot_lines", "plot_probes"]
FLOOR = 1e-6  # shares below are drawn here
FAR = 3.0  # and those above here
READABLE = 0.05  # r2 below which no number of steps is marked
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))


def plot_algorithm_fit(frame: pd.DataFrame, *, model_error: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw every family's distance to the model (filled, with interval) and its error on the task (open).

    ``frame``: that of `AlgorithmFit`. 1 is the guess 0; shares below 1e-6 and above 3 are drawn at these ends. The
    dotted line is the model's own error on the task.

    To read it: the nearest family is on top. Intervals that overlap at the top are families that these contexts cannot
    tell apart. A family whose filled mark lies far left of its open one predicts the model better than it solves the
    task: the model does as it does, errors included. Where all filled marks stand near 1, none of them is what the
    model does.
    """
    _require(frame, ["family", "steps", "score", "low", "high", "task_error"], "frame")
    rows = frame.sort_values("score", ascending=False, kind="stable")
    places = np.arange(len(rows))

    def shown(column: str) -> np.ndarray:
        return np.clip(rows[column].to_numpy(float), FLOOR, FAR)

    with _axes(ax, (7.4, 1.6 + 0.3 * len(rows))) as ax:
        ax.axvline(1, color=GREY, linewidth=1, linestyle="--", zorder=1, label="guess 0")
        if model_error is not None and model_error > 0:
            error = float(np.clip(model_error, FLOOR, FAR))
            ax.axvline(
                error, color=VERMILION, linewidth=1.2, linestyle=":", zorder=1, label="model's error on the task"
            )
        ax.hlines(places, shown("low"), shown("high"), color=BLUE, linewidth=1.6, zorder=2, label="_intervals")
        ax.plot(shown("score"), places, "o", color=BLUE, markersize=5.5, zorder=4, label="distance to the model")
        ax.plot(
            shown("task_error"), places, "^", color=VERMILION, markerfacecolor="white", markersize=5.5, zorder=3,
            label="error on the task",
        )  # fmt: skip
        ax.set_xscale("log")
        ax.set_xlim(FLOOR / 1.6, FAR * 1.6)
        ax.set_yticks(places, [_named(str(f), k) for f, k in zip(rows["family"], rows["steps"], strict=True)])
        ax.set_ylim(-2.3, len(rows) - 0.4)  # room for the legend
        ax.set_xlabel("Share of the guess 0's")
        ax.legend(loc="lower left", ncols=2, frameon=True, framealpha=1, edgecolor="none")
    return ax


def plot_conditions(frame: pd.DataFrame, *, label: str, ax: Axes | None = None) -> Axes:
    """Draw one number a condition with its interval, the first (the measurement) filled, its controls open.

    ``frame``: condition, estimate, low, high.

    To read it: what counts is how far the filled mark is from the open ones, not how far it is from 0.
    """
    _require(frame, ["condition", "estimate", "low", "high"], "frame")
    places = np.arange(len(frame))[::-1]
    with _axes(ax, (6.4, 1.4 + 0.32 * len(frame))) as ax:
        ax.axvline(0, color=INK, linewidth=1, zorder=1)
        ax.hlines(places, frame["low"], frame["high"], color=BLUE, linewidth=1.6, zorder=2)
        for at, (place, estimate, high) in enumerate(zip(places, frame["estimate"], frame["high"], strict=True)):
            ax.plot([estimate], [place], "o", color=BLUE, markerfacecolor="white" if at else BLUE, zorder=3)
            end = max(value for value in (estimate, high) if np.isfinite(value)) if np.isfinite(estimate) else 0.0
            ax.annotate(number(float(estimate)), (end, place), xytext=(6, 0), textcoords="offset points",
                        va="center", fontsize=8.5)  # fmt: skip
        ax.set_yticks(places, [_short(str(name)) for name in frame["condition"]])
        ax.set_ylim(-0.6, len(frame) - 0.4)
        ax.margins(x=0.12)
        ax.set_xlabel(label)
    return ax


def plot_lines(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    by: str,
    x_label: str,
    y_label: str,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw y over x, a line a value of ``by`` (at most six), with bands from ``low`` to ``high``; ``log``: of y.

    To read it: lines whose bands part are told apart at that point of the axis; look first where the model was not
    trained.
    """
    _require(frame, [x, y, by, "low", "high"], "frame")
    if frame[by].nunique() > len(MARKS):
        raise ValueError(f"Got {frame[by].nunique()} lines, expected at most {len(MARKS)}; choose some of {by!r}.")
    with _axes(ax, (6.4, 4.2)) as ax:
        for (name, rows), (colour, marker, filled, style) in zip(frame.groupby(by, sort=False), MARKS, strict=False):
            ax.fill_between(rows[x], rows["low"], rows["high"], color=colour, alpha=0.13, linewidth=0, zorder=1)
            ax.plot(rows[x], rows[y], marker=marker, color=colour, markerfacecolor=colour if filled else "white",
                    linestyle=style, markersize=5, linewidth=1.6, zorder=2, label=_short(str(name)))  # fmt: skip
        if log and (frame[y] > 0).all():
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, None)
        if pd.api.types.is_integer_dtype(frame[x]):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel=x_label, ylabel=y_label)
        ax.legend(loc="best")
    return ax


def plot_interpolation(frame: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the loss on the way from trained to hand-made weights, beside the way without rescaling and to random ones.

    ``frame``: that of `WeightInterpolation`.

    To read it: a line that stays as low as its two ends says that both models compute alike, up to what cannot be told
    from outside. A hill between the ends says that they do not. The way to random weights shows how high a hill is.
    """
    _require(frame, ["share", "half_mse", "low", "high", "unscaled", "random"], "frame")
    with _axes(ax, (6.4, 4.0)) as ax:
        ax.fill_between(frame["share"], frame["low"], frame["high"], color=BLUE, alpha=0.15, linewidth=0)
        for column, words, (colour, marker, filled, style) in zip(
            ("half_mse", "unscaled", "random"),
            ("trained to hand-made", "the same, not rescaled", "trained to random"),
            MARKS, strict=False,
        ):  # fmt: skip
            ax.plot(frame["share"], frame[column], marker=marker, color=colour, linestyle=style, linewidth=1.6,
                    markersize=5, markerfacecolor=colour if filled else "white", label=words)  # fmt: skip
        ax.set_ylim(0, None)
        ax.set(xlabel="Share of the weights at the far end", ylabel="Half squared error")
        ax.legend(loc="best")
    return ax


def plot_probes(frame: pd.DataFrame, *, target: str = "newton", ax: Axes | None = None) -> Axes:
    """Draw what can be read from each layer over the number of steps; a ring marks the largest r2 of a line.

    ``frame``: that of `LayerProbes`. Later layers are darker; dashed: the last layer of the untrained model.

    To read it: if each layer took some more steps, the rings would move right from line to line. A flat line holds as
    much of many steps as of few, and then its ring says little.
    """
    _require(frame, ["layer", "target", "steps", "r2", "low", "high", "untrained"], "frame")
    rows = frame[(frame["target"] == target) & (frame["steps"] > 0)]
    if rows.empty:
        known = sorted(set(frame.loc[frame["steps"] > 0, "target"]))
        raise ValueError(f"Got the target {target!r}, expected one with steps: {', '.join(known)}.")
    layers = sorted(rows["layer"].unique())
    with _axes(ax, (6.4, 4.2)) as ax:
        from matplotlib import colormaps

        shades = colormaps["viridis_r"](np.linspace(0.05, 0.95, len(layers)))
        for at, (layer, shade) in enumerate(zip(layers, shades, strict=True)):
            own = rows[rows["layer"] == layer].sort_values("steps")
            words = "embedding" if layer == 0 else f"layer {layer}"
            ax.fill_between(own["steps"], own["low"], own["high"], color=shade, alpha=0.15, linewidth=0)
            ax.plot(own["steps"], own["r2"], color=shade, linestyle=STYLES[at % len(STYLES)], marker=".", label=words)
            top = own.loc[own["r2"].idxmax()]
            if top["r2"] >= READABLE:
                ax.plot([top["steps"]], [top["r2"]], "o", markersize=10, markerfacecolor="none", markeredgecolor=shade)
        last = rows[rows["layer"] == layers[-1]].sort_values("steps")
        if last["untrained"].notna().any():
            ax.plot(last["steps"], last["untrained"], color=GREY, linestyle="--", label="untrained, last layer")
        ax.axhline(0, color=PALE, linewidth=1, zorder=0)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set(xlabel=f"Steps of {target}", ylabel="Readable from the layer (held-out r2)")
        ax.legend(loc="best", ncols=2)
    return ax


def _named(family: str, steps: float) -> str:
    words = family.replace("_", " ")
    return words if np.isnan(steps) else f"{words}, {steps:.0f} step{'s' * (steps != 1)}"


def _short(words: str, most: int = 52) -> str:
    return words if len(words) <= most else words[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
