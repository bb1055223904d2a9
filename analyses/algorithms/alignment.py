"""How far does a regressor do what one step of gradient descent does?

Measured on contexts on which the step's rate was not chosen, with s = d yhat / d x_q (for a model that is linear in its
query, all that it learned from the context):

    distance        mean |yhat - yhat_GD|, in units of y; 0: the same predictions
    share           sum (yhat - yhat_GD)^2 / sum yhat^2; 1 is that of the guess 0
    cosine          mean cosine of s and w_GD, -1 to 1; 1: they learn the same direction, 0: unrelated
    slope_distance  mean ||s - w_GD||
    half_mse        mean (y - yhat)^2 / 2, where 0.20623 is one best step's for 10 points in U(-1/2, 1/2)^10

Beside the model stand three controls: an untrained model, the step on another context's demonstrations (same query),
and the step itself. For one trained layer of linear attention papers report a cosine near 1. Source: arXiv:2212.07677.

Caveats:
- The direction of d yhat / d x_q is all that a model learned only if it is linear in its query; for others it is a
  local slope.
- For inputs without a preferred direction many estimators point nearly where one step does. Look at `share` and at the
  controls beside the cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.algorithms.regressor_calls import facts_of, halves, predict_all, slopes, untrained_of
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.organisms.regression_judging import controlled
from mechicl.predictors.gradient import best_rate, gradient_descent, gradient_descent_weights
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.regression import Regressions, RegressionTask
from mechicl.wording import number, with_interval

MEASURES = ("distance", "share", "cosine", "slope_distance", "half_mse")


@dataclass(frozen=True)
class StepAlignment(Result):
    """A regressor beside one step of gradient descent.

    frame: one row a condition ("model", "untrained", "other contexts", "step") and measure: estimate, low, high; and
        difference, diff_low, diff_high: the model minus this condition, context by context (NaN for the model).
    rate: that of the step. half_mse_controlled: of the model, with less noise (estimate, low, high; the difference to
        the best step, whose loss is known); with expected_half_mse, that known loss, None without a task.
    """

    frame: pd.DataFrame
    rate: float
    half_mse_controlled: tuple[float, float, float] | None
    expected_half_mse: float | None
    level: float
    provenance: Provenance

    def value(self, condition: str, measure: str) -> float:
        """One estimate."""
        rows = self.frame[(self.frame["condition"] == condition) & (self.frame["measure"] == measure)]
        if rows.empty:
            raise ValueError(
                f"got {measure!r} of {condition!r}; expected one of {', '.join(MEASURES)}, and a condition"
            )
        return float(rows["estimate"].iloc[0])

    @property
    def verdict(self) -> str:
        """What came out, in words."""
        words = []
        for condition, rows in self.frame[self.frame["measure"] == "cosine"].groupby("condition", sort=False):
            row = rows.iloc[0]
            cosine = with_interval(row["estimate"], row["low"], row["high"])
            words.append(f"{condition}: cosine {cosine}, share {number(self.value(str(condition), 'share'))}")
        return f"One step of gradient descent at rate {self.rate:.3g}. " + "; ".join(words) + "."

    def to_frame(self) -> pd.DataFrame:
        """The measures."""
        return self.frame.copy()

    def plot(self, ax: Any = None, measure: str = "cosine") -> Any:
        """One measure of the model beside its controls; returns matplotlib Axes."""
        from mechicl.views.algorithms import plot_conditions

        rows = self.frame[(self.frame["measure"] == measure) & (self.frame["condition"] != "step")]
        return plot_conditions(rows, label=f"Alignment with one gradient step: {measure}", ax=ax)


def align_with_step(
    model: Any,
    contexts: Regressions,
    *,
    rate: float | None = None,
    task: RegressionTask | None = None,
    untrained: Any = None,
    difference_step: float = 1e-5,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> StepAlignment:
    """Compare a regressor with one step of gradient descent; see the head of this file.

    rate: by default that whose predictions come nearest to the model's on half of the contexts. task: what the contexts
    were drawn from, for the loss that is known in closed form. untrained: the control, by default a model's copy with
    weights in random order (a function has none). difference_step: for functions without `sensitivity`, see `slopes`.
    """
    check_level(level)
    choice, held_out = halves(contexts, seed=seed)
    if rate is None:
        unit = gradient_descent(choice.x, choice.y, choice.query, rate=1.0)
        rate = float((unit * predict_all(model, choice)).sum() / (unit**2).sum())
    control = untrained_of(model, untrained, seed=seed)
    step = gradient_descent_weights(held_out.x, held_out.y, rate=rate)
    rolled = gradient_descent_weights(np.roll(held_out.x, 1, 0), np.roll(held_out.y, 1, 0), rate=rate)
    own = slopes(model, held_out, step=difference_step), predict_all(model, held_out)
    conditions = {"model": _measures(*own, step, held_out)}
    if control is not None:
        of_control = control.slopes(held_out, difference_step), predict_all(control, held_out)
        conditions["untrained"] = _measures(*of_control, step, held_out)
    conditions["other contexts"] = _measures(*own, rolled, held_out)
    conditions["step"] = _measures(step, (step * held_out.query).sum(-1), step, held_out)
    error = (own[1] - held_out.target) ** 2 / 2
    known = None if task is None else controlled(error, held_out, task)
    return StepAlignment(
        frame=_table(conditions, n_boot, level, seed),
        rate=rate,
        half_mse_controlled=None if known is None else (known[0], known[1], known[2]),
        expected_half_mse=None if task is None or known is None else _expected(task),
        level=level,
        provenance=Provenance.of(
            facts_of(model),
            seeds={"split, control and bootstrap": seed},
            options={"n_contexts": len(contexts), "n_boot": n_boot},
        ),
    )


def _measures(
    slope: Float[np.ndarray, "batch dim"],
    found: Float[np.ndarray, " batch"],
    step: Float[np.ndarray, "batch dim"],
    contexts: Regressions,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every measure as a numerator and a denominator a context."""
    by_step, one = (step * contexts.query).sum(-1), np.ones(len(contexts))
    norms = np.linalg.norm(slope, axis=-1) * np.linalg.norm(step, axis=-1)
    cosine = np.divide((slope * step).sum(-1), norms, out=np.zeros_like(norms), where=norms > 0)
    return {
        "distance": (np.abs(found - by_step), one),
        "share": ((found - by_step) ** 2, found**2),
        "cosine": (cosine, one),
        "slope_distance": (np.linalg.norm(slope - step, axis=-1), one),
        "half_mse": ((found - contexts.target) ** 2 / 2, one),
    }


