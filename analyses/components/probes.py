"""When does a model come to hold what each strategy works with? Ridge probes of its states over training.

From the states at a place (what attention or the MLP adds, the residual stream), all positions together, a ridge reads
each target of `mechicl.analyses.components.targets`:

    r2 = 1 - sum (y - ridge)^2 / sum (y - mean of the training rows)^2      1: all can be read; 0 or below: nothing

over sequences that it was not fitted on. States of one sequence are much alike, so what counts is how many sequences
there are: give several times as many as a state has dimensions. Both strategies say much the same, so what one works
with can be read from a model of the other: `unique_r2` is what the states add to the other strategy's own quantities
(`beside`), as a ridge of both less one of these alone. Beside both stand controls: the same with the states of other
sequences at the same positions. What can be read need not be used; transplants and patches tell that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.analyses.components.hooked_runs import HookedRun
from mechicl.analyses.components.targets import ProbeTarget, probe_targets, read_positions
from mechicl.analyses.demonstrations.gram_ridge import BlockGrams
from mechicl.held_out_r2 import Shares, explained_shares
from mechicl.provenance import Provenance
from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result

PLACES = {"attn_out": "attention output", "resid_mid": "stream after attention", "mlp_out": "MLP output",
          "resid_post": "stream after block"}  # fmt: skip
HALF = 0.5


@dataclass(frozen=True)
class StrategyProbes(Result):
    """What can be read, over training.

    frame: one row a step, place, layer, strategy and target: r2, low, high, control; unique_r2, unique_low,
        unique_high, unique_control.
    rises: one row a place, layer, strategy and target: the first step at which unique_r2 is half way from what it was
        at the first checkpoint (`first`; states hold much of their context untrained) to its largest, with step_low and
        step_high, at which the upper and the lower limit are; the largest and the step of it. NaN where the lower limit
        of the largest is not above the upper one of the first.
    """

    point: str
    n_sequences: int
    level: float
    frame: pd.DataFrame
    rises: pd.DataFrame
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The probes."""
        return self.frame.copy()

    def plot(self, ax: Any = None, place: str = "stream after block", measure: str = "unique_r2") -> Any:
        """What can be read from a place, over steps; returns matplotlib Axes."""
        from mechicl.views.strategy_components import plot_strategy_probes

        return plot_strategy_probes(self, place=place, measure=measure, ax=ax)


