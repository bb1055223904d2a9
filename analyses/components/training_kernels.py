"""The generalising kernel in the attention of classification models, over training and task diversity.

The generalising predictor of classification is a Gaussian kernel regression of known bandwidth over the context. How
much of a head's log attention that kernel explains, beyond place, label and what a pair draws from any query
(`unique_r2` of `mechicl.analyses.kernels.classifier_attention`), is measured at every checkpoint, beside d_rel: does
the kernel rise as the model generalises, and fall as it comes to memorise? All is measured on several sets of contexts;
intervals are Student's t over these. Beside unique_r2 stands `control`: the same with the attention that the model pays
in other contexts.

    log a_i = beta log k_i + nuisances + c        unique_r2: what the kernel adds to held-out R^2; 0 by chance

Caveats:
- Attention that follows the kernel need not be what the answer rests on; and what follows it together with salience or
  place is not counted.
- Diversity and seed are the sample of `across`: a handful of models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata, t
from tqdm.auto import tqdm

from mechicl.analyses.components.held_out import HeldOut
from mechicl.analyses.kernels.classifier_attention import classifier_kernels
from mechicl.organisms.grid.opened import checkpoint_steps, open_checkpoint
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.store import read_grid
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result

FIRST = 10_000_000  # contexts of steps that no training reaches
BROKEN = 1.0  # a residual above which d_rel means nothing
NEARLY = 1 - 1e-9  # of a correlation, whose transform is finite
MEASURES = ("d_rel", "residual", "r2", "unique_r2", "control", "bandwidth")


@dataclass(frozen=True)
class KernelsInTraining(Result):
    """The ideal kernel over training.

    frame: one row a diversity, seed, step and head: d_rel, residual, r2, unique_r2, control, bandwidth (NaN where
        attention does not fall with distance; `known` is the generalising predictor's), each with _low and _high.
    together: one row a diversity, seed and head: the rank correlation of unique_r2 and 1 - d_rel over checkpoints
        whose residual is at most 1 (rho, low, high; NaN for fewer than 3), the step at which each is largest
        (kernel_peak, generalising_peak), and unique_r2 at its largest and at the last.
    across: the same correlation over models, at their last checkpoints, of head 0: rho, low, high, n_models.
    """

    n_contexts: int
    n_sets: int
    level: float
    frame: pd.DataFrame
    together: pd.DataFrame
    across: dict[str, float]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The kernel and d_rel at each checkpoint."""
        return self.frame.copy()

    def plot(self, ax: Any = None, measure: str = "unique_r2") -> Any:
        """A measure over steps, a line a diversity; returns matplotlib Axes."""
        from mechicl.views.strategy_components import plot_kernels_in_training

        return plot_kernels_in_training(self, measure=measure, ax=ax)


def kernels_in_training(
    opened: Iterable[tuple[GridPoint, int, Any]],
    *,
    n_contexts: int = 200,
    n_sets: int = 4,
    level: float = 0.95,
    seed: int = 0,
) -> KernelsInTraining:
    """Fit the ideal kernel to the attention of models, each with its point and step, and measure their d_rel.

    A model has `query_attention(x, y, query)` and `probabilities(x, y, query)`. n_contexts: of each of n_sets sets.

        kernels_in_training(classifiers_of("runs/classification")).plot()

    Raises `ValueError` for models of another setting, fewer than 2 sets, no models.
    """
    check_level(level)
    if n_sets < 2:
        raise ValueError(f"got n_sets={n_sets}; expected at least 2, for intervals")
    rows, sets, known = [], {}, ""
    for point, step, model in opened:
        if point.setting != "classification":
            raise ValueError(f"got a model of {point.setting}; the kernel is known for classification alone")
        if point.name != known:
            batches = [point.task.sample(n_contexts, step=FIRST + number) for number in range(n_sets)]
            sets, known = {FIRST + n: HeldOut.over(point, batch) for n, batch in enumerate(batches)}, point.name
        rows += [
            {"diversity": point.diversity, "seed": point.seed, "step": step, "set": number, **row}
            for number, held in sets.items()
            for row in _measured(model, held, number, seed)
        ]
    if not rows:
        raise ValueError("got no models; expected checkpoints of classification")
    each = pd.DataFrame(rows)
    keys = ["diversity", "seed", "step", "head"]
    table = [
        dict(zip(keys, key, strict=True)) | _with_ends(own, MEASURES, level) | {"known": float(own["known"].iloc[0])}
        for key, own in each.groupby(keys, sort=False)
    ]
    return KernelsInTraining(
        n_contexts=n_contexts,
        n_sets=n_sets,
        level=level,
        frame=pd.DataFrame(table),
        together=_together(each, level),
        across=_across(each[each["head"] == 0], level),
        provenance=Provenance.of(
            {"model": "checkpoints of classification"},
            seeds={"folds": seed, "contexts": FIRST},
            options={"n_contexts": n_contexts, "n_sets": n_sets},
        ),
    )


def classifiers_of(
    folder: str | Path,
    *,
    diversities: Sequence[int] | None = None,
    n_checkpoints: int = 12,
    progress: bool = False,
) -> Iterator[tuple[GridPoint, int, Any]]:
    """The checkpoints of a run of classification, opened one by one: so many of each model, over its schedule."""
    folder = Path(folder)
    points = [point for point in read_grid(folder) if diversities is None or point.diversity in diversities]
    points = [point for point in points if checkpoint_steps(folder / point.name)]  # others wait for their training
    if not points:
        raise ValueError(f"got diversities={diversities}; the run {folder} has no checkpoints of them")
    plan = [(point, step) for point in points for step in spread_steps(folder / point.name, n_checkpoints)]
    for point, step in tqdm(plan, desc="kernels", unit="model", disable=not progress):
        yield point, step, open_checkpoint(folder / point.name, step)


def spread_steps(folder: str | Path, n: int) -> list[int]:
    """So many of a point's steps, evenly over those that were kept, the first and the last among them."""
    steps = checkpoint_steps(Path(folder))
    if not steps or n < 2:
        raise ValueError(f"got {len(steps)} checkpoints in {folder} and n={n}; expected at least 1 and 2")
    return [steps[at] for at in sorted({round(place) for place in np.linspace(0, len(steps) - 1, n)})]


def _measured(model: Any, held: HeldOut, step: int, seed: int) -> list[dict[str, Any]]:
    """One row a head, on one set of contexts."""
    batch = held.batch
    found = held.distances([model.probabilities(batch.x, batch.y, batch.query)[:, None]])
    own, other = (
        classifier_kernels(
            one, held.point.task, n_contexts=len(held), n_permutations=0, step=step, seed=seed
        ).frame.query("kernel == 'ideal'")
        for one in (model, _Others(model))
    )
    return [
        {"head": int(row["head"]), "d_rel": float(found.d_rel()[0, 0]), "residual": float(found.residual()[0, 0]),
         "r2": row["r2"], "unique_r2": row["unique_r2"], "control": control, "bandwidth": row["bandwidth"],
         "known": row["known"]}
        for (_, row), control in zip(own.iterrows(), other["unique_r2"], strict=True)
    ]  # fmt: skip


@dataclass(frozen=True)
class _Others:
    """A model that pays the attention of another context."""

    model: Any

    def query_attention(self, *context: np.ndarray) -> np.ndarray:
        return np.roll(self.model.query_attention(*context), 1, axis=0)


def _with_ends(own: pd.DataFrame, columns: Sequence[str], level: float) -> dict[str, float]:
    """Means over sets of contexts, with t intervals."""
    found: dict[str, float] = {}
    for name in columns:
        found[name], low, high = t_interval(own[name].to_numpy(float), level)
        found |= {f"{name}_low": max(low, 0.0) if name == "d_rel" else low}
        found |= {f"{name}_high": min(high, 1.0) if name == "d_rel" else high}
    return found


def t_interval(values: Float[np.ndarray, " _"], level: float) -> tuple[float, float, float]:
    """The mean with its Student interval; NaN where a value is."""
    mean, spread = values.mean(), values.std(ddof=1) / np.sqrt(len(values))
    margin = t.ppf((1 + level) / 2, len(values) - 1) * spread
    return float(mean), float(mean - margin), float(mean + margin)


def _together(each: pd.DataFrame, level: float) -> pd.DataFrame:
    """One row a model, over the checkpoints that are near a strategy."""
    rows = []
    for (diversity, seed, head), own in each.groupby(["diversity", "seed", "head"], sort=False):
        wide = own.pivot_table(index="step", columns="set", values=["unique_r2", "d_rel", "residual"])
        wide = wide[wide["residual"].to_numpy(float).mean(1) <= BROKEN]
        if wide.empty:
            continue
        steps = wide.index.to_numpy()
        kernel, general = wide["unique_r2"].to_numpy(float), 1 - wide["d_rel"].to_numpy(float)  # [step, set]
        rho, low, high = _correlations(kernel, general, level)
        mean = kernel.mean(1)
        rows.append(
            {"diversity": diversity, "seed": seed, "head": head, "n_checkpoints": len(wide), "rho": rho, "low": low,
             "high": high, "kernel_peak": int(steps[mean.argmax()]),
             "generalising_peak": int(steps[general.mean(1).argmax()]), "unique_r2_peak": float(mean.max()),
             "unique_r2_last": float(mean[-1])}
        )  # fmt: skip
    return pd.DataFrame(rows)


def _across(each: pd.DataFrame, level: float) -> dict[str, float]:
    """The rank correlation over models at their last checkpoints."""
    last = each[each["step"] == each.groupby(["diversity", "seed"])["step"].transform("max")]
    wide = last.pivot_table(index=["diversity", "seed"], columns="set", values=["unique_r2", "d_rel"])
    rho, low, high = _correlations(wide["unique_r2"].to_numpy(float), 1 - wide["d_rel"].to_numpy(float), level)
    return {"rho": rho, "low": low, "high": high, "n_models": float(len(wide))}


def _correlations(
    a: Float[np.ndarray, "step set"], b: Float[np.ndarray, "step set"], level: float
) -> tuple[float, float, float]:
    """The mean of the rank correlations of each set, with Student's interval of its Fisher transform."""
    each = np.array([_rank_correlation(*both) for both in zip(a.T, b.T, strict=True)])
    mean, low, high = np.tanh(t_interval(np.arctanh(each.clip(-NEARLY, NEARLY)), level))
    return float(mean), float(low), float(high)


def _rank_correlation(a: Float[np.ndarray, " _"], b: Float[np.ndarray, " _"]) -> float:
    """Spearman's; NaN for fewer than 3, and where one does not vary or is undefined."""
    if len(a) < 3 or not (np.isfinite(a).all() and np.isfinite(b).all()) or min(np.ptp(a), np.ptp(b)) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
