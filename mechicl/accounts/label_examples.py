"""Few-shot prompts in numbers: all that accounts of a language model's labels may know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

MANY_LABELS = 10  # of more, no bias for each is fitted
Weights = Mapping[str, Float[np.ndarray, "batch demo"]]
LogProbs = Mapping[str, Float[np.ndarray, "batch label"]]


@dataclass(frozen=True, eq=False)
class LabelExamples:
    """Few-shot prompts in numbers.

    shown: one-hot labels of the demonstrations; a row of zeros is a label that may not be answered. zero_shot:
    log-probabilities of the labels without demonstrations. kernels: by name, logarithms of kernels between query and
    demonstrations, without their scale. attention: by head ("L3H5"), weights of 0 or more. stepped: by learning rate,
    log-probabilities as zero_shot after a step. mask: labels that may be answered where prompts differ in them; None:
    all. What log-probabilities say of other labels is not read.

    Errors (ValueError): shapes that do not go together, numbers that are not finite, attention below 0.
    """

    shown: Float[np.ndarray, "batch demo label"]
    zero_shot: Float[np.ndarray, "batch label"]
    kernels: Weights
    attention: Weights
    stepped: LogProbs
    mask: Bool[np.ndarray, "batch label"] | None = None

    def __post_init__(self) -> None:
        """Check that all parts speak of the same prompts."""
        n, n_demos, n_labels = self.shown.shape
        for expected, parts in (
            ((n, n_demos), {**self.kernels, **self.attention}),
            ((n, n_labels), {"zero_shot": self.zero_shot, **self.stepped}),
            ((n, n_labels), {} if self.mask is None else {"mask": self.mask}),
        ):
            for name, own in parts.items():
                if own.shape != expected:
                    raise ValueError(f"got {name} of shape {own.shape}; expected {expected}, as the labels shown have")
        logs = {"zero_shot": self.zero_shot, **self.stepped}
        if wrong := [name for name, own in logs.items() if not np.isfinite(own[self.allowed]).all()]:
            raise ValueError(f"got log-probabilities that are not finite: {wrong[0]}; leave out what diverged")
        if wrong := [name for name, own in self.kernels.items() if not np.isfinite(own).all()]:
            raise ValueError(f"got a kernel that is not finite: {wrong[0]}")
        if wrong := [name for name, own in self.attention.items() if not (np.isfinite(own).all() and (own >= 0).all())]:
            raise ValueError(f"got attention of {wrong[0]} that is below 0 or not finite; give weights, not scores")

    def __len__(self) -> int:
        """The number of prompts."""
        return len(self.shown)

    @property
    def allowed(self) -> Bool[np.ndarray, "batch label"]:
        """Which labels may be answered."""
        return np.ones(self.zero_shot.shape, dtype=bool) if self.mask is None else self.mask

    @property
    def with_bias(self) -> bool:
        """Whether a bias for each label is fitted: they are few, and the same in every prompt."""
        return self.mask is None and self.shown.shape[-1] <= MANY_LABELS

    def take(self, rows: Int[np.ndarray, " _"]) -> LabelExamples:
        """Some of the prompts."""
        kernels, attention, stepped = (
            {name: own[rows] for name, own in parts.items()} for parts in (self.kernels, self.attention, self.stepped)
        )
        return replace(
            self, shown=self.shown[rows], zero_shot=self.zero_shot[rows], kernels=kernels, attention=attention,
            stepped=stepped, mask=None if self.mask is None else self.mask[rows],
        )  # fmt: skip

    def votes(self, weights: Float[np.ndarray, "*set batch demo"]) -> Float[np.ndarray, "*set batch label"]:
        """The share of all weight that each label's demonstrations have; all alike where there is no weight."""
        votes = (weights[..., None, :] @ self.shown)[..., 0, :]
        total = votes.sum(-1, keepdims=True)
        uniform = self.allowed / self.allowed.sum(-1, keepdims=True)
        return np.where(total > 0, votes / np.where(total > 0, total, 1.0), uniform)

    def shares(self, log_probs: Float[np.ndarray, "batch label"]) -> Float[np.ndarray, "batch label"]:
        """Probabilities over the labels that may be answered."""
        kept = np.where(self.allowed, log_probs, -np.inf)
        found = np.exp(kept - kept.max(-1, keepdims=True))
        return np.asarray(found / found.sum(-1, keepdims=True))
