"""The picture of a recovery study: which account was found in organisms whose account is known.

Draw on ``ax`` (or on a new figure), return the Axes, never call ``show()``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from mechicl.views import BLUE, GREY, INK, ORANGE, VERMILION, _axes, _legend_on_top, _require

WORDS = {
    "gradient": "gradient\nsteps",
    "kernel": "kernel\nregression",
    "bayes": "Bayesian\nstrategies",
    "boost": "constant\nboost",
    "baseline": "no account\n(nulls)",
    "none": "none\nnamed",
}
SHADES = LinearSegmentedColormap.from_list("counts", ["white", BLUE])
DARK = 0.6  # of a row, from which on its number is white


def plot_confusion(study: Any, *, by_kind: bool = False, ax: Axes | None = None) -> Axes:
    """Draw how many organisms of each true family (rows) were attributed to which (columns).

    Numbers are organisms; shades are shares of a row. Framed cells are where right ones fall: a family's own column,
    and "none named" for nulls. ``by_kind``: a row for every kind of organism in place of its family.

    To read it: what is dark outside a frame is an error, and a column that is dark in a row not its own is one account
    taken for another. "None named" is caution: nothing was claimed.
    """
    frame = study.to_frame()
    _require(frame, ["kind", "truth_family", "family"], "study")
    truth = dict(zip(frame["kind"], frame["truth_family"], strict=True))
    columns = [name for name in study.confusion.columns if name in {*frame["family"], *frame["truth_family"], "none"}]
    rows = list(truth) if by_kind else list(study.confusion.index)
    own = "kind" if by_kind else "truth_family"
    counts = np.array(
        [[int(((frame[own] == row) & (frame["family"] == name)).sum()) for name in columns] for row in rows]
    )
    shares = counts / counts.sum(1, keepdims=True)
    size = (3.1 + 0.95 * len(columns), 1.5 + 0.36 * len(rows)) if by_kind else (6.6, 1.5 + 0.62 * len(rows))
    with _axes(ax, size) as ax:
        ax.imshow(shares, cmap=SHADES, vmin=0, vmax=1, aspect="auto")
        for i, j in np.ndindex(*counts.shape):
            colour = "white" if shares[i, j] >= DARK else (INK if counts[i, j] else GREY)
            ax.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour)
        for i, row in enumerate(rows):
            family = truth[row] if by_kind else row
            right = columns.index("none" if family == "baseline" else family)
            ax.add_patch(Rectangle((right - 0.46, i - 0.44), 0.92, 0.88, fill=False, edgecolor=INK, linewidth=1.4))
        ax.set_xticks(range(len(columns)), [WORDS[name] for name in columns])
        ax.set_yticks(range(len(rows)), rows if by_kind else [WORDS[name] for name in rows])
        ax.set(xlabel="Attributed to", ylabel="Built to follow")
        ax.tick_params(length=0)
        ax.grid(False)
        ax.spines[:].set_visible(False)
    return ax


def plot_noise(study: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the share of organisms that are attributed to their family over the noise on their answers.

    Bars are Wilson's intervals. Noise is in standard deviations of the answers: at 1, half of their variance
    is noise.
    """
    table = study.noise_table
    _require(table, ["kind", "noise", "n", "right", "low", "high"], "study.noise_table")
    if not len(table):
        raise ValueError("Got a study without organisms with noise, expected one with n_noise_draws above 0.")
    levels = sorted(table["noise"].unique())
    marks = ((BLUE, "o", "-"), (VERMILION, "s", "--"), (ORANGE, "^", ":"))
    with _axes(ax, (5.0, 3.6)) as ax:
        kinds = list(dict.fromkeys(table["kind"]))
        for number, (kind, (colour, marker, style)) in enumerate(zip(kinds, marks, strict=False)):
            rows = table[table["kind"] == kind].sort_values("noise")
            x = np.array([levels.index(level) for level in rows["noise"]]) + 0.08 * (number - (len(kinds) - 1) / 2)
            rate = rows["right"].to_numpy(float) / rows["n"].to_numpy(float)
            ax.vlines(x, rows["low"], rows["high"], color=colour, linewidth=1.4)
            label = f"{kind} ({int(rows['n'].min())} a level)"
            ax.plot(x, rate, marker=marker, linestyle=style, color=colour, label=label)
        ax.set_ylim(-0.02, 1.02)
        ax.set_yticks([0, 0.25, 0.5, 0.75, 1])
        ax.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
        ax.set(xlabel="Noise on answers (SD of the answers)", ylabel="Attributed to their family (share)")
        _legend_on_top(ax, bounds=(0.0, 1.0))
    return ax
