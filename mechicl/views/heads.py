"""Pictures of attention heads: maps over layers and heads, what lies behind a cell, faithfulness, attention.

All take plain arrays and frames, draw on ``ax`` (or on a new figure), return the Axes, never call ``show()`` and leave
matplotlib's settings as they are. Above 0 is blue, below 0 vermilion; marks and line styles tell the same in grey.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mechicl.labels import place_labels
from mechicl.stats import ols
from mechicl.views import BLUE, GREY, INK, MARKS, PALE, VERMILION, _axes, _band, _legend_on_top, _line, _require
from mechicl.views.circuit import plot_circuit
from mechicl.wording import number, with_interval

__all__ = ["plot_circuit", "plot_faithfulness", "plot_head_attention", "plot_head_map", "plot_head_scatter"]
DIVERGING = LinearSegmentedColormap.from_list("signed", ["#6B2E00", VERMILION, "#F7F7F7", BLUE, "#002B47"])
RISING = LinearSegmentedColormap.from_list("share", ["#FFFFFF", "#A9CCE6", BLUE, "#00253D"])
FEW = 12  # as many names as a map can hold and stay legible
CURVES = {"keep only": "only these heads kept", "cumulative ablation": "these heads ablated, the others kept"}


def plot_head_map(
    values: Float[np.ndarray, "layer head"],
    *,
    significant: Bool[np.ndarray, "layer head"] | None = None,
    unit: str = "nats",
    label: str = "Effect of the head",
    ax: Axes | None = None,
) -> Axes:
    """Draw one number a head: heads from left to right, layers upwards with layer 0 at the bottom, as signals run.

    Colours are centred on 0 and end at the largest absolute value. A significant cell has an outlined dot, white where
    the value is above 0 and dark where it is below, and its name, layer.head, where there are at most ``FEW`` of them.
    Cells without a value (NaN) are hatched.

    To read it: in a map of `HeadMap` the number is the change of the effect when the head is replaced. A head that
    moves the effect towards 0 was carrying it, one that moves it away from 0 worked against it. Many pale cells and no
    dot are the usual sight of an effect that is spread out, or of none.
    """
    layers, heads = values.shape
    known = np.isfinite(values)
    limit = abs(values[known]).max(initial=0.0) or 1.0
    with _axes(ax, (float(np.clip(2.0 + 0.27 * heads, 3.8, 10)), float(np.clip(1.4 + 0.17 * layers, 2.6, 9)))) as ax:
        mesh = _cells(ax, values, DIVERGING, (-limit, limit), gap=0.4)
        ax.set(xlabel="Head", ylabel="Layer")
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=11, integer=True, steps=[1, 2, 4, 5, 10]))
        marked = np.zeros_like(known) if significant is None else significant & known & (values != 0)
        # White on dark and dark on white: seen on any colour, and told apart without it.
        for sign, face, edge, words in ((1, "white", INK, "above 0"), (-1, INK, "white", "below 0")):
            layer, head = np.nonzero(marked & (values * sign > 0))
            if len(layer):
                marks = ax.plot(head, layer, "o", markersize=5, label=f"significant, {words}")[0]
                marks.set(markerfacecolor=face, markeredgecolor=edge)
        if not known.all():
            ax.add_patch(Rectangle((0, 0), 0, 0, facecolor=PALE, edgecolor=GREY, hatch="////", label="not measured"))
        ax.figure.colorbar(mesh, ax=ax, label=f"{label}\n({unit})", pad=0.03, fraction=0.08).outline.set_visible(False)
        ax.set_ylim(-0.5, layers - 0.5)
        avoid = [_legend_on_top(ax, bounds=(0.0, layers - 1.0))] if ax.get_legend_handles_labels()[1] else []
        layer, head = np.nonzero(marked)
        if 0 < len(layer) <= FEW:
            names = [f"{a}.{b}" for a, b in zip(layer, head, strict=True)]
            place_labels(ax, head.astype(float), [layer.astype(float)], names, avoid=avoid, colour=INK)
    return ax


def plot_head_scatter(
    x: Float[np.ndarray, " verb"],
    effect: Float[np.ndarray, " verb"],
    *,
    head: str,
    names: Sequence[str] | None = None,
    low: Float[np.ndarray, " verb"] | None = None,
    high: Float[np.ndarray, " verb"] | None = None,
    item_x: Float[np.ndarray, " item"] | None = None,
    item_effect: Float[np.ndarray, " item"] | None = None,
    slope: tuple[float, float, float] | None = None,
    unit: str = "nats",
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Draw what lies behind one cell of a head map: the head's effect over verb bias, a point a verb, with the line.

    ``low`` and ``high`` are the verbs' intervals, ``item_x`` and ``item_effect`` single items (pale points).
    ``slope``: estimate, low, high for the legend; by default those of least squares through the verbs' points, whose
    t interval the band always shows.
    """
    with _axes(ax, (6.4, 4.8)) as ax:
        ax.axhline(0, color=INK, linewidth=1, zorder=1)
        if item_x is not None and item_effect is not None:
            ax.plot(item_x, item_effect, "o", color=PALE, markersize=2.5, zorder=0, label="items", rasterized=True)
        if low is not None and high is not None:
            ax.vlines(x, low, high, color=BLUE, linewidth=1.1, alpha=0.55, zorder=2, label="_intervals")
        line_x, line_y = _line(x, effect)
        if len(line_x):
            half = _band(x, effect, line_x, level)
            ax.fill_between(line_x, line_y - half, line_y + half, color=VERMILION, alpha=0.13, linewidth=0, zorder=1)
        if slope is None and len(x) > 2 and np.ptp(x) > 0:
            fit = ols(x, effect, level=level)
            slope = fit.slope, fit.low, fit.high
        ax.plot(x, effect, "o", color=BLUE, markersize=5, zorder=3, label="verbs")
        words = "line" if slope is None else f"slope {with_interval(*slope)}"
        ax.plot(line_x, line_y, color=VERMILION, linestyle="--", linewidth=1.7, zorder=4, label=words)
        ax.set_xlabel("Verb bias: share of the first form without a prime (probability)")
        ax.set_ylabel(f"Effect of head {head} ({unit})")
        box = _legend_on_top(ax, bounds=None)
        if names is not None:
            place_labels(ax, x, [effect], list(names), avoid=[box])
    return ax


