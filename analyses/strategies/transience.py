"""Transience: do models generalise first, and memorise later?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mechicl.analyses.strategies.readings import GridReadings
from mechicl.strategies.fit import StrategyFit


def measure_transience(fit: StrategyFit, readings: GridReadings) -> pd.DataFrame:
    """One row a seed and diversity: how far a model came from memorising, and where it went afterwards.

    lowest: the smallest relative distance at a checkpoint that the two-hypothesis threshold kept; lowest_step: where.
    last: the relative distance at the last checkpoint. rise = last - lowest, 0 to 1: what was lost of generalising.
    fresh_best: the smallest loss on fresh tasks at those checkpoints, fresh_last: the last one; fresh_rise their
    difference, nats or squared errors, above 0 where the model became worse on tasks that it was not trained on.
    """
    kept = np.flatnonzero(fit.kept)
    rows = []
    for (at, seed), (column, diversity) in (
        (a, b) for a in enumerate(readings.seeds) for b in enumerate(readings.diversities)
    ):
        path, fresh = fit.d_rel[at, kept, column], readings.fresh_loss[at, kept, column]
        rows.append(
            {
                "seed": int(seed), "diversity": float(diversity),
                "lowest": path.min(), "lowest_step": readings.steps[kept[path.argmin()]], "last": path[-1],
                "rise": path[-1] - path.min(), "fresh_best": fresh.min(), "fresh_last": fresh[-1],
                "fresh_rise": fresh[-1] - fresh.min(),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)
