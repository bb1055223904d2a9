"""Do larger MLPs, or longer contexts, change how steeply a long description is disfavoured?

The model of training is fitted to each size alone; what its three numbers do over sizes is the answer:

    log P(M) / P(G) = gamma N^(1 - alpha) (L_G - L_M) - ln 2 (K_M^beta - K_G^beta)        see `measure_strategies`

beta is what simplicity is worth, gamma what a step is worth, alpha how much less each further step counts. In
2506.17859 beta falls with the width of the MLP: a wider one makes memorising cheaper.

Caveats:
- Each size is its own fit: alpha, beta and gamma trade off against each other, so a trend in one may be a trend in
  another.
- Sizes that were trained with one schedule and rate need not be equally far trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.analyses.strategies.account import readings_data
from mechicl.analyses.strategies.readings import SIZES, read_run
from mechicl.organisms.grid.store import read_grid
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.strategies.fit import fit_data


@dataclass(frozen=True)
class SizeEffects(Result):
    """The model of training by size.

    axis: "d_mlp", "context", "dim" or "n_layers". frame: one row a size and parameter: size, parameter (alpha, beta,
    gamma), estimate, low, high, and correlation, held_out, that of observed and predicted d_rel over all cells and over
    those that the fit never saw. crossing: one row a size and diversity: d_rel at the last checkpoint, mean over seeds.
    warnings: what the fits said, by size.
    """

    setting: str
    axis: str
    level: float
    frame: pd.DataFrame
    last: pd.DataFrame
    warnings: tuple[str, ...]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The parameters by size."""
        return self.frame.copy()

    def plot(self, ax: Any = None, *, parameter: str = "beta") -> Any:
        """A parameter over sizes with its interval; returns matplotlib Axes."""
        from mechicl.views.strategies import plot_sizes

        return plot_sizes(self.frame, axis=self.axis, parameter=parameter, ax=ax)


def measure_sizes(
    folder: str | Path,
    axis: str = "d_mlp",
    *,
    threshold: float | None = None,
    n_boot: int = 200,
    seed: int = 0,
    progress: bool = True,
    **reading: Any,
) -> SizeEffects:
    """Fit every size along one axis of a run; the other sizes are as `reading` says, where there are several.

    Raises ValueError, before anything runs, for an axis that has one size only; otherwise as `read_run` does.
    """
    if axis not in SIZES:
        raise ValueError(f"got axis={axis!r}; expected one of {', '.join(SIZES)}")
    given = {name: value for name, value in reading.items() if name in SIZES}
    points = [p for p in read_grid(folder) if all(getattr(p, name) == value for name, value in given.items())]
    sizes = sorted({getattr(point, axis) for point in points})
    if len(sizes) < 2:
        raise ValueError(f"got {len(sizes)} sizes of {axis} in {folder}; expected 2 or more: train them first")
    rows, last, warnings, facts = [], [], [], None
    for size in sizes:
        found = read_run(folder, progress=progress, **reading | {axis: size})
        data = readings_data(found, threshold=threshold, seed=seed)
        fit = fit_data(data, n_boot=n_boot, n_permutations=0, seed=seed)
        facts = found.provenance
        by_cells = fit.measures[fit.measures["measure"] == "d_rel"].set_index("cells")["value"]
        for _, row in fit.parameters.iterrows():
            own = {name: row[name] for name in ("parameter", "estimate", "low", "high")}
            rows.append({"size": size, **own, "correlation": by_cells["all"], "held_out": by_cells["held_out"]})
        for column, diversity in enumerate(found.diversities):
            last.append({"size": size, "diversity": diversity, "d_rel": fit.d_rel[:, -1, column].mean()})
        warnings += [f"{axis} {size}: {words}" for words in fit.warnings]
    return SizeEffects(
        points[0].setting, axis, fit.level, pd.DataFrame(rows), pd.DataFrame(last), tuple(warnings),
        Provenance.of(facts.model_facts() if facts else None, seeds={"seed": seed}, options={"axis": axis}),
    )  # fmt: skip