def probe_strategies(
    opened: Iterable[tuple[int, HookedRun]],
    *,
    penalty: float = 10.0,
    n_positions: int | None = 12,
    n_folds: int = 5,
    n_controls: int = 2,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> StrategyProbes:
    """Probe a run's checkpoints, each with its step, all over the same sequences.

    opened may open them one after another, so that one is in memory at a time. n_positions: how many of a sequence's
    positions serve, evenly from the first to the last; None: all. penalty: of the ridge, on states and
    other columns scaled to mean squares of 1. n_controls: how often sequences are put in another order.

        probe_strategies((step, HookedRun.of(open_checkpoint(folder, step), held)) for step in steps).plot()

    Raises `ValueError` for no checkpoints, other sequences, fewer than 2 folds or too few sequences for them.
    """
    check_level(level)
    if n_folds < 2 or min(n_controls, n_positions or 1) < 1 or not penalty > 0 or n_boot < MIN_BOOT:
        raise ValueError(
            f"got n_folds={n_folds}, n_controls={n_controls}, penalty={penalty}, n_positions={n_positions}, "
            f"n_boot={n_boot}; expected at least 2, 1, above 0, 1, and {MIN_BOOT}"
        )
    frames, held, facts = [], None, {}
    for step, run in opened:
        if held is None:
            held = run.held
            if len(held) < 2 * n_folds:
                raise ValueError(f"got {len(held)} sequences for {n_folds} folds; expected two a fold or more")
            rng = np.random.default_rng(seed)
            orders = [np.arange(len(held)), *(rng.permutation(len(held)) for _ in range(n_controls))]
            fold = rng.permutation(len(held)) % n_folds
            at = _positions(held.truth.shape[1], n_positions)
            targets = [target.at(at) for target in probe_targets(held)]
        if run.held is not held:
            raise ValueError("got checkpoints over other sequences; open all with the same HeldOut")
        facts = run.facts()
        table = _probe(run, targets, at, orders, fold, penalty, (n_boot, level, seed))
        frames.append(table.assign(step=step))
    if held is None:
        raise ValueError("got no checkpoints; expected one or more")
    frame = pd.concat(frames, ignore_index=True)
    return StrategyProbes(
        point=held.point.name,
        n_sequences=len(held),
        level=level,
        frame=frame[["step", *frame.columns.drop("step")]],
        rises=_rises(frame),
        provenance=Provenance.of(
            facts,
            seeds={"folds, controls and bootstrap": seed},
            options={"n_sequences": len(held), "penalty": penalty, "n_positions": n_positions, "n_folds": n_folds,
                     "n_controls": n_controls, "n_boot": n_boot},
        ),
    )  # fmt: skip


def ridge_errors(
    x: Float[np.ndarray, "batch pos head dim"],
    y: Float[np.ndarray, "batch pos weight"],
    fold: Int[np.ndarray, " batch"],
    penalty: float,
) -> tuple[Float[np.ndarray, "batch head weight"], Float[np.ndarray, "batch weight"]]:
    """Squared errors of held-out sequences, summed over positions, and squares around the training rows' mean.

    Columns of x are scaled to mean squares of 1; heads are fitted apart.
    """
    scale = np.sqrt((x**2).mean((0, 1)))
    x = x / np.where(scale > 0, scale, 1.0)
    n_folds, heads, dim = int(fold.max()) + 1, *x.shape[2:]
    grams = BlockGrams(1, n_folds, heads, dim, y.shape[-1])
    for number in range(n_folds):
        own = fold == number
        grams.add(0, number, x[own].reshape(-1, heads, dim), y[own].reshape(-1, y.shape[-1]))
    fitted = grams.fit(~np.eye(n_folds, dtype=bool), penalty)
    errors, around = np.empty((len(x), heads, y.shape[-1])), np.empty((len(x), y.shape[-1]))
    for number in range(n_folds):
        own = fold == number
        around[own] = ((y[own] - fitted.mean[0, number]) ** 2).sum(1)
        for head in range(heads):
            said = x[own, :, head] @ fitted.weights[0, number, head] + fitted.intercept[0, number, head]
            errors[own, head] = ((said - y[own]) ** 2).sum(1)
    return errors, around


def _positions(n: int, wanted: int | None) -> Int[np.ndarray, " _"]:
    return np.unique(np.rint(np.linspace(0, n - 1, n if wanted is None else min(wanted, n))).astype(int))


def _probe(
    run: HookedRun,
    targets: Sequence[ProbeTarget],
    positions: Int[np.ndarray, " _"],
    orders: Sequence[np.ndarray],
    fold: np.ndarray,
    penalty: float,
    drawing: tuple[int, float, int],
) -> pd.DataFrame:
    """One checkpoint's rows."""
    places = [(name, layer) for layer in range(run.wrapped.n_layers) for name in PLACES]
    taken = run.capture(places)
    states = np.stack([read_positions(run.held, taken[place])[:, positions] for place in places], 2)
    shuffled = np.concatenate([states[order] for order in orders], 2)  # [batch, pos, order and place, d_model]
    rows = []
    for target in targets:
        beside = np.broadcast_to(target.beside[:, :, None], (*shuffled.shape[:3], target.beside.shape[-1]))
        alone, around = _summed(ridge_errors(shuffled, target.values, fold, penalty))
        joint, _ = _summed(ridge_errors(np.concatenate([shuffled, beside], -1), target.values, fold, penalty))
        without, _ = _summed(ridge_errors(beside[:, :, :1], target.values, fold, penalty))
        whole = np.broadcast_to(around, alone.shape).copy()
        r2 = _shares(alone, whole, whole, drawing)
        unique = _shares(joint, np.broadcast_to(without, joint.shape).copy(), whole, drawing)
        for at, (name, layer) in enumerate(places):
            own = slice(at + len(places), None, len(places))  # this place, sequences in other orders
            rows.append(
                {
                    "place": PLACES[name], "layer": layer, "strategy": target.strategy, "target": target.name,
                    "r2": r2.estimate[at], "low": r2.low[at], "high": r2.high[at],
                    "control": r2.estimate[own].mean(), "unique_r2": unique.estimate[at],
                    "unique_low": unique.low[at], "unique_high": unique.high[at],
                    "unique_control": unique.estimate[own].mean(),
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _summed(
    both: tuple[np.ndarray, np.ndarray],
) -> tuple[Float[np.ndarray, "batch head"], Float[np.ndarray, "batch 1"]]:
    """Over the components of a target."""
    return both[0].sum(-1), both[1].sum(-1, keepdims=True)


def _shares(errors: np.ndarray, reference: np.ndarray, around: np.ndarray, drawing: tuple[int, float, int]) -> Shares:
    n_boot, level, seed = drawing
    each = np.arange(len(errors))
    return explained_shares(errors, reference, around, each, n_boot=n_boot, level=level, seed=seed)


def _rises(frame: pd.DataFrame) -> pd.DataFrame:
    """When each target's unique_r2 first is half way to its largest."""
    rows = []
    for keys, its in frame.groupby(["place", "layer", "strategy", "target"], sort=False):
        own = its.sort_values("step", ignore_index=True)
        first, top = own.iloc[0], own.iloc[int(own["unique_r2"].argmax())]
        steps = dict.fromkeys(("step", "step_low", "step_high"), np.nan)
        if top["unique_low"] > first["unique_high"]:
            half_way = first["unique_r2"] + HALF * (top["unique_r2"] - first["unique_r2"])
            for name, column in (("step", "unique_r2"), ("step_low", "unique_high"), ("step_high", "unique_low")):
                reached = own.loc[own[column] >= half_way, "step"]
                steps[name] = float(reached.iloc[0]) if len(reached) else np.nan
        rows.append(
            dict(zip(("place", "layer", "strategy", "target"), keys, strict=True))
            | steps
            | {"first": float(first["unique_r2"]), "largest": float(top["unique_r2"]), "at": int(top["step"])}
        )
    return pd.DataFrame(rows)
