"""What is refused before a fit starts: predictions that are none, and arrays that do not go together."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

DISTANCES = ("kl", "mse")
_SUM = 1e-3  # predictions of a transformer come in single precision


def check_predictions(
    predictions: Float[np.ndarray, "..."],
    memorising: Float[np.ndarray, "..."],
    generalising: Float[np.ndarray, "..."],
    clusters: Int[np.ndarray, "..."] | None,
    distance: str,
) -> None:
    """A ValueError that names the array, what was got and what was expected."""
    if distance not in DISTANCES:
        raise ValueError(f"got distance {distance!r}; expected 'kl' for distributions or 'mse' for means")
    if predictions.ndim != 5 or 0 in predictions.shape:
        raise ValueError(
            f"got predictions of shape {predictions.shape}; expected [seed, step, diversity, item, label], none empty"
        )
    expected = predictions.shape[:1] + predictions.shape[2:]
    for name, values in (("memorising", memorising), ("generalising", generalising)):
        if values.shape != expected:
            raise ValueError(
                f"got {name} of shape {values.shape}; expected {expected}, [seed, diversity, item, label] of "
                f"predictions of shape {predictions.shape}"
            )
    if clusters is not None and clusters.shape != predictions.shape[3:4]:
        raise ValueError(f"got clusters of shape {clusters.shape}; expected one an item, {predictions.shape[3]}")
    for name, values in (("predictions", predictions), ("memorising", memorising), ("generalising", generalising)):
        for index in np.ndindex(values.shape[:-2]):  # a block at a time: these are the large arrays
            _check_block(name, values[index], index, distance, zero=name == "predictions")


def _check_block(name: str, block: np.ndarray, index: tuple[int, ...], distance: str, *, zero: bool) -> None:
    where = f"{name}[{', '.join(map(str, index))}]"
    if not np.isfinite(block).all():
        raise ValueError(f"got {where} with numbers that are not finite (NaN or infinite); drop these checkpoints")
    if distance == "mse":
        return
    if block.min() < 0:
        raise ValueError(f"got {where} with {block.min():g}; expected probabilities (a softmax of the logits)")
    if not zero and block.min() == 0:
        raise ValueError(f"got {where} with a probability of 0, so that a divergence is infinite; clamp it first")
    off = np.abs(block.sum(-1) - 1).max()
    if off > _SUM:
        raise ValueError(f"got {where} whose probabilities sum to 1 only within {off:.2g}; expected {_SUM:g} or better")


def check_offsets(offsets: Float[np.ndarray, "..."] | None, expected: tuple[int, ...]) -> None:
    """A ValueError for offsets of the log odds that are not finite, or not one a seed, diversity and item."""
    if offsets is None:
        return
    if offsets.shape != expected:
        raise ValueError(f"got offsets of shape {offsets.shape}; expected {expected}, [seed, diversity, item]")
    if not np.isfinite(offsets).all():
        raise ValueError("got offsets that are not finite (NaN or infinite)")
