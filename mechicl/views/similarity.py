"""Pictures of the comparison with gradient descent: alignment over depth, and items' effects against each other.

Draw on ``ax`` (or on a new figure), return the Axes, never call ``show()``. Results are read by their frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechicl.views import BLUE, GREY, INK, MARKS, _axes, _band, _legend_on_top, _line, _require
from mechicl.wording import with_interval

NAMES = {
    "SimAOU": "SimAOU: cosine of the updates of attention outputs",
    "SimAM": "SimAM: cosine of the updates of attention scores",
    "Kendall": "Kendall's tau: attention and implied attention",
}
MEASURED = "fine-tuned on the demonstrations"


def plot_alignment(
    result: Any,
    *,
    measure: str = "SimAOU",
    variant: str | None = None,
    controls: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a measure layer by layer with its interval, and beside it the same of the controls; 0 is no alignment.

    ``measure``: "SimAOU", "SimAM" or "Kendall". ``controls``: at most five, by default the first five there are; each
    has a colour, marker and line style of its own, and the legend tells its mean over layers with the interval.

    To read it: what counts is the gap between the thick line and the controls, layer by layer. A model with random
    weights can lie as high as a trained one.
    """
    rows = _rows(result.frame, measure, variant)
    present = [name for name in dict.fromkeys(rows["control"]) if name != "none"]
    wanted = list(present[: len(MARKS) - 1] if controls is None else controls)
    if unknown := [name for name in wanted if name not in present]:
        raise ValueError(f"Got the control {unknown[0]!r}, expected some of {present} for {measure}.")
    if len(wanted) > len(MARKS) - 1:
        raise ValueError(f"Got {len(wanted)} controls, expected at most {len(MARKS) - 1}; draw them in two pictures.")
    n_layers = len(rows[(rows["control"] == "none") & (rows["layer"] != "all")])
    with _axes(ax, (6.8, 4.6)) as ax:
        ax.axhline(0, color=INK, linewidth=1, zorder=1)
        for i, (name, mark) in enumerate(zip(["none", *wanted], MARKS, strict=False)):
            own = rows[rows["control"] == name]
            layers = own[own["layer"] != "all"]
            x = layers["layer"].astype(int).to_numpy()
            colour, marker, filled, style = mark
            estimate, low, high = (layers[c].to_numpy(float) for c in ("estimate", "low", "high"))
            # The measure has a band; the controls thin bars, shifted a little so that they do not hide each other.
            if i == 0:
                ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
            else:
                ax.vlines(x + 0.08 * (i - len(wanted) / 2), low, high, color=colour, linewidth=0.9, alpha=0.6, zorder=2)
            ax.plot(
                x + (0.08 * (i - len(wanted) / 2) if i else 0), estimate, marker=marker, color=colour, linestyle=style,
                markerfacecolor=colour if filled else "white", markersize=4 if i else 5, linewidth=1.1 if i else 2,
                zorder=3 if i else 4, label=_label(own, MEASURED if name == "none" else name),
            )  # fmt: skip
        ax.set_xlim(-0.5, n_layers - 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
        ax.set_xlabel("Layer")
        ax.set_ylabel(NAMES[measure])
        _legend_on_top(ax, bounds=(-1.0, 1.0))
    return ax


def plot_item_effects(result: Any, *, variant: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw, a point a prompt, the effect of the gradient steps over that of the demonstrations in the context.

    Both are changes of the log-odds of the right label from zero shot, nats. The dashed line is equality; the legend
    tells the correlation (given zero shot) with its interval, and the same of the controls.
    """
    items = result.items
    _require(items, ["variant", "icl_effect", "tuned_effect", "label"], "items")
    chosen = _variant(items, variant)
    items = items[(items["variant"] == chosen) & np.isfinite(items[["icl_effect", "tuned_effect"]]).all(axis=1)]
    if items.empty:
        raise ValueError(f"Got no prompt with finite effects for {chosen!r}, expected at least one.")
    x, y = (items[c].to_numpy(float) for c in ("icl_effect", "tuned_effect"))
    rows = _rows(result.frame, "effect correlation", chosen)
    labels = list(dict.fromkeys(items["label"]))
    few = 2 <= len(labels) <= min(4, len(items) / 2)  # labels that several queries share deserve a mark
    with _axes(ax, (5.6, 5.2)) as ax:
        ax.axhline(0, color=GREY, linewidth=0.8, zorder=0)
        ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        own = rows[rows["control"] == "none"].iloc[0]
        words = f"correlation {with_interval(own['estimate'], own['low'], own['high'], 2)}"
        line_x, line_y = _line(x, y)
        if len(line_x):
            half = _band(x, y, line_x, result.level)
            ax.fill_between(line_x, line_y - half, line_y + half, color=INK, alpha=0.1, linewidth=0, zorder=1)
        ax.plot(line_x, line_y, color=INK, linewidth=1.5, zorder=2, label=words)
        for label, (colour, marker, filled, _) in zip(labels if few else [None], MARKS, strict=False):
            part = (items["label"] == label).to_numpy() if few else np.ones(len(items), bool)
            ax.plot(
                x[part], y[part], marker, color=colour if few else BLUE, markersize=5.5, zorder=3,
                markerfacecolor=(colour if filled else "white") if few else BLUE, label=label if few else "queries",
            )  # fmt: skip
        for _, row in rows[(rows["control"] != "none") & rows["estimate"].notna()].iterrows():
            text = f"{row['control']}: {with_interval(row['estimate'], row['low'], row['high'], 2)}"
            ax.plot([], [], linestyle="none", label=text)
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        ax.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, zorder=1, label="equal effects")
        ax.set_xlabel("Effect of the demonstrations in the context (nats)")
        ax.set_ylabel("Effect of gradient steps on them (nats)")
        _legend_on_top(ax, bounds=None)
    return ax


def _rows(frame: pd.DataFrame, measure: str, variant: str | None) -> pd.DataFrame:
    _require(frame, ["variant", "measure", "layer", "control", "estimate", "low", "high"], "frame")
    chosen = _variant(frame, variant)
    rows = frame[(frame["variant"] == chosen) & (frame["measure"] == measure)]
    if rows.empty:
        known = list(dict.fromkeys(frame["measure"]))
        raise ValueError(f"Got the measure {measure!r}, expected one of {known} for {chosen!r}.")
    return rows


def _variant(frame: pd.DataFrame, variant: str | None) -> str:
    present = list(dict.fromkeys(frame["variant"]))
    if variant is not None and variant not in present:
        raise ValueError(f"Got the variant {variant!r}, expected one of {present}.")
    return str(present[0] if variant is None else variant)


def _label(rows: pd.DataFrame, name: str) -> str:
    row = rows[rows["layer"] == "all"].iloc[0]
    return f"{name}: {with_interval(row['estimate'], row['low'], row['high'], 2)}"
