"""How alike are the change that a context makes and the change that gradient descent on it makes?

Each measure compares, per item (a query), a model that reads demonstrations (ICL), the same model without them (zero
shot, ZS) and the model after gradient steps on them, without them in the context (fine-tuned, FT):

    SimAOU   cos(h_ICL - h_ZS, h_FT - h_ZS)      h: attention output at the last token
    SimAM    cos(m_ICL - m_ZS, m_FT - m_ZS)      m: scores before the softmax of the query's own tokens; mean over heads
    Kendall  tau-b between the scores of the demonstrations' tokens in the context and the attention that gradient steps
             on them imply, x_t . x_query, from the dual form dW x = -rate sum_t g_t (x_t . x); mean over heads
    Rec2FTP and the correlation of effects: see `mechicl.effect_agreement`

All lie between -1 and 1; 0 is chance for SimAOU and SimAM of independent updates, and for Kendall. Sources: Dai et al.,
arXiv 2212.10559; for the unnormalised form and untrained controls Deutch et al., arXiv 2311.07772.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.effect_agreement import Effects, Recall, effect_correlation, recall_of_tuned
from mechicl.resampling import Interval, cluster_mean_interval

__all__ = [
    "Effects",
    "Interval",
    "Recall",
    "Similarity",
    "effect_correlation",
    "implied_attention",
    "kendall",
    "recall_of_tuned",
    "sim_am",
    "sim_aou",
]
Clusters = Sequence[Any] | np.ndarray | pd.Series | None  # a label an item; None: each item by itself


@dataclass(frozen=True)
class Similarity:
    """A measure per item and layer, and its means over items with bootstrap intervals.

    values: NaN where an item has none (an update of size 0 has no direction). estimate, low, high: mean over the items
    that have one, layer by layer. overall: of the items' means over layers. Fewer than 2 clusters give no interval.
    """

    values: Float[np.ndarray, "item layer"]
    estimate: Float[np.ndarray, "layer"]
    low: Float[np.ndarray, "layer"]
    high: Float[np.ndarray, "layer"]
    overall: tuple[float, float, float]

    @classmethod
    def of(
        cls,
        values: Float[np.ndarray, "item layer"],
        *,
        clusters: Clusters = None,
        n_boot: int = 2_000,
        level: float = 0.95,
        seed: int = 0,
    ) -> Similarity:
        """Means and intervals of the values; whole clusters of items are resampled."""
        labels = np.arange(len(values)) if clusters is None else np.asarray(clusters)
        if len(labels) != len(values):
            raise ValueError(f"got {len(values)} items and {len(labels)} cluster labels, expected one label an item")
        by_layer = np.array([_mean(own, labels, n_boot, level, seed) for own in values.T]).reshape(-1, 3)
        known = np.isfinite(values)
        counts = known.sum(1)
        means = np.divide(np.where(known, values, 0).sum(1), counts, out=np.full(len(values), np.nan), where=counts > 0)
        return cls(values, by_layer[:, 0], by_layer[:, 1], by_layer[:, 2], _mean(means, labels, n_boot, level, seed))


def sim_aou(
    icl: Float[np.ndarray, "item layer d_model"],
    zero_shot: Float[np.ndarray, "item layer d_model"],
    tuned: Float[np.ndarray, "item layer d_model"],
    *,
    normalised: bool = False,
    clusters: Clusters = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> Similarity:
    """Cosine of the updates of attention outputs: above 0 where context and gradient steps move them the same way.

    normalised=True scales every h to length 1 before subtracting, as published code does, and warns: the shared h_ZS is
    then shortened in both differences, which makes independent updates look alike. Two independent updates r of a state
    z with |r|^2 = 3 |z|^2 have 1/4 in expectation. Raises `ValueError` for arrays that are not finite.
    """
    for name, states in (("icl", icl), ("zero_shot", zero_shot), ("tuned", tuned)):
        if not np.isfinite(states).all():
            raise ValueError(f"`{name}` holds numbers that are not finite; leave out the prompts that diverged")
    if normalised:
        warnings.warn(
            "SimAOU of normalised outputs is above 0 for independent updates too; report normalised=False",
            RuntimeWarning,
            stacklevel=2,
        )
        icl, zero_shot, tuned = (states / _length(states)[..., None] for states in (icl, zero_shot, tuned))
    values = _cosine(icl - zero_shot, tuned - zero_shot)
    return Similarity.of(values, clusters=clusters, n_boot=n_boot, level=level, seed=seed)


def sim_am(
    icl: Sequence[Float[np.ndarray, "layer head _"]],
    zero_shot: Sequence[Float[np.ndarray, "layer head _"]],
    tuned: Sequence[Float[np.ndarray, "layer head _"]],
    *,
    clusters: Clusters = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> Similarity:
    """Cosine of the updates of attention scores, before the softmax, of the query's own tokens; one array an item.

    A cosine a head, averaged over the heads whose scores moved. A query of a single token has +1 or -1 in every head.
    """
    _same_length(icl=icl, zero_shot=zero_shot, tuned=tuned)
    per_head = [_cosine(a - z, b - z) for a, z, b in zip(icl, zero_shot, tuned, strict=True)]
    values = np.stack([_over_heads(own) for own in per_head])
    return Similarity.of(values, clusters=clusters, n_boot=n_boot, level=level, seed=seed)


def kendall(
    attention: Sequence[Float[np.ndarray, "layer head _"]],
    implied: Sequence[Float[np.ndarray, "layer _"]],
    *,
    clusters: Clusters = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> Similarity:
    """Rank correlation of attention to the demonstrations' tokens with what gradient steps on them imply.

    tau-b, one a head (ranks are those of scores and shares alike), averaged over heads; one pair of arrays an item.
    NaN where all tokens are equal in either. See `implied_attention`.
    """
    _same_length(attention=attention, implied=implied)
    values = np.stack([_over_heads(_tau_b(a, b[:, None])) for a, b in zip(attention, implied, strict=True)])
    return Similarity.of(values, clusters=clusters, n_boot=n_boot, level=level, seed=seed)


def implied_attention(
    trained_on: Float[np.ndarray, "layer token d_model"], query: Float[np.ndarray, "layer d_model"]
) -> Float[np.ndarray, "layer token"]:
    """How strongly a step on each token acts on the query: x_t . x_query, up to the rate and the token's error.

    After one step on W_V its output changes by dW_V x_query = -rate sum_t g_t (x_t . x_query), with x_t what the layer
    read at training token t and g_t the gradient at its output: linear attention over the training tokens.
    """
    return np.einsum("ltd,ld->lt", trained_on, query)


def _cosine(a: Float[np.ndarray, "*batch dim"], b: Float[np.ndarray, "*batch dim"]) -> Float[np.ndarray, "*batch"]:
    """NaN where either is 0."""
    lengths = _length(a) * _length(b)
    return np.asarray(np.divide((a * b).sum(-1), lengths, out=np.full(lengths.shape, np.nan), where=lengths > 0))


def _length(x: Float[np.ndarray, "*batch dim"]) -> Float[np.ndarray, "*batch"]:
    return np.linalg.norm(x.astype(np.float64), axis=-1)


def _tau_b(a: Float[np.ndarray, "layer head token"], b: Float[np.ndarray, "layer 1 token"]) -> np.ndarray:
    """tau-b over the last axis; counts all pairs of tokens at once, layer by layer."""
    found = np.full(a.shape[:2], np.nan)
    one, other = np.triu_indices(a.shape[-1], 1)
    for layer, (scores, own) in enumerate(zip(a, b, strict=True)):
        x, y = (np.sign(s[:, one] - s[:, other]) for s in (scores, own))
        untied = np.sqrt((x != 0).sum(-1) * (y != 0).sum(-1))
        found[layer] = np.divide((x * y).sum(-1), untied, out=found[layer], where=untied > 0)
    return found


def _over_heads(values: Float[np.ndarray, "layer head"]) -> Float[np.ndarray, "layer"]:
    known = np.isfinite(values)
    counts = known.sum(-1)
    total = np.where(known, values, 0).sum(-1)
    return np.asarray(np.divide(total, counts, out=np.full(len(values), np.nan), where=counts > 0))


def _mean(values: np.ndarray, labels: np.ndarray, n_boot: int, level: float, seed: int) -> tuple[float, float, float]:
    """Mean, low and high over the values there are."""
    known = np.isfinite(values)
    if not known.any():
        return np.nan, np.nan, np.nan
    if len(set(labels[known].tolist())) < 2:
        return float(values[known].mean()), np.nan, np.nan
    found = cluster_mean_interval(values[known], labels[known], n_boot=n_boot, level=level, seed=seed)
    return found.estimate, found.low, found.high


def _same_length(**parts: Sequence[Any]) -> None:
    lengths = {name: len(part) for name, part in parts.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise ValueError(f"got {lengths} items; expected one array an item in each, and at least one")
