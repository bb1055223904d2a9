"""One way to ask any model of a numeric task what it predicts from accounts' examples, and refuse what does not fit.

A model is an organism of `mechicl.organisms`, or a function of the examples:

    regression        (x [batch, demo, dim], y [batch, demo], query [batch, dim]) -> means [batch]
    urns and chains   (balls [batch, demo]) -> probabilities of the next one [batch, dim]; a TransformerLens model reads
                      the start token `dim` first
    classification    (x, y, query) -> probabilities of labels 0 and 1 [batch, 2]

Errors (ValueError), all before any model runs: inputs of another dimension, another vocabulary, more demonstrations
than the model was made for. After it: predictions of a wrong shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechicl.accounts.classes import ClassExamples
from mechicl.accounts.draws import Draws
from mechicl.accounts.regression import RegressionExamples
from mechicl.analyses.algorithms.regressor_calls import owner_of, predictions
from mechicl.hooks.wrapper import WrappedModel, wrap

CHUNK = 512  # sequences of tokens that run at once
Ask = Callable[[Any], Float[np.ndarray, "batch label"]]


def regressor(model: Any, dim: int, longest: int) -> Ask:
    """Asks a model of regression; means, one label."""
    _check_sizes(model, dim, longest)

    def ask(examples: RegressionExamples) -> Float[np.ndarray, "batch label"]:
        return predictions(model, examples.x, examples.y, examples.query)[:, None]

    return ask


def classifier(model: Any, dim: int, longest: int) -> Ask:
    """Asks a model of classification, which has `probabilities`, or is such a function."""
    _check_sizes(model, dim, longest)
    call = model.probabilities if hasattr(model, "probabilities") else model
    if not callable(call):
        raise ValueError(
            f"got a {type(model).__name__}; expected a model with `probabilities`, or a function (x, y, query)"
        )

    def ask(examples: ClassExamples) -> Float[np.ndarray, "batch label"]:
        return _probabilities(call(examples.x, examples.y, examples.query), (len(examples), 2))

    return ask


def sequence_model(model: Any, dim: int, longest: int) -> Ask:
    """Asks a transformer of urns or chains, or a function of the balls."""
    if not hasattr(model, "parameters"):
        if not callable(model):
            raise ValueError(f"got a {type(model).__name__}; expected a TransformerLens model, or a function of balls")
        return lambda examples: _probabilities(model(examples.balls), (len(examples), dim))
    wrapped = wrap(model)
    if wrapped.d_vocab != dim + 1:
        raise ValueError(
            f"got a model of {wrapped.d_vocab} tokens for a task of {dim} outcomes; expected {dim + 1}, the last the "
            "start token: take the task that the model was trained on"
        )
    if wrapped.n_ctx < longest + 1:
        raise ValueError(
            f"got lengths up to {longest}; this model reads {wrapped.n_ctx} tokens, {wrapped.n_ctx - 1} after the start"
        )

    def ask(examples: Draws) -> Float[np.ndarray, "batch label"]:
        return next_probabilities(wrapped, examples.balls, dim)

    return ask


def next_probabilities(
    wrapped: WrappedModel, balls: Int[np.ndarray, "batch demo"], dim: int
) -> Float[np.ndarray, "batch label"]:
    """What a transformer of tokens says comes next, over the outcomes alone: the start token never comes again."""
    import torch

    tokens = torch.from_numpy(start_first(balls, dim)).to(wrapped.device)
    found = []
    with wrapped.evaluating():
        for part in tokens.split(CHUNK):
            last = torch.full((len(part), 1), part.shape[1] - 1, device=part.device)
            found.append(wrapped.row_logits(part, last)[:, 0, :dim].double().softmax(-1).cpu())
    return torch.cat(found).numpy()


def start_first(balls: Int[np.ndarray, "batch demo"], dim: int) -> Int[np.ndarray, "batch pos"]:
    """Tokens as models were trained on them."""
    return np.column_stack([np.full(len(balls), dim), balls]).astype(np.int64)


def _check_sizes(model: Any, dim: int, longest: int) -> None:
    """The dimension and the largest number of demonstrations, as far as the model tells."""
    cfg = getattr(owner_of(model), "cfg", None)
    own, most = getattr(cfg, "dim", dim), getattr(cfg, "n_demos", longest)
    if own != dim:
        raise ValueError(
            f"got a task of dimension {dim} for a model that reads {own}; take the task that the model was trained on"
        )
    if most < longest:
        raise ValueError(f"got lengths up to {longest}; this model was made for {most} demonstrations at most")


def _probabilities(found: Any, expected: tuple[int, int]) -> Float[np.ndarray, "batch label"]:
    found = np.asarray(found, dtype=np.float64)
    if found.shape != expected:
        raise ValueError(f"the model gave shape {found.shape}, expected {expected}: probabilities for each context")
    return found
