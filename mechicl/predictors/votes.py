"""Predictions as votes of the demonstrations: what kernel regression makes of labels, and its simplest rivals.

    yhat = sum_i w_i e(y_i) / sum_i w_i

with e(y) the one-hot code of a label. Weights may be attention, a kernel, or nothing but a position. Votes of one
prompt sum to 1. Where several labels have the most votes each of them is predicted with equal share, so that an
accuracy or agreement is what guessing among them gives on average, and no order of labels decides.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

_TIES = 1e-9  # votes that differ by less are equal up to rounding


def label_votes(
    weights: Float[np.ndarray, "item *head demo"], demo_labels: Int[np.ndarray, "item demo"], n_labels: int
) -> Float[np.ndarray, "item *head label"]:
    """The Nadaraya-Watson prediction: the share of all weight that each label's demonstrations have.

    demo_labels: numbers below n_labels; -1 for a label that may not be answered, whose weight is left out. NaN where
    no weight is left. Raises `ValueError` for negative weights and label numbers out of range.
    """
    if (weights < 0).any():
        raise ValueError("got weights below 0; give attention or kernel values, not scores")
    if demo_labels.min() < -1 or demo_labels.max() >= n_labels:
        raise ValueError(f"got label numbers from {demo_labels.min()} to {demo_labels.max()}; expected -1 to "
                         f"{n_labels - 1}")  # fmt: skip
    one_hot = (demo_labels[..., None] == np.arange(n_labels)).astype(np.float64)
    votes = np.einsum("i...d,idl->i...l", weights, one_hot)
    total = votes.sum(-1, keepdims=True)
    return np.divide(votes, total, out=np.full_like(votes, np.nan), where=total > 0)


def majority_votes(demo_labels: Int[np.ndarray, "item demo"], n_labels: int) -> Float[np.ndarray, "item label"]:
    """Every demonstration has the same weight: how frequent labels are."""
    return label_votes(np.ones(demo_labels.shape), demo_labels, n_labels)


def recency_votes(
    demo_labels: Int[np.ndarray, "item demo"], n_labels: int, *, decay: float = 0.0
) -> Float[np.ndarray, "item label"]:
    """Weight decay^(demonstrations since): 0 the last demonstration's label alone, 1 the majority."""
    if not 0 <= decay <= 1:
        raise ValueError(f"got decay={decay}; expected 0 (the last demonstration alone) to 1 (all alike)")
    since = np.arange(demo_labels.shape[1])[::-1]
    return label_votes(np.broadcast_to(decay**since, demo_labels.shape).astype(np.float64), demo_labels, n_labels)


def shares_of_best(votes: Float[np.ndarray, "*item label"]) -> Float[np.ndarray, "*item label"]:
    """1 for the label with the most votes, shared where several have as many; all alike where votes are NaN."""
    known = np.where(np.isnan(votes).any(-1, keepdims=True), 0.0, votes)
    best = (known >= known.max(-1, keepdims=True) - _TIES).astype(np.float64)
    return best / best.sum(-1, keepdims=True)


def agreement(
    votes: Float[np.ndarray, "item *head label"], predicted: Int[np.ndarray, " item"]
) -> Float[np.ndarray, "item *head"]:
    """1 where the votes' label is the one predicted (by the model, or the true one), 0 where not, between for ties.

    Chance: how often the two would agree if they were drawn apart, 1 / labels where either is even over labels.
    """
    best = shares_of_best(votes)
    at = predicted.reshape(-1, *[1] * (best.ndim - 1))
    return np.take_along_axis(best, np.broadcast_to(at, (*best.shape[:-1], 1)), -1)[..., 0]
