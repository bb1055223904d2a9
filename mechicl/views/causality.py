"""Pictures of replaced attention: how faithful the kernel's weights are, and whether changes of log-odds agree.

Draw on ``ax`` (or on a new figure), return the Axes, never call ``show()``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mechicl.views import BLUE, GREY, INK, MARKS, PALE, _axes, _legend_on_top, _require
from mechicl.wording import with_interval

WORDS = {
    ("kernel", "none"): "kernel weights",
    ("kernel", "permuted weights"): "kernel weights, permuted over demonstrations",
    ("kernel", "nuisance weights"): "nuisance weights",
    ("kernel", "random heads"): "kernel weights in random heads",
}


def plot_faithfulness_of_kernels(
    result: Any, *, reference: str = "uniform", measure: str = "faithfulness", ax: Axes | None = None
) -> Axes:
    """Draw a measure of every named set with its interval, beside permuted weights, random heads and nuisance weights.

    0 is as far from the clean run as the reference ("uniform" attention over demonstrations, or "knocked out"), 1 is
    the clean run. What is undefined, because the reference moves nothing, is left out. Values below -1 stand at the
    edge: their numbers are in the legend.

    To read it: the kernel holds where its filled mark is near 1 while permuted weights and nuisances are near 0. Where
    these are near 1 too, any weights would do; where random heads are as well, the named ones carry little.
    """
    frame = result.frame
    _require(frame, ["set", "condition", "reference", "measure", "control", "estimate", "low", "high"], "frame")
    rows = frame[(frame["measure"] == measure) & (frame["reference"] == reference)]
    if rows.empty:
        known = sorted(set(zip(frame["measure"], frame["reference"], strict=True)))
        raise ValueError(f"Got {measure!r} against {reference!r}, expected one of {known}.")
    sets = list(dict.fromkeys(rows["set"]))
    shown = [(key, words) for key, words in WORDS.items() if _of(rows, *key).notna().any()]
    with _axes(ax, (6.4, 1.2 + 0.2 * len(shown) + 0.3 * len(sets) * max(len(shown), 2))) as ax:
        for at in (0, 1):
            ax.axvline(at, color=INK if at else GREY, linewidth=1, linestyle="-" if at else "--", zorder=1)
        for i, ((condition, control), words) in enumerate(shown):
            colour, marker, filled, _ = MARKS[i % len(MARKS)]
            own = rows[(rows["condition"] == condition) & (rows["control"] == control)].set_index("set").reindex(sets)
            estimate, low, high = (own[c].to_numpy(float) for c in ("estimate", "low", "high"))
            y = np.arange(len(sets)) + 0.7 * ((i + 0.5) / len(shown) - 0.5)
            ax.hlines(y, np.clip(low, -1, None), np.clip(high, -1, None), color=colour, linewidth=1.5, zorder=2)
            numbers = f": {with_interval(estimate[0], low[0], high[0], 2)}" if len(sets) == 1 else ""
            ax.plot(
                np.clip(estimate, -1, None), y, marker, color=colour, markerfacecolor=colour if filled else "white",
                markersize=6, linestyle="none", label=words + numbers, zorder=3,
            )  # fmt: skip
        ax.hlines(np.arange(len(sets) - 1) + 0.5, 0, 1, PALE, linewidth=0.8, transform=ax.get_yaxis_transform())
        ax.set_yticks(range(len(sets)), sets)
        ax.set_ylim(len(sets) - 0.5, -0.6 - 0.75 * min(len(shown) / 2, 1))  # the first set on top, the legend above it
        ax.set_xlim(max(-1.05, ax.get_xlim()[0]), max(1.05, ax.get_xlim()[1]))
        ax.set_xlabel(f"{measure.capitalize()} (0: {reference} attention, 1: the clean run)")
        if shown:  # at least one condition has a mark
            ax.legend(loc="upper left", borderaxespad=0.2)
    return ax


def plot_followed_changes(
    result: Any, *, condition: str = "kernel", reference: str = "uniform", heads: str | None = None,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw, a point a prompt and label, the change from the reference under a condition over that in the clean run.

    Both are changes of a label's log-probability from the mean of all labels, nats. On the dashed line the condition
    gives the clean run's prediction back; on the level line it does nothing. ``heads``: a set, by default the first.
    """
    for name, known in ((condition, result.conditions), (reference, result.conditions)):
        if name not in known:
            raise ValueError(f"Got the condition {name!r}, expected one of {list(known)}.")
    chosen = result.sets[0] if heads is None else heads
    if chosen not in result.sets:
        raise ValueError(f"Got the set {chosen!r}, expected one of {list(dict.fromkeys(result.sets))}.")
    scores = result.log_probs - result.log_probs.mean(-1, keepdims=True)
    own, base = (scores[result.sets.index(chosen), result.conditions.index(c)] for c in (condition, reference))
    clean = result.clean - result.clean.mean(-1, keepdims=True)
    # of two labels the second's change is the first's with the other sign
    one = slice(0, 1) if clean.shape[1] == 2 else slice(None)
    x, y = (clean - base)[:, one].ravel(), (own - base)[:, one].ravel()
    with _axes(ax, (5.2, 4.8)) as ax:
        ends = np.array([min(x.min(), y.min(), 0), max(x.max(), y.max(), 0)])
        ax.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, zorder=1, label="as in the clean run")
        ax.axhline(0, color=GREY, linewidth=0.8, zorder=0)
        ax.axvline(0, color=GREY, linewidth=0.8, zorder=0)
        ax.plot(x, y, "o", color=BLUE, markersize=5, zorder=3, label=f"prompts, {chosen}")
        ax.set_xlabel(f"Clean run minus {reference} (nats)")
        ax.set_ylabel(f"{condition.capitalize()} weights minus {reference} (nats)")
        _legend_on_top(ax, bounds=None)
    return ax


def _of(rows: Any, condition: str, control: str) -> Any:
    return rows.loc[(rows["condition"] == condition) & (rows["control"] == control), "estimate"]
