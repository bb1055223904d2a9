"""Pictures of results: shares over verb bias, priming effects verb by verb, models side by side.

Every function draws on ``ax`` (or on a new figure), returns the Axes, never calls ``show()`` and leaves matplotlib's
settings as they are. Colours are Okabe and Ito's; marker and line style tell the same story in grey. Results are read
by their frames, so anything with the same columns can be drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from scipy import stats

from mechicl.labels import place_labels
from mechicl.wording import MINUS, with_interval

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"
# (colour, marker, filled, line style) of the first form, the second form, and what else there is to tell apart.
MARKS: tuple[tuple[str, str, bool, Any], ...] = (
    (BLUE, "o", True, "-"),
    (VERMILION, "^", False, "--"),
    (GREEN, "s", True, "-."),
    (PURPLE, "D", False, (0, (1, 1))),
    (ORANGE, "v", True, (0, (5, 1))),
    (SKY, "P", False, (0, (3, 1, 1, 1))),
)
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}
OUTCOME = {"probability": "y", "logit": "L"}
UNIT = {"probability": "probability", "logit": "nats", "nats": "nats"}


def plot_ife_scatter(result: Any, *, scale: str = "probability", ax: Axes | None = None) -> Axes:
    """Draw what follows a prime over the bias of the prime's verb: one point a verb and form, one fitted line a form.

    A falling line is the inverse frequency effect. Both points of a verb stand on one pale stem (its length is the
    verb's priming effect). Bands are pointwise t intervals of the least-squares line; the interval in the legend is
    the verb bootstrap's where the result has one. The neutral baseline, where there is one, is a dotted line.
    ``scale``: "probability" (shares over the mean share) or "logit" (log-odds over log-odds, nats).
    """
    _check_scale(scale, OUTCOME)
    first, _ = result.forms
    x_name, letter = ("bias", "y") if scale == "probability" else ("bias_logit", "L")
    columns = [f"{letter}_{form}" for form in result.forms]
    _require(result.verbs, ["verb", x_name, *columns], "verbs")
    # A share of exactly 0 or 1 has no log-odds, and so no place in the picture.
    verbs = result.verbs[np.isfinite(result.verbs[[x_name, *columns]]).all(axis=1)]
    if verbs.empty:
        raise ValueError(f"Got no verb with finite {x_name}, {columns[0]} and {columns[1]}; expected at least one.")
    x = verbs[x_name].to_numpy(float)
    ys = [verbs[c].to_numpy(float) for c in columns]
    with _axes(ax, (6.4, 5.2)) as ax:
        ax.vlines(x, np.minimum(*ys), np.maximum(*ys), color=PALE, linewidth=1, zorder=1, label="_stems")
        for form, y, mark in zip(result.forms, ys, MARKS, strict=False):
            _points_and_line(ax, x, y, mark, _slope_text(result, form, scale), result.level)
        neutral = f"{letter}_neutral"
        if neutral in verbs and verbs[neutral].notna().sum() >= 2:
            kept = verbs[neutral].notna().to_numpy()
            line_x, line_y = _line(x[kept], verbs[neutral].to_numpy(float)[kept])
            label = _slope_text(result, "neutral", scale)
            ax.plot(line_x, line_y, color=INK, linestyle=":", linewidth=1.4, label=label)
        if scale == "probability":
            ax.set_xlabel(f"Verb bias: share of {first} without a prime (probability)")
            ax.set_ylabel(f"Share of {first} after the prime (probability)")
        else:
            ax.set_xlabel(f"Verb bias: log-odds of {first} without a prime (nats)")
            ax.set_ylabel(f"Log-odds of {first} after the prime (nats)")
        legend_box = _legend_on_top(ax, bounds=(0.0, 1.0) if scale == "probability" else None)
        place_labels(ax, x, ys, [str(v) for v in verbs["verb"]], avoid=[legend_box])
    return ax


def plot_verb_effects(result: Any, *, contrast: str | None = None, scale: str = "nats", ax: Axes | None = None) -> Axes:
    """Draw the priming effect of every prime verb, sorted, with its interval, the overall mean (dashed) and zero.

    A filled point's interval excludes zero. ``contrast``: one of the result's contrasts, by default first form against
    second. ``scale``: "nats" (difference of log-odds) or "probability" (difference of shares).

    To read it: marks right of the solid line at 0 are verbs after which the form of the prime makes itself likelier.
    Ask the dashed line and its band whether there is priming at all; the spread of the marks around it says how much
    verbs differ, where a row's own interval is of this verb's targets alone.
    """
    contrast = contrast or "{} vs {}".format(*result.forms)
    needed = ["contrast", "scale", "estimate", "low", "high"]
    _require(result.verb_effects, ["verb", *needed], "verb_effects")
    _require(result.effects, needed, "effects")
    rows = _of_contrast(result.verb_effects, contrast, scale).sort_values("estimate", kind="stable")
    overall = _of_contrast(result.effects, contrast, scale).iloc[0]
    positions = np.arange(len(rows))
    estimate, low, high = (rows[c].to_numpy(float) for c in ("estimate", "low", "high"))
    sure = (low > 0) | (high < 0)
    with _axes(ax, (6.4, 1.3 + 0.21 * max(len(rows), 4))) as ax:
        ax.axvline(0, color=INK, linewidth=1, label="no effect", zorder=1)
        if np.isfinite([overall["low"], overall["high"]]).all():
            ax.axvspan(overall["low"], overall["high"], color=PALE, alpha=0.6, linewidth=0, zorder=0)
        numbers = with_interval(
            overall["estimate"], overall["low"], overall["high"], digits=2 if scale == "nats" else 3
        )
        ax.axvline(
            overall["estimate"], color=VERMILION, linestyle="--", linewidth=1.4, label=f"all verbs: {numbers}", zorder=2
        )
        ax.hlines(positions, low, high, color=BLUE, linewidth=1.4, zorder=3, label="_intervals")
        for chosen, face in ((sure, BLUE), (~sure, "white")):
            ax.plot(estimate[chosen], positions[chosen], "o", color=BLUE, markerfacecolor=face, markersize=5, zorder=4)
        ax.set_yticks(positions, [str(v) for v in rows["verb"]])
        ax.set_ylim(-2.4, len(rows) - 0.3)  # room for the legend below the last verb
        ax.set_xlabel(f"Priming effect, {contrast} ({UNIT[scale]})")
        ax.set_ylabel("Verb of the prime")
        ax.legend(loc="lower center", ncols=2, frameon=True, framealpha=1, edgecolor="none")
    return ax


def plot_forest(
    comparison: Any, *, estimands: Sequence[str] | None = None, scale: str = "probability", ax: Axes | None = None
) -> Axes:
    """Draw estimates of several models, a row each and a mark an estimand, with intervals and the line of no effect.

    ``estimands`` defaults to the slopes after either form, their common shift and the slope of the priming effect.

    To read it: the solid line is no effect. A falling line over verb bias is the inverse frequency effect, so a slope
    left of the line speaks for it, a common shift right of it. Compare the marks of one kind down the rows; that two
    intervals overlap does not say that two models are alike.
    """
    _check_scale(scale, OUTCOME)
    table = comparison.estimates
    _require(table, ["model", "scale", "estimand", "estimate", "low", "high"], "estimates")
    table = table[table["scale"] == scale]
    present = list(dict.fromkeys(table["estimand"]))
    forms = _forms_of(comparison, present)
    wanted = list(
        estimands or [e for e in (*(f"slope_{f}" for f in forms), "common_shift", "pe_slope") if e in present]
    )
    missing = [e for e in wanted if e not in present]
    if missing or not wanted:
        raise ValueError(f"Got the estimands {missing or wanted}, expected some of {present} (scale {scale!r}).")
    models = list(dict.fromkeys(table["model"]))
    with _axes(ax, (6.4, 1.5 + 0.16 * len(models) * (len(wanted) + 1))) as ax:
        ax.axvline(0, color=INK, linewidth=1, zorder=1)
        for i, estimand in enumerate(wanted):
            rows = table[table["estimand"] == estimand].set_index("model").reindex(models)
            colour, marker, filled, _ = MARKS[i % len(MARKS)]
            shift = ((i + 1) / (len(wanted) + 1) - 0.5) * 0.9
            y = np.arange(len(models)) + shift
            ax.hlines(y, rows["low"], rows["high"], color=colour, linewidth=1.5, zorder=2, label="_intervals")
            label = estimand_label(estimand, forms)
            face = colour if filled else "white"
            ax.plot(rows["estimate"], y, marker, color=colour, markerfacecolor=face, markersize=5.5, label=label)
        ax.hlines(np.arange(len(models) - 1) + 0.5, 0, 1, PALE, linewidth=0.8, transform=ax.get_yaxis_transform())
        ax.set_yticks(range(len(models)), [str(m) for m in models])
        # The first model on top, and room below the last one for the legend.
        ax.set_ylim(len(models) - 0.4 + 0.22 * len(wanted), -0.6)
        unit = "probability per probability" if scale == "probability" else "nats per nat"
        ax.set_xlabel(f"Estimate over verb bias ({unit})")
        ax.legend(loc="lower center", ncols=2, frameon=True, framealpha=1, edgecolor="none")
    return ax


def estimand_label(estimand: str, forms: Sequence[str], *, short: bool = False) -> str:
    """Return the words for an estimand, such as "slope after DO primes" for ``slope_DO``; ``short``: no formula."""
    first, second = forms
    words = {
        "common_shift": "common shift" + ("" if short else f", {MINUS}(b_{first} + b_{second})/2"),
        "pe_slope": "PE-slope" + ("" if short else f", b_{first} {MINUS} b_{second}"),
        "common_shift_from_neutral": "common shift from neutral",
        "slope_neutral": "slope after neutral primes",
        "slope_unprimed": "slope of the targets without any prime",
    }
    if estimand in words:
        return words[estimand]
    for form in forms:
        if estimand == f"slope_{form}":
            return f"slope after {form} primes"
        if estimand == f"slope_{form}_from_neutral":
            return f"slope after {form} primes, from neutral"
        if estimand == f"slope_{form}_raw":
            return f"slope after {form} primes, plain means"
    return estimand


@contextmanager
def _axes(ax: Axes | None, size: tuple[float, float]) -> Iterator[Axes]:
    """The axes given, or those of a new figure, for as long as ``STYLE`` holds."""
    # Only the style is put back. `rc_context` would put back everything, and with it the interactive mode that a
    # notebook's backend turns on while it makes the first figure: no later figure would show.
    before = {name: mpl.rcParams[name] for name in STYLE}
    mpl.rcParams.update(STYLE)
    try:
        if ax is None:
            from matplotlib import pyplot as plt

            ax = plt.subplots(figsize=size, layout="constrained")[1]
        yield ax
    finally:
        mpl.rcParams.update(before)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least-squares line of y on x, from the smallest to the largest x; empty where x has no two values."""
    if len(np.unique(x)) < 2:
        return np.empty(0), np.empty(0)
    slope, intercept = np.polyfit(x, y, 1)
    ends = np.linspace(x.min(), x.max(), 50)
    return ends, intercept + slope * ends


def _band(x: np.ndarray, y: np.ndarray, at: np.ndarray, level: float) -> np.ndarray:
    """Half width of the t interval of the line's mean at each point ``at``; NaN with fewer than three points."""
    n = len(x)
    if n < 3:
        return np.full(len(at), np.nan)
    spread = ((x - x.mean()) ** 2).sum()
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    variance = (residual**2).sum() / (n - 2) * (1 / n + (at - x.mean()) ** 2 / spread)
    return stats.t.ppf((1 + level) / 2, n - 2) * np.sqrt(variance)


def _points_and_line(ax: Axes, x: np.ndarray, y: np.ndarray, mark: tuple[Any, ...], label: str, level: float) -> None:
    colour, marker, filled, style = mark
    face = colour if filled else "white"
    line_x, line_y = _line(x, y)
    half = _band(x, y, line_x, level)
    ax.fill_between(line_x, line_y - half, line_y + half, color=colour, alpha=0.13, linewidth=0, zorder=0)
    ax.plot(line_x, line_y, color=colour, linestyle=style, linewidth=1.7, zorder=2, label="_line")
    ax.plot(x, y, marker, color=colour, markerfacecolor=face, markersize=5, zorder=3, label="_points")
    # One entry for both, so that a reader sees marker and line style side by side with the slope.
    ax.plot([], [], marker=marker, color=colour, markerfacecolor=face, linestyle=style, markersize=5, label=label)


def _slope_text(result: Any, form: str, scale: str) -> str:
    """What the legend says of a form: its slope and interval, as far as the table of estimates holds them."""
    table = result.estimates
    rows = table[(table["estimand"] == f"slope_{form}") & (table["scale"] == scale)]
    name = "neutral primes" if form == "neutral" else f"{form} primes"
    if rows.empty:
        return name
    row = rows.iloc[0]
    low, high = row.get("low", np.nan), row.get("high", np.nan)
    if not np.isfinite([low, high]).all():
        low, high = row.get("ols_low", np.nan), row.get("ols_high", np.nan)
    return f"{name}: slope {with_interval(row['estimate'], low, high)}"


def _legend_on_top(ax: Axes, *, bounds: tuple[float, float] | None) -> Any:
    """Put the legend above the data but inside the axes (no title or neighbour can meet it there); return its box."""
    figure = ax.figure.figure
    legend = ax.legend(loc="upper left", borderaxespad=0.2)
    figure.draw_without_rendering()
    share = legend.get_window_extent().height / ax.get_window_extent().height
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, bottom + (top - bottom) / max(1 - share, 0.4))
    if bounds is not None:
        ticks = [
            t for t in ax.get_yticks() if bounds[0] <= t <= bounds[1] and ax.get_ylim()[0] <= t <= ax.get_ylim()[1]
        ]
        ax.yaxis.set_major_locator(FixedLocator(ticks))
    figure.draw_without_rendering()
    return legend.get_window_extent()


