"""Does a regressor still do the gradient step where it was not trained? Inputs and teachers of other sizes.

share and errors over the scale of the inputs ("inputs") and of the laws' weights ("weights"), 1 being the task's own:

    share         sum (yhat - yhat_GD)^2 / sum yhat^2; 0: the same predictions, 1: as far as the guess 0
    model_error   sum (y - yhat)^2 / sum y^2;   step_error: the same of the gradient step

A model that carries out the step agrees at every scale; one that only mimics it where it was trained drifts off. The
step is the same at all scales and gets worse with large inputs, where it overshoots. Source: arXiv:2212.07677.

Caveats:
- A softmax or a norm limits what a model can say for large inputs, which parts it from any linear rule there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.algorithms.regressor_calls import facts_of, predict_all
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.predictors.gradient import gradient_descent
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.regression import RegressionTask

SCALES = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class StepScales(Result):
    """frame: one row a kind ("inputs", "weights") and scale: share, low, high, model_error, step_error."""

    frame: pd.DataFrame
    rate: float
    level: float
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The scales."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """The share over scales, a line a kind; returns matplotlib Axes."""
        from mechicl.views.algorithms import plot_lines

        return plot_lines(
            self.frame, x="scale", y="share", by="kind", x_label="Scale, in units of the task's own",
            y_label="Distance to the gradient step\n(share of the guess 0's)", log=True, ax=ax,
        )  # fmt: skip


def align_over_scales(
    model: Any,
    task: RegressionTask,
    *,
    rate: float,
    scales: Sequence[float] = SCALES,
    n_contexts: int = 1_000,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> StepScales:
    """Compare a regressor with one gradient step (`rate`, say of `align_with_step`) on contexts of other scales.

    Contexts are the same at every scale but for their size. Raises ValueError for scales that are not above 0, and for
    a task with a covariance, whose inputs have no single scale.
    """
    check_level(level)
    if not scales or min(scales) <= 0:
        raise ValueError(f"got scales={list(scales)}; expected numbers above 0")
    if task.covariance is not None:
        raise ValueError("the task's inputs have a covariance; expected one with a single scale")
    rows = []
    for kind, name in (("inputs", "scale"), ("weights", "weight_scale")):
        for scale in scales:
            c = replace(task, **{name: getattr(task, name) * scale}).sample(n_contexts, seed=seed)
            own, step = predict_all(model, c), gradient_descent(c.x, c.y, c.query, rate=rate)
            size = (c.target**2)[:, None]
            (share,), (low,), (high,) = ratio_intervals(
                ((own - step) ** 2)[:, None], (own**2)[:, None], np.arange(len(own)),
                n_boot=n_boot, level=level, seed=seed,
            )  # fmt: skip
            errors = [float(((found - c.target) ** 2).sum() / size.sum()) for found in (own, step)]
            rows.append((kind, float(scale), float(share), float(low), float(high), *errors))
    return StepScales(
        frame=pd.DataFrame(rows, columns=["kind", "scale", "share", "low", "high", "model_error", "step_error"]),
        rate=rate,
        level=level,
        provenance=Provenance.of(
            facts_of(model), seeds={"contexts and bootstrap": seed}, options={"n_contexts": n_contexts, "rate": rate}
        ),
    )
