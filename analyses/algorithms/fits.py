"""Which algorithm, and how many steps of it, predict a regressor's outputs best?

On one half of the contexts every family of `algorithm_families` gets the parameters whose predictions come nearest to
the model's; on the other half it is judged:

    score = sum (yhat_model - yhat_algorithm)^2 / sum yhat_model^2

0 where the predictions are the same, 1 where the algorithm is as far off as the guess 0, above 1 where it is farther;
no upper bound. Intervals are percentiles of a bootstrap over contexts, and differences are paired. Beside the score
stand `task_error`, the same with parameters that fit the truth, sum (y - yhat_algorithm)^2 / sum y^2 (what fits the
task may not fit the model), and `untrained`, the score when all is fitted anew to an untrained model.

An algorithm with more free numbers can copy one with fewer, so `best` is the simplest that cannot be told apart from
the lowest score. A low score says that the outputs agree on such contexts: it does not say how they are computed.
Compare arXiv:2212.07677, 2211.15661, and 2310.17086 for Newton's iteration.

Caveats:
- Contexts are drawn from one task. Algorithms that agree there may part at other lengths and scales: see
  `mechicl.analyses.algorithms.algorithm_lengths` and `mechicl.analyses.algorithms.alignment_scales`.
- Only the families listed are compared. What is nearest among them may still be far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.algorithms.algorithm_families import BASELINES, FAMILIES, STEPS, Algorithm, fit_families
from mechicl.analyses.algorithms.regressor_calls import facts_of, halves, predict_all, untrained_of
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.regression import Regressions, RegressionTask
from mechicl.wording import number

ROUNDING = 1e-10  # differences of scores below are those of float32
NEAR = 0.5  # an algorithm that leaves more than this of the best baseline's distance is not named
FAR = 1e6  # predictions that diverge count as so many times the model's


@dataclass(frozen=True)
class AlgorithmFit(Result):
    """Every family's distance to a regressor's predictions.

    frame: one row a family, nearest first: family, algorithm (with its parameters, in words), steps (NaN where there
        are none), n_free (numbers that were chosen); score, low, high; difference (to the lowest score), diff_low,
        diff_high; untrained (NaN without that control); task_algorithm, task_error, task_low, task_high; model_error.
    parameters: those behind the score, as the predictors take them.
    model_error, model_error_low, model_error_high: the model's own task_error.
    best: the simplest family that cannot be told apart from the nearest; it may be a baseline.
    """

    frame: pd.DataFrame
    parameters: dict[str, dict[str, Any]]
    best: str
    model_error: float
    model_error_low: float
    model_error_high: float
    level: float
    provenance: Provenance

    @property
    def algorithm(self) -> Algorithm:
        """The best algorithm, to predict with."""
        n_free = dict(zip(self.frame["family"], self.frame["n_free"], strict=True))
        return Algorithm(self.best, self.parameters[self.best], int(n_free[self.best]))

    @property
    def named(self) -> str | None:
        """The best family, or None: where it is a baseline, or leaves over half of the best baseline's distance."""
        rows = self.frame.set_index("family")
        limit = NEAR * min((rows["score"][name] for name in BASELINES if name in rows.index), default=1.0)
        return None if self.best in BASELINES or rows["high"][self.best] > limit else self.best

    @property
    def tied(self) -> tuple[str, ...]:
        """The other families that cannot be told apart from the nearest."""
        rows = self.frame[(self.frame["diff_low"] <= ROUNDING) & (self.frame["family"] != self.best)]
        return tuple(rows["family"])

    @property
    def verdict(self) -> str:
        """What came out, in words."""
        row: Any = self.frame.set_index("family").loc[self.best]
        score = f"{_share(row['score'])} of the distance of the guess 0 [{_share(row['low'])}, {_share(row['high'])}]"
        if self.best in BASELINES:
            words = [f"No algorithm beats the baselines: {self.best} is as near as any, at {score}."]
        elif self.named is None:
            words = [f"No algorithm comes near: the nearest, {row['algorithm']}, leaves {score}."]
        else:
            words = [f"Nearest to the model: {row['algorithm']}, at {score}."]
        if self.tied:
            words.append(f"Not told apart from it: {', '.join(self.tied)}.")
        others = self.frame[(self.frame["diff_low"] > ROUNDING) & (self.frame["family"] != self.best)]
        if len(others) and self.named:
            next_one: Any = others.iloc[0]
            words.append(f"Next: {next_one['algorithm']}, at {_share(next_one['score'])}.")
        if np.isfinite(row["untrained"]) and self.named:
            words.append(f"Fitted to an untrained model it leaves {_share(row['untrained'])}.")
        task: Any = self.frame.sort_values("task_error", kind="stable").iloc[0]
        words.append(
            f"On the task the model's error is {_share(self.model_error)} of that of the guess 0; the best algorithm's,"
            f" {task['task_algorithm']}, {_share(task['task_error'])}."
        )
        return " ".join(words)

    def to_frame(self) -> pd.DataFrame:
        """The families."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """Scores with intervals beside errors on the task; returns matplotlib Axes."""
        from mechicl.views.algorithms import plot_algorithm_fit

        return plot_algorithm_fit(self.frame, model_error=self.model_error, ax=ax)


def algorithm_fit(
    predict: Any,
    contexts: Regressions,
    *,
    families: Sequence[str] = FAMILIES,
    steps: Sequence[int] = STEPS,
    task: RegressionTask | None = None,
    untrained: Any = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> AlgorithmFit:
    """Compare a regressor with every family; see the head of this file.

    predict: a function (x, y, query), a model, or its `predict`. contexts: `RegressionTask.sample`, or any of your own
    in the same form; some hundreds, and twice k d^2 / 0.375 for k steps of `preconditioned_gradient` in d dimensions.
    task: for `best_step`, whose rate follows from the inputs' moments. untrained: a regressor for the control; for a
    model it is by default its copy with weights in random order. Raises ValueError for too few contexts, unknown
    families, a regressor that gives anything but one finite number a context, and one that always says 0.

        contexts = RegressionTask(dim=10, n_demos=10, scale=0.5).sample(2000, seed=0)
        print(algorithm_fit(load_regressor("lsa-1"), contexts).verdict)
    """
    check_level(level)
    choice, held_out = halves(contexts, seed=seed)
    at_choice, by_model = predict_all(predict, choice), predict_all(predict, held_out)
    if not (by_model**2).sum() > 0 or not (at_choice**2).sum() > 0:
        raise ValueError("the regressor predicts 0 for every context; expected predictions that vary")
    if not (held_out.target**2).sum() > 0:
        raise ValueError("all targets are 0; expected contexts with something to learn")
    options: dict[str, Any] = {"families": families, "steps": steps, "task": task, "others": held_out.x}
    fitted = fit_families(choice, at_choice, **options)
    boot: dict[str, Any] = {"n_boot": n_boot, "level": level, "seed": seed}
    scores = _shares(fitted, held_out, by_model, boot)
    for_task = fit_families(choice, choice.target, **options)
    errors = _shares(for_task, held_out, held_out.target, boot)
    control = untrained_of(predict, untrained, seed=seed)
    frame = pd.DataFrame(
        {
            "family": [a.family for a in fitted],
            "algorithm": [a.words for a in fitted],
            "steps": [_steps_of(a) for a in fitted],
            "n_free": [a.n_free for a in fitted],
            **dict(zip(("score", "low", "high", "difference", "diff_low", "diff_high"), scores, strict=True)),
            "untrained": np.nan if control is None else _untrained(control, choice, held_out, options, boot),
            "task_algorithm": [a.words for a in for_task],
            **dict(zip(("task_error", "task_low", "task_high"), errors, strict=False)),
        }
    )
    own = _ratio((by_model - held_out.target) ** 2, held_out.target**2, boot)
    near = frame[frame["diff_low"] <= ROUNDING]
    return AlgorithmFit(
        frame=frame.assign(model_error=own[0]).sort_values("score", kind="stable", ignore_index=True),
        parameters={a.family: a.parameters for a in fitted},
        best=str(near.sort_values(["n_free", "score"], kind="stable").iloc[0]["family"]),
        model_error=own[0],
        model_error_low=own[1],
        model_error_high=own[2],
        level=level,
        provenance=Provenance.of(
            facts_of(predict),
            seeds={"split and bootstrap": seed},
            options={"n_contexts": len(contexts), "n_boot": n_boot, "steps": [int(k) for k in steps]},
        ),
    )


def _shares(
    algorithms: Sequence[Algorithm], contexts: Regressions, goal: Float[np.ndarray, " batch"], boot: dict[str, Any]
) -> tuple[np.ndarray, ...]:
    """Score, low, high of each algorithm, and its difference to the lowest score with low and high."""
    limit = FAR * float(np.sqrt((goal**2).mean()))
    found = np.stack([_predict(a, contexts, limit) for a in algorithms], axis=1)
    apart, size = (found - goal[:, None]) ** 2, np.repeat(goal[:, None] ** 2, len(algorithms), axis=1)
    items = np.arange(len(goal))
    lowest = int(np.argmin(apart.sum(0)))
    scores = ratio_intervals(apart, size, items, **boot)
    return (*scores, *ratio_intervals(apart - apart[:, [lowest]], size, items, **boot))


def _predict(algorithm: Algorithm, contexts: Regressions, limit: float) -> Float[np.ndarray, " batch"]:
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            found = algorithm.predict(contexts.x, contexts.y, contexts.query)
    except ValueError:  # diverged on contexts on which it was not chosen
        return np.full(len(contexts), limit)
    return np.clip(found, -limit, limit)


def _untrained(
    control: Any, choice: Regressions, held_out: Regressions, options: dict[str, Any], boot: dict[str, Any]
) -> Float[np.ndarray, " family"]:
    at_choice, at_held_out = predict_all(control, choice), predict_all(control, held_out)
    fitted = fit_families(choice, at_choice, **options)
    if not (at_held_out**2).sum() > 0:
        return np.full(len(fitted), np.nan)
    return np.asarray(_shares(fitted, held_out, at_held_out, boot)[0])


def _ratio(above: np.ndarray, below: np.ndarray, boot: dict[str, Any]) -> tuple[float, float, float]:
    estimate, low, high = ratio_intervals(above[:, None], below[:, None], np.arange(len(above)), **boot)
    return float(estimate[0]), float(low[0]), float(high[0])


def _steps_of(algorithm: Algorithm) -> float:
    if "matrices" in algorithm.parameters:
        return float(len(algorithm.parameters["matrices"]))
    return float(algorithm.parameters.get("steps", np.nan))


def _share(value: float) -> str:
    """Three decimals, and the power of ten where these would all be 0."""
    return number(value) if value == 0 or abs(value) >= 5e-4 else f"{value:.0e}"
