"""Maps of heads for the kernel account: one number a head, or what its attention to demonstrations follows.

Draw on ``ax`` (or on a new figure), return the Axes, never call ``show()``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from mechicl.labels import place_labels
from mechicl.views import GREY, INK, PALE, _axes, _legend_on_top, _require
from mechicl.views.heads import DIVERGING, FEW, RISING, _cells

R2 = {
    "r2": "R² of the head's kernel alone",
    "unique_r2": "R² that the kernel adds",
    "joint_r2": "R² of kernel and nuisances",
    "nuisance_r2": "R² of nuisances",
    "position_r2": "R² of the demonstration's place",
    "label_r2": "R² of the demonstration's label",
    "length_r2": "R² of lengths",
    "overlap_r2": "R² of words in common",
    "share_r2": "R² of attention shares",
}
SHARES = {
    "demos": "Attention to demonstrations",
    "start": "Attention to what stands before them",
    "query": "Attention to the query",
}
VOTES = {"agreement": "Agreement with the model", "accuracy": "Accuracy"}
HOW = {"sum": "whole demonstrations", "max": "largest token", "label": "labels"}
LEAST = 0.1  # an R² map whose largest value is smaller is pale: its noise is not to look like much
KINDS = {
    "kernel": ("a kernel", "#0072B2"),
    "recency": ("place: recency", "#E69F00"),
    "primacy": ("place: primacy", "#F3D49A"),
    "label": ("label", "#D55E00"),
    "length": ("length", "#CC79A7"),
    "overlap": ("words in common", "#009E73"),
    "other": ("none of these", "#E4E4E4"),
}


def plot_kernel_map(result: Any, value: str = "unique_r2", *, ax: Axes | None = None) -> Axes:
    """Draw one number a head: heads from left to right, layers upwards with layer 0 at the bottom, as signals run.

    ``value``: a column of the result's heads: an R² ("r2", "unique_r2", "joint_r2", "nuisance_r2", or of a block of
    nuisances; below 0 is drawn as 0, and the scale ends at the largest value, at ``LEAST`` or more), "agreement_label"
    and the like (centred on chance), "demos", "start", "query" (shares of attention), or "recency". Squares: heads
    named for their kernel, with their names where there are at most ``FEW``; dots: those named for
    agreement of their votes. Heads without a value are hatched.

    To read it: a dark cell is a head whose attention follows likeness beyond place, label, length and what a
    demonstration draws from any query. Mind the end of the scale: where the largest value is .05, the darkest cell
    explains little.
    """
    heads = result.heads
    known = [name for name in heads.columns if _meaning(name, 0.5) is not None]
    if value not in known:
        raise ValueError(f"Got the value {value!r}, expected one of {', '.join(known)}.")
    cells = _grid(heads, value)
    words, colours, limits = _meaning(value, result.accuracy["chance"], cells) or ("", RISING, (0.0, 1.0))
    layers, n_heads = cells.shape
    with _axes(ax, _map_size(layers, n_heads)) as ax:
        mesh = _cells(ax, np.clip(cells, *limits), colours, limits, gap=0.4)
        _map_axes(ax, layers)
        if not np.isfinite(cells).all():
            ax.add_patch(Rectangle((0, 0), 0, 0, facecolor=PALE, edgecolor=GREY, hatch="////", label="no kernel"))
        ax.figure.colorbar(mesh, ax=ax, label=words, pad=0.03, fraction=0.08).outline.set_visible(False)
        _mark_named(ax, result.named, layers)
    return ax


def plot_head_kinds(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw what every head's attention to the demonstrations follows most: a kernel, a nuisance, or none of these.

    Hatched: attention to all demonstrations alike, of which nothing can be explained.
    """
    _require(result.heads, ["layer", "head", "kind"], "heads")
    found = result.heads["kind"]
    if unknown := sorted(set(found) - {*KINDS, "constant"}):
        raise ValueError(f"Got the kind {unknown[0]!r}, expected one of {', '.join(KINDS)}, constant.")
    codes = {kind: i for i, kind in enumerate(KINDS)}
    numbers = result.heads.assign(code=[codes.get(kind, np.nan) for kind in found])
    cells = _grid(numbers, "code")
    layers, n_heads = cells.shape
    with _axes(ax, _map_size(layers, n_heads)) as ax:
        _cells(ax, np.full_like(cells, np.nan), RISING, (0.0, 1.0), gap=0.4)
        for (layer, head), code in np.ndenumerate(cells):
            colour = [colour for _, colour in KINDS.values()][int(code)] if np.isfinite(code) else None
            if colour is not None:
                box = Rectangle((head - 0.5, layer - 0.5), 1, 1, facecolor=colour, edgecolor="white", linewidth=0.4)
                ax.add_patch(box)
        counts = found.value_counts()
        for kind, (words, colour) in KINDS.items():
            if kind in counts:
                ax.add_patch(Rectangle((0, 0), 0, 0, facecolor=colour, label=f"{words} ({counts[kind]})"))
        if "constant" in counts:
            words = f"all demonstrations alike ({counts['constant']})"
            ax.add_patch(Rectangle((0, 0), 0, 0, facecolor=PALE, edgecolor=GREY, hatch="////", label=words))
        _map_axes(ax, layers)
        ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="Attention follows", alignment="left")
    return ax


