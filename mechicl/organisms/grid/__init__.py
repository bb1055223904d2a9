"""Transformers trained over a grid of task diversities: the organisms of the Bayesian account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.lazy import lazy_names

if TYPE_CHECKING:
    from mechicl.organisms.grid.examples import GRID_MODELS, grid_model_card, grid_model_folder, load_grid_model
    from mechicl.organisms.grid.opened import open_checkpoint
    from mechicl.organisms.grid.points import GridPoint
    from mechicl.organisms.grid.predictions import each_checkpoint, held_out
    from mechicl.organisms.grid.scales import grid_points
    from mechicl.organisms.grid.store import checkpoint_steps, read_checkpoint, read_grid, read_point
    from mechicl.organisms.grid.training import train_grid

_HOME = {
    "GRID_MODELS": "examples",
    "grid_model_card": "examples",
    "grid_model_folder": "examples",
    "load_grid_model": "examples",
    "open_checkpoint": "opened",
    "GridPoint": "points",
    "each_checkpoint": "predictions",
    "held_out": "predictions",
    "grid_points": "scales",
    "checkpoint_steps": "store",
    "read_checkpoint": "store",
    "read_grid": "store",
    "read_point": "store",
    "train_grid": "training",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
