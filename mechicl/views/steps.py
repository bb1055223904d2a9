"""Pictures of explicit gradient steps: effects in context against effects of steps, losses before and after steps.

Both read their result's frames, draw on ``ax`` (or on a new figure), return the Axes and never call ``show()``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mechicl.views import GREY, INK, MARKS, _axes, _legend_on_top, _require
from mechicl.wording import percent, with_interval

__all__ = ["plot_item_match", "plot_training"]
EFFECTS = ["gradient_effect", "context_effect"]
LEGEND_LEVELS = ("items", "between verbs")


def plot_item_match(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw what a prime does in context over what a gradient step on it does, item by item, both in nats.

    Small pale marks are items, larger ones the plain means of a verb's primes, a colour and marker a form. The legend
    has r of the items and of the verbs (there adjusted for the targets that they met), each with its interval. The axes
    have scales of their own: how far a step goes is up to the learning rate.

    To read it: if the context acted like the step, marks of one form would lie along a rising line, verb by verb and
    item by item. A level cloud is no agreement, whatever both means are. Look at the ranges of both axes first: where
    an effect hardly varies, a correlation is of next to nothing.
    """
    items, matches = result.items, result.matches
    _require(items, ["prime_verb", "form", *EFFECTS], "items")
    _require(matches, ["form", "level", "r", "low", "high"], "matches")
    known = items[np.isfinite(items[EFFECTS]).all(axis=1)]
    if known.empty:
        raise ValueError("Got no item with finite effects; expected at least one.")
    source = "a neutral prime" if result.baseline == "neutral" else "no prime"
    with _axes(ax, (6.4, 5.2)) as ax:
        for draw in (ax.axhline, ax.axvline):
            draw(0, color=GREY, linewidth=0.8, zorder=0)
        for (_, own), (colour, marker, _, _) in _by(known, "form"):
            ax.plot(
                own[EFFECTS[0]], own[EFFECTS[1]], marker, color=colour, markersize=2.5, markeredgewidth=0, alpha=0.3,
                zorder=1, label="_items", rasterized=True,
            )  # fmt: skip
        for (form, own), (colour, marker, filled, _) in _by(known, "form"):
            means = own.groupby("prime_verb")[EFFECTS].mean()
            face = colour if filled else "white"
            ax.plot(
                means[EFFECTS[0]], means[EFFECTS[1]], marker, color=colour, markerfacecolor=face, markersize=6.5,
                zorder=3, label=_match_text(matches, str(form)),
            )  # fmt: skip
        ax.set_xlabel(f"Effect of gradient steps on the prime, from {source} (nats)")
        ax.set_ylabel(f"Effect of the prime in context, from {source} (nats)")
        _legend_on_top(ax, bounds=None)
    return ax


def plot_training(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the loss of every prime after the steps on it over the loss before, in nats a token.

    Below the dotted line the steps did what they should. The legend has the share of primes above it: their steps were
    too long.
    """
    training = result.training
    _require(training, ["context", "loss_before", "loss_after"], "training")
    known = training[np.isfinite(training[["loss_before", "loss_after"]]).all(axis=1)]
    if known.empty:
        raise ValueError("Got no prime with finite losses; expected at least one.")
    steps = "one step" if result.steps == 1 else f"{result.steps} steps"
    with _axes(ax, (5.4, 5.2)) as ax:
        for (context, own), (colour, marker, filled, _) in _by(known, "context"):
            worse = (own["loss_after"] > own["loss_before"]).mean()
            ax.plot(
                own["loss_before"], own["loss_after"], marker, color=colour, markersize=4, alpha=0.6,
                markerfacecolor=colour if filled else "white", zorder=2,
                label=f"{context} primes: {percent(worse)} with a higher loss",
            )  # fmt: skip
        ends = known[["loss_before", "loss_after"]].to_numpy(float)
        ends = np.array([ends.min(), ends.max()])
        ax.plot(ends, ends, color=INK, linestyle=":", linewidth=1.1, zorder=1, label="no change")
        ax.set_xlabel("Loss of the prime before the steps on it (nats a token)")
        ax.set_ylabel(f"Loss after {steps}, learning rate {result.learning_rate:g}")
        _legend_on_top(ax, bounds=None)
    return ax


def _by(table: pd.DataFrame, column: str) -> Iterator[tuple[tuple[Any, pd.DataFrame], tuple[Any, ...]]]:
    """Groups in the order met, each with a mark of its own."""
    return zip(table.groupby(column, sort=False), MARKS, strict=False)


def _match_text(matches: pd.DataFrame, form: str) -> str:
    """What the legend says of a form: r of items and of verbs."""
    parts = []
    for level in LEGEND_LEVELS:
        rows = matches[(matches["form"] == form) & (matches["level"] == level)]
        if len(rows):
            row = rows.iloc[0]
            parts.append(f"r of {level.removeprefix('between ')} {with_interval(row['r'], row['low'], row['high'], 2)}")
    return f"{form} primes" + (": " + ",\n".join(parts) if parts else "")