def _of_contrast(table: pd.DataFrame, contrast: str, scale: str) -> pd.DataFrame:
    rows = table[(table["contrast"] == contrast) & (table["scale"] == scale)]
    if rows.empty:
        known = sorted({f"{c!r} in {s}" for c, s in zip(table["contrast"], table["scale"], strict=True)})
        raise ValueError(f"Got the contrast {contrast!r} in {scale}, expected one of: {', '.join(known)}.")
    return rows


def _forms_of(comparison: Any, estimands: Sequence[str]) -> tuple[str, str]:
    """The two forms: as the comparison says, or as the first two plain slopes are called."""
    forms = getattr(comparison, "forms", None)
    named = [e.removeprefix("slope_") for e in estimands if e.startswith("slope_") and "neutral" not in e]
    if forms is None and len(named) >= 2:
        forms = named[:2]
    return (forms[0], forms[1]) if forms is not None else ("first form", "second form")


def _check_scale(scale: str, known: Sequence[str] | dict[str, str]) -> None:
    if scale not in known:
        raise ValueError(f"Got the scale {scale!r}, expected one of: {', '.join(known)}.")


def _require(table: pd.DataFrame, columns: Sequence[str], name: str) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise ValueError(f"Got `{name}` without the columns {missing}, expected them beside {list(table.columns)}.")