def _meaning(value: str, chance: float, cells: np.ndarray | None = None) -> tuple[str, Any, tuple[float, float]] | None:
    """Words, colours and limits of a column of the heads; None for one that no map can show."""
    first, _, how = value.partition("_")
    if value in R2:
        largest = 1.0 if cells is None else float(cells[np.isfinite(cells)].max(initial=0.0))
        return R2[value], RISING, (0.0, min(max(largest, LEAST), 1.0))
    if value in SHARES:
        return SHARES[value], RISING, (0.0, 1.0)
    if value == "recency":
        return "Correlation with place\n(above 0: recency)", DIVERGING, (-1.0, 1.0)
    if first in VOTES and how in HOW:
        gaps = np.zeros(1) if cells is None else np.abs(cells[np.isfinite(cells)] - chance)
        span = max(float(gaps.max(initial=0.0)), 0.01)
        return f"{VOTES[first]}\n({HOW[how]}; centre: chance)", DIVERGING, (chance - span, chance + span)
    return None


def _grid(heads: Any, value: str) -> np.ndarray:
    return heads.pivot(index="layer", columns="head", values=value).to_numpy(float)


def _map_size(layers: int, heads: int) -> tuple[float, float]:
    return float(np.clip(3.0 + 0.27 * heads, 4.6, 10)), float(np.clip(1.9 + 0.17 * layers, 3.2, 9))


def _map_axes(ax: Axes, layers: int) -> None:
    ax.set(xlabel="Head", ylabel="Layer", ylim=(-0.5, layers - 0.5))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=11, integer=True, steps=[1, 2, 4, 5, 10]))


def _mark_named(ax: Axes, named: dict[str, Any], layers: int) -> None:
    """Squares round heads named for their kernel, dots on those named for agreement, and the names of the former."""
    for name, words, shape, size in (
        ("kernel", "named for its kernel", "s", 7.0),
        ("agreement", "named for its votes", "o", 4.0),
    ):
        places = np.array(named.get(name, ()), dtype=float).reshape(-1, 2)
        if len(places):
            marks = ax.plot(places[:, 1], places[:, 0], shape, markersize=size, label=words, linestyle="none")[0]
            marks.set(markerfacecolor="none" if shape == "s" else "white", markeredgecolor=INK)
            marks.set_path_effects([withStroke(linewidth=2.6, foreground="white")])  # seen on any colour
    avoid = [_legend_on_top(ax, bounds=(0.0, layers - 1.0))] if ax.get_legend_handles_labels()[1] else []
    places = np.array(named.get("kernel", ()), dtype=float).reshape(-1, 2)
    if 0 < len(places) <= FEW:
        names = [f"{int(layer)}.{int(head)}" for layer, head in places]
        place_labels(ax, places[:, 1], [places[:, 0]], names, avoid=avoid, colour=INK)
