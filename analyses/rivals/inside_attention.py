"""Attention of models with a single head, beside the weights that accounts give to demonstrations.

`replaced_attention` puts an account's weights in the place of the head's, from the last position to the demonstrations
(what the head gives to itself and to the start token stays), and asks how the prediction moves:

    share = 1 - sum D(f, f with the account's weights) / sum D(f, f with trivial weights)

with f the model's own predictions and D = KL, nats. 1: the head does with these weights what it does with its own; 0:
no better than the trivial ones (classification: all pairs alike; urns: the last ball alone); below 0: worse. Control:
weights that belong to another context (classification), or drawn at random (urns; these lie around equal ones, and
share much with them). Where trivial weights hardly move the model, as in one that ignores its context, a share means
nothing; the note says how far they move it.

`attention_kernels` regresses log attention onto kernels (`mechicl.analyses.kernels.classifier_attention`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import softmax
from scipy.stats import t as student

from mechicl.accounts.classes import ClassExamples
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.distances import prediction_distance
from mechicl.accounts.draws import Draws
from mechicl.analyses.kernels.classifier_attention import classifier_kernels
from mechicl.analyses.rivals.numeric_models import CHUNK, next_probabilities
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.hooks.wrapper import wrap
from mechicl.predictors.classification import generalising_weights
from mechicl.predictors.kernels import dot_log_kernel, rbf_log_kernel
from mechicl.untrained import shuffled_weights

KERNEL_OF = {"Gaussian kernel": "rbf", "dot-product kernel": "dot", "generalising": "ideal"}
N_SETS = 6  # of contexts, over which R2 has its interval
OTHER_CONTEXTS = 20_000_000  # steps that no training and no other analysis reaches
Weights = Float[np.ndarray, "batch demo"]


def attention_kernels(
    model: Any, task: Any, accounts: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> list[dict[str, Any]]:
    """The unique R2 of each account's kernel in every head of layer 0; none for a model whose attention is not read."""
    if not hasattr(model, "query_attention"):
        return []
    names = [name for name in accounts if name in KERNEL_OF]
    found = {who: _unique_r2(one, task, seed) for who, one in
             (("model", model), ("untrained", shuffled_weights(model, seed=seed)))}  # fmt: skip
    rows = []
    for head in range(len(found["model"][0])):
        for name in names:
            own, bare = (np.array([one[head][KERNEL_OF[name]] for one in found[who]]) for who in ("model", "untrained"))
            reach = student.ppf((1 + level) / 2, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own))
            rows.append({
                "account": name, "measure": "unique R2 of attention", "estimate": own.mean(),
                "low": own.mean() - reach, "high": own.mean() + reach, "control": bare.mean(),
                "note": f"L0H{head}; control: an untrained model",
            })  # fmt: skip
    return rows


def _unique_r2(model: Any, task: Any, seed: int) -> list[list[dict[str, float]]]:
    """For every set of contexts and head: kernel -> unique R2."""
    found = []
    for number in range(N_SETS):
        step = OTHER_CONTEXTS + 1000 * seed + number
        frame = classifier_kernels(model, task, n_permutations=0, step=step, seed=seed).frame
        own = frame.pivot(index="head", columns="kernel", values="unique_r2")
        found.append([dict(row) for _, row in own.iterrows()])
    return found


