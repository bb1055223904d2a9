"""Pictures of implicit updates: maps over heads, singular spectra, demonstrations' shares, effects over errors.

All take plain arrays, draw on ``ax`` (or on a new figure), return the Axes and never call ``show()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechicl.views import BLUE, GREY, INK, MARKS, PALE, VERMILION, _axes, _legend_on_top, _line, _require
from mechicl.views.heads import RISING, _cells
from mechicl.wording import with_interval

__all__ = ["plot_demo_shares", "plot_error_scatter", "plot_sizes_by_layer", "plot_spectra", "plot_update_map"]
LABELS = {
    "alpha": "Attention to the context\n(share)",
    "relative": "Update ||dz||\n/ output without context",
    "written": "Update ||dz W_O||",
    "written_relative": "Update ||dz W_O||\n/ written without context",
    "effective_rank": "Effective rank of the\ndemonstrations' contributions",
}
MANY = 8  # spectra with a line style each; more are drawn alike


def plot_update_map(
    values: Float[np.ndarray, "layer head"], *, measure: str = "written_relative", ax: Axes | None = None
) -> Axes:
    """Draw one number of 0 or more a head: heads from left to right, layers upwards with layer 0 at the bottom.

    Colours run from 0 to the largest value (attention: to 1). Heads without a value (NaN) are hatched.

    To read it: dark heads take much from the context, in the unit at the bar. That is a size, for any weights; whether
    other text of the same length would give as much is seen in the rows "random" of the result.
    """
    known = values[np.isfinite(values)]
    if (known < 0).any():
        raise ValueError(f"Got values from {known.min()}, expected sizes; plot_head_map draws what may be below 0.")
    layers, heads = values.shape
    top = 1.0 if measure == "alpha" else known.max(initial=0.0) or 1.0
    with _axes(ax, (float(np.clip(2.0 + 0.27 * heads, 3.8, 10)), float(np.clip(1.4 + 0.17 * layers, 2.6, 9)))) as ax:
        mesh = _cells(ax, values, RISING, (0.0, top), gap=0.4, lines=PALE)
        ax.set(xlabel="Head", ylabel="Layer", ylim=(-0.5, layers - 0.5))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=11, integer=True, steps=[1, 2, 4, 5, 10]))
        label = LABELS.get(measure, measure)
        ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.03, fraction=0.08).outline.set_visible(False)
    return ax


def plot_spectra(
    spectra: Float[np.ndarray, "_ rank"], names: Sequence[str], *, label: str = "head", ax: Axes | None = None
) -> Axes:
    """Draw singular values, largest first, as shares of the largest, a line a spectrum.

    A line that falls at once is an update in one direction; a flat one has as many directions as singular values.
    """
    if len(names) != len(spectra):
        raise ValueError(f"Got {len(spectra)} spectra and {len(names)} names, expected one name each.")
    place = np.arange(1, spectra.shape[1] + 1)
    with _axes(ax, (5.6, 3.8)) as ax:
        for i, (name, values) in enumerate(zip(names, spectra, strict=True)):
            colour, marker, filled, style = MARKS[i % len(MARKS)] if len(names) <= MANY else (BLUE, "o", True, "-")
            ax.plot(
                place, values / (values.max(initial=0.0) or 1.0), marker=marker, linestyle=style, color=colour,
                markerfacecolor=colour if filled else "white", markersize=4, alpha=1 if len(names) <= MANY else 0.4,
                label=f"{label} {name}",
            )  # fmt: skip
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="Singular value, largest first", ylabel="Share of the largest", ylim=(0, 1.05))
        if len(names) <= MANY:
            _legend_on_top(ax, bounds=(0.0, 1.0))
    return ax


def plot_demo_shares(
    share: Float[np.ndarray, " demo"],
    low: Float[np.ndarray, " demo"],
    high: Float[np.ndarray, " demo"],
    *,
    names: Sequence[str],
    head: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Draw each demonstration's share of a head's update as a bar with its interval; dashed: all alike.

    Shares sum to 1. Bars below 0 (hatched) work against the others.

    To read it: a bar above the dashed line is a demonstration that makes more of the update than its part.
    """
    if not len(share) == len(low) == len(high) == len(names):
        raise ValueError(f"Got {len(share)} shares and {len(names)} names, expected as many, and an interval each.")
    place = np.arange(len(share))
    with _axes(ax, (float(np.clip(2.0 + 0.45 * len(share), 3.4, 10)), 3.6)) as ax:
        ax.axhline(0, color=INK, linewidth=1, zorder=1)
        ax.axhline(1 / len(share), color=GREY, linestyle="--", linewidth=1, zorder=1, label="all alike")
        bars = ax.bar(place, share, color=[BLUE if s >= 0 else VERMILION for s in share], width=0.7, zorder=2)
        for bar, value in zip(bars, share, strict=True):
            bar.set_hatch("" if value >= 0 else "////")
        ax.vlines(place, low, high, color=INK, linewidth=1.3, zorder=3)
        turned = max(map(len, names), default=0) > 4
        ax.set_xticks(place, list(names), rotation=35 if turned else 0, ha="right" if turned else "center")
        ax.set(xlabel="Demonstration", ylabel=f"Share of the update{f' of head {head}' if head else ''}")
        _legend_on_top(ax, bounds=None)
    return ax


