"""A third strategy beside the two: predicting the same, the best constant, whatever the context.

Weights are a softmax over memorising, generalising and constant of their log odds against generalising, each

    gamma N^(1 - alpha) (L_G - L) - ln 2 (K^beta - K_G^beta)

with the same three parameters. A constant needs the fewest bits and has the largest loss: it should come first and go
soon, which is what checkpoints before the two-hypothesis threshold are about. Source: 2506.17859 (extension).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.special import softmax, xlogy

from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.strategies.cluster_losses import loss_row
from mechicl.strategies.data import Pair, StrategyData
from mechicl.strategies.optimise import PUBLISHED, Objective, fit_odds
from mechicl.strategies.posterior_odds import NAMES, OddsParameters, OddsTerms
from mechicl.strategies.refits import draw_times

STRATEGIES = ("memorising", "constant", "generalising")


@dataclass(frozen=True)
class ThreeWayFit(Result):
    """Two strategies against three, on the same sample of items.

    table: one row each of "two" and "three": strategies, alpha, beta, gamma, converged, and for "fitted" and "held_out"
        cells: *_loss, *_excess (loss beyond that of two) with *_excess_low and *_excess_high (seeds and sequences
        resampled, parameters as they are).
    weights: of three, in the order of `STRATEGIES` (last axis), sum 1.
    """

    level: float
    table: pd.DataFrame
    weights: Float[np.ndarray, "seed step diversity 3"]

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table.copy()


class SampledMixture(Objective):
    """The loss of a mixture of any number of strategies on the data's sample of items, the last one the reference."""

    def __init__(
        self,
        data: StrategyData,
        terms: Sequence[OddsTerms],
        strategies: Sequence[Float[np.ndarray, "seed diversity item label"]],
        cells: Bool[np.ndarray, "step diversity"],
    ) -> None:
        super().__init__(data.terms, data.average.profiles, cells)
        _, columns = np.nonzero(cells)
        self.all_terms, self.kl = terms, data.distance == "kl"
        self.n_clusters = int(data.sample.clusters.max()) + 1
        self.predictions = data.sample.predictions[:, cells]
        self.strategies = np.stack([values[:, columns] for values in strategies])

    def mixture_weights(self, parameters: OddsParameters) -> Float[np.ndarray, "_ seed cell"]:
        """The weight of every strategy in every cell."""
        odds = [terms.log_odds(parameters)[:, self.cells] for terms in self.all_terms]
        return np.asarray(softmax(np.stack([*odds, np.zeros_like(odds[0])]), axis=0))

    def loss(self, parameters: OddsParameters) -> float:
        """The mean divergence an item."""
        return self.gradient(parameters)[0]

    def gradient(self, parameters: OddsParameters) -> tuple[float, Float[np.ndarray, " _"]]:
        """The loss and its derivatives with respect to alpha, beta and log gamma."""
        weights, h = self.mixture_weights(parameters), self.predictions
        p = np.einsum("ksc,kscil->scil", weights, self.strategies)
        loss = float(self._divergences(p).mean())
        if self.kl:
            gain = -np.einsum("scil,kscil->ksc", h / p, self.strategies) / h.shape[2]
            slope = weights * (gain + 1)
        else:
            away = 2 * (p - h) / (h.shape[2] * h.shape[3])
            slope = weights * (np.einsum("scil,kscil->ksc", away, self.strategies) - (away * p).sum((-2, -1)))
        slope /= weights[0].size
        by_parameter = [terms.log_odds_gradient(parameters)[:, :, self.cells] for terms in self.all_terms]
        return loss, np.einsum("kpsc,ksc->p", np.stack(by_parameter), slope[:-1])

    def cluster_losses(self, parameters: OddsParameters) -> Float[np.ndarray, "seed batch"]:
        """The divergence, averaged over cells and over the items of each cluster."""
        p = np.einsum("ksc,kscil->scil", self.mixture_weights(parameters), self.strategies)
        by_item = self._divergences(p).mean(1)
        return np.asarray(by_item.reshape(len(by_item), self.n_clusters, -1).mean(-1))

    def _divergences(self, p: np.ndarray) -> np.ndarray:
        h = self.predictions
        if self.kl:
            return np.asarray((xlogy(h, h) - h * np.log(p)).sum(-1))
        return np.asarray(((h - p) ** 2).mean(-1))


def fit_three_strategies(
    data: StrategyData,
    constant: Float[np.ndarray, "seed diversity item label"],
    losses: Pair,
    bits_constant: Float[np.ndarray, "seed diversity"],
    *,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> ThreeWayFit:
    """The model with a constant predictor as a third strategy, beside that with two.

    constant: its predictions, of the items that the data were made of. losses: of constant and generalising. Prepare
    the data with threshold=1 to have early checkpoints in it.

    Errors (ValueError): arrays that do not go together, probabilities of 0, data with offsets.
    """
    check_level(level)
    _check(data, constant)
    third = OddsTerms(
        *(data.terms.steps, data.terms.diversities, losses[1] - losses[0], bits_constant, data.terms.bits_generalising)
    )
    sample = data.sample
    m, c, g = sample.memorising, constant[:, :, sample.items].astype(np.float64), sample.generalising
    strategies: dict[str, tuple[list[OddsTerms], list[np.ndarray]]] = {
        "two": ([data.terms], [m, g]),
        "three": ([data.terms, third], [m, c, g]),
    }
    n_clusters = int(sample.clusters.max()) + 1
    times = draw_times(data.terms.shape[0], n_clusters, n_boot, seed)
    rows, starts = [], list(PUBLISHED)
    reference: dict[str, np.ndarray] = {}
    for name, parts in strategies.items():
        fit = fit_odds(SampledMixture(data, *parts, data.fitted), starts=starts)
        starts = [fit.parameters, *PUBLISHED]
        row = {"strategies": name} | {key: getattr(fit.parameters, key) for key in NAMES}
        row["converged"] = fit.converged
        for key in ("fitted", "held_out"):
            if data.cells[key].any():
                own = SampledMixture(data, *parts, data.cells[key]).cluster_losses(fit.parameters)
                row |= loss_row(key, own, reference.setdefault(key, own), np.ones(n_clusters), times, level)
        rows.append(row)
    everywhere = SampledMixture(data, *strategies["three"], np.ones_like(data.fitted))
    weights = everywhere.mixture_weights(fit.parameters).reshape(3, *data.terms.shape)
    return ThreeWayFit(level=level, table=pd.DataFrame(rows), weights=np.moveaxis(weights, 0, -1))


def _check(data: StrategyData, constant: np.ndarray) -> None:
    n_seeds, n_diversities, _, n_labels = data.sample.memorising.shape
    if constant.shape[:2] != (n_seeds, n_diversities) or constant.shape[3:] != (n_labels,):
        raise ValueError(
            f"got constant of shape {constant.shape}; expected [seed, diversity, item, label], {n_seeds} seeds, "
            f"{n_diversities} diversities and {n_labels} labels"
        )
    if constant.shape[2] <= data.sample.items.max():
        raise ValueError(f"got constant of {constant.shape[2]} items; expected all that the data were made of")
    if data.distance == "kl" and not (constant > 0).all():
        raise ValueError("got constant with probabilities that are not above 0; clamp them first")
    if data.sample.offsets is not None:
        raise ValueError("got data with offsets of the log odds; prepare it without them")
