"""Fits repeated on resampled and on shuffled data: what intervals and controls of `fit_strategies` are made of.

Bootstrap: seeds are drawn with replacement, and sequences (the same for all seeds, steps and diversities, which allows
for sequences that are shared). Every draw is fitted anew, from the estimate. Controls: cells (step and diversity)
change places, so that no cell's odds go with its predictions; what a fit finds then is chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mechicl.strategies.data import StrategyData
from mechicl.strategies.optimise import PUBLISHED, Objective, OddsFit, fit_odds
from mechicl.strategies.posterior_odds import NAMES, OddsParameters
from mechicl.strategies.profiles import Averages


@dataclass(frozen=True)
class Refits:
    """One row a refit. d_rel, loss: of each set of cells. NaN where a refit did not converge."""

    parameters: Float[np.ndarray, "boot 3"]
    d_rel: dict[str, Float[np.ndarray, " boot"]]
    loss: dict[str, Float[np.ndarray, " boot"]]

    @property
    def n_failed(self) -> int:
        """Refits that did not converge."""
        return int(np.isnan(self.parameters).any(1).sum())


def draw_times(
    n_seeds: int, n_clusters: int, n_boot: int, seed: int
) -> tuple[Float[np.ndarray, "boot seed"], Float[np.ndarray, "boot batch"]]:
    """How often each seed and each cluster was drawn."""
    rng = np.random.default_rng(seed)
    drawn = (rng.multinomial(n, np.full(n, 1 / n), size=n_boot).astype(float) for n in (n_seeds, n_clusters))
    seeds, clusters = drawn
    return seeds, clusters


def bootstrap_fits(
    data: StrategyData,
    estimate: OddsParameters,
    seeds: Float[np.ndarray, "boot seed"],
    clusters: Float[np.ndarray, "boot batch"],
    *,
    fixed: dict[str, float] | None = None,
) -> Refits:
    """The fit of every draw."""
    rows = []
    for of_seeds, of_clusters in zip(seeds, clusters, strict=True):
        average = data.profiles.average(of_clusters)
        objective = Objective(data.terms, average.profiles, data.fitted, weights=of_seeds)
        fit = fit_odds(objective, starts=[estimate], fixed=fixed)
        rows.append((fit, *judged(data, average, fit, weights=of_seeds)))
    return _stacked(rows, list(data.cells))


def shuffled_fits(data: StrategyData, n_permutations: int, *, seed: int = 0) -> Refits:
    """The fit where kept cells have changed places at random; of all seeds alike."""
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(data.cells["all"].ravel())
    rows = []
    for _ in range(n_permutations):
        order = np.arange(data.fitted.size)
        order[kept] = rng.permutation(kept)
        fit = fit_odds(Objective(data.terms, data.average.profiles, data.fitted, order=order), starts=PUBLISHED)
        rows.append((fit, *judged(data, data.average, fit, order=order)))
    return _stacked(rows, list(data.cells))


def judged(
    data: StrategyData,
    average: Averages,
    fit: OddsFit,
    *,
    weights: Float[np.ndarray, " seed"] | None = None,
    order: Int[np.ndarray, " _"] | None = None,
) -> tuple[dict[str, float], dict[str, float]]:
    """The correlation of observed and predicted d_rel, and the loss, over each set of cells."""
    log_odds = data.terms.log_odds(fit.parameters)
    observed, predicted = average.d_rel, average.predicted(log_odds)
    if order is not None:
        observed = observed.reshape(len(observed), -1)[:, order].reshape(observed.shape)
    d_rel, loss = {}, {}
    for name, cells in data.cells.items():
        if not cells.any():
            d_rel[name] = loss[name] = np.nan
            continue
        objective = Objective(data.terms, average.profiles, cells, weights=weights, order=order)
        loss[name] = objective.loss(fit.parameters)
        d_rel[name] = correlation(observed[:, cells], predicted[:, cells], weights)
    return d_rel, loss


def correlation(
    observed: Float[np.ndarray, "seed _"],
    predicted: Float[np.ndarray, "seed _"],
    weights: Float[np.ndarray, " seed"] | None = None,
) -> float:
    """Pearson's, seeds weighed; NaN where either does not vary. Cells in which M and G agree (NaN) are left out."""
    times = np.ones(len(observed)) if weights is None else weights
    known = np.isfinite(observed) & np.isfinite(predicted)
    share = (times[:, None] * known)[known]
    if share.sum() == 0:
        return float("nan")
    share = share / share.sum()
    x, y = observed[known], predicted[known]
    x, y = x - share @ x, y - share @ y
    spread = (share @ x**2) * (share @ y**2)
    return float(share @ (x * y) / np.sqrt(spread)) if spread > 1e-18 else float("nan")


def _stacked(rows: list[tuple[OddsFit, dict[str, float], dict[str, float]]], cells: list[str]) -> Refits:
    good = np.array([fit.converged for fit, _, _ in rows], dtype=bool)
    values = np.array([[getattr(fit.parameters, name) for name in NAMES] for fit, _, _ in rows], dtype=float)
    parameters = np.where(good[:, None], values.reshape(-1, 3), np.nan)

    def columns(found: list[dict[str, float]]) -> dict[str, np.ndarray]:
        return {name: np.where(good, np.array([row[name] for row in found], dtype=float), np.nan) for name in cells}

    return Refits(parameters, columns([d_rel for _, d_rel, _ in rows]), columns([loss for _, _, loss in rows]))
