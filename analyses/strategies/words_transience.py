"""Transience, generalising first and memorising later, in a table and in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.strategies.words_shared import FAR, amount, counted
from mechicl.wording import number

RISE = 0.2  # of d_rel, from below .5: what is called transience


def turning_points(fit: Any, transience: pd.DataFrame) -> pd.DataFrame:
    """One row a seed and diversity: lowest, step, last and rise of d_rel, fresh_rise, and whether that is transience.

    The lowest d_rel is sought where a mixture of both strategies is near (its distance below half of theirs) and past
    the threshold: elsewhere a low d_rel is no sign of generalising. fresh_rise: of ``transience``, the account's.
    """
    near = fit.kept[:, None] & (np.nan_to_num(fit.residual, nan=np.inf) <= FAR) & np.isfinite(fit.d_rel)
    path = np.where(near, fit.d_rel, np.inf)
    lowest, at = path.min(1), path.argmin(1)
    seeds = sorted(set(transience["seed"]))
    index = pd.MultiIndex.from_product([seeds, fit.terms.diversities], names=["seed", "diversity"])
    last = fit.d_rel[:, -1]
    found = pd.DataFrame(
        {"lowest": np.where(np.isfinite(lowest), lowest, np.nan).ravel(), "step": fit.terms.steps[at].ravel(),
         "last": last.ravel()}, index=index,
    ).reset_index()  # fmt: skip
    found["rise"] = found["last"] - found["lowest"]
    found["turned"] = (found["lowest"] < 0.5) & (found["rise"] >= RISE)
    found.loc[found["lowest"].isna(), "step"] = np.nan
    return found.merge(transience[["seed", "diversity", "fresh_rise"]], on=["seed", "diversity"], how="left")


def transience_sentence(fit: Any, transience: pd.DataFrame) -> str:
    """At which diversities models generalise first and memorise later."""
    found = turning_points(fit, transience)
    by_diversity = found.groupby("diversity")
    every = by_diversity["turned"].all()
    if not every.any():
        some = int(found["turned"].sum())
        words = (
            f"At no diversity is generalising transient (d_rel up by {number(RISE, 1)} from below 0.5) in every seed"
        )
        return f"{words}; {some} of {len(found)} models do." if some else f"{words}, and no model does."
    shown = by_diversity[["lowest", "rise", "fresh_rise"]].mean()[every]
    at = int(shown["rise"].to_numpy().argmax())
    most, (lowest, rise, fresh) = float(shown.index[at]), (float(value) for value in shown.iloc[at])
    own = found[found["diversity"] == most]["rise"]
    spread = f" ({number(own.min(), 2)} to {number(own.max(), 2)} over {len(own)} seeds)" if len(own) > 1 else ""
    where = f"at D = {most:g} " if len(shown) > 1 else ""
    return (
        f"Generalising is transient at {counted(shown.index)}: {where}d_rel rises from {number(lowest, 2)} by "
        f"{number(rise, 2)}{spread} until training ends, and the loss on fresh tasks from its lowest by "
        f"{amount(fresh, fit)}."
    )
