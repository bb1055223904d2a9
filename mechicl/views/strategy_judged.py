"""Pictures of the model of training itself: what its parameters are worth, and where it pushes transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from mechicl.views import BLUE, GREY, INK, ORANGE, _axes, _require
from mechicl.views.strategy_axes import STRATEGIES, diversity_axis, edges
from mechicl.wording import number

ARROWS = 12  # columns of arrows
WIDE = 20.0  # ratio of losses from which on their axis is logarithmic
LEVELS = {"constant": "one weight for all cells", "free": "best weight of each cell"}


def plot_ablations(ablations: Any, *, baselines: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """Draw the loss of the model of training (filled) and of what is left without some of its parts (open).

    Over cells that were not fitted, or those that were where nothing was held out. Bars are intervals of the loss
    beyond the model's. ``baselines``: those of the fit, whose constant and free weights are lines: the left one is the
    best that any mixture can do. Correlations of d_rel stand on the right.
    """
    table = ablations.to_frame()
    cells = "held_out" if "held_out_loss" in table and table["held_out_loss"].notna().any() else "fitted"
    columns = [f"{cells}_{name}" for name in ("loss", "excess_low", "excess_high", "d_rel")]
    _require(table, ["ablation", *columns], "table")
    loss, low, high, correlation = (table[column].to_numpy(float) for column in columns)
    own = loss[0]
    places = np.arange(len(table))[::-1]
    with _axes(ax, (6.6, 1.7 + 0.32 * len(table))) as ax:
        if baselines is not None:
            levels = baselines.set_index("baseline")[f"{cells}_loss"]
            for (name, words), style in zip(LEVELS.items(), (":", "-."), strict=True):
                ax.axvline(levels[name], color=INK, linestyle=style, linewidth=1.1, zorder=1, label=words)
        ax.hlines(places[1:], own + low[1:], own + high[1:], color=BLUE, linewidth=1.6, zorder=2)
        for at, (place, value) in enumerate(zip(places, loss, strict=True)):
            ax.plot([value], [place], "o", color=BLUE, markerfacecolor="white" if at else BLUE, zorder=3)
            ax.annotate(number(correlation[at], 2), (1.0, place), xycoords=("axes fraction", "data"), xytext=(6, 0),
                        textcoords="offset points", va="center", fontsize=8.5)  # fmt: skip
        ax.annotate("r of d_rel", (1.0, 1.0), xycoords="axes fraction", xytext=(0, 5), textcoords="offset points",
                    fontsize=8.5, ha="left")  # fmt: skip
        shown = [value for line in ax.lines for value in np.atleast_1d(line.get_xdata()) if value > 0]
        if min(shown, default=1) > 0 and max(shown, default=1) > WIDE * min(shown, default=1):
            ax.set_xscale("log")
        ax.set_yticks(places, [str(name) for name in table["ablation"]])
        ax.set_ylim(-0.6, len(table) - 0.4)
        ax.set_xlabel(f"Distance to the transformers' predictions, {cells.replace('_', '-')} cells")
        if baselines is not None:
            ax.legend(loc="upper left", bbox_to_anchor=(0.0, -0.2), ncols=2)
    return ax


def plot_vector_field(field: Any, *, ax: Axes | None = None) -> Axes:
    """Draw where the odds of memorising grow, arrows over training time and diversity, on the weight of memorising.

    An arrow points to where the log odds grow fastest, over log N and log D; it is the longer the faster they do (by
    roots, so that short ones are seen). The line is where both strategies weigh alike: to its right is memorising.
    """
    used = np.flatnonzero(field.steps > 0)
    steps, diversities = field.steps[used], field.diversities
    weight = 1 / (1 + np.exp(-np.clip(field.log_odds[used], -500, 500)))
    with _axes(ax, (6.4, 4.2)) as ax:
        x, y = edges(steps, np.log, np.exp), edges(diversities, np.log2, np.exp2)
        mesh = ax.pcolormesh(x, y, weight.T, cmap=STRATEGIES, vmin=0, vmax=1, alpha=0.75, rasterized=True)
        if weight.min() < 0.5 < weight.max() and min(weight.shape) > 1:
            ax.contour(steps, diversities, weight.T, levels=[0.5], colors=[INK], linewidths=1.1, linestyles="--")
        ax.set_xscale("log")
        diversity_axis(ax, diversities, "y")
        wanted = np.geomspace(steps[0], steps[-1], min(ARROWS, len(steps)))
        at = np.unique([int(np.abs(np.log(steps / step)).argmin()) for step in wanted])
        along, across = field.by_log_step[used][at].T, field.by_log_diversity[used][at].T
        size = np.hypot(along, across)
        length = np.sqrt(size / (size.max() or 1.0)) / np.where(size > 0, size, 1.0)
        across_x, across_y = np.meshgrid(steps[at], diversities)
        # direction and length are those of the page, so that logarithmic axes do not bend them
        shape: Any = {"width": 0.005, "headwidth": 3.4, "headlength": 3.6, "headaxislength": 3.2, "scale": 11}
        ax.quiver(across_x, across_y, along * length, across * length, color=ORANGE, edgecolor=INK, linewidth=0.4,
                  angles="uv", zorder=3, **shape)  # fmt: skip
        ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set(xlabel="Training step N", ylabel="Task diversity D (tasks)")
        label = "Weight of memorising\n(model of training)"
        ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.03, fraction=0.08).outline.set_edgecolor(GREY)
    return ax
