"""Pictures of the Bayesian account of training: maps over training time and task diversity; the others by name.

    strategies           maps of d_rel, of the model beside it, of the residual
    strategy_curves      over training time: transience, collapse, posterior odds, losses
    strategy_times       over task diversity and sizes: threshold, transition times, fitted parameters
    strategy_judged    what the parameters are worth, and where training pulls

All draw on ``ax`` (or on a new figure), return the Axes, never call ``show()`` and leave matplotlib's settings as they
are. On maps dark is memorising (1) and light generalising (0), also in grey. Training time is on an axis of square
roots, as checkpoints are, task diversity on one of powers of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colors import Colormap
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from mechicl.views import GREY, INK, PALE, _axes
from mechicl.views.heads import RISING
from mechicl.views.strategy_axes import (
    D_REL,
    STRATEGIES,
    beside,
    diversity_axis,
    edges,
    mean_of_seeds,
    root,
    step_axis,
)
from mechicl.views.strategy_curves import plot_collapse, plot_posterior_odds, plot_training, plot_transience
from mechicl.views.strategy_judged import plot_ablations, plot_vector_field
from mechicl.views.strategy_times import plot_diversity_threshold, plot_sizes, plot_transitions

__all__ = [
    "plot_ablations",
    "plot_collapse",
    "plot_diversity_threshold",
    "plot_phase_diagram",
    "plot_posterior_odds",
    "plot_residual_map",
    "plot_sizes",
    "plot_strategy_fit",
    "plot_training",
    "plot_transience",
    "plot_transitions",
    "plot_vector_field",
]

HALO = [withStroke(linewidth=3.4, foreground="white")]


def plot_strategy_fit(fit: Any, *, ax: Axes | None = None) -> Axes:
    """Draw d_rel of the transformers (left, in ``ax``) and of the model of training, averaged over seeds.

    Hatched: checkpoints before the two-hypothesis threshold. The thick line goes around what the model was fitted to;
    the rest it has not seen. The thin line is d_rel of .5, half way between both strategies.

    To read it: both maps should have the same border between light and dark, beyond the thick line as well. Away from
    the border cells agree whatever the model says. Where the residual is large, colours mean nothing: see
    `plot_residual_map`.
    """
    with _axes(ax, (9.6, 4.0)) as ax:
        other = beside(ax)
        for panel, values, title in ((ax, fit.d_rel, "Transformers"), (other, fit.predicted, "Model of training")):
            mesh = _phase(panel, fit, mean_of_seeds(values))
            panel.set_title(title, loc="left", fontsize=9.5)
        other.set_ylabel("")
        other.tick_params(labelleft=False)
        ax.figure.colorbar(mesh, ax=other, label=D_REL, pad=0.03, fraction=0.08).outline.set_visible(False)
        ax.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=3, columnspacing=1.2)
    return ax


def plot_phase_diagram(fit: Any, *, predicted: bool = False, ax: Axes | None = None) -> Axes:
    """Draw one half of `plot_strategy_fit`: d_rel of the transformers, or of the model of training."""
    with _axes(ax, (5.6, 4.0)) as ax:
        mesh = _phase(ax, fit, mean_of_seeds(fit.predicted if predicted else fit.d_rel))
        ax.figure.colorbar(mesh, ax=ax, label=D_REL, pad=0.03, fraction=0.08).outline.set_visible(False)
        ax.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16), ncols=3, columnspacing=1.2)
    return ax


def plot_residual_map(fit: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how far transformers are from every mixture of both strategies, as a share of the strategies' own distance.

    0: a mixture says all. Near 1 and above (darkest) a transformer does something else, and d_rel means nothing.
    """
    with _axes(ax, (5.6, 4.0)) as ax:
        mesh = _cells(ax, mean_of_seeds(fit.residual), fit.terms.steps, fit.terms.diversities, RISING)
        _hatch(ax, fit.terms.steps, fit.terms.diversities, fit.kept, colour=GREY)
        label = "Distance to the best mixture,\nover that between strategies"
        bar = ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.03, fraction=0.08, extend="max")
        bar.outline.set_visible(False)
        if not fit.kept.all():
            ax.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.16))
    return ax