def plot_sizes_by_layer(sizes: dict[str, Float[np.ndarray, " layer"]], *, ax: Axes | None = None) -> Axes:
    """Draw the mean size of updates over layers, a line a kind, as shares of the residual stream's norm.

    To read it: 1 is an update as large as the state itself. Any other text changes a state, so that the height alone
    says nothing; compare primes with primes.
    """
    with _axes(ax, (5.6, 3.8)) as ax:
        for (kind, values), (colour, marker, filled, style) in zip(sizes.items(), MARKS, strict=False):
            face = colour if filled else "white"
            ax.plot(
                values, marker=marker, linestyle=style, color=colour, markerfacecolor=face, markersize=4, label=kind
            )
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="Layer", ylabel="Size of the update (share of the residual stream)")
        ax.set_ylim(bottom=0)
        _legend_on_top(ax, bounds=None)
    return ax


def plot_error_scatter(
    primes: pd.DataFrame,
    outcome: str,
    *,
    error: str = "error",
    error_label: str = "Prediction error of the prime (nats)",
    outcome_label: str | None = None,
    slope: tuple[float, float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw an outcome over the prime's prediction error: pale points are primes, marks are verbs, a mark a form.

    ``primes``: one row a prime with the columns verb, form, ``error`` and ``outcome``. Lines are least squares through
    the verbs' points of a form; ``slope`` (estimate, low, high: within forms) goes into the legend.

    To read it: rising lines are what error-driven learning predicts, level ones a boost of fixed size. Trust the slope
    in the legend more than the eye: it is within forms, and forms differ in both coordinates.
    """
    _require(primes, ["verb", "form", error, outcome], "primes")
    known = primes[np.isfinite(primes[[error, outcome]].to_numpy(float)).all(axis=1)]
    if known.empty:
        raise ValueError(f"Got no prime with finite {error} and {outcome}; expected at least one.")
    with _axes(ax, (6.0, 4.4)) as ax:
        ax.plot(known[error], known[outcome], ".", color=PALE, markersize=3, zorder=0, label="primes", rasterized=True)
        for (form, rows), mark in zip(known.groupby("form", sort=False), MARKS, strict=False):
            _verbs_and_line(ax, rows.groupby("verb")[[error, outcome]].mean(), str(form), mark)
        if slope is not None:
            ax.plot([], [], " ", label=f"slope within forms {with_interval(*slope)}")
        ax.set(xlabel=error_label, ylabel=outcome_label or outcome)
        _legend_on_top(ax, bounds=None)
    return ax


def _verbs_and_line(ax: Axes, verbs: pd.DataFrame, form: str, mark: tuple[str, str, bool, Any]) -> None:
    colour, marker, filled, style = mark
    x, y = (verbs.iloc[:, i].to_numpy(float) for i in (0, 1))
    face = colour if filled else "white"
    ax.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=5.5, zorder=3, label="_points")
    ax.plot(*_line(x, y), color=colour, linestyle=style, linewidth=1.5, zorder=2, label="_line")
    ax.plot([], [], marker=marker, color=colour, markerfacecolor=face, linestyle=style, label=f"{form} primes, verbs")