def _table(
    conditions: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]], n_boot: int, level: float, seed: int
) -> pd.DataFrame:
    rows = []
    for measure in MEASURES:
        above = np.stack([found[measure][0] for found in conditions.values()], axis=1)
        below = np.stack([found[measure][1] for found in conditions.values()], axis=1)
        items = np.arange(len(above))
        ends = ratio_intervals(above, below, items, n_boot=n_boot, level=level, seed=seed)
        # Where denominators differ (share) the difference is in units of the model's.
        apart = ratio_intervals(
            above[:, :1] - above, np.repeat(below[:, :1], above.shape[1], 1), items,
            n_boot=n_boot, level=level, seed=seed,
        )  # fmt: skip
        for at, condition in enumerate(conditions):
            missing = [np.nan] * 3 if condition == "model" else [float(part[at]) for part in apart]
            rows.append((condition, measure, *(float(part[at]) for part in ends), *missing))
    columns = ["condition", "measure", "estimate", "low", "high", "difference", "diff_low", "diff_high"]
    return pd.DataFrame(rows, columns=columns)


def _expected(task: RegressionTask) -> float:
    variance, fourth = task.moments
    return task.weight_scale**2 * best_rate(task.dim, task.n_demos, variance=variance, fourth_moment=fourth)[1] / 2
