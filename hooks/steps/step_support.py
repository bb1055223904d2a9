"""Which way of taking gradient steps does a model take? Tried on a few random tokens, not guessed from its name."""

from __future__ import annotations

import warnings
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.dense_steps import DenseSteps, text_loss
from mechicl.hooks.steps.gradient_steps import Learner, low_rank_steps
from mechicl.hooks.steps.sites import Choice, chosen_parameters
from mechicl.hooks.steps.updated_scoring import updated_log_probs
from mechicl.hooks.wrapper import WrappedModel

_TRIED: WeakKeyDictionary[torch.nn.Module, dict[tuple[Any, ...], str]] = WeakKeyDictionary()


def way_to_step(wrapped: WrappedModel, parameters: Choice = "all") -> str:
    """ "low rank" (many learners in a batch, no copy of a weight) or "dense" (one after another, with one warning)."""
    key = (wrapped.dtype, *chosen_parameters(wrapped, parameters))
    known = _TRIED.setdefault(wrapped.model, {})
    hooked = wrapped.has_hooks()  # they can be anything, so what is found with them holds for this call alone
    fault = _fault(wrapped, parameters) if hooked or key not in known else known[key]
    if not hooked:
        known[key] = fault
    if fault:
        warnings.warn(f"gradient steps move the weights, one learner after another: {fault}", stacklevel=4)
        return "dense"
    return "low rank"


def _fault(wrapped: WrappedModel, parameters: Choice) -> str:
    """Why the fast way is not exact for this model; empty where it is."""
    draw = np.random.default_rng(0).integers(0, wrapped.d_vocab, size=17).tolist()
    learners: list[Learner] = [[Continuation(tuple(draw[:6]), 1)], [Continuation(tuple(draw[6:10]), 1)]]
    # Its own text is what a step surely moves, by some tenths of a nat; another may hardly change and tell nothing.
    targets = [[Continuation(tuple(draw[10:]), 2), *learner] for learner in learners]
    rate = _telling_rate(wrapped, learners[0], parameters)
    slow: list[float] = []
    with DenseSteps(wrapped, parameters) as steps:  # outside the try: what fails here fails for good
        for learner, own in zip(learners, targets, strict=True):
            steps.learn(learner, learning_rate=rate)
            slow.extend(_log_prob(wrapped, target) for target in own)
            steps.restore()
    try:
        updates = low_rank_steps(wrapped, learners, learning_rate=rate, parameters=parameters)
        fast = updated_log_probs(wrapped, updates, targets, trees=False)
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError) as error:
        return f"{error}"
    gap = np.abs(np.concatenate(fast) - slow)
    exact = wrapped.dtype in (torch.float32, torch.float64)
    size = max(1.0, np.abs(slow).max() / 10)  # rounding grows with the size of what is rounded
    agrees = bool(gap.max() < 1e-4 * size if exact else gap.mean() < 0.1)
    return "" if agrees else f"sums of outer products miss this model's own steps by {gap.max():.1e} nats"


def _telling_rate(wrapped: WrappedModel, learner: Learner, parameters: Choice) -> float:
    """A learning rate at which a step shows: one that would lower the text's loss by about .1 nats."""
    with DenseSteps(wrapped, parameters) as steps, wrapped.evaluating(), torch.enable_grad():
        for parameter, *_ in steps.flags:
            parameter.requires_grad_(False)
        for parameter in steps.parameters:
            parameter.requires_grad_(True)
        loss = text_loss(wrapped, learner)[0]
        if not loss.requires_grad:
            raise ValueError(
                "the loss does not depend on the chosen parameters; choose others, or leave inference mode"
            )
        gradients = torch.autograd.grad(loss, steps.parameters, allow_unused=True)
    squared = sum(float(g.float().pow(2).sum()) for g in gradients if g is not None)
    if not np.isfinite(squared) or squared == 0:
        return 1e-4
    return 0.1 / squared


def _log_prob(wrapped: WrappedModel, target: Continuation) -> float:
    with wrapped.evaluating():
        return -float(text_loss(wrapped, [target])[0]) * (len(target.tokens) - target.start)
