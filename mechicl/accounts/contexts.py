"""What a model said about some contexts, and what an account may know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

_SUM = 1e-4  # how far from 1 probabilities may sum: half precision passes, scores do not


@dataclass(frozen=True, eq=False)
class Contexts:
    """All contexts of one length: the model's predictions, and the examples that accounts predict from.

    length: demonstrations (balls, pairs, primes) a context.
    examples: what accounts read; of a kind's own type, with `len` and `.take(rows)`.
    model: the model's probabilities of the answers; or, where there is one label, the mean that it predicts.
    orders: its predictions with the same demonstrations in K orders, the given one first. None where order is part of
        what an account must explain.
    truth: the right answer, one-hot or as probabilities; a mean; rows of NaN where it is unknown.
    cluster: the unit that is drawn at random; contexts of one number stay together, at all lengths.
    mask: labels that may be answered, where they differ between contexts.

    Errors (ValueError): shapes that do not go together, probabilities that are none.
    """

    length: int
    examples: Any
    model: Float[np.ndarray, "batch label"]
    orders: Float[np.ndarray, "order batch label"] | None
    truth: Float[np.ndarray, "batch label"]
    cluster: Int[np.ndarray, " batch"]
    mask: Bool[np.ndarray, "batch label"] | None = None

    def __post_init__(self) -> None:
        """Check that all parts speak of the same contexts."""
        if self.model.ndim != 2 or not len(self.model):
            raise ValueError(f"got predictions of shape {self.model.shape}; expected [batch, label], not empty")
        if len(self.examples) != len(self.model):
            raise ValueError(f"got {len(self.examples)} examples for {len(self.model)} predictions; expected as many")
        for name in ("truth", "mask"):
            own = getattr(self, name)
            if own is not None and own.shape != self.model.shape:
                raise ValueError(f"got {name} of shape {own.shape}; expected the predictions' {self.model.shape}")
        if self.orders is not None and (self.orders.shape[1:] != self.model.shape or len(self.orders) < 2):
            raise ValueError(f"got orders of shape {self.orders.shape}; expected 2 or more, each {self.model.shape}")
        if self.cluster.shape != self.model.shape[:1]:
            raise ValueError(
                f"got {len(self.cluster)} cluster numbers for {len(self.model)} contexts; expected as many"
            )
        _check_predictions(self.model, self.is_mean)

    @property
    def is_mean(self) -> bool:
        """Whether predictions are means, and not probabilities."""
        return self.model.shape[1] == 1

    def __len__(self) -> int:
        """The number of contexts."""
        return len(self.model)

    def take(self, rows: Int[np.ndarray, " _"]) -> Contexts:
        """Some of the contexts."""
        return replace(
            self,
            examples=self.examples.take(rows),
            model=self.model[rows],
            orders=None if self.orders is None else self.orders[:, rows],
            truth=self.truth[rows],
            cluster=self.cluster[rows],
            mask=None if self.mask is None else self.mask[rows],
        )


def split_contexts(contexts: Sequence[Contexts], *, seed: int) -> tuple[list[Contexts], list[Contexts]]:
    """Two halves by cluster, drawn at random and the same at all lengths: one to fit on, one to judge by.

    Raises ValueError for fewer than 4 clusters in all.
    """
    clusters = np.unique(np.concatenate([one.cluster for one in contexts]))
    if len(clusters) < 4:
        raise ValueError(f"got {len(clusters)} cluster(s) of contexts; expected 4 or more, to fit on half of them")
    chosen = np.random.default_rng(seed).permutation(clusters)[: len(clusters) // 2]
    halves: tuple[list[Contexts], list[Contexts]] = ([], [])
    for one in contexts:
        inside = np.isin(one.cluster, chosen)
        for half, rows in zip(halves, (np.flatnonzero(inside), np.flatnonzero(~inside)), strict=True):
            if not len(rows):
                raise ValueError(f"no context of length {one.length} fell into one of the halves; give more contexts")
            half.append(one.take(rows))
    return halves


def _check_predictions(model: np.ndarray, is_mean: bool) -> None:
    if not np.isfinite(model).all():
        raise ValueError(
            f"got {int((~np.isfinite(model)).any(-1).sum())} of {len(model)} predictions that are not finite; "
            "drop these contexts, or mend the model"
        )
    if not is_mean and ((model < 0).any() or (np.abs(model.sum(-1) - 1) > _SUM).any()):
        raise ValueError("got predictions that are no probabilities; expected rows of 0 or more that sum to 1")
