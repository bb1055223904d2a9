"""Pictures of probes on keys and values: how well they read over layers, an offset from the label a line.

Draw on ``ax`` (or on a new figure), return the Axes, never call ``show()``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechicl.views import GREY, INK, MARKS, _axes, _legend_on_top, _require
from mechicl.wording import MINUS

WORDS = {-1: "the token before", 0: "the label's first token"}
TARGETS = {"prediction": "prediction for the text alone", "label": "label"}


def plot_key_value_probes(
    result: Any, *, source: str = "value", target: str = "label", reduce: str = "mean", ax: Axes | None = None
) -> Axes:
    """Draw held-out r2 over layers, a line an offset, and the control (targets permuted) as thin grey lines.

    ``reduce``: "mean" over the key-value heads of a layer, or "max", too high by chance. The axis ends at -0.5:
    a probe that does worse says nothing, and how much worse does not matter.

    To read it: what counts is how far a line lies above the thin ones. At offset 0 and after, the label itself can be
    seen, so that it can be read there is no surprise; before it, only what the text says of it.
    """
    frame = result.frame
    _require(frame, ["source", "target", "offset", "layer", "head", "r2", "control"], "frame")
    rows = frame[(frame["source"] == source) & (frame["target"] == target)]
    if rows.empty or reduce not in ("mean", "max"):
        raise ValueError(f"Got {source!r}, {target!r}, {reduce!r}; expected key or value, a target, and mean or max.")
    by_layer = rows.groupby(["offset", "layer"])[["r2", "control"]].agg(reduce).clip(lower=-0.5)
    offsets = sorted(set(rows["offset"]), key=lambda offset: (abs(offset), offset))
    if len(offsets) > len(MARKS):
        raise ValueError(f"Got {len(offsets)} offsets, expected at most {len(MARKS)}; measure fewer.")
    with _axes(ax, (6.4, 4.2)) as ax:
        ax.axhline(0, color=INK, linewidth=1, zorder=1)
        for offset, (colour, marker, filled, style) in zip(offsets, MARKS, strict=False):
            own = by_layer.loc[offset]
            x = own.index.to_numpy(int)
            ax.plot(x, own["control"], color=GREY, linewidth=0.8, alpha=0.7, zorder=2, label="_control")
            sign = f"+{offset}" if offset > 0 else f"{offset}".replace("-", MINUS)
            words = f"{sign}: {WORDS[offset]}" if offset in WORDS else sign
            ax.plot(
                x, own["r2"], color=colour, marker=marker, linestyle=style, markersize=4.5, zorder=3,
                markerfacecolor=colour if filled else "white", label=words,
            )  # fmt: skip
        ax.plot([], [], color=GREY, linewidth=0.8, label="targets permuted within prompts")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
        ax.set_xlabel("Layer")
        over = "mean" if reduce == "mean" else "largest"
        ax.set_ylabel(f"Held-out R² from {source}s to the\n{TARGETS[target]} ({over} over heads)")
        low = float(np.nanmin(by_layer.to_numpy())) if by_layer.notna().to_numpy().any() else 0.0
        ax.set_ylim(min(-0.05, low - 0.03), 1.02)
        _legend_on_top(ax, bounds=(-0.5, 1.0))
    return ax
