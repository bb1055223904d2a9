"""How far an account's predictions lie from a model's, and how near any account could come.

    probabilities    KL(model || account) = sum_y p_model log(p_model / p_account), nats
    means            (model - account)^2, in units of the label squared

0 for the same predictions. An account that gives the model's answer no probability would be infinitely far: its
probabilities are kept off 0 by `FLOOR`.

A model that reads its demonstrations in order says other things in another order; an account that knows only which
demonstrations there are cannot follow. Of the predictions f_k in K orders it misses at least

    ceiling = K / (K - 1) mean_k D(f_k, mean of the f_k)

on average, since no one prediction is nearer to all of them than their mean; K / (K - 1) because that mean was taken
from the same K (exact for means, to second order for probabilities). 0 for a model to which order is nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechicl.accounts.account import Account
from mechicl.accounts.contexts import Contexts

FLOOR = 1e-6
_SUM = 1e-4


def prediction_distance(
    of: Float[np.ndarray, "*batch label"],
    by: Float[np.ndarray, "*batch label"],
    mask: Bool[np.ndarray, "*batch label"] | None = None,
) -> Float[np.ndarray, "*batch"]:
    """D(of, by): the divergence of `by` from `of`; between means where there is one label.

    mask: labels that may be answered; `by` is given no floor elsewhere.
    """
    if of.shape[-1] == 1:
        return np.asarray((of - by)[..., 0] ** 2)
    allowed = np.ones(by.shape, bool) if mask is None else np.broadcast_to(mask, by.shape)
    kept = np.where(allowed, np.maximum(by, FLOOR), 0.0)
    kept = kept / kept.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(of > 0, of * (np.log(of) - np.log(kept)), 0.0)
    return np.asarray(np.maximum(parts.sum(-1), 0.0))


def ceiling_distance(contexts: Contexts) -> Float[np.ndarray, " batch"]:
    """What every account misses that does not know the demonstrations' order; 0 where it may know it."""
    if contexts.orders is None:
        return np.zeros(len(contexts))
    k = len(contexts.orders)
    mean = contexts.orders.mean(0)
    apart = np.stack([prediction_distance(own, mean, contexts.mask) for own in contexts.orders])
    return np.asarray(apart.mean(0) * k / (k - 1))


def predict_contexts(
    account: Account, contexts: Contexts, parameters: Mapping[str, Any]
) -> Float[np.ndarray, "batch label"]:
    """The account's predictions; a ValueError where they have another shape, are not finite, or no probabilities."""
    found = np.asarray(account.predict(contexts.examples, **parameters), dtype=np.float64)
    who = f"the account {account.name!r}"
    if found.shape != contexts.model.shape:
        raise ValueError(f"{who} gave shape {found.shape}; expected {contexts.model.shape}, one prediction a context")
    if not np.isfinite(found).all():
        raise ValueError(f"{who} gave predictions that are not finite, with {dict(parameters)}")
    if not contexts.is_mean and ((found < -1e-9).any() or (np.abs(found.sum(-1) - 1) > _SUM).any()):
        raise ValueError(f"{who} gave no probabilities; expected rows of 0 or more that sum to 1")
    return found


def account_distances(
    account: Account, contexts: Contexts, parameters: Mapping[str, Any]
) -> Float[np.ndarray, " batch"]:
    """The distance of each prediction of the account from the model's."""
    return prediction_distance(contexts.model, predict_contexts(account, contexts, parameters), contexts.mask)
