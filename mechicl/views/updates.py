"""Pictures of the context as weight updates: norms over layers, steps over tokens, transfer to other queries.

All take plain arrays and frames, draw on ``ax`` (or on a new figure), return the Axes, never call ``show()`` and leave
matplotlib's settings as they are. Filled marks and unbroken lines are the measurement, open marks and dashed lines its
control.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mechicl.views import BLUE, GREY, INK, MARKS, PALE, _axes, _require
from mechicl.views.heads import RISING, _cells
from mechicl.wording import MINUS, number

__all__ = ["plot_update_map", "plot_update_norms", "plot_update_trajectory", "plot_update_transfer"]
WIDE = 50  # from this ratio of largest to smallest value on, the scale is logarithmic
CONDITIONS = {
    "own": "own update",
    "other": "another\ncontext's",
    "random": "random,\nsame norms",
    "untrained": "shuffled\nweights, own",
}
MEASURES = {"relative": "|dW| / |W|", "norm": "|dW|", "cosine": "cosine of the MLP's inputs"}


def plot_update_norms(
    layers: pd.DataFrame, *, measure: str = "relative", control: str = "other", ax: Axes | None = None
) -> Axes:
    """Draw the size of the update over layers, a line a matrix, beside its control (dashed, open marks).

    ``layers``: the frame of `MLPUpdates.layers`. ``measure``: "relative", "norm" or "cosine"; ``control``: "other" (the
    same query after another context) or "untrained". Bands are the intervals of the means. The scale is logarithmic
    where values differ by more than a factor of 50.

    To read it: where the open marks lie on the filled ones, the update is as large as any other context would make it,
    and its size says nothing of this one.
    """
    columns = ["layer", "matrix", "measure", "estimate", "low", "high"]
    _require(layers, [*columns, control], "layers")
    rows = layers[layers["measure"] == measure]
    if rows.empty:
        raise ValueError(f"Got the measure {measure!r}, expected one of: {', '.join(layers['measure'].unique())}.")
    if measure == "cosine":  # it is the MLP input's, the same for all matrices of a layer
        rows = rows[rows["matrix"] == rows["matrix"].iloc[0]].assign(matrix="MLP input")
    words = {"other": "after another context", "untrained": "in a model with shuffled weights"}.get(control, control)
    with _axes(ax, (6.4, 4.2)) as ax:
        for (matrix, own), (colour, marker, _, style) in zip(rows.groupby("matrix", sort=False), MARKS, strict=False):
            own = own.sort_values("layer")
            ax.fill_between(own["layer"], own["low"], own["high"], color=colour, alpha=0.13, linewidth=0, zorder=1)
            ax.plot(own["layer"], own["estimate"], marker=marker, color=colour, linestyle=style, markersize=4.5,
                    linewidth=1.5, zorder=3, label=str(matrix))  # fmt: skip
            ax.plot(own["layer"], own[control], marker=marker, color=colour, linestyle=(0, (2, 2)), markersize=4.5,
                    markerfacecolor="white", linewidth=1.0, zorder=2, label="_control")  # fmt: skip
        ax.plot([], [], marker="o", color=GREY, linestyle=(0, (2, 2)), markerfacecolor="white", label=words)
        _fitting_scale(ax, rows[["estimate", control]].to_numpy(float))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="Layer", ylabel=MEASURES.get(measure, measure))
        ax.legend(loc="best")
    return ax


def plot_update_map(
    values: Float[np.ndarray, "layer pos"],
    tokens: Sequence[str],
    *,
    label: str = "Step",
    layers: Sequence[int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw one number, 0 or more, a layer and context token: tokens from left to right, layer 0 at the bottom.

    NaN is hatched. ``layers``: their numbers where some are missing.
    """
    numbers = list(range(len(values))) if layers is None else list(layers)
    if values.shape != (len(numbers), len(tokens)):
        raise ValueError(
            f"Got values of shape {values.shape}, {len(numbers)} layers and {len(tokens)} tokens; expected a match."
        )
    known = values[np.isfinite(values)]
    if (known < 0).any():
        raise ValueError(f"Got values down to {known.min()}, expected norms: 0 or more.")
    size = float(np.clip(2.2 + 0.3 * len(tokens), 3.8, 12)), float(np.clip(1.8 + 0.17 * len(numbers), 2.6, 9))
    with _axes(ax, size) as ax:
        mesh = _cells(ax, values, RISING, (0.0, float(known.max(initial=0.0)) or 1.0), gap=0.4, lines=PALE)
        ax.set_xticks(range(len(tokens)), [_shown(token) for token in tokens], rotation=60, ha="right",
                      rotation_mode="anchor")  # fmt: skip
        every = max(1, len(numbers) // 10)
        ax.set_yticks(range(0, len(numbers), every), [str(n) for n in numbers[::every]])
        ax.set_ylim(-0.5, len(numbers) - 0.5)
        ax.set(xlabel="Context, token by token", ylabel="Layer")
        unit = "|dW change| / |W|"
        ax.figure.colorbar(mesh, ax=ax, label=f"{label}\n({unit})", pad=0.03, fraction=0.08).outline.set_visible(False)
    return ax


def plot_update_trajectory(steps: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw the mean relative step |dW_i - dW_(i-1)| / |W| over positions i, a line a matrix; dashed: tokens shuffled.

    ``steps``: the frame of `UpdateTrajectory.steps`; means are over items and layers. Beyond the shortest context there
    are fewer items.

    To read it: falling lines look like a learner that converges, but shuffled tokens fall too. Only where the filled
    marks fall more steeply than the open ones does the order of the text matter.
    """
    _require(steps, ["order", "position", "matrix", "relative"], "steps")
    means = steps.groupby(["matrix", "order", "position"])["relative"].mean().reset_index()
    with _axes(ax, (6.4, 4.2)) as ax:
        for matrix, (colour, marker, _, style) in zip(steps["matrix"].unique(), MARKS, strict=False):
            for order, face, line in (("own", colour, style), ("shuffled", "white", (0, (2, 2)))):
                rows = means[(means["matrix"] == matrix) & (means["order"] == order)]
                name = matrix if order == "own" else "_control"
                ax.plot(rows["position"], rows["relative"], marker=marker, color=colour, markerfacecolor=face,
                        linestyle=line, markersize=4, linewidth=1.4, label=name)  # fmt: skip
        ax.plot([], [], marker="o", color=GREY, linestyle=(0, (2, 2)), markerfacecolor="white", label="tokens shuffled")
        _fitting_scale(ax, means["relative"].to_numpy(float))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="Context token i", ylabel=f"Mean step |dW$_i$ {MINUS} dW$_{{i-1}}$| / |W|")
        ax.legend(loc="best")
    return ax


def plot_update_transfer(estimates: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Draw how far updates carry other queries, a bar a condition with its interval; 1: all the way, 0: nothing.

    ``estimates``: the frame of `UpdateTransfer.estimates`; rows of differences are left out.

    To read it: the filled bar must stand above all hatched ones, and not only above 0; far below 0 only differences
    between bars can be read.
    """
    _require(estimates, ["condition", "estimate", "low", "high"], "estimates")
    rows = estimates.set_index("condition").reindex(
        [name for name in CONDITIONS if name in set(estimates["condition"])]
    )
    if rows.empty:
        raise ValueError(f"Got the conditions {list(estimates['condition'])}, expected some of {list(CONDITIONS)}.")
    places = np.arange(len(rows))
    with _axes(ax, (1.6 + 1.15 * len(rows), 4.0)) as ax:
        own = np.array([name == "own" for name in rows.index])
        for chosen, face, edge, hatch in ((own, BLUE, BLUE, ""), (~own, "white", GREY, "////")):
            heights = rows["estimate"][chosen]
            ax.bar(places[chosen], heights, width=0.62, facecolor=face, edgecolor=edge, hatch=hatch, zorder=2)
        ax.vlines(places, rows["low"], rows["high"], color=INK, linewidth=1.6, zorder=4)
        for place, (_, row) in zip(places, rows.iterrows(), strict=True):
            ends = [end for end in (row["estimate"], row["low"], row["high"], 0.0) if np.isfinite(end)]
            ax.annotate(number(float(row["estimate"]), 2), (float(place), max(ends)), xytext=(0, 3),
                        textcoords="offset points", ha="center", va="bottom", fontsize=8.5)  # fmt: skip
        ax.axhline(0, color=INK, linewidth=1, zorder=3)
        ax.axhline(1, color=GREY, linewidth=1, linestyle="--", zorder=1)
        ax.margins(y=0.12)
        ax.set_xticks(places, [CONDITIONS[name] for name in rows.index])
        ax.set_ylabel("Transfer to other queries\n(1: all the way, 0: nothing)")
    return ax


def _fitting_scale(ax: Axes, values: np.ndarray) -> None:
    known = values[np.isfinite(values) & (values > 0)]
    if len(known) and (values[np.isfinite(values)] >= 0).all() and known.max() > WIDE * known.min():
        ax.set_yscale("log")


def _shown(token: str) -> str:
    """A token as it is, with marks for spaces and ends of lines; nothing that matplotlib would take for a formula."""
    return (
        token.replace(" ", "\N{OPEN BOX}")
        .replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}")
        .replace("$", r"\$")
    )
