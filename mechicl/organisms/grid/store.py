"""The folder of a run: what is kept of every model, and how it is known to be whole.

    RUN/grid.json                         the points of the grid
    RUN/<point>/point.json                one point
    RUN/<point>/checkpoints.json          the checksum of each checkpoint, and of the code that trained it
    RUN/<point>/step-005000.safetensors   weights after so many steps, by the names of `StackConfig.shapes`
    RUN/.state/<stack>.safetensors        what a stack of models needs to go on: weights, moments, the step

Every file is replaced at once or not at all.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from inspect import getsource
from pathlib import Path
from typing import Any

from torch import Tensor

from mechicl.organisms.grid.points import GridPoint, from_json

GRID, POINT, CHECKPOINTS, STATE = "grid.json", "point.json", "checkpoints.json", ".state"
CODE = (
    *(f"mechicl.organisms.grid.{name}" for name in ("stack", "settings", "training")),
    *(f"mechicl.tasks.{name}" for name in ("mixtures", "urns", "chains", "pooled_regression", "classification")),
)


class BrokenCheckpoint(ValueError):
    """A checkpoint that is not there, torn, or of other code."""


def open_run(folder: str | Path, points: Sequence[GridPoint]) -> Path:
    """The folder of a run of these points, made where it is not there; a ValueError where it holds another grid."""
    if len({point.name for point in points}) < len(points):
        raise ValueError("got points with the same name; every point of a grid needs a folder of its own")
    folder = Path(folder)
    lines = sorted(point.to_json() for point in points)
    if (folder / GRID).exists():
        if json.loads((folder / GRID).read_text(encoding="utf-8")) != lines:
            raise ValueError(f"{folder} holds another grid; choose another folder, or remove it")
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files and no grid; choose a new folder")
    (folder / STATE).mkdir(parents=True)
    write_text(folder / GRID, json.dumps(lines, indent=1))
    return folder


def read_grid(folder: str | Path) -> list[GridPoint]:
    """The points of a run; a ValueError for a folder that holds none."""
    file = Path(folder) / GRID
    if not file.is_file():
        raise ValueError(f"{folder} holds no grid ({GRID} expected); train one first, or check the path")
    return [from_json(line) for line in json.loads(file.read_text(encoding="utf-8"))]


def write_checkpoint(place: Path, point: GridPoint, step: int, weights: Mapping[str, Tensor]) -> None:
    """Keep a model's weights after a step, and their checksum, in its own folder."""
    from safetensors.torch import save

    place.mkdir(parents=True, exist_ok=True)
    write_text(place / POINT, point.to_json())
    data = save({name: weight.cpu().contiguous() for name, weight in weights.items()}, {"step": str(step)})
    write_bytes(place / file_name(step), data)
    known = _known(place)
    known[str(step)] = {"sha256": hashlib.sha256(data).hexdigest(), "code": code_version()}
    write_text(place / CHECKPOINTS, json.dumps(known, indent=1))


def read_checkpoint(folder: str | Path, step: int | None = None) -> dict[str, Tensor]:
    """A model's weights after a step (the last, where none is named), checked against their checksum.

    folder: a point's. Raises BrokenCheckpoint, a ValueError, for a step that was not kept and for a torn file.
    """
    from safetensors.torch import load

    place = Path(folder)
    steps = checkpoint_steps(place)
    if not steps:
        raise BrokenCheckpoint(f"{place} holds no checkpoints; train its grid first, or check the path")
    step = steps[-1] if step is None else step
    if step not in steps:
        near = min(steps, key=lambda kept: abs(kept - step))
        raise BrokenCheckpoint(f"{place} has no checkpoint after {step} steps; the nearest is after {near}")
    data = (place / file_name(step)).read_bytes() if (place / file_name(step)).is_file() else b""
    if hashlib.sha256(data).hexdigest() != _known(place)[str(step)]["sha256"]:
        raise BrokenCheckpoint(f"{place / file_name(step)} is torn or was changed; train the grid again to mend it")
    return dict(load(data))


def read_point(folder: str | Path) -> GridPoint:
    """The point whose folder this is; a ValueError for a folder that is none."""
    file = Path(folder) / POINT
    if not file.is_file():
        raise ValueError(f"{folder} holds no model of a grid ({POINT} expected); check the path")
    return from_json(file.read_text(encoding="utf-8"))


def checkpoint_steps(folder: str | Path) -> list[int]:
    """The steps after which weights were kept, in a point's folder."""
    return sorted(int(step) for step in _known(Path(folder)))


def is_whole(folder: Path, point: GridPoint) -> bool:
    """Whether every checkpoint of a point is there, undamaged, and was trained by the present code."""
    place = folder / point.name
    known = _known(place)
    try:
        for step in point.schedule:
            read_checkpoint(place, step)
    except BrokenCheckpoint:
        return False
    return all(known[str(step)]["code"] == code_version() for step in point.schedule)


@cache
def code_version() -> str:
    """A checksum of the code that training depends on, comments and docstrings aside."""
    plain = []
    for name in CODE:
        tree = ast.parse(getsource(import_module(name)))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):  # a string that stands alone is a docstring
                node.body = [part for part in body if not _is_text(part)] or [ast.Pass()]  # type: ignore[attr-defined]
        plain.append(ast.unparse(tree))
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def file_name(step: int) -> str:
    """The file of a checkpoint."""
    return f"step-{step:06d}.safetensors"


def write_bytes(file: Path, data: bytes) -> None:
    """Replace a file at once or not at all."""
    partial = file.with_name(file.name + ".partial")
    partial.write_bytes(data)
    os.replace(partial, file)


def write_text(file: Path, text: str) -> None:
    """Replace a file at once or not at all."""
    write_bytes(file, (text + "\n").encode())


def _known(place: Path) -> dict[str, Any]:
    file = place / CHECKPOINTS
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
