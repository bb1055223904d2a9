"""Inside one trained model: which parts carry memorising, and which generalising?

    curve         d_rel over training; two checkpoints, `before` (generalising) and `after` (memorising)
    transplants   weights of one put into the other (`transplant_weights`)
    patches       activations of one put into the other (`patch_checkpoints`)
    ablations     parts of each taken out (`ablate_components`)
    probes        what their states hold, over training (`probe_strategies`)

What is moved is d_rel, 0 where predictions h are those of the generalising predictor G, 1 where they are those of the
memorising one M: (clip[(d(h, G) - d(h, M)) / d(M, G), -1, 1] + 1) / 2, d half a symmetrised divergence or mean square.
Transplants and patches tell what changed between checkpoints, ablations what each works with; probes describe alone.

Caveats:
- A changed model may follow no strategy at all. Its d_rel is a number still; the residual says whether to read it.
- Parts of one checkpoint fit the other because training went on from there. As training drifts, parts that do the same
  fit less: shares tell what can be moved alone.
- It is one model of one seed. Another may divide the work among its parts in another way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from mechicl.analyses.components.ablations import ComponentStrategies, ablate_components
from mechicl.analyses.components.held_out import PART, HeldOut, ends, resamples
from mechicl.analyses.components.hooked_runs import HookedRun
from mechicl.analyses.components.parts import in_another_basis
from mechicl.analyses.components.patching import CheckpointPatching, patch_checkpoints
from mechicl.analyses.components.probes import StrategyProbes, probe_strategies
from mechicl.analyses.components.training_kernels import spread_steps
from mechicl.analyses.components.transplants import BASIS, UNRELATED, WeightTransplants, transplant_weights
from mechicl.analyses.components.words import components_verdict
from mechicl.organisms.grid.opened import checkpoint_steps, open_checkpoint
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.store import GRID, read_checkpoint, read_grid, read_point
from mechicl.provenance import Provenance
from mechicl.results import Result

PARTS = ("transplants", "patches", "ablations", "probes")
FAR = 0.5  # a residual above which a checkpoint follows neither strategy
LEAST = 0.1  # a change of d_rel below which there is little to explain
MANY, MANY_LONE = 200, 1_000  # sequences; where each has but one position that predicts
PROBED, PROBED_LONE = 500, 1_500  # of probes


@dataclass(frozen=True)
class StrategyComponents(Result):
    """What the parts of one model carry; a part that was not asked for is None.

    curve: one row a checkpoint: step, d_rel, low, high; to_generalising and to_memorising, the distances to both
        strategies as shares of that between them (the smaller is the residual); residual, loss.
    before, after: the checkpoints compared.
    ablations: of both, in this order. notes: what to beware of. verdict: in words.
    """

    point: str
    before: int
    after: int
    level: float
    curve: pd.DataFrame
    transplants: WeightTransplants | None
    patches: CheckpointPatching | None
    ablations: tuple[ComponentStrategies, ...]
    probes: StrategyProbes | None
    notes: tuple[str, ...]
    verdict: str
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The curve of d_rel."""
        return self.curve.copy()

    def plot(self, ax: Any = None) -> Any:
        """d_rel over training, with both checkpoints marked; returns matplotlib Axes."""
        from mechicl.views.strategy_components import plot_d_rel_curve

        return plot_d_rel_curve(self.curve, marked=(self.before, self.after), ax=ax)


def measure_strategy_components(
    folder: str | Path,
    *,
    before: int | None = None,
    after: int | None = None,
    parts: Sequence[str] = PARTS,
    unrelated: str | Path | None = None,
    n_sequences: int | None = None,
    n_checkpoints: int = 20,
    n_probed: int = 8,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = True,
) -> StrategyComponents:
    """Compare two checkpoints of one trained model, part by part.

    folder: the model's, RUN/<point>. before, after: steps; by default the checkpoint that is nearest to the
    generalising strategy, and the one nearest to the memorising one after it. unrelated: the folder of a model of
    another seed, whose last checkpoint serves as a control; by default one of the same run, where there is one.
    n_sequences: held out; by default 200, of classification, where each has one prediction, 1,000.
    n_checkpoints: on the curve; n_probed: of them for probes.

        measure_strategy_components("runs/urns/" + point.name).plot()

    Raises `ValueError`, before long work, for steps that were not kept, `before` not before `after`, unknown parts, and
    a folder without checkpoints; after the curve, where no step is left to choose.
    """
    if isinstance(parts, str) or any(part not in PARTS for part in parts):
        raise ValueError(f"got parts={parts!r}; expected some of {', '.join(PARTS)}")
    folder, point = Path(folder), read_point(folder)
    n_sequences = n_sequences or (MANY_LONE if point.setting == "classification" else MANY)
    held = HeldOut.of(point, n_sequences)
    chosen = _named_steps(folder, before, after)
    shared: dict[str, Any] = {"n_boot": n_boot, "level": level, "seed": seed}
    curve = d_rel_curve(folder, held, sorted({*spread_steps(folder, n_checkpoints), *chosen}), **shared)
    before, after = _ends(curve, before, after)
    alien = _unrelated(folder, point, unrelated)
    runs = {step: HookedRun.of(open_checkpoint(folder, step), held) for step in (before, after)}
    transplants = patches = probes = None
    shared |= {"progress": progress}
    if "transplants" in parts:
        weights = [read_checkpoint(folder, step) for step in (before, after)]
        transplants = transplant_weights(held, *weights, unrelated=alien, **shared)
    if "patches" in parts:
        controls = _controls(folder, after, held, alien, seed)
        patches = patch_checkpoints(runs[before], runs[after], controls=controls, **shared)
    ablations = [ablate_components(run, **shared) for run in runs.values() if "ablations" in parts]
    if "probes" in parts:
        probes = _probes(folder, point, curve, n_probed, n_boot=n_boot, level=level, seed=seed)
    return StrategyComponents(
        point=point.name,
        before=before,
        after=after,
        level=level,
        curve=curve,
        transplants=transplants,
        patches=patches,
        ablations=tuple(ablations),
        probes=probes,
        notes=_notes(curve, before, after, alien is not None),
        verdict=components_verdict(curve, before, after, transplants, patches, ablations, probes),
        provenance=Provenance.of(
            runs[after].facts(),
            seeds={"sequences": PART, "controls, halves and bootstrap": seed},
            options={"point": asdict(point), "before": before, "after": after, "n_sequences": n_sequences,
                     "n_boot": n_boot},
        ),
    )  # fmt: skip