def _phase(ax: Axes, fit: Any, values: Float[np.ndarray, "step diversity"]) -> QuadMesh:
    """One map of d_rel, with hatches, the line around fitted cells and the line of .5."""
    mesh = _cells(ax, values, fit.terms.steps, fit.terms.diversities, STRATEGIES)
    _hatch(ax, fit.terms.steps, fit.terms.diversities, fit.kept)
    _outline(ax, fit.terms.steps, fit.terms.diversities, fit.fitted)
    shown = np.where(fit.kept[:, None], values, np.nan)
    if min(shown.shape) > 1 and np.nanmin(shown, initial=1.0) < 0.5 < np.nanmax(shown, initial=0.0):
        line: Any = {"linewidths": 1.1, "linestyles": "--"}
        drawn = ax.contour(fit.terms.steps, fit.terms.diversities, shown.T, levels=[0.5], colors=[INK], **line)
        drawn.set(path_effects=HALO)
        ax.plot([], [], color=INK, linewidth=1.1, linestyle="--", label="d_rel = .5")
    return mesh


def _cells(
    ax: Axes,
    values: Float[np.ndarray, "step diversity"],
    steps: Float[np.ndarray, " step"],
    diversities: Float[np.ndarray, " diversity"],
    colours: Colormap,
) -> QuadMesh:
    """A cell a checkpoint and diversity, coloured from 0 to 1; cells without a value are hatched."""
    x, y = edges(steps, root, np.square), edges(diversities, np.log2, np.exp2)
    ground: Any = {"facecolor": PALE, "edgecolor": GREY, "hatch": "xxxx", "linewidth": 0, "zorder": 0}
    ax.add_patch(Rectangle((x[0], y[0]), x[-1] - x[0], y[-1] - y[0], **ground))
    mesh = ax.pcolormesh(x, y, np.ma.masked_invalid(values.T), cmap=colours, vmin=0, vmax=1, rasterized=True)
    step_axis(ax, steps, (x[0], x[-1]))
    diversity_axis(ax, diversities, "y")
    ax.set_ylim(y[0], y[-1])
    ax.set_ylabel("Task diversity D (tasks)")
    return mesh


def _hatch(
    ax: Axes,
    steps: Float[np.ndarray, " step"],
    diversities: Float[np.ndarray, " diversity"],
    kept: Bool[np.ndarray, " step"],
    colour: str = INK,
) -> None:
    """Hatches over checkpoints before the threshold."""
    if kept.all():
        return
    x, y = edges(steps, root, np.square), edges(diversities, np.log2, np.exp2)
    end = x[int(kept.argmax())] if kept.any() else x[-1]
    ax.add_patch(
        Rectangle((x[0], y[0]), end - x[0], y[-1] - y[0], facecolor="none", edgecolor=colour, hatch="////", linewidth=0,
                  zorder=2, label="before the threshold")
    )  # fmt: skip


def _outline(
    ax: Axes,
    steps: Float[np.ndarray, " step"],
    diversities: Float[np.ndarray, " diversity"],
    fitted: Bool[np.ndarray, "step diversity"],
) -> None:
    """A line around the fitted cells."""
    x, y = edges(steps, root, np.square), edges(diversities, np.log2, np.exp2)
    around = np.pad(fitted, 1)
    segments: list[Sequence[tuple[float, float]]] = []
    for i, j in zip(*np.nonzero(around[1:, 1:-1] != around[:-1, 1:-1]), strict=True):
        segments.append([(x[i], y[j]), (x[i], y[j + 1])])
    for i, j in zip(*np.nonzero(around[1:-1, 1:] != around[1:-1, :-1]), strict=True):
        segments.append([(x[i], y[j]), (x[i + 1], y[j])])
    if segments:
        for colour, width, label in (("white", 4.6, "_halo"), (INK, 2.2, "fitted inside")):
            lines = LineCollection(segments, colors=[colour], linewidths=width, capstyle="projecting", zorder=3)
            lines.set(label=label, clip_on=False)
            ax.add_collection(lines, autolim=False)
