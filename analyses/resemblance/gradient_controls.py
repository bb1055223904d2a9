"""Controls of the comparison with gradient descent: what would resemble ICL without being learned from the context?

    random init               the same model with the entries of all weight matrices shuffled
    trained embeddings only   only the blocks' matrices shuffled: embeddings, unembedding and norms are as trained
    shuffled labels           steps on the same texts with the labels in another order
    other task                steps on demonstrations of another task
    permuted order            steps on the same demonstrations in another order
    random update             a random change of the weights, as large as the learned one in every matrix
    other query               Kendall only: implied attention for another query
    other queries             Rec2FTP only: ICL on the queries that fine-tuning does not newly get right

Untrained models can match trained ones in SimAOU (arXiv 2311.07772), hence the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mechicl.analyses.resemblance.variants import learner_of
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import Learner
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.demonstrations import shown_labels
from mechicl.tasks.facts import capitals_task, sentiment_task
from mechicl.tasks.fewshot import FewShotPrompt, fewshot_prompts
from mechicl.untrained import shuffled_weights

MODELS = ("random init", "trained embeddings only")
TEXTS = ("shuffled labels", "other task", "permuted order")
CONTROLS = (*MODELS, *TEXTS, "random update")


def control_model(model: Any, control: str, *, seed: int) -> Any:
    """A copy of the model that has learned nothing, or nothing but its embeddings and norms."""
    if control == "random init":
        return shuffled_weights(model, seed=seed)
    return trained_embeddings_only(model, seed=seed)


def trained_embeddings_only(model: Any, *, seed: int = 0) -> Any:
    """A copy in which every weight matrix of the blocks has its entries in random order; the rest is as trained."""
    copied = shuffled_weights(model, seed=seed)
    in_blocks = {id(parameter) for parameter in copied.blocks.parameters()}
    with torch.no_grad():
        for trained, parameter in zip(model.parameters(), copied.parameters(), strict=True):
            if id(parameter) not in in_blocks:
                parameter.copy_(trained)
    return copied


def control_learners(
    wrapped: WrappedModel,
    prompts: Sequence[FewShotPrompt],
    control: str,
    *,
    other_task: Sequence[FewShotPrompt] | None,
    seed: int,
) -> list[Learner]:
    """What is learned from in place of each prompt's own demonstrations."""
    rng = np.random.default_rng(seed)
    if control == "other task":
        others = _other_prompts(wrapped, prompts, seed) if other_task is None else other_task
        return [learner_of(others[i % len(others)]) for i in range(len(prompts))]
    change: Callable[[FewShotPrompt, np.random.Generator], Learner]
    change = _shuffled_labels if control == "shuffled labels" else _permuted
    return [change(prompt, rng) for prompt in prompts]


def check_controls(controls: Sequence[str], other_task: Sequence[FewShotPrompt] | None, n_demos: int) -> None:
    """Raises `ValueError` for an unknown control, and for demonstrations of another task of another number."""
    unknown = [name for name in controls if name not in CONTROLS]
    if unknown:
        raise ValueError(f"got the control {unknown[0]!r}; expected some of {', '.join(CONTROLS)}")
    if other_task is not None and any(len(one.examples) != n_demos for one in other_task):
        raise ValueError(f"the prompts of the other task must have {n_demos} demonstrations each, as the prompts have")


def _shuffled_labels(prompt: FewShotPrompt, rng: np.random.Generator) -> Learner:
    """The texts as they are, each with the label of another demonstration where labels differ."""
    own = learner_of(prompt)
    by_label = {label: text.tokens[text.start :] for label, text in zip(prompt.demo_labels, own, strict=True)}
    shuffled = shown_labels(prompt.demo_labels, "shuffled", rng=rng)
    return [
        Continuation((*text.tokens[: text.start], *by_label[label]), text.start)
        for text, label in zip(own, shuffled, strict=True)
    ]


def _permuted(prompt: FewShotPrompt, rng: np.random.Generator) -> Learner:
    own = learner_of(prompt)
    order = rng.permutation(len(own))
    if len(own) > 1 and (order == np.arange(len(own))).all():
        order = np.roll(order, 1)
    return [own[i] for i in order]


def _other_prompts(wrapped: WrappedModel, prompts: Sequence[FewShotPrompt], seed: int) -> list[FewShotPrompt]:
    """Of capitals for any task but capitals, else of sentiment."""
    if not getattr(wrapped.tokenizer, "is_fast", False):
        raise ValueError(
            "the model has no fast tokenizer to write another task with; pass other_task=prompts, or leave out the "
            "control 'other task'"
        )
    task = sentiment_task() if prompts[0].task == "capitals" else capitals_task()
    n_demos = len(prompts[0].examples)
    n_bos = len(prompts[0].examples[0]) - len(prompts[0].prompt.part("demo[0]"))
    rows = len(task.frame)
    if n_demos > rows - 1:
        raise ValueError(
            f"the built-in task {task.name} has {rows} rows, too few for {n_demos} demonstrations; pass "
            "other_task=prompts, or leave out the control 'other task'"
        )
    n = min(len(prompts), rows - 1)
    return fewshot_prompts(task, n_demos, n, tokenizer=wrapped.tokenizer, seed=seed, prepend_bos=n_bos > 0)