def d_rel_curve(
    folder: str | Path, held: HeldOut, steps: Sequence[int], *, n_boot: int = 1_000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """One row a checkpoint of a point's folder: step, d_rel with its interval over sequences, residual, loss."""
    found = held.distances(held.predictions(read_checkpoint(folder, step)) for step in steps)
    low, high = ends(found.d_rel(resamples(len(held), n_boot, seed)), level)
    apart = found.between.mean()
    return pd.DataFrame(
        {"step": [*steps], "d_rel": found.d_rel()[:, 0], "low": low, "high": high,
         "to_generalising": found.to_generalising.mean(1) / apart, "to_memorising": found.to_memorising.mean(1) / apart,
         "residual": found.residual()[:, 0], "loss": found.mean_loss()[:, 0]}
    )  # fmt: skip


def _named_steps(folder: Path, before: int | None, after: int | None) -> list[int]:
    """The steps that were named, refused before long work if they were not kept, or are in the wrong order."""
    if before is not None and after is not None and before >= after:
        raise ValueError(f"got before={before} and after={after}; expected an earlier and a later step")
    named = [step for step in (before, after) if step is not None]
    for step in named:
        read_checkpoint(folder, step)
    return named


def _ends(curve: pd.DataFrame, before: int | None, after: int | None) -> tuple[int, int]:
    """The checkpoints to compare: those given, else the nearest to each strategy."""
    if before is None:
        end = int(curve["step"].iloc[-1]) if after is None else after
        before = _nearest(curve[curve["step"] < end], "to_generalising", f"before step {end}")
    if after is None:
        after = _nearest(curve[curve["step"] > before], "to_memorising", f"after step {before}")
    return before, after


def _nearest(rows: pd.DataFrame, column: str, words: str) -> int:
    if rows.empty:
        raise ValueError(f"no checkpoint is {words}; name two steps")
    return int(rows["step"].to_numpy()[rows[column].to_numpy(float).argmin()])


def _unrelated(folder: Path, point: GridPoint, given: str | Path | None) -> dict[str, Tensor] | None:
    """The last weights of a model of another seed, as near to the point as there is one; None where there is none."""
    if given is not None:
        return read_checkpoint(given)
    if not (folder.parent / GRID).is_file():
        return None
    others = [other for other in read_grid(folder.parent) if other.kin == point.kin and other.seed != point.seed]
    kept = [other for other in others if checkpoint_steps(folder.parent / other.name)]
    if not kept:
        return None
    nearest = min(kept, key=lambda other: (abs(other.diversity - point.diversity), other.seed))
    return read_checkpoint(folder.parent / nearest.name)


def _controls(
    folder: Path, after: int, held: HeldOut, alien: dict[str, Tensor] | None, seed: int
) -> dict[str, HookedRun]:
    """The donors that share no basis with the checkpoints."""
    other = in_another_basis(read_checkpoint(folder, after), held.point.config, seed=seed)
    donors = {BASIS: other} if alien is None else {BASIS: other, UNRELATED: alien}
    return {name: HookedRun.of_weights(weights, held) for name, weights in donors.items()}


def _probes(folder: Path, point: GridPoint, curve: pd.DataFrame, n_probed: int, **options: Any) -> StrategyProbes:
    """Over checkpoints of the curve, on sequences of their own."""
    held = HeldOut.of(point, PROBED_LONE if point.setting == "classification" else PROBED, part=PART + 1)
    steps = curve["step"].tolist()
    at = sorted({round(place * (len(steps) - 1) / max(n_probed - 1, 1)) for place in range(n_probed)})
    return probe_strategies(
        ((steps[number], HookedRun.of(open_checkpoint(folder, steps[number]), held)) for number in at), **options
    )


def _notes(curve: pd.DataFrame, before: int, after: int, unrelated: bool) -> tuple[str, ...]:
    left, d_rel = (curve.set_index("step")[name].astype(float).to_dict() for name in ("residual", "d_rel"))
    found = [
        f"after {step:,} steps the residual is {left[step]:.2f}: the model is near neither strategy"
        for step in (before, after)
        if left[step] > FAR
    ]
    change = d_rel[after] - d_rel[before]
    if change < LEAST:
        found.append(f"d_rel differs by {change:.2f} alone: shares of it say little")
    if not unrelated:
        found.append("the run has no model of another seed: parts in another basis stand in as the control")
    return tuple(found)
