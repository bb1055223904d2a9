"""How well the model of training predicts the transformer's predictions themselves, on a sample of items.

    spearman    rank correlation of the transformer's numbers and the model's, over seeds, cells, items and labels
    r2          1 - sum (h - p)^2 / sum (h - mean h)^2: 0 is a constant, 1 is equal
    agreement   share of items with the same likeliest label (NaN for means)

Sources: 2506.17859 (Spearman for balls and urns, R^2 for regression, agreement for classification).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import expit
from scipy.stats import rankdata

MEASURES = ("spearman", "r2", "agreement")
_N_ITEMS = 64


@dataclass(frozen=True)
class Sample:
    """Predictions of some items, as many of every cluster, in the order of clusters; items: which of all they are."""

    predictions: Float[np.ndarray, "seed step diversity item label"]
    memorising: Float[np.ndarray, "seed diversity item label"]
    generalising: Float[np.ndarray, "seed diversity item label"]
    offsets: Float[np.ndarray, "seed diversity item"] | None
    items: Int[np.ndarray, " item"]
    clusters: Int[np.ndarray, " item"]

    def mixture(
        self, log_odds: Float[np.ndarray, "seed step diversity"]
    ) -> Float[np.ndarray, "seed step diversity item label"]:
        """w M + (1 - w) G."""
        odds = log_odds[..., None] if self.offsets is None else log_odds[..., None] + self.offsets[:, None]
        weight, rest = expit(odds)[..., None], expit(-odds)[..., None]
        return np.asarray(weight * self.memorising[:, None] + rest * self.generalising[:, None])


def draw_sample(
    predictions: Float[np.ndarray, "seed step diversity item label"],
    memorising: Float[np.ndarray, "seed diversity item label"],
    generalising: Float[np.ndarray, "seed diversity item label"],
    members: Int[np.ndarray, "batch _"],
    *,
    offsets: Float[np.ndarray, "seed diversity item"] | None = None,
    seed: int = 0,
) -> Sample:
    """Some items of every cluster, about 64 in all (one at least of each)."""
    rng = np.random.default_rng(seed)
    sizes = (members >= 0).sum(1)
    each = max(1, min(int(sizes.min()), _N_ITEMS // len(members)))
    chosen = [np.sort(rng.choice(row[:size], each, replace=False)) for row, size in zip(members, sizes, strict=True)]
    items = np.concatenate(chosen)
    h, m, g = (values[..., items, :].astype(np.float64) for values in (predictions, memorising, generalising))
    own = None if offsets is None else offsets[..., items]
    return Sample(h, m, g, offsets=own, items=items, clusters=np.repeat(np.arange(len(members)), each))


@dataclass(frozen=True)
class Agreement:
    """Sums over (seed, cluster) from which the three measures come, for any number of times each was drawn."""

    ranks: Float[np.ndarray, "seed batch 6"]
    numbers: Float[np.ndarray, "seed batch 6"]
    same: Float[np.ndarray, "seed batch"]

    def measures(
        self, seeds: Float[np.ndarray, "*boot seed"], clusters: Float[np.ndarray, "*boot batch"]
    ) -> dict[str, Float[np.ndarray, "*boot"]]:
        """Each measure, where seeds and clusters were drawn so many times; ranks stay those of the whole sample."""
        times = seeds[..., :, None] * clusters[..., None, :]
        n, a, b, ab, aa, bb = np.moveaxis(np.einsum("...sb,sbk->...k", times, self.ranks), -1, 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            spearman = (n * ab - a * b) / np.sqrt((n * aa - a * a) * (n * bb - b * b))
            n, a, b, ab, aa, bb = np.moveaxis(np.einsum("...sb,sbk->...k", times, self.numbers), -1, 0)
            r2 = 1 - (aa - 2 * ab + bb) / (aa - a * a / n)
        same = (times * self.same).sum((-2, -1)) / times.sum((-2, -1))
        return {"spearman": np.asarray(spearman), "r2": np.asarray(r2), "agreement": np.asarray(same)}


def prediction_agreement(
    sample: Sample,
    log_odds: Float[np.ndarray, "seed step diversity"],
    cells: Bool[np.ndarray, "step diversity"],
) -> Agreement:
    """The sums of a model's predictions at these log odds, over some cells."""
    clusters, n_clusters = sample.clusters, int(sample.clusters.max()) + 1
    h, p = (np.moveaxis(values[:, cells], 2, 1) for values in (sample.predictions, sample.mixture(log_odds)))
    by_cluster = (len(h), n_clusters, len(clusters) // n_clusters, -1)  # items come sorted by cluster

    def sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = (values.reshape(len(h), n_clusters, -1) for values in (a, b))
        return np.stack([part.sum(-1) for part in (np.ones_like(a), a, b, a * b, a * a, b * b)], axis=-1)

    ranked = [rankdata(values).reshape(h.shape) / values.size - 0.5 for values in (h, p)]
    if h.shape[-1] == 1:
        same = np.full(by_cluster[:2], np.nan)
    else:
        same = (h.argmax(-1) == p.argmax(-1)).reshape(by_cluster).mean((-2, -1))
    return Agreement(ranks=sums(*ranked), numbers=sums(h, p), same=same)
