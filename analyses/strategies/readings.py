"""What a run of trained models says, beside both strategies, on sequences that training never drew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from tqdm.auto import tqdm

from mechicl.analyses.strategies.descriptions import constant_bits, task_bits
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.predictions import each_checkpoint, held_out
from mechicl.organisms.grid.store import read_grid
from mechicl.predictors.bayes import StrategyPredictions, predict_strategies, prediction_losses
from mechicl.provenance import Provenance
from mechicl.results import Result

SIZES = ("dim", "context", "d_mlp", "n_layers")
CHOICE, JUDGING, LOSSES = 0, 1, 2  # parts of the held-out sequences
BLOCKS = 10  # whose median is taken of mean losses


@dataclass(frozen=True)
class GridReadings(Result):
    """Predictions of every checkpoint of a grid of models, and of both strategies, for the same sequences.

    steps, diversities, seeds: the axes. An item is a position of a sequence; clusters: the number of its sequence;
    positions: where in it (0: from no context). Predictions are probabilities, or one mean (regression).
    truth: the outcome, or the label. evidence: of the context before each item for memorising, the sum of log M / G of
    the tokens so far, nats; None where no tokens are predicted along the way (classification, regression).
    loss: of the transformer, on sequences of its training tasks; fresh_loss: on tasks drawn anew; nats or squared
    errors. predictor_losses: one row a seed and diversity: those of both strategies, on `n_losses` sequences of the
    training tasks (median of ten means) and on fresh ones; that of the constant on the training tasks. bits_...: their
    description lengths (`mechicl.strategies.complexity`).
    """

    setting: str
    sizes: dict[str, int]
    steps: Float[np.ndarray, " step"]
    diversities: Float[np.ndarray, " diversity"]
    seeds: Int[np.ndarray, " seed"]
    predictions: Float[np.ndarray, "seed step diversity item label"]
    memorising: Float[np.ndarray, "seed diversity item label"]
    generalising: Float[np.ndarray, "seed diversity item label"]
    constant: Float[np.ndarray, "seed diversity item label"] | None
    truth: Float[np.ndarray, "seed diversity item"]
    evidence: Float[np.ndarray, "seed diversity item"] | None
    clusters: Int[np.ndarray, " item"]
    positions: Int[np.ndarray, " item"]
    loss: Float[np.ndarray, "seed step diversity"]
    fresh_loss: Float[np.ndarray, "seed step diversity"]
    predictor_losses: pd.DataFrame
    bits_memorising: Float[np.ndarray, "seed diversity"]
    bits_generalising: Float[np.ndarray, "seed diversity"]
    bits_constant: Float[np.ndarray, "seed diversity"] | None
    provenance: Provenance

    @property
    def distance(self) -> str:
        """The distance between predictions that suits the setting: "kl", or "mse" for regression."""
        return "mse" if self.predictions.shape[-1] == 1 else "kl"

    def strategy_losses(self, strategy: str) -> Float[np.ndarray, "seed diversity"]:
        """The loss of "memorising", "generalising" or "constant" on the training tasks."""
        return self.predictor_losses[strategy].to_numpy().reshape(len(self.seeds), -1)  # seeds first, as points are

    def to_frame(self) -> pd.DataFrame:
        """One row a seed, step and diversity: the transformer's losses, on the training tasks and on fresh ones."""
        index = pd.MultiIndex.from_product(
            [self.seeds, self.steps, self.diversities], names=["seed", "step", "diversity"]
        )
        own = {"loss": self.loss.ravel(), "fresh_loss": self.fresh_loss.ravel()}
        return pd.DataFrame(own, index=index).reset_index()


def read_run(
    folder: str | Path,
    *,
    n_sequences: int = 128,
    n_positions: int = 16,
    n_losses: int = 10_000,
    part: int = JUDGING,
    device: str = "cpu",
    progress: bool = True,
    **sizes: int,
) -> GridReadings:
    """Run every checkpoint of a folder that `train_grid` filled over held-out sequences of its own tasks.

    n_sequences: of each model. n_positions: read of each sequence, evenly spread. sizes: which models, where the run
    has several, such as context=64 or d_mlp=32.

    Raises ValueError, before any model runs, for a folder without a grid, and where the chosen models do not cross all
    seeds with all diversities; BrokenCheckpoint for what is missing or torn.
    """
    if min(n_sequences, n_positions, n_losses) < 1:
        raise ValueError(f"got n_sequences={n_sequences}, n_positions={n_positions}, n_losses={n_losses}; expected 1+")
    points = crossed_points(read_grid(folder), sizes)
    seeds, diversities = sorted({p.seed for p in points}), sorted({p.diversity for p in points})
    found: dict[str, list[Any]] = {}
    with tqdm(total=len(points), desc="models read", disable=not progress) as bar:
        for point in points:
            for name, value in _read(folder, point, n_sequences, n_positions, n_losses, part, device).items():
                found.setdefault(name, []).append(value)
            bar.update()
    items = [item_index(found["n_positions"][0], n_positions, n_sequences)]

    def grid(name: str, axes: int = 0) -> Any:
        if found[name][0] is None:
            return None
        stacked = np.stack(found[name])
        crossed = stacked.reshape(len(seeds), len(diversities), *stacked.shape[1:])
        return np.ascontiguousarray(np.moveaxis(crossed, 1, 1 + axes))

    (clusters, positions), first = items[0], points[0]
    return GridReadings(
        first.setting,
        {name: getattr(first, name) for name in SIZES},
        np.array(first.schedule, dtype=np.float64),
        np.array(diversities, dtype=np.float64),
        np.array(seeds),
        grid("predictions", 1),
        grid("memorising"),
        grid("generalising"),
        grid("constant"),
        grid("truth"),
        grid("evidence"),
        clusters,
        positions,
        grid("loss", 1),
        grid("fresh_loss", 1),
        pd.DataFrame(found["losses"]),
        grid("bits_memorising"),
        grid("bits_generalising"),
        grid("bits_constant"),
        Provenance.of(
            {"model": f"{len(points)} transformers, {first.setting}", "device": device, "dtype": "float32"},
            options={"n_sequences": n_sequences, "n_positions": n_positions, "n_losses": n_losses, "part": part,
                     "training": first.kin},
        ),
    )  # fmt: skip


