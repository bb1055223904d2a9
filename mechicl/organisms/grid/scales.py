"""The grids that are trained: the paper's sizes, sizes that two processor cores train in an hour, and a small one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.settings import SETTINGS

# Of each setting: d, C and the multiples of d_model that MLPs have (2506.17859, its table of settings).
PAPER: dict[str, dict[str, Any]] = {
    "balls_and_urns": {"dims": (8, 12, 16), "contexts": (128, 256, 320), "warmup": 5000},
    "linear_regression": {
        "dims": (8, 12, 16), "contexts": (16, 32, 64), "n_layers": 8, "batch": 128, "warmup": 5000,
    },
    "classification": {"dims": (8, 16), "contexts": (128, 256, 384), "warmup": 0},
    "markov_chains": {"dims": (10,), "contexts": (512,), "n_layers": 2, "warmup": 5000},
}  # fmt: skip
LONG: dict[str, Any] = {"steps": 100_000, "n_checkpoints": 100, "mlps": (32, 256, 512), "seeds": (0,)}
REDUCED: dict[str, dict[str, Any]] = {
    "balls_and_urns": {"dims": (8,), "contexts": (64,), "steps": 5000},
    "linear_regression": {
        "dims": (4,), "contexts": (16,), "n_layers": 3, "n_heads": 4, "steps": 20_000, "learning_rate": 1e-3,
    },
    "classification": {
        "dims": (8,), "contexts": (32,), "steps": 12_000, "n_checkpoints": 60, "learning_rate": 1e-3, "warmup": 0,
    },
    "markov_chains": {"dims": (5,), "contexts": (64,), "n_layers": 2, "steps": 5000},
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "balls_and_urns": {"dims": (4,), "contexts": (32,), "steps": 1000, "learning_rate": 1e-3, "warmup": 50},
    "linear_regression": {"dims": (2,), "contexts": (8,), "n_layers": 2, "steps": 1000, "learning_rate": 1e-3},
    "classification": {"dims": (4,), "contexts": (16,), "steps": 1000, "learning_rate": 1e-3, "warmup": 0},
    "markov_chains": {"dims": (3,), "contexts": (32,), "n_layers": 2, "steps": 1000, "learning_rate": 1e-3},
}
POWERS = tuple(2**k for k in range(2, 13))
SCALES: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {name: {"diversities": POWERS} | LONG | own for name, own in PAPER.items()},
    "reduced": {
        name: {"diversities": POWERS[:9], "seeds": (0, 1, 2), "mlps": (256,)} | own for name, own in REDUCED.items()
    },
    "small": {
        name: {"diversities": POWERS[:7:2], "seeds": (0,), "mlps": (128,), "n_checkpoints": 20, "d_model": 32} | own
        for name, own in SMALL.items()
    },
}


def grid_points(
    setting: str,
    scale: str = "reduced",
    *,
    diversities: Sequence[int] | None = None,
    contexts: Sequence[int] | None = None,
    dims: Sequence[int] | None = None,
    mlps: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    **own: Any,
) -> list[GridPoint]:
    """Every combination of a scale's sizes (`SCALES`), with those that are named here in place of its own.

    own: other fields of `GridPoint`, such as steps. Seeds come first, then the other sizes, diversities last.

    Raises ValueError for a setting or scale that is unknown, an empty list, sizes given twice, and as `GridPoint` does.

        train_grid(grid_points("balls_and_urns", seeds=(0,)), "runs/urns")
    """
    if setting not in SETTINGS or scale not in SCALES:
        raise ValueError(
            f"got setting={setting!r} and scale={scale!r}; expected one of {', '.join(SETTINGS)}, and one of "
            f"{', '.join(SCALES)}"
        )
    given = {"diversities": diversities, "contexts": contexts, "dims": dims, "mlps": mlps, "seeds": seeds}
    chosen = SCALES[scale][setting] | {name: tuple(value) for name, value in given.items() if value is not None} | own
    for name in given:
        if not chosen[name] or len(set(chosen[name])) < len(chosen[name]):
            raise ValueError(f"got {name}={chosen[name]}; expected one size or more, each once")
    axes = [chosen.pop(name) for name in ("seeds", "dims", "contexts", "mlps", "diversities")]
    return [
        GridPoint(setting, diversity, context=context, dim=dim, d_mlp=mlp, seed=seed, **chosen)
        for seed, dim, context, mlp, diversity in product(*axes)
    ]
