"""How well does a classifier predict, and is it nearer to knowing the items or to comparing? What its card says.

On contexts that no training saw, of the pool it was trained on and of many items that it never saw: cross-entropy
(nats) and accuracy of the model, of M and G (`mechicl.predictors.classification`) and of a guess; the divergences
d(h, M), d(h, G) and d(M, G), the relative distance d_rel (1: M, 0: G) and what is left over, the residual
(`mechicl.predictors.distances`). `attention`: log attention from the query to the pairs, regressed within each context
on the log weights of G: slope (1: the very kernel), R^2, and the share of its attention that the query keeps to itself.
Each with a 95% interval over contexts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechicl.organisms.classification_transformer import ClassificationTransformer
from mechicl.organisms.regression_judging import interval
from mechicl.predictors.classification import FLOOR, generalising, generalising_weights, memorising
from mechicl.predictors.distances import divergence, relative_distance, residual
from mechicl.resampling import cluster_bootstrap
from mechicl.tasks.classification import Classifications, ClassificationTask

HELD_OUT = 10**9  # a step that no training reaches
OTHER_POOL = 10**6  # added to the pool's seed for items that no training showed
N_UNSEEN = 4096  # how many, lest the answer hang on a few
N_HELD_OUT, N_BOOT = 10_000, 1000
Means = Float[np.ndarray, "*boot"]


def judge(
    model: ClassificationTransformer, task: ClassificationTask, *, n_held_out: int = N_HELD_OUT
) -> dict[str, Any]:
    """What the card says of a classifier: see the head of this file."""
    other = replace(task, task_seed=task.task_seed + OTHER_POOL, diversity=max(task.diversity, N_UNSEEN))
    new = other.sample(n_held_out, step=HELD_OUT)
    predictions = predictions_of(model, other, new)
    return {
        **judge_on(model, task, task.sample(n_held_out, step=HELD_OUT)),
        "unseen_items": {name: _accuracy(p, new.target) for name, p in predictions.items() if name != "memorising"},
    }


def judge_on(model: ClassificationTransformer, task: ClassificationTask, contexts: Classifications) -> dict[str, Any]:
    """The same on given contexts of the pool that the model was trained on."""
    p = predictions_of(model, task, contexts)
    parts = np.stack([
        divergence(p["model"], p["memorising"]),
        divergence(p["model"], p["generalising"]),
        divergence(p["memorising"], p["generalising"]),
    ])  # fmt: skip
    names = ("to_memorising", "to_generalising", "between")
    return {
        "accuracy": {name: _accuracy(found, contexts.target) for name, found in p.items()},
        "distance": {
            **{name: interval(part) for name, part in zip(names, parts, strict=True)},
            "relative": _ratio(parts, relative_distance),
            "residual": _ratio(parts, residual),
        },
        "attention": attention_fit(model, contexts, task.noise),
    }


def predictions_of(
    model: ClassificationTransformer, task: ClassificationTask, contexts: Classifications
) -> dict[str, Float[np.ndarray, "batch label"]]:
    """Label probabilities of the model (within FLOOR and 1 - FLOOR, as theirs are), of M, of G and of a guess."""
    c = contexts
    return {
        "model": model.probabilities(c.x, c.y, c.query).clip(FLOOR, 1 - FLOOR),
        "memorising": memorising(c.query, task.pool, task.pool_labels, noise=task.noise),
        "generalising": generalising(c.query, c.x, c.y, noise=task.noise),
        "guess": np.full((len(c), 2), 0.5),
    }


def attention_fit(model: ClassificationTransformer, contexts: Classifications, noise: float) -> dict[str, Any]:
    """Log attention from the query (layer 0, head 0) on the log weights of G, both centred within each context."""
    c = contexts
    attention = model.query_attention(c.x, c.y, c.query)[:, 0]
    tiny = np.finfo(np.float64).tiny  # weights and attention that left the range of numbers
    log = np.log(np.maximum(attention, tiny))
    kernel = np.log(np.maximum(generalising_weights(c.query, c.x, noise=noise), tiny))
    log, kernel = (part - part.mean(-1, keepdims=True) for part in (log, kernel))
    sums = np.stack([(log * kernel).sum(-1), (kernel**2).sum(-1), (log**2).sum(-1)])
    return {
        "slope": _ratio(sums, lambda both, own, _: both / own),
        "r2": _ratio(sums, lambda both, own, goal: both**2 / (own * goal)),
        "to_itself": interval(1 - attention.sum(-1)),
    }


def _accuracy(p: Float[np.ndarray, "batch label"], target: Int[np.ndarray, " batch"]) -> dict[str, Any]:
    """Cross-entropy and the share of contexts in which the true label is the likelier one; ties count half."""
    own = p[np.arange(len(p)), target]
    return {"cross_entropy": interval(-np.log(own)), "accuracy": interval((np.sign(own - 0.5) + 1) / 2)}


def _ratio(parts: Float[np.ndarray, "_ batch"], ratio: Callable[[Means, Means, Means], Any]) -> list[float]:
    """A function of three means, with the interval of a percentile bootstrap over contexts."""

    def statistic(drawn: Int[np.ndarray, "*boot batch"]) -> Float[np.ndarray, "*boot"]:
        first, second, third = (np.asarray(part[drawn].mean(-1)) for part in parts)
        return np.asarray(ratio(first, second, third), dtype=np.float64)

    found = cluster_bootstrap(statistic, parts.shape[-1], n_boot=N_BOOT, method="percentile")
    return [float(f"{value:.5g}") for value in (found.estimate, found.low, found.high)]
