"""The Bayesian account of a run of trained models: `measure_strategies`.

    readings       what every checkpoint predicts, beside both strategies (`read_run`)
    fit            three numbers from which the model of training predicts all of it (`fit_strategies`)
    ablations      what each of the three is worth
    transitions    when models turn from generalising to memorising, N*(D), observed and predicted
    transience     where models generalise first, and memorise later

Source: 2506.17859.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.analyses.strategies.readings import GridReadings, read_run
from mechicl.analyses.strategies.transience import measure_transience
from mechicl.analyses.strategies.words import account_verdict
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.strategies.ablations import Ablations, fit_ablations
from mechicl.strategies.fit import StrategyFit, fit_strategies
from mechicl.strategies.transitions import Transitions, transition_times


@dataclass(frozen=True)
class StrategyAccount(Result):
    """All measurements of the Bayesian account on one setting.

    sizes: dim, context, d_mlp, n_layers of all models. losses: one row a seed, step and diversity: the transformer's
    loss on its training tasks and on fresh ones (nats, or squared errors). predictor_losses: one row a seed and
    diversity: the strategies' losses on the training tasks and (fresh_...) on fresh ones. transience: one row a seed
    and diversity, as `measure_transience` says. verdict: in words.
    """

    setting: str
    sizes: dict[str, int]
    fit: StrategyFit
    ablations: Ablations | None
    transitions: Transitions
    transience: pd.DataFrame
    losses: pd.DataFrame
    predictor_losses: pd.DataFrame
    verdict: str
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """One row a seed, step and diversity: relative distances, observed and predicted, and losses."""
        return self.fit.to_frame().merge(self.losses, on=["seed", "step", "diversity"])

    def plot(self, ax: Any = None) -> Any:
        """The phase diagram beside the model's; returns matplotlib Axes."""
        return self.fit.plot(ax)


def measure_strategies(
    run: str | Path | GridReadings,
    *,
    held_out: float = 0.2,
    n_boot: int = 200,
    seed: int = 0,
    progress: bool = True,
    **reading: Any,
) -> StrategyAccount:
    """Fit the model of training to a run, and judge it on checkpoints and diversities that it was not fitted to.

    run: a folder that `train_grid` filled, or its readings. held_out: the share of the last checkpoints, and of the
    largest diversities, that the fit never sees. n_boot: refits on redrawn seeds and sequences, for intervals. reading:
    options of `read_run`.

    Errors as of `read_run` and `fit_strategies`.
    """
    found = run if isinstance(run, GridReadings) else read_run(run, progress=progress, **reading)
    fit, ablations = fit_readings(found, held_out=held_out, n_boot=n_boot, seed=seed, ablate=True)
    transitions = transition_times(fit)
    transience = measure_transience(fit, found)
    return StrategyAccount(
        found.setting,
        found.sizes,
        fit,
        ablations,
        transitions,
        transience,
        found.to_frame(),
        found.predictor_losses,
        account_verdict(found.setting, fit, transitions, transience),
        found.provenance,
    )


def fit_readings(
    found: GridReadings, *, held_out: float = 0.2, n_boot: int = 200, seed: int = 0, ablate: bool = False
) -> tuple[StrategyFit, Ablations | None]:
    """The fit of a run's readings, and what each of its parts is worth, if asked."""
    arrays = (
        found.predictions, found.memorising, found.generalising,
        (found.strategy_losses("memorising"), found.strategy_losses("generalising")),
        (found.bits_memorising, found.bits_generalising),
    )  # fmt: skip
    shared: dict[str, Any] = {
        "steps": found.steps, "diversities": found.diversities, "clusters": found.clusters,
        "distance": found.distance, "held_out": held_out, "seed": seed,
    }  # fmt: skip
    return fit_strategies(*arrays, **shared, n_boot=n_boot), fit_ablations(*arrays, **shared) if ablate else None
