"""Pictures of the phenomena of in-context learning beside kernel accounts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from mechicl.views import GREY, MARKS, PALE, _axes, _require

MODEL = "ICL"


def plot_phenomena(result: Any, *, predictors: Sequence[str] | None = None, ax: Axes | None = None) -> Axes:
    """Draw accuracy by condition, a row each: the model's and, below it in the row, that of each account.

    Bars are intervals over queries; the dotted line is chance. A filled mark of the model: its accuracy differs from
    "random", corrected for the number of conditions. ``predictors``: at most five accounts, by default the first five.

    To read it: go down the rows and ask whether the model's mark and an account's move to the same side of where they
    are in "random". An account that stays where the model moves does not cover that phenomenon.
    """
    frame = result.frame
    _require(frame, ["condition", "predictor", "accuracy", "low", "high", "p_holm"], "frame")
    present = [name for name in dict.fromkeys(frame["predictor"]) if name != MODEL]
    wanted = list(present[: len(MARKS) - 1] if predictors is None else predictors)
    if unknown := [name for name in wanted if name not in present]:
        raise ValueError(f"Got the predictor {unknown[0]!r}, expected some of {present}.")
    if len(wanted) > len(MARKS) - 1:
        raise ValueError(f"Got {len(wanted)} predictors, expected at most {len(MARKS) - 1}; draw them in two pictures.")
    conditions = list(dict.fromkeys(frame["condition"]))
    with _axes(ax, (6.8, 1.5 + 0.105 * len(conditions) * (len(wanted) + 2))) as ax:
        ax.axvline(result.chance, color=GREY, linestyle=":", linewidth=1.2, zorder=1, label="chance")
        for i, (name, mark) in enumerate(zip([MODEL, *wanted], MARKS, strict=False)):
            colour, marker, _, _ = mark
            rows = frame[frame["predictor"] == name].set_index("condition").reindex(conditions)
            y = np.arange(len(conditions)) + ((i + 1) / (len(wanted) + 2) - 0.5) * 0.9
            x, low, high = (rows[column].to_numpy(float) for column in ("accuracy", "low", "high"))
            ax.hlines(y, low, high, color=colour, linewidth=2.0 if i == 0 else 1.1, zorder=2)
            sure = (rows["p_holm"] <= 1 - result.level).to_numpy() & (i == 0)
            size = 6.5 if i == 0 else 4.5
            ax.plot(x[sure], y[sure], marker, color=colour, markersize=size, zorder=3)
            ax.plot(
                x[~sure], y[~sure], marker, color=colour, markerfacecolor="white", markersize=size, zorder=3, label=name
            )
        ax.hlines(np.arange(len(conditions) - 1) + 0.5, 0, 1, PALE, linewidth=0.8, transform=ax.get_yaxis_transform())
        ax.set_yticks(range(len(conditions)), conditions)
        ax.set_ylim(len(conditions) - 0.45, -0.55)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel(f"Accuracy ({result.task}, {result.n_demos} demonstrations)")
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return ax