def replaced_attention(
    model: Any,
    contexts: Sequence[Contexts],
    fitted: Mapping[str, Mapping[str, Any]],
    *,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows for the accounts in `fitted` that weigh demonstrations; none for models of more heads, and of functions."""
    run = _runner(model, contexts[0].examples)
    if run is None:
        return []
    own = [run(one.examples, None) for one in contexts]

    def moved(give: Callable[[Any], Weights]) -> Float[np.ndarray, " batch"]:
        parts = zip(own, contexts, strict=True)
        return np.concatenate([prediction_distance(said, run(one.examples, give(one.examples))) for said, one in parts])

    trivial = moved(_trivial)
    clusters = np.concatenate([one.cluster for one in contexts])
    what = "all pairs alike" if isinstance(contexts[0].examples, ClassExamples) else "the last ball alone"
    note = f"L0H0; weights on {what} move the model by {trivial.mean():.3g} nats"
    rows = []
    for name, give in _givers(contexts[0].examples, fitted).items():
        apart = np.column_stack([moved(give), moved(_elsewhere(give, seed))])
        below = np.column_stack([trivial, trivial])
        found, low, high = ratio_intervals(
            trivial[:, None] - apart, below, clusters, n_boot=n_boot, level=level, seed=seed
        )  # fmt: skip
        rows.append({
            "account": name, "measure": "replaced attention", "estimate": found[0], "low": low[0], "high": high[0],
            "control": found[1], "note": note,
        })  # fmt: skip
    return rows


def _runner(model: Any, examples: Any) -> Callable[[Any, Weights | None], Float[np.ndarray, "batch label"]] | None:
    """The model's predictions under given weights (None: its own); None for models without the one head."""
    if isinstance(examples, ClassExamples):
        if not hasattr(model, "query_attention") or (model.cfg.n_layers, model.cfg.n_heads) != (1, 1):
            return None

        def classify(part: ClassExamples) -> Float[np.ndarray, "batch label"]:
            return np.asarray(model.probabilities(part.x, part.y, part.query))

        return _in_chunks(classify, lambda weights: _hooked(model.blocks[0].attn.hook_pattern, weights))
    if examples.kind != "urns" or not hasattr(model, "parameters"):
        return None
    wrapped = wrap(model)
    if (wrapped.n_layers, wrapped.n_heads) != (1, 1):
        return None

    def predict(part: Draws) -> Float[np.ndarray, "batch label"]:
        return next_probabilities(wrapped, part.balls, part.dim)

    # the start token comes first, and the last ball is the position that attends
    return _in_chunks(predict, lambda weights: wrapped.hooked([("pattern", 0, _replacing(weights, first=1))]))


def _in_chunks(
    predict: Callable[[Any], np.ndarray], hooked: Callable[[Weights], AbstractContextManager[None]]
) -> Callable[[Any, Weights | None], Float[np.ndarray, "batch label"]]:
    """Few contexts at a time, so that a hook meets the rows that its weights are for."""

    def run(examples: Any, weights: Weights | None) -> Float[np.ndarray, "batch label"]:
        found = []
        for start in range(0, len(examples), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(examples)))
            with nullcontext() if weights is None else hooked(weights[rows]):
                found.append(predict(examples.take(rows)))
        return np.concatenate(found)

    return run


def _replacing(weights: Weights, *, first: int) -> Callable[[Any], Any]:
    """The pattern with the last position's attention to the demonstrations shared out anew."""
    import torch

    def replace(pattern: Any) -> Any:
        own = pattern.clone()
        place = slice(first, first + weights.shape[1])
        total = pattern[:, 0, -1, place].sum(-1, keepdim=True)
        own[:, 0, -1, place] = total * torch.as_tensor(weights, dtype=pattern.dtype, device=pattern.device)
        return own

    return replace


@contextmanager
def _hooked(point: Any, weights: Weights) -> Iterator[None]:
    """The classifier's head under these weights; hooks of the user's stay."""
    replace = _replacing(weights, first=0)
    handle = point.register_forward_hook(lambda module, inputs, output: replace(output))
    try:
        yield
    finally:
        handle.remove()


def _trivial(examples: Any) -> Weights:
    if isinstance(examples, ClassExamples):
        return np.full(examples.y.shape, 1 / examples.y.shape[1])
    found = np.zeros(examples.balls.shape)
    found[:, -1] = 1
    return found


def _elsewhere(give: Callable[[Any], Weights], seed: int) -> Callable[[Any], Weights]:
    """The control: another context's weights; of urns, where all contexts have the same, random ones."""

    def control(examples: Any) -> Weights:
        if isinstance(examples, ClassExamples):
            return np.roll(give(examples), 1, axis=0)
        return np.random.default_rng(seed).dirichlet(np.ones(examples.balls.shape[1]), len(examples))

    return control


def _givers(examples: Any, fitted: Mapping[str, Mapping[str, Any]]) -> dict[str, Callable[[Any], Weights]]:
    """The weights of each account that weighs demonstrations, summing to 1."""

    def recency(part: Draws) -> Weights:
        age = np.arange(part.balls.shape[1])[::-1]
        return np.broadcast_to(softmax(-age / fitted["recency kernel"]["tau"]), part.balls.shape).copy()

    def gaussian(part: ClassExamples) -> Weights:
        logs = rbf_log_kernel(part.query, part.x, bandwidth=fitted["Gaussian kernel"]["bandwidth"])
        return np.asarray(softmax(logs, axis=-1))

    def dot_product(part: ClassExamples) -> Weights:
        logs = dot_log_kernel(part.query, part.x, temperature=fitted["dot-product kernel"]["temperature"])
        return np.asarray(softmax(logs, axis=-1))

    def counts(part: Draws) -> Weights:  # which are all that either strategy reads
        return np.full(part.balls.shape, 1 / part.balls.shape[1])

    known: dict[str, Callable[[Any], Weights]] = {
        "recency kernel": recency,
        "generalising": counts,
        "memorising": counts,
    }
    if isinstance(examples, ClassExamples):
        known = {
            "Gaussian kernel": gaussian,
            "dot-product kernel": dot_product,
            "generalising": lambda part: generalising_weights(part.query, part.x, noise=part.noise),
        }
    return {name: give for name, give in known.items() if name in fitted}
