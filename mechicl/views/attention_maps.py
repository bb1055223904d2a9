"""Pictures of where the last token looks: layers over positions, and shares of the parts of a prompt.

Draw on ``ax`` (or on a new figure), return the Axes, never call ``show()``.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechicl.views import BLUE, GREY, INK, PALE, VERMILION, _axes, _require
from mechicl.views.heads import DIVERGING, RISING, _cells
from mechicl.wording import percent

NAMES = {
    "start": "start (BOS)",
    "text": "demonstrations: texts",
    "template": "template words",
    "label": "demonstrations: labels",
    "separator": "separators",
    "query": "query: text",
    "ending": "query: what follows its text",
}
SHORT = {"start": "start"}
WIDE = 2  # cells that a token outside the texts gets: labels are few, and texts are stretched
MEASURES = {
    "ratio": "Attention a token, over chance\n(log10)",
    "density": "Attention a token\n(share)",
    "mass": "Attention in the bin\n(share)",
}


def plot_attention_map(
    result: Any, *, measure: str = "ratio", head: tuple[int, int] | None = None, ax: Axes | None = None
) -> Axes:
    """Draw attention from the last token: positions from left to right, layers upwards with layer 0 at the bottom.

    ``measure``: "ratio", attention a token over that of a head that attends everywhere alike, as log10 (blue above,
    vermilion below, at most 2 either way); "density", attention a token; "mass", what a bin receives. ``head``: (layer,
    head) draws this head's row alone, if the result holds heads. Dark lines part demonstrations, pale ones their parts;
    labels are marked by a bar on top.

    To read it: blue columns are where layers look more than evenly. Most trained models have a blue column at the
    start, of which little is taken; look at the labels, and at the query itself.
    """
    if measure not in MEASURES:
        raise ValueError(f"Got the measure {measure!r}, expected one of {', '.join(MEASURES)}.")
    density, rows = result.density, len(result.density)
    if head is not None:
        if result.head_density is None or measure == "mass":
            raise ValueError("Got a head, but the result holds no densities by head; measure with by_head=True.")
        density, rows = result.head_density[head[0], head[1]][None], 1
    if measure == "ratio":
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.clip(np.log10(density / result.density_chance), -2, 2)
        colours, limits = DIVERGING, (-2.0, 2.0)
    else:
        values = result.mass if measure == "mass" else density
        colours, limits = RISING, (0.0, float(values.max()) or 1.0)
    with _axes(ax, (9.2, float(np.clip(1.6 + 0.12 * rows, 2.2, 7)))) as ax:
        mesh = _cells(ax, np.repeat(values, _widths(result), axis=1), colours, limits, gap=0.0)
        places = _parts(result)
        for (name, kind, start, stop), (following, _, _, _) in zip(places, [*places[1:], ("", "", 0, 0)], strict=True):
            if following:
                whole = _owner(name) != _owner(following)
                ax.axvline(stop - 0.5, color=INK if whole else GREY, linewidth=1.0 if whole else 0.35, zorder=3)
            if kind == "label":
                ax.plot([start - 0.5, stop - 0.5], [rows - 0.2] * 2, color=VERMILION, linewidth=3, clip_on=False)
        groups = [(name, list(own)) for name, own in groupby(places, key=lambda part: _owner(part[0]))]
        middles = [(own[0][2] + own[-1][3] - 1) / 2 for _, own in groups]
        ax.set_xticks(middles, [SHORT.get(name, name) for name, _ in groups], fontsize=8)
        ax.get_xticklabels()[0].set_horizontalalignment("right")  # the start is narrow
        ax.set(xlabel="Part of the prompt (bar on top: label)", ylabel="Layer", ylim=(-0.5, rows - 0.5))
        if head is None:
            ax.yaxis.set_major_locator(MaxNLocator(nbins=11, integer=True, steps=[1, 2, 4, 5, 10]))
        else:
            ax.set_yticks([0], [f"{head[0]}.{head[1]}"])
            ax.set_ylabel("Head")
        ax.figure.colorbar(mesh, ax=ax, label=MEASURES[measure], pad=0.02, fraction=0.05).outline.set_visible(False)
    return ax


def plot_attention_shares(result: Any, *, layer: int | str = "all", ax: Axes | None = None) -> Axes:
    """Draw the share of attention of every kind of part with its interval, and beside it what chance would give.

    Chance is a head that attends everywhere alike; a cross is the model with its weights in random order, if measured.

    To read it: compare each bar with its own chance, for a kind with many tokens gets much from a head that looks
    everywhere alike.
    """
    frame = result.frame
    _require(frame, ["layer", "kind", "share", "low", "high", "chance", "untrained"], "frame")
    rows = frame[frame["layer"] == str(layer)]
    if rows.empty:
        raise ValueError(f"Got the layer {layer!r}, expected one of {list(dict.fromkeys(frame['layer']))}.")
    rows = rows[rows["chance"] > 0]  # kinds that these prompts do not have
    y = np.arange(len(rows))
    share, low, high, chance = (rows[c].to_numpy(float) for c in ("share", "low", "high", "chance"))
    with _axes(ax, (6.4, 1.5 + 0.42 * len(rows))) as ax:
        ax.barh(y, share, height=0.62, color=BLUE, alpha=0.85, zorder=2, label="attention")
        ax.hlines(y, low, high, color=INK, linewidth=1.5, zorder=4)
        ax.vlines(
            chance, y - 0.38, y + 0.38, color=VERMILION, linewidth=2.2, zorder=3, label="equal attention (chance)"
        )
        if rows["untrained"].notna().any():
            ax.plot(rows["untrained"], y, "x", color=GREY, markersize=6, zorder=5, label="weights in random order")
        ax.set_yticks(y, [NAMES[kind] for kind in rows["kind"]])
        for at, value, top in zip(y, share, high, strict=True):
            ax.text(
                float(max(top, value, chance[at])) + 0.012,
                float(at),
                percent(value, 1),
                va="center",
                fontsize=8,
                color=INK,
            )
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(0, min(1.12, 1.15 * max(high.max(), share.max(), chance.max()) + 0.06))
        words = "mean over layers" if str(layer) == "all" else f"layer {layer}"
        ax.set_xlabel(f"Share of the last token's attention ({words})")
        ax.grid(axis="x", color=PALE, linewidth=0.6, zorder=0)
        ax.set_axisbelow(True)
        ax.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="none")
    return ax


def _widths(result: Any) -> list[int]:
    return [1 if kind in ("text", "query") else WIDE for kind in result.kinds]


def _parts(result: Any) -> list[tuple[str, str, int, int]]:
    """Name, kind, first and last-plus-one cell of each part."""
    found, at = [], 0
    for (name, kind), own in groupby(
        zip(result.parts, result.kinds, _widths(result), strict=True), key=lambda cell: cell[:2]
    ):
        n = sum(width for _, _, width in own)
        found.append((name, kind, at, at + n))
        at += n
    return found


def _owner(part: str) -> str:
    """The demonstration that a part belongs to (a separator to the one before it), the query, or the start."""
    return part.replace("separator", "demo").partition(".")[0]
