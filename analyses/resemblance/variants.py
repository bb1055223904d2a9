"""Ways to learn from demonstrations by explicit gradient descent, all behind one face.

A way takes learners (each a sequence of texts, one step a text) and a learning rate, and gives their changed weights.
Everything downstream runs the model under such changes and asks no more, so another engine is another `FineTuning`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mechicl.hooks.attention_readings import Learned
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import Learner, low_rank_steps
from mechicl.hooks.steps.layer_causal import layer_causal_steps
from mechicl.hooks.steps.matched_noise import random_updates
from mechicl.hooks.steps.moved_weights import dense_update
from mechicl.hooks.steps.sites import Choice
from mechicl.hooks.steps.step_support import way_to_step
from mechicl.hooks.steps.weight_updates import WeightUpdates
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt

VARIANTS = ("key_value", "all", "layer_causal")
_AT_ONCE = 16


@dataclass(frozen=True)
class FineTuning:
    """A way to learn. learn(wrapped, learners, learning_rate) -> changed weights; at most `at_once` learners a call.

    A rate at which a loss is no longer finite must raise a ValueError that says "not finite".
    """

    name: str
    learn: Callable[[WrappedModel, Sequence[Learner], float], Learned]
    at_once: int = _AT_ONCE


def fine_tuning(wrapped: WrappedModel, variant: str | FineTuning) -> FineTuning:
    """One of `VARIANTS`, or what is a FineTuning already.

    "key_value": SGD on W_K and W_V in the order of the demonstrations; "all": on all weights; "layer_causal": see
    `mechicl.hooks.steps.layer_causal`. Models that take no outer products are stepped one learner at a time.
    """
    if isinstance(variant, FineTuning):
        return variant
    if variant == "layer_causal":
        return FineTuning(variant, lambda w, learners, rate: layer_causal_steps(w, learners, learning_rate=rate))
    if variant not in VARIANTS:
        raise ValueError(f"got fine_tune={variant!r}; expected some of {', '.join(VARIANTS)}, or a FineTuning")
    parameters: Choice = "all" if variant == "all" else "key_value"
    if way_to_step(wrapped, parameters) == "dense":
        return FineTuning(variant, _dense(parameters), at_once=1)
    return FineTuning(
        variant, lambda w, learners, rate: low_rank_steps(w, learners, learning_rate=rate, parameters=parameters)
    )


def learner_of(prompt: FewShotPrompt) -> list[Continuation]:
    """A prompt's demonstrations as texts to learn from, one a step: the loss is that of the label's tokens alone."""
    return [Continuation(example.tokens, example.roles["label"][0]) for example in prompt.examples]


def learned(
    wrapped: WrappedModel, tuning: FineTuning, learners: Sequence[Learner], rate: float
) -> Iterator[tuple[list[int], Learned | None]]:
    """The changed weights of all learners, some at a time, with their numbers; None for one that diverged."""
    for start in range(0, len(learners), tuning.at_once):
        numbers = list(range(start, min(start + tuning.at_once, len(learners))))
        found = _attempt(wrapped, tuning, [learners[i] for i in numbers], rate)
        if found is not None:
            yield numbers, found
            continue
        for i in numbers:  # one of them diverged: find out which
            yield [i], _attempt(wrapped, tuning, [learners[i]], rate)


def random_like(found: Learned, *, seed: int) -> Learned:
    """Random changes as large as the learned ones, matrix by matrix."""
    if isinstance(found, WeightUpdates):
        return random_updates(found, seed=seed)
    own: Any = getattr(found, "random_like", None)
    if own is None:
        raise ValueError(
            f"{type(found).__name__} has no method random_like(seed); add one, or leave out the control 'random update'"
        )
    return own(seed)


def _attempt(wrapped: WrappedModel, tuning: FineTuning, learners: Sequence[Learner], rate: float) -> Learned | None:
    try:
        return tuning.learn(wrapped, learners, rate)
    except ValueError as error:
        if "not finite" not in str(error):
            raise
        return None


def _dense(parameters: Choice) -> Callable[[WrappedModel, Sequence[Learner], float], Learned]:
    def learn(wrapped: WrappedModel, learners: Sequence[Learner], rate: float) -> Learned:
        with torch.inference_mode(False):
            return dense_update(wrapped, learners[0], learning_rate=rate, parameters=parameters)

    return learn
