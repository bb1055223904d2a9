"""What trained models predict, checkpoint by checkpoint, on sequences that they never saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.settings import SETTINGS
from mechicl.organisms.grid.stack import Stack
from mechicl.organisms.grid.store import POINT, read_checkpoint

HELD_OUT = 1  # the first number of a two-number step, which training never draws
CHUNK = 256  # sequences that run at once


def held_out(point: GridPoint, n: int, *, part: int = 0, fresh: bool = False) -> Any:
    """Sequences of a point's task that its training never saw. part: which such set; fresh: of tasks drawn anew."""
    return point.task.sample(n, step=(HELD_OUT, part), fresh=fresh)


def each_checkpoint(
    folder: str | Path, point: GridPoint, batch: Any, *, steps: Sequence[int] | None = None, device: str = "cpu"
) -> Iterator[tuple[int, Float[np.ndarray, "batch pos label"]]]:
    """Steps and predictions of a model, in the order of training; `predict` says what predictions are.

    folder: of the run, or the model's own. Raises BrokenCheckpoint, a ValueError, for a step that was not kept and for
    a torn file.
    """
    stack, place = Stack(point.config, 1, device=device), Path(folder)
    if not (place / POINT).is_file():
        place /= point.name
    for step in point.schedule if steps is None else steps:
        stack.set_model(0, read_checkpoint(place, step))
        yield step, predict(stack, point.setting, batch)


def predict(stack: Stack, setting: str, batch: Any) -> Float[np.ndarray, "batch pos label"]:
    """The predictions of the first model of a stack, in float64.

    Probabilities of the next ball or state at every position, of the query's label (one position), or the mean of y at
    every x (one "label").
    """
    inputs, _ = SETTINGS[setting].encode(batch)
    with torch.no_grad():
        outputs = [
            stack.run(stack.parts[0], chunk[None].to(stack.device))[0].cpu().double() for chunk in inputs.split(CHUNK)
        ]
        return SETTINGS[setting].predictions(torch.cat(outputs)[None])[0].numpy()
