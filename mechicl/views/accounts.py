"""Pictures of accounts side by side: their shares, shares over the length of context, and what contexts tell apart.

All take a `Judgement`, draw on ``ax`` (or on a new figure), return the Axes, never call ``show()`` and leave
matplotlib's settings as they are. A family has one colour and one mark everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from mechicl.views import BLUE, GREEN, GREY, INK, PURPLE, VERMILION, _axes
from mechicl.wording import number

__all__ = ["plot_apart", "plot_lengths", "plot_shares"]
FAMILIES: dict[str, tuple[str, str, str]] = {
    "gradient": ("gradient steps", BLUE, "o"),
    "kernel": ("kernel regression", VERMILION, "s"),
    "bayes": ("Bayesian strategies", GREEN, "D"),
    "boost": ("constant boost", PURPLE, "^"),
    "baseline": ("baselines", GREY, "v"),
}
LEAST, MOST = -0.55, 1.15  # shares that are shown; those beyond are drawn at the ends
APART = LinearSegmentedColormap.from_list("apart", ["#00253D", BLUE, "#CFE3F0", "#FFFFFF"])


def plot_shares(judged: Any, *, ax: Axes | None = None) -> Axes:
    """Draw every account's share of the model with its interval, nearest at the top.

    How to read it: the dashed line at 0 is the anchor, a trivial prediction; the solid line at 1 the nearest that an
    account can be that does not know the order of the demonstrations. Filled marks cannot be told apart from the
    nearest account, open ones lie behind it. An arrow at the left end: farther than the picture, and so worse than
    trivial. A baseline near the top says that the contexts do not tell learning from a habit.
    """
    rows = judged.frame.iloc[::-1].reset_index(drop=True)
    least = max(LEAST, min(-0.05, float(np.nan_to_num(rows["low"].to_numpy(float)).min())))
    with _axes(ax, (7.0, 1.5 + 0.3 * len(rows))) as ax:
        ax.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=1)
        ax.axvline(1, color=INK, linewidth=1, zorder=1)
        for place, row in rows.iterrows():
            _, colour, mark = FAMILIES[row["family"]]
            low, share, high = (float(np.clip(row[name], least, MOST)) for name in ("low", "share", "high"))
            ax.hlines(place, low, high, color=colour, linewidth=1.6, zorder=2)
            face = colour if row["tied"] else "white"
            if row["share"] < least:
                ax.plot(least, place, "<", color=colour, markerfacecolor="white", markersize=6, zorder=3)
            else:
                ax.plot(share, place, mark, color=colour, markerfacecolor=face, markersize=6, zorder=3)
        ax.set_yticks(np.arange(len(rows)), [_with_free(row) for _, row in rows.iterrows()])
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.set_xlim(least - 0.05, MOST)
        ax.set_xlabel(f"Share of what the answers owe to their context\n(0: {judged.anchor}, 1: ceiling)")
        _family_legend(ax, rows["family"])
    return ax


def plot_lengths(judged: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the share of each family's nearest account over the length of context, with intervals.

    How to read it: an account that describes the mechanism keeps its share as contexts grow, with the same few numbers
    at all lengths; one that only fits an average rises or falls. Lengths at which the model's answers owe nothing to
    the context have no mark.
    """
    names = [str(judged.leading(family)["account"]) for family in judged.families]
    table = judged.by_length
    with _axes(ax, (6.0, 4.0)) as ax:
        ax.axhline(0, color=GREY, linewidth=1, linestyle="--", zorder=1)
        ax.axhline(1, color=INK, linewidth=1, zorder=1)
        for shift, name in zip(_shifts(len(names)), names, strict=True):
            rows = table[table["account"] == name].sort_values("length")
            _, colour, mark = FAMILIES[str(rows["family"].iloc[0])]
            at = rows["length"].to_numpy(float) * shift
            low, share, high = (np.clip(rows[c].to_numpy(float), LEAST, MOST) for c in ("low", "share", "high"))
            ax.vlines(at, low, high, color=colour, linewidth=1.2, zorder=2)
            ax.plot(at, share, marker=mark, color=colour, markersize=5, linewidth=1.2, zorder=3, label=name)
        ax.set_xscale("log")
        lengths = sorted(table["length"].unique())
        ax.set_xticks(lengths)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda length, _: f"{length:g}"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_ylim(LEAST - 0.05, MOST)
        ax.set_xlabel("Demonstrations in the context")
        ax.set_ylabel("Share (0: anchor, 1: ceiling)")
        ax.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
    return ax


def plot_apart(judged: Any, *, ax: Axes | None = None) -> Axes:
    """Draw how far each account is from each other one on these contexts, as a share of the room.

    How to read it: a row is the account that would be the truth, a column the one that is tried. Dark cells off the
    diagonal are pairs that these contexts do not tell apart, whatever the model does; a share read off the table for
    one of them holds for the other as well. Values above 1 are drawn as 1.
    """
    table = judged.to_apart()
    values = table.to_numpy(float)
    names = list(table.index)
    with _axes(ax, (1.9 + 0.55 * len(names), 1.7 + 0.45 * len(names))) as ax:
        ax.imshow(np.clip(values, 0, 1), cmap=APART, vmin=0, vmax=1, aspect="auto")
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                if i != j and np.isfinite(value):
                    ink = "white" if value < 0.45 else INK
                    ax.text(j, i, number(min(value, 99), 2), ha="center", va="center", fontsize=7, color=ink)
        ax.set_xticks(range(len(names)), names, rotation=35, ha="right")
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(length=0)
        ax.set_xlabel("Tried")
        ax.set_ylabel("If this were the model")
    return ax


def _with_free(row: Any) -> str:
    return f"{row['account']} ({row['n_free']} free)" if row["n_free"] else str(row["account"])


def _family_legend(ax: Axes, families: Any) -> None:
    present = [name for name in FAMILIES if name in set(families)]
    marks = [
        Line2D([], [], linestyle="", marker=FAMILIES[name][2], color=FAMILIES[name][1], label=FAMILIES[name][0])
        for name in present
    ]
    ax.legend(handles=marks, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(marks), 3), frameon=False)


def _shifts(n: int) -> list[float]:
    """Factors that keep marks at one length from covering each other."""
    return [float(one) for one in 1.035 ** (np.arange(n) - (n - 1) / 2)]
