"""A tiny trained run: balls and urns, four checkpoints."""

from pathlib import Path

import pytest

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.training import train_grid

TINY = GridPoint(
    "balls_and_urns", 8, context=8, dim=4, d_mlp=16, d_model=16, n_heads=2, steps=120, batch=32, learning_rate=1e-2,
    warmup=20, n_checkpoints=4, init=0.1, seed=1,
)  # fmt: skip


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, GridPoint]:
    """The run's folder and its only point."""
    folder = tmp_path_factory.mktemp("runs") / "urns"
    return train_grid([TINY], folder, progress=False), TINY
