"""Transience: do models generalise first, and memorise later?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mechicl.analyses.strategies.readings import GridReadings
from mechicl.strategies.fit import StrategyFit

FAR = 0.5  # a residual above which a relative distance means nothing


def measure_transience(fit: StrategyFit, readings: GridReadings) -> pd.DataFrame:
    """One row a seed and diversity: how far a model came from memorising, and where it went afterwards.

    lowest: the smallest relative distance at a checkpoint past the two-hypothesis threshold where a mixture of both
    strategies is near (its distance below half of theirs: elsewhere a low one is no sign of generalising);
    lowest_step: where; NaN where there is no such checkpoint. last: the relative distance at the last checkpoint.
    rise = last - lowest, 0 to 1: what was lost of generalising. fresh_best: the smallest loss on fresh tasks past the
    threshold, fresh_last: the last one; fresh_rise their difference, nats or squared errors, above 0 where the model
    became worse on tasks that it was not trained on.
    """
    kept = np.flatnonzero(fit.kept)
    near = np.nan_to_num(fit.residual, nan=np.inf) <= FAR
    rows = []
    for (at, seed), (column, diversity) in (
        (a, b) for a in enumerate(readings.seeds) for b in enumerate(readings.diversities)
    ):
        own = kept[near[at, kept, column]]
        path, fresh = fit.d_rel[at, :, column], readings.fresh_loss[at, kept, column]
        lowest = int(own[path[own].argmin()]) if len(own) else None
        low, when = (np.nan, np.nan) if lowest is None else (path[lowest], readings.steps[lowest])
        found = {"lowest": low, "lowest_step": when, "last": path[-1], "rise": path[-1] - low}
        found |= {"fresh_best": fresh.min(), "fresh_last": fresh[-1], "fresh_rise": fresh[-1] - fresh.min()}
        rows.append({"seed": int(seed), "diversity": float(diversity), **found})
    return pd.DataFrame(rows)
