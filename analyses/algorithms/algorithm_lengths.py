"""Error curves over the length of the context: a regressor beside the algorithms.

For every number n of demonstrations (the first n of each context)

    error   sum (y - yhat)^2 / sum y^2 of the model and of every algorithm; 1 is that of the guess 0
    share   sum (yhat_model - yhat_algorithm)^2 / sum yhat_model^2, the distance to the model; NaN for the model

with the algorithms' parameters as given, the same at every length. An algorithm that a model carries out goes with it
at all lengths; a model of linear attention knows the length on which it was trained, and shows it here.
Compare arXiv:2208.01066 and 2211.15661.

Caveats:
- Positions that training never showed are foreign to a model, whatever its algorithm: being off there proves less than
  going along does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.algorithms.regressor_calls import facts_of, predictions
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.regression import Regressions

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LengthCurves(Result):
    """frame: one row a predictor ("model" first) and n_demos: error, low, high, share, share_low, share_high."""

    frame: pd.DataFrame
    level: float
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The curves."""
        return self.frame.copy()

    def plot(self, ax: Any = None, measure: str = "error") -> Any:
        """A curve a predictor; returns matplotlib Axes. measure: "error", or "share" for the distance to the model."""
        from mechicl.views.algorithms import plot_lines

        if measure not in ("error", "share"):
            raise ValueError(f"got measure={measure!r}; expected 'error' or 'share'")
        rows = self.frame
        if measure == "share":
            rows = rows[rows["predictor"] != "model"].assign(low=rows["share_low"], high=rows["share_high"])
        words = {"error": "Error on the task", "share": "Distance to the model"}[measure]
        return plot_lines(
            rows, x="n_demos", y=measure, by="predictor", x_label="Demonstrations",
            y_label=f"{words}\n(share of the guess 0's)", ax=ax,
        )  # fmt: skip


def curves_over_length(
    model: Any,
    contexts: Regressions,
    algorithms: Mapping[str, Predict],
    *,
    lengths: Sequence[int] | None = None,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> LengthCurves:
    """Errors of a regressor and of algorithms (functions by name) over the number of demonstrations.

    lengths: by default all from 1 to that of the contexts. Raises ValueError for lengths outside these.
    """
    check_level(level)
    most = contexts.y.shape[-1]
    chosen = list(lengths) if lengths is not None else list(range(1, most + 1))
    if not chosen or min(chosen) < 1 or max(chosen) > most:
        raise ValueError(f"got lengths={chosen}; expected numbers from 1 to {most}, the contexts' demonstrations")
    if "model" in algorithms:
        raise ValueError("'model' is the regressor's own name; give the algorithm another")
    rows = []
    for n in chosen:
        given = contexts.x[:, :n], contexts.y[:, :n], contexts.query
        found = {name: predictions(one, *given) for name, one in {"model": model, **algorithms}.items()}
        apart = [found[name] - found["model"] for name in found]
        above = np.stack([(own - contexts.target) ** 2 for own in found.values()] + [one**2 for one in apart], axis=1)
        below = np.stack([contexts.target**2] * len(found) + [found["model"] ** 2] * len(found), axis=1)
        ends = ratio_intervals(above, below, np.arange(len(above)), n_boot=n_boot, level=level, seed=seed)
        for at, name in enumerate(found):
            error = [float(part[at]) for part in ends]
            share = [np.nan if name == "model" else float(part[len(found) + at]) for part in ends]
            rows.append((name, n, *error, *share))
    columns = ["predictor", "n_demos", "error", "low", "high", "share", "share_low", "share_high"]
    return LengthCurves(
        frame=pd.DataFrame(rows, columns=columns),
        level=level,
        provenance=Provenance.of(
            facts_of(model), seeds={"bootstrap": seed}, options={"n_contexts": len(contexts), "n_boot": n_boot}
        ),
    )