def crossed_points(points: Sequence[GridPoint], sizes: dict[str, int]) -> list[GridPoint]:
    """Points of the chosen sizes, seeds first, then diversities; a ValueError where they are no full crossing."""
    if unknown := sorted(sizes.keys() - set(SIZES)):
        raise ValueError(f"got sizes {unknown}; expected some of {', '.join(SIZES)}")
    chosen = [point for point in points if all(getattr(point, name) == value for name, value in sizes.items())]
    kins = {point.kin for point in chosen}
    if len(kins) != 1:
        known = {name: sorted({getattr(point, name) for point in points}) for name in SIZES}
        many = "no model of these sizes" if not kins else f"{len(kins)} kinds of models"
        raise ValueError(f"got {many}; choose one by {known}")
    chosen.sort(key=lambda point: (point.seed, point.diversity))
    seeds, diversities = {p.seed for p in chosen}, {p.diversity for p in chosen}
    if len(chosen) != len(seeds) * len(diversities):
        raise ValueError(
            f"got {len(chosen)} models of {len(seeds)} seeds and {len(diversities)} diversities; expected every pair"
        )
    return chosen


def item_index(
    n_all: int, n_positions: int, n_sequences: int
) -> tuple[Int[np.ndarray, " item"], Int[np.ndarray, " item"]]:
    """The sequence and the position of every item: positions evenly spread over the n that predict, the first too."""
    positions = np.unique(np.rint(np.linspace(0, n_all - 1, min(n_positions, n_all))).astype(int))
    return np.repeat(np.arange(n_sequences), len(positions)), np.tile(positions, n_sequences)


def _read(
    folder: str | Path, point: GridPoint, n: int, n_positions: int, n_losses: int, part: int, device: str
) -> dict[str, Any]:
    """All that is kept of one model."""
    batch, fresh = (held_out(point, n, part=part, fresh=anew) for anew in (False, True))
    both = [predict_strategies(point.task, one) for one in (batch, fresh)]
    n_all = both[0].truth.shape[1]
    clusters, positions = item_index(n_all, n_positions, n)
    kept, losses, fresh_losses = [], [], []
    for _, predictions in each_checkpoint(folder, point, batch, device=device):
        kept.append(predictions[clusters, positions])
        losses.append(prediction_losses(predictions, both[0].truth).mean())
    for _, predictions in each_checkpoint(folder, point, fresh, device=device):
        fresh_losses.append(prediction_losses(predictions, both[1].truth).mean())
    own = both[0]
    constant = None if own.constant is None else own.constant[clusters, positions]
    bits = task_bits(point.task)
    return {
        "predictions": np.stack(kept),
        "memorising": own.memorising[clusters, positions],
        "generalising": own.generalising[clusters, positions],
        "constant": constant,
        "truth": own.truth[clusters, positions].astype(np.float64),
        "evidence": None if own.constant is None else _evidence(own)[clusters, positions],
        "n_positions": n_all,
        "loss": np.array(losses),
        "fresh_loss": np.array(fresh_losses),
        "losses": {"seed": point.seed, "diversity": float(point.diversity)}
        | _predictor_losses(point, n_losses, both[1]),
        "bits_memorising": np.array(bits[0]),
        "bits_generalising": np.array(bits[1]),
        "bits_constant": None if own.constant is None else np.array(constant_bits(point.task)),
    }


def _predictor_losses(point: GridPoint, n: int, fresh: StrategyPredictions) -> dict[str, float]:
    """Losses of both strategies: on many sequences of the training tasks, and on fresh ones."""
    many = predict_strategies(point.task, held_out(point, n, part=LOSSES))
    found: dict[str, float] = {}
    for name in ("memorising", "generalising", "constant"):
        if getattr(many, name) is None:
            continue
        each = prediction_losses(getattr(many, name), many.truth).mean(1)
        found[name] = median_of_means(each)
        if name != "constant":  # which knows the pool's mean, and nothing of fresh tasks
            found[f"fresh_{name}"] = float(prediction_losses(getattr(fresh, name), fresh.truth).mean())
    return found


def _evidence(own: StrategyPredictions) -> Float[np.ndarray, "batch pos"]:
    """The sum of log M / G over the positions before each."""
    each = prediction_losses(own.generalising, own.truth) - prediction_losses(own.memorising, own.truth)
    return np.asarray(each.cumsum(1) - each)


def median_of_means(values: Float[np.ndarray, " _"], blocks: int = BLOCKS) -> float:
    """The median of the means of equal parts: a mean that a few far values do not move."""
    return float(np.median([part.mean() for part in np.array_split(values, min(blocks, len(values)))]))
