"""What to know before the numbers of a fit are believed, in sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mechicl.strategies.data import StrategyData
from mechicl.strategies.optimise import ALPHA, BETA, EVIDENCE, OddsFit
from mechicl.strategies.refits import Refits

STILL = 0.02  # standard deviation of d_rel below which there is no transition to explain
FAR = 0.5  # share of d(M, G) from which the transformer is near neither strategy
_MEANING = {
    ("alpha", "lower"): "alpha is at its lower bound 0: every step counts as much as the one before",
    ("alpha", "upper"): f"alpha is at its upper bound {ALPHA[1]:g}: evidence hardly grows with training",
    ("beta", "lower"): "beta is at its lower bound 0: complexity plays no part",
    ("beta", "upper"): f"beta is at its upper bound {BETA[1]:g}",
    ("gamma", "lower"): f"gamma is at its lower bound: evidence of {EVIDENCE[0]:g} nats at a middle step, so none",
    ("gamma", "upper"): f"gamma is at its upper bound: evidence of {EVIDENCE[1]:g} nats at a middle step",
}


def fit_warnings(data: StrategyData, fit: OddsFit, refits: Refits, measures: pd.DataFrame) -> tuple[str, ...]:
    """One sentence a trouble; none where there is none."""
    found = []
    if not fit.converged:
        found.append("the fit did not converge: its parameters are where the search stopped")
    found += [_MEANING[name, bound] for name, bound in fit.bounds.items() if bound]
    n_boot = len(refits.parameters)
    if refits.n_failed:
        found.append(f"{refits.n_failed} of {n_boot} bootstrap refits did not converge; intervals leave them out")
    if data.terms.shape[0] == 1 and n_boot:
        found.append("one seed: intervals are over sequences alone and know nothing of other runs of training")
    kept = data.cells["all"]
    apart = np.where(data.average.between > 0, data.average.between, np.nan)[:, None]
    residual = (data.best_distance / apart)[:, kept]
    far = float(np.nanmean(residual > FAR)) if np.isfinite(residual).any() else float("nan")
    if far > 0.1:
        found.append(
            f"in {far:.0%} of the kept cells even the best interpolation is farther than {FAR:g} d(M, G): "
            "d_rel means little there"
        )
    if np.isnan(data.average.d_rel).any():
        found.append("memorising and generalising agree in some cells, where d_rel is undefined")
    if (worse := (data.terms.advantage < 0).any(0)).any():
        named = ", ".join(f"{value:g}" for value in data.terms.diversities[worse])
        found.append(f"memorising has the larger loss at D = {named}: no transition to it is predicted there")
    of_d_rel = measures[(measures["measure"] == "d_rel") & (measures["cells"] == "fitted")].iloc[0]
    spread = float(np.nanstd(data.average.d_rel[:, data.fitted]))
    if np.isnan(of_d_rel["value"]) or spread < STILL:
        found.append(f"d_rel hardly varies over the fitted cells (sd {spread:.2g}): its correlation means nothing")
    elif of_d_rel["p"] > 0.05 and np.isfinite(of_d_rel["control"]):
        found.append("the correlation with d_rel is not above that of shuffled cells")
    if (~data.kept).any():
        found.append(f"{int((~data.kept).sum())} of {len(data.kept)} checkpoints are before the threshold and left out")
    return tuple(found)
