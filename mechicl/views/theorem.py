"""Pictures of kernels that are known: the theorem's errors over demonstrations, and a trained model's attention.

Draws on ``ax`` (or on a new figure), returns the Axes, never calls ``show()`` and leaves matplotlib's settings as they
are. Filled marks are the kernel's forms and Bayes, open ones controls; line styles tell them apart without colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from mechicl.views import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, _axes, _require

__all__ = ["plot_classifier_kernels", "plot_theorem"]
# name: words, colour, marker, filled, line style
LINES: dict[str, tuple[str, str, str, bool, Any]] = {
    "ratio": ("kernel, T_x / P_pre(x), normalised", BLUE, "o", True, "-"),
    "literal_ratio": ("kernel, T_x, normalised", VERMILION, "^", True, "--"),
    "literal_mean": ("kernel, T_x, 1/n", ORANGE, "v", True, "-."),
    "bayes": ("Bayesian posterior", GREEN, "s", True, ":"),
    "permuted": ("control: x permuted against y", PURPLE, "D", False, (0, (5, 1))),
    "label_frequency": ("label frequencies alone", GREY, "", False, (0, (1, 1))),
}
WORDS = {
    "error": "Largest error of P(y | x_test)",
    "bayes_error": "Largest distance to the Bayesian posterior",
    "median_error": "Median of the largest error",
    "accuracy": "Most likely label found (share of prompts)",
    "gain": "Error of label frequencies minus error",
}


def plot_theorem(frame: pd.DataFrame, *, measure: str = "error", ax: Axes | None = None) -> Axes:
    """Draw one measure over n, a line a predictor with its interval as a band.

    ``frame``: that of `KernelTheorem`. Errors are on logarithmic axes with a guide that falls like 1 / sqrt(n), through
    the last point of the first form; the axes end below the smallest error of a kernel or control, and Bayes may leave
    them. Accuracy comes with chance. ``measure``: "error", "bayes_error", "median_error", "accuracy" or "gain".

    To read it: a form that is consistent falls along with the guide; one that levels off keeps a bias. A rising
    accuracy says little before it has left that of the permuted inputs and of label frequencies behind.
    """
    if measure not in WORDS:
        raise ValueError(f"Got the measure {measure!r}, expected one of {list(WORDS)}.")
    banded = measure != "median_error"
    _require(frame, ["predictor", "n", measure, *([f"{measure}_low", f"{measure}_high"] if banded else [])], "frame")
    log = measure.endswith("error")
    rows = frame[frame["predictor"] != "bayes"] if measure == "bayes_error" else frame
    if measure == "gain":
        rows = rows[rows["predictor"] != "label_frequency"]
    floor, top = _limits(rows, measure) if log else (-np.inf, np.inf)
    with _axes(ax, (6.8, 4.4)) as ax:
        for name, own in rows.groupby("predictor", sort=False):
            words, colour, marker, filled, style = LINES.get(str(name), (str(name), INK, "x", True, "-"))
            shown = own[own[measure] > floor].sort_values("n")
            if shown.empty:
                words += " (below the axes)"
            if banded:
                low = shown[f"{measure}_low"].clip(lower=floor)
                ax.fill_between(
                    shown["n"], low, shown[f"{measure}_high"], color=colour, alpha=0.13, linewidth=0, zorder=1
                )
            ax.plot(shown["n"], shown[measure], marker=marker, color=colour, linestyle=style, linewidth=1.6, zorder=2,
                    markersize=5, markerfacecolor=colour if filled else "white", label=words)  # fmt: skip
        ax.set_xscale("log")
        counts = sorted(rows["n"].unique())
        ax.set_xticks(counts)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        if len(counts) > 9:
            ax.tick_params(axis="x", labelrotation=60)
        if log:
            _guide(ax, rows, measure)
            ax.set_yscale("log")
            ax.set_ylim(floor, top)
        elif measure == "accuracy":
            if "chance" in rows:
                ax.axhline(rows["chance"].iloc[0], color=INK, linewidth=1, linestyle=":", zorder=1, label="chance")
            ax.set_ylim(-0.02, 1.02)
        else:
            ax.axhline(0, color=INK, linewidth=1, zorder=1)
        ax.set(xlabel="Demonstrations n", ylabel=WORDS[measure])
        # Below the axes: lines cross the whole of it, and a legend inside would hide some of them.
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return ax


def _limits(rows: pd.DataFrame, measure: str) -> tuple[float, float]:
    """The ends of the axis of errors: what Bayes reaches must not squeeze the others together."""
    others = rows.loc[rows["predictor"] != "bayes", measure]
    others = others[others > 0]
    return (float(others.min()) / 3, float(others.max()) * 1.6) if len(others) else (1e-3, 1.0)


def _guide(ax: Axes, rows: pd.DataFrame, measure: str) -> None:
    """A thin line that falls like 1 / sqrt(n)."""
    first = rows[rows["predictor"] == rows["predictor"].iloc[0]].sort_values("n")
    n = first["n"].to_numpy(float)
    if len(n) > 1:
        guide = first[measure].to_numpy()[-1] * np.sqrt(n[-1] / n)
        ax.plot(n, guide, color=INK, linewidth=0.8, linestyle=(0, (6, 3)), zorder=0, label="falls like 1 / sqrt(n)")


def plot_classifier_kernels(result: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the share of log attention that each kernel explains, alone (open) and beyond nuisances (filled).

    ``result``: of `mechicl.analyses.kernels.classifier_attention.classifier_kernels`. 0 is what equal attention
    explains.

    To read it: the farther right the ideal kernel's filled mark, the more does attention compare as the best predictor
    does. An open mark far right of its filled one is a kernel that only goes along with place, label or salience.
    """
    frame = result.frame[result.frame["head"] == 0]
    with _axes(ax, (5.0, 2.8)) as ax:
        places = np.arange(len(frame))[::-1]
        ax.axvline(0, color=GREY, linewidth=0.8)
        ax.plot(frame["r2"], places, "o", color=BLUE, markerfacecolor="white", label="alone")
        ax.plot(frame["unique_r2"], places, "o", color=BLUE, label="beyond place, label and salience")
        ax.set_yticks(places, labels=frame["kernel"])
        ax.set(xlim=(min(-0.05, float(frame["r2"].min()) - 0.05), 1.02), ylim=(-0.6, len(frame) - 0.4))
        ax.set(xlabel="Held-out R\N{SUPERSCRIPT TWO} of log attention", title=result.model)
        ax.legend(frameon=False, fontsize="small")
    return ax