def plot_faithfulness(curves: pd.DataFrame, *, random: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Draw faithfulness over the share of heads, a curve a kind, beside random sets of the same size.

    ``curves``: k (share of heads, in (0, 1]), f, low, high, and kind: "keep only" (the k strongest heads are kept, the
    others ablated; 1 where they suffice) or "cumulative ablation" (the k strongest are ablated; 0 where they are
    needed). ``random``: k, low, high of random sets, and kind where there is a band for each. Shares are on a
    logarithmic scale.
    """
    _require(curves, ["k", "f", "low", "high", "kind"], "curves")
    if random is not None:
        _require(random, ["k", "low", "high"], "random")
    if not ((curves["k"] > 0) & (curves["k"] <= 1)).all():
        raise ValueError("Got shares of heads outside (0, 1], expected shares: the number of heads / all heads.")
    bands = [] if random is None else list(random.groupby("kind" if "kind" in random else lambda _: "", sort=False))
    with _axes(ax, (6.4, 4.4)) as ax:
        for height in (0, 1):
            ax.axhline(height, color=GREY, linewidth=0.9, zorder=0)
        for (kind, rows), hatch in zip(bands, ("....", "////"), strict=False):
            rows = rows.sort_values("k")
            words = "random heads" + (f", {CURVES.get(str(kind), kind)}" if kind else "")
            ax.fill_between(
                rows["k"], rows["low"], rows["high"], facecolor="#EEEEEE", edgecolor="#AAAAAA", hatch=hatch,
                linewidth=0, zorder=0, label=words,
            )  # fmt: skip
        for (kind, rows), (colour, marker, filled, style) in zip(
            curves.groupby("kind", sort=False), MARKS, strict=False
        ):
            rows = rows.sort_values("k")
            ax.fill_between(rows["k"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0, zorder=1)
            ax.plot(
                rows["k"], rows["f"], marker=marker, color=colour, markerfacecolor=colour if filled else "white",
                markersize=5, linestyle=style, linewidth=1.7, zorder=3, label=CURVES.get(str(kind), str(kind)),
            )  # fmt: skip
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{100 * k:g}%"))
        ax.set_xlabel("Share of the heads, strongest first")
        ax.set_ylabel("Faithfulness (1: whole model, 0: all heads ablated)")
        _legend_on_top(ax, bounds=None)
    return ax


def plot_head_attention(
    share: Float[np.ndarray, "head role"],
    names: Sequence[str],
    roles: Sequence[str],
    *,
    query: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what the named heads attend to: a row a head, a column a role, the share of attention (0 to 1) in the cell.

    ``query``: from where they look, for the axis. The first head is on top. NaN (a role that no prompt has) is hatched.
    """
    if share.shape != (len(names), len(roles)):
        raise ValueError(
            f"Got shares of shape {share.shape}, {len(names)} names and {len(roles)} roles; expected a match."
        )
    if (share[np.isfinite(share)] < 0).any() or (share[np.isfinite(share)] > 1 + 1e-6).any():
        raise ValueError(f"Got shares from {np.nanmin(share)} to {np.nanmax(share)}, expected 0 to 1.")
    size = float(np.clip(2.2 + 0.62 * len(roles), 3.6, 11)), 1.7 + 0.3 * len(names)
    with _axes(ax, size) as ax:
        mesh = _cells(ax, share, RISING, (0.0, 1.0), gap=0.5, lines=PALE)
        for (row, column), value in np.ndenumerate(share):
            if np.isfinite(value):
                colour = "white" if value > 0.45 else INK
                ax.text(column, row, number(value, 2), ha="center", va="center", fontsize=8, color=colour)
        turned = max(map(len, roles), default=0) > 6
        ax.set_xticks(range(len(roles)), list(roles), rotation=35 if turned else 0, ha="right" if turned else "center",
                      rotation_mode="anchor")  # fmt: skip
        ax.set_yticks(range(len(names)), list(names))
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_ylabel("Head")
        ax.set_xlabel("Attended tokens" + (f", from {query}" if query else ""))
        ax.figure.colorbar(mesh, ax=ax, label="Share of attention", pad=0.03, fraction=0.08).outline.set_visible(False)
    return ax


def _cells(
    ax: Axes,
    values: np.ndarray,
    colours: LinearSegmentedColormap,
    limits: tuple[float, float],
    *,
    gap: float,
    lines: str = "white",
) -> QuadMesh:
    """A cell a value, centred on whole numbers, with a hatched ground that shows where there is none."""
    rows, columns = values.shape
    ground = Rectangle((-0.5, -0.5), columns, rows, facecolor=PALE, edgecolor=GREY, hatch="////", linewidth=0, zorder=0)
    ax.add_patch(ground)
    mesh = ax.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, np.ma.masked_invalid(values), cmap=colours,
        vmin=limits[0], vmax=limits[1], edgecolors=lines, linewidth=gap,
    )  # fmt: skip
    ax.set_xlim(-0.5, columns - 0.5)
    ax.tick_params(length=2)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return mesh
