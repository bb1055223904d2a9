"""Make the results that come with the package anew: train the grid, or go on with it, and measure.

    python -m mechicl.analyses.strategies.regenerate balls_and_urns         runs/balls_and_urns, then results/

What is measured is kept beside this file; the run itself stays in runs/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from mechicl.commands.train import SettingName

# What each setting's results were made with, where that is not the reduced scale as it is.
GRIDS: dict[str, dict[str, Any]] = {
    "classification": {"seeds": (0,)},
    "linear_regression": {"seeds": (0,), "diversities": (4, 32, 256), "steps": 12_000},
}
# Of readings: classification asks one question a sequence, the others one at every position.
READINGS: dict[str, dict[str, Any]] = {
    "classification": {"n_sequences": 2000},
    "linear_regression": {"n_sequences": 512},
}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Regenerate:
    """Train a grid, or go on with it, measure it, and keep the result."""

    setting: Annotated[SettingName, tyro.conf.Positional]
    """Which mixture of tasks."""
    runs: Path = Path("runs")
    """Where the grid's folder is, or will be."""
    out: Path = RESULTS
    """Where the result goes, in a folder of the setting's name."""
    jobs: int = 2
    """Processes."""
    n_boot: int = 200
    """Refits on redrawn seeds and sequences."""


def remake(options: Regenerate) -> Path:
    """Train, measure, keep; the folder of the result."""
    from mechicl.analyses.strategies.account import measure_strategies
    from mechicl.organisms.grid.scales import grid_points
    from mechicl.organisms.grid.training import train_grid

    points = grid_points(options.setting, **GRIDS.get(options.setting, {}))
    run = train_grid(points, options.runs / options.setting, n_jobs=options.jobs)
    account = measure_strategies(run, n_boot=options.n_boot, **READINGS.get(options.setting, {}))
    print(account.verdict)
    return account.save(options.out / options.setting, overwrite=True)


if __name__ == "__main__":
    print(remake(tyro.cli(Regenerate)))
