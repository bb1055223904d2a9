"""What `mechicl train` does: train a grid of transformers over task diversity, or go on with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SettingName = Literal["balls_and_urns", "markov_chains", "linear_regression", "classification"]


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train transformers over a grid of task diversities, with checkpoints; a run that was stopped goes on."""

    setting: SettingName = "balls_and_urns"
    """Which mixture of tasks."""
    scale: Literal["small", "reduced", "paper"] = "reduced"
    """Sizes: small takes about a minute on two cores, reduced an hour, paper days or a GPU."""
    diversities: tuple[int, ...] | None = None
    """Numbers of tasks in the pool, D; by default as --scale says."""
    contexts: tuple[int, ...] | None = None
    """Lengths of sequences, C."""
    dims: tuple[int, ...] | None = None
    """Colours, states or dimensions, d."""
    mlps: tuple[int, ...] | None = None
    """Widths of the MLPs."""
    seeds: tuple[int, ...] | None = None
    """Of pools, data and first weights; one model for each."""
    steps: int | None = None
    """Of training."""
    out: Path | None = None
    """Folder of the run; by default runs/SETTING."""
    jobs: int = 1
    """Processes, each with a stack of models."""
    stack: int = 9
    """Models in one stack, at most."""
    device: str = "cpu"
    """cpu, cuda, cuda:1."""
    quiet: bool = False
    """No bar."""


def run_train(options: Train) -> None:
    """Train, and say where the models are."""
    from mechicl.organisms.grid.scales import grid_points
    from mechicl.organisms.grid.training import train_grid

    own = {} if options.steps is None else {"steps": options.steps}
    points = grid_points(
        options.setting,
        options.scale,
        diversities=options.diversities,
        contexts=options.contexts,
        dims=options.dims,
        mlps=options.mlps,
        seeds=options.seeds,
        **own,
    )
    folder = train_grid(
        points,
        options.out or Path("runs") / options.setting,
        stack=options.stack,
        n_jobs=options.jobs,
        device=options.device,
        progress=not options.quiet,
    )
    print(f"{len(points)} models in {folder.resolve()}")
    print(f"Next: mechicl strategies --results {folder}")
