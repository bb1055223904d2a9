"""The Bayesian account of a run of trained models: do odds of two strategies predict what training makes of them?

A transformer trained for N steps on D tasks is predicted to say w M + (1 - w) G, a mixture of the memorising predictor
M, which knows the D tasks, and the generalising one G, which knows their family, with w = P(M) and

    log P(M) / P(G) = gamma N^(1 - alpha) (L_G - L_M) - ln 2 (K_M^beta - K_G^beta)

L: losses of M and G on the tasks; K: bits of their descriptions; alpha, beta, gamma: three numbers, fitted. Observed is

    d_rel = (clip[(d(h, G) - d(h, M)) / d(M, G), -1, 1] + 1) / 2        h: predictions; 1: those of M, 0: those of G

What is measured:

    readings       what every checkpoint predicts, beside both strategies (`read_run`)
    fit            three numbers from which the model of training predicts all of it (`fit_strategies`)
    ablations      what each of the three is worth; and whether a third strategy (a constant), or odds that see the
                   context, would predict better
    transitions    when models turn from generalising to memorising, N*(D), observed and predicted
    transience     where models generalise first, and memorise later

Source: 2506.17859.

Caveats:
- It describes what transformers predict. That something in them weighs strategies takes interventions: see
  `mechicl.analyses.components.account`.
- Two strategies were given. Where transformers are near neither (residual), d_rel means nothing; an untrained one may
  look like memorising.
- d_rel is near 0 or 1 in most cells, so any border in about the right place correlates. The loss, beside one weight for
  all cells and the best weights, is stricter.
- Description lengths depend on the code. beta takes up much of that, and is not to be compared between codes.
- With three seeds intervals are too narrow; with one they know nothing of other runs of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.strategies.readings import GridReadings, read_run
from mechicl.analyses.strategies.transience import measure_transience
from mechicl.analyses.strategies.words import account_verdict
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.strategies.ablations import StrategyAblations, ablate_strategies
from mechicl.strategies.context_odds import ContextOdds, compare_context_odds
from mechicl.strategies.data import StrategyData, strategy_data
from mechicl.strategies.fit import StrategyFit, fit_data
from mechicl.strategies.three_way import ThreeWayFit, fit_three_strategies
from mechicl.strategies.transitions import Transitions, transition_times


@dataclass(frozen=True)
class StrategyAccount(Result):
    """All measurements of the Bayesian account on one setting.

    sizes: dim, context, d_mlp, n_layers of all models. three, context: with a constant as a third strategy, and with
    odds that change within a sequence; None where the setting has no such thing. losses: one row a seed, step and
    diversity: the transformer's loss on its training tasks and on fresh ones (nats, or squared errors).
    predictor_losses: one row a seed and diversity: the strategies' losses on the training tasks and (fresh_...) on
    fresh ones. transience: one row a seed and diversity, as `measure_transience` says. verdict: in words.
    """

    setting: str
    sizes: dict[str, int]
    fit: StrategyFit
    ablations: StrategyAblations
    three: ThreeWayFit | None
    context: ContextOdds | None
    transitions: Transitions
    transience: pd.DataFrame
    losses: pd.DataFrame
    predictor_losses: pd.DataFrame
    verdict: str
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """One row a seed, step and diversity: relative distances, observed and predicted, and losses."""
        found = self.fit.to_frame()  # where seeds are counted from 0
        return found.assign(seed=np.unique(self.losses["seed"])[found["seed"]]).merge(self.losses)

    def plot(self, ax: Any = None) -> Any:
        """The phase diagram beside the model's; returns matplotlib Axes."""
        return self.fit.plot(ax)


def measure_strategies(
    run: str | Path | GridReadings,
    *,
    held_out: float = 0.2,
    threshold: float | None = None,
    n_boot: int = 200,
    n_permutations: int = 100,
    seed: int = 0,
    progress: bool = True,
    **reading: Any,
) -> StrategyAccount:
    """Fit the model of training to a run, and judge it on checkpoints and diversities that it was not fitted to.

    run: a folder that `train_grid` filled, or its readings. held_out: the share of the last checkpoints, and of the
    largest diversities, that the fit never sees. threshold: of the two hypotheses, as `fit_strategies` takes it.
    n_boot: refits on redrawn seeds and sequences, for intervals. n_permutations: refits on shuffled cells, the control.
    reading: options of `read_run`.

    Errors as of `read_run` and `fit_strategies`.
    """
    found = run if isinstance(run, GridReadings) else read_run(run, progress=progress, **reading)
    options: dict[str, Any] = {"held_out": held_out, "threshold": threshold, "seed": seed}
    data = readings_data(found, **options)
    fit = fit_data(data, n_boot=n_boot, n_permutations=n_permutations, seed=seed)
    transitions = transition_times(fit)
    transience = measure_transience(fit, found)
    return StrategyAccount(
        found.setting,
        found.sizes,
        fit,
        ablate_strategies(data, seed=seed),
        _with_constant(found, options),
        _with_context(found, options),
        transitions,
        transience,
        found.to_frame(),
        found.predictor_losses,
        account_verdict(found.setting, fit, transitions, transience),
        found.provenance,
    )


def readings_data(found: GridReadings, **options: Any) -> StrategyData:
    """A run's readings as the fit takes them; options: of `strategy_data`, such as held_out and threshold."""
    arrays, shared = _arguments(found)
    return strategy_data(*arrays, **shared | options)


def _arguments(found: GridReadings) -> tuple[tuple[Any, ...], dict[str, Any]]:
    losses = (found.strategy_losses("memorising"), found.strategy_losses("generalising"))
    bits = (found.bits_memorising, found.bits_generalising)
    arrays = (found.predictions, found.memorising, found.generalising, losses, bits)
    names = ("steps", "diversities", "clusters", "distance")
    return arrays, {name: getattr(found, name) for name in names}


def _with_constant(found: GridReadings, options: dict[str, Any]) -> ThreeWayFit | None:
    """Two strategies and three, from the first checkpoint on: the constant's time comes before the threshold."""
    if found.constant is None or found.bits_constant is None:
        return None
    data = readings_data(found, **options | {"threshold": 1.0})
    losses = (found.strategy_losses("constant"), found.strategy_losses("generalising"))
    return fit_three_strategies(data, found.constant, losses, found.bits_constant, seed=options["seed"])


def _with_context(found: GridReadings, options: dict[str, Any]) -> ContextOdds | None:
    if found.evidence is None:
        return None
    arrays, shared = _arguments(found)
    return compare_context_odds(*arrays, **shared | options, evidence=found.evidence)
