"""Models of a grid that come with the package: balls and urns at three diversities, before and after their transitions.

    urns-memory     D = 4      memorises early
    urns-transient  D = 64     generalises first, then moves half way to memorising: one model at three steps
    urns-general    D = 1024   generalises to the end

How near each is to either strategy stands in its card. Made anew by `python -m mechicl.organisms.grid.examples RUN`,
from the folder of a run of the reduced scale.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.scales import grid_points

if TYPE_CHECKING:
    import torch

__all__ = ["GRID_MODELS", "grid_model_card", "grid_model_folder", "load_grid_model"]
WEIGHTS = Path(__file__).parents[1] / "weights"
# name: diversity, steps that are kept, what it is
KEPT: dict[str, tuple[int, tuple[int, ...], str]] = {
    "urns-memory": (4, (5000,), "knows its 4 urns by heart"),
    "urns-transient": (64, (327, 1553, 5000), "trained on 64 urns: generalises first, then half way to memorising"),
    "urns-general": (1024, (5000,), "trained on 1024 urns: learns the colours' shares from the sequence alone"),
}
GRID_MODELS = {name: description for name, (_, _, description) in KEPT.items()}
N_JUDGED = 1000


def load_grid_model(
    name: str,
    step: int | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> Any:
    """A trained model of balls and urns as a TransformerLens model; `GRID_MODELS` has the names.

    step: of its training; by default the last. Errors (ValueError): an unknown name (the nearest is named), a step that
    was not kept (the nearest is named), a dtype other than float32 and float64.

        early, late = (load_grid_model("urns-transient", step) for step in (327, 5000))
    """
    from mechicl.organisms.grid.opened import open_checkpoint

    return open_checkpoint(grid_model_folder(name), step, device=device, dtype=dtype)


def grid_model_folder(name: str) -> Path:
    """The folder of its checkpoints (`mechicl.organisms.grid.store`); `read_point(folder).task` is its task."""
    if name not in KEPT:
        near = difflib.get_close_matches(name, KEPT, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown model {name!r}; {hint}there are {', '.join(KEPT)}")
    folder = WEIGHTS / name
    if not (folder / "point.json").is_file():
        raise ValueError(f"the weights of {name!r} are not in {folder}; install the package anew, or make them there")
    return folder


def grid_model_card(name: str) -> dict[str, Any]:
    """What a model was trained on, and how near it is to each strategy at each kept step, on unseen sequences."""
    card: dict[str, Any] = json.loads((grid_model_folder(name) / "card.json").read_text(encoding="utf-8"))
    return card


def keep_models(run: str | Path, out: str | Path = WEIGHTS) -> Iterator[Path]:
    """Copy the models that come with the package out of a run of the reduced scale, and judge them; their folders."""
    from mechicl.organisms.grid.store import read_checkpoint, write_checkpoint

    for name, (diversity, steps, description) in KEPT.items():
        (point,) = grid_points("balls_and_urns", diversities=(diversity,), seeds=(0,))
        folder = Path(out) / name
        for step in steps:
            write_checkpoint(folder, point, step, read_checkpoint(Path(run) / point.name, step))
        card = {"name": name, "description": description} | card_of(point, folder, steps)
        (folder / "card.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
        yield folder


def card_of(point: GridPoint, folder: Path, steps: tuple[int, ...]) -> dict[str, Any]:
    """Relative distance (1: memorising, 0: generalising), its residual and the loss at each step."""
    from mechicl.organisms.grid.predictions import each_checkpoint, held_out
    from mechicl.predictors.bayes import predict_strategies, prediction_losses
    from mechicl.predictors.distances import divergence, relative_distance, residual
    from mechicl.provenance import library_versions

    batch = held_out(point, N_JUDGED, part=3)
    ideal = predict_strategies(point.task, batch)
    between = np.asarray(divergence(ideal.memorising, ideal.generalising).mean())
    rows = {}
    for step, found in each_checkpoint(folder, point, batch, steps=steps):
        near, far = (np.asarray(divergence(found, p).mean()) for p in (ideal.memorising, ideal.generalising))
        rows[str(step)] = {
            "d_rel": round(float(relative_distance(near, far, between)), 4),
            "residual": round(float(residual(near, far, between)), 4),
            "loss": round(float(prediction_losses(found, ideal.truth).mean()), 4),
        }
    losses = {
        name: round(float(prediction_losses(getattr(ideal, name), ideal.truth).mean()), 4)
        for name in ("memorising", "generalising")
    }
    return {
        "data": f"fresh sequences of {point.task} (mechicl.tasks.urns), never the same twice; loss: next-token "
        "cross-entropy, nats a token",
        "command": "mechicl train --setting balls_and_urns --out RUN; python -m mechicl.organisms.grid.examples RUN",
        "steps": rows,
        "strategy_losses": losses,
        "point": json.loads(point.to_json()),
        "versions": library_versions(),
    }


def _main(run: tyro.conf.Positional[Path], out: Path = WEIGHTS) -> None:
    """Copy the models that come with the package out of a run, and print their cards.

    Args:
        run: a folder that `mechicl train --setting balls_and_urns` filled.
        out: where each gets a folder of its name.
    """
    for folder in keep_models(run, out):
        print(folder.name, json.loads((folder / "card.json").read_text(encoding="utf-8"))["steps"])


if __name__ == "__main__":
    tyro.cli(_main)
