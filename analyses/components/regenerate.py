"""Make the results that come with the package anew, from runs that `mechicl.analyses.strategies.regenerate` trained.

    python -m mechicl.analyses.components.regenerate        reads runs/balls_and_urns and runs/classification

`transient`: the parts of the model of balls and urns that generalises first, then half memorises (D = 64).
`classifier`: those of a classifier (D = 64). `kernels`: the ideal kernel in classifiers' attention over training.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from mechicl.results import JSON_NAME, Result, load

RESULTS = Path(__file__).parent / "results"
# name: setting and options of `measure_strategy_components`, of the model of 64 tasks
COMPARED: dict[str, tuple[str, dict[str, Any]]] = {
    "transient": ("balls_and_urns", {"before": 499, "after": 5000}),
    "classifier": ("classification", {}),
}
KERNELS = "kernels"


def shipped_components(setting: str) -> dict[str, Result]:
    """The results inside models of a setting that come with the package, by name; none where there are none."""
    names = [name for name, (own, _) in COMPARED.items() if own == setting]
    names += [KERNELS] if setting == "classification" else []
    return {name: load(RESULTS / name) for name in names if (RESULTS / name / JSON_NAME).is_file()}


def remake(runs: Path = Path("runs"), out: Path = RESULTS) -> Iterator[Path]:
    """Measure, and keep each result in a folder of its name.

    Args:
        runs: where the runs of the settings are.
        out: where the results go.
    """
    from mechicl.analyses.components.account import measure_strategy_components
    from mechicl.analyses.components.training_kernels import classifiers_of, kernels_in_training
    from mechicl.organisms.grid.scales import grid_points

    for name, (setting, options) in COMPARED.items():
        (point,) = grid_points(setting, diversities=(64,), seeds=(0,))
        found = measure_strategy_components(runs / setting / point.name, **options)
        yield found.save(out / name, overwrite=True)
    kernels = kernels_in_training(classifiers_of(runs / "classification"))
    yield kernels.save(out / KERNELS, overwrite=True)


if __name__ == "__main__":
    for folder in tyro.cli(remake):
        print(folder)
