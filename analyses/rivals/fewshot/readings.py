"""What a language model answers to few-shot prompts of several lengths, beside all that accounts may know.

Of each prompt: the model's answers with its demonstrations as they are and in other orders; the query alone; how like
the query each demonstration is as a text; every head's attention, from the token that answers, to the demonstrations'
labels; and the query alone after a real gradient step on the demonstrations. Answers are probabilities over the labels
that may be answered. Queries are the same at all lengths, and are the clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mechicl.accounts.contexts import Contexts
from mechicl.accounts.labels import LabelExamples
from mechicl.analyses.kernel_account import MANY_LABELS
from mechicl.analyses.rivals.fewshot.kernels import input_kernels
from mechicl.analyses.rivals.fewshot.layout import LabelLayout
from mechicl.analyses.rivals.fewshot.orders import answers, reordered
from mechicl.analyses.rivals.fewshot.steps import DemoSteps
from mechicl.hooks.demos.alone import AloneRuns
from mechicl.hooks.demos.readings import read_demonstrations
from mechicl.hooks.demos.spans import check_fewshot
from mechicl.hooks.steps.gradient_steps import check_rate
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts

LENGTHS = (2, 4, 8)
RATES = (0.1, 0.3, 1.0, 3.0)
LEAST = 4  # prompts a length, half of which are judged


def read_fewshot(
    model: Any,
    task: FewShotTask,
    *,
    lengths: Sequence[int] = LENGTHS,
    n_contexts: int = 40,
    n_orders: int = 4,
    rates: Sequence[float] = RATES,
    n_candidates: int | None = None,
    balanced: bool = False,
    prepend_bos: bool = True,
    seed: int = 0,
    store: str | Path | None = None,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> list[Contexts]:
    """Contexts of each length, with `LabelExamples` that accounts predict from.

    lengths: numbers of demonstrations. n_contexts: queries. n_orders: of each prompt's demonstrations, the given one
    first; 1: no others, so that order is held against all accounts. rates: of the gradient step on all weights, in
    units of `DemoSteps.unit_rate`; (): no step; those at which it diverges are left out. n_candidates: of many labels,
    only so many may be answered; None: all, or of more than 10 as many as are shown and the right one. balanced: labels
    as often as each other. As they fall, how often a label is shown differs from prompt to prompt; balanced, an account
    that goes by it could say nothing. memory_budget: bytes of a pass, and of gradients that are remembered. store: a
    folder for finished work, from which an interrupted run goes on. The model is left as it was.

    Raises `ValueError`, before any forward pass, for what `fewshot_prompts` refuses, lengths below 2 or twice, fewer
    than 4 different queries, no order, and rates that are no positive numbers.
    """
    wrapped = wrap(model)
    _check(lengths, n_contexts, n_orders, rates)
    drawn = [
        fewshot_prompts(
            task, n, n_contexts, tokenizer=wrapped.tokenizer, seed=seed, balanced=balanced,
            n_candidates=_candidates(task, n, n_candidates), first_tokens="distinct", prepend_bos=prepend_bos,
            n_ctx=wrapped.n_ctx,
        )
        for n in lengths
    ]  # fmt: skip
    for own in drawn:
        check_fewshot(wrapped, own)
    others = [reordered(wrapped, task, own, n_orders, prepend_bos=prepend_bos, seed=seed) for own in drawn]
    folder = None if store is None else Path(store)
    running: dict[str, Any] = {"memory_budget": memory_budget, "progress": progress}
    reader = _Reader(wrapped, task, folder, running)
    found = [reader.contexts(own, versions) for own, versions in zip(drawn, others, strict=True)]
    steps = reader.stepped(drawn, rates)
    return [replace(one, examples=replace(one.examples, stepped=own)) for one, own in zip(found, steps, strict=True)]


class _Reader:
    """One model and task, with the folder of finished work."""

    def __init__(self, wrapped: WrappedModel, task: FewShotTask, folder: Path | None, running: dict[str, Any]) -> None:
        self.wrapped, self.task, self.folder, self.running = wrapped, task, folder, running
        self.alone = AloneRuns(wrapped, memory=running["memory_budget"] // 8, budget=running["memory_budget"])

    def contexts(self, prompts: Sequence[FewShotPrompt], versions: Sequence[Sequence[FewShotPrompt]]) -> Contexts:
        """All of one length but the steps."""
        wrapped, layout = self.wrapped, LabelLayout(prompts, self.task.labels)
        read = read_demonstrations(  # as few references as can be: how like any query a demonstration is is not asked
            wrapped, prompts, places=("ask",), n_references=2, store=self._at("readings"), **self.running
        )
        other = answers(wrapped, [one for own in versions for one in own], store=self._at("orders"), **self.running)
        alone = answers(wrapped, prompts, zero_shot=True, store=self._at("zero-shot"), **self.running)
        with wrapped.evaluating():
            kernels = input_kernels(wrapped, self.task, prompts, self.alone, read)
        model, n = layout.probabilities(list(read.label_log_probs)), len(prompts)
        orders = [model, *(layout.probabilities(other[i * n : (i + 1) * n]) for i in range(len(versions)))]
        heads = [(layer, head) for layer in range(wrapped.n_layers) for head in range(wrapped.n_heads)]
        return Contexts(
            length=len(prompts[0].demos),
            examples=LabelExamples(
                shown=layout.one_hot,
                zero_shot=layout.log_probs(alone),
                kernels=kernels,
                attention={f"L{layer}H{head}": read.attention["label"][:, layer, head] for layer, head in heads},
                stepped={},
                mask=layout.mask,
            ),
            model=model,
            orders=np.stack(orders) if versions else None,
            truth=layout.truth,
            cluster=np.array([one.query for one in prompts], dtype=np.int64),
            mask=layout.mask,
        )

    def stepped(
        self, drawn: Sequence[Sequence[FewShotPrompt]], rates: Sequence[float]
    ) -> list[dict[str, Float[np.ndarray, "item label"]]]:
        """By rate, the answers to the queries alone after a step, for each length; rates that diverge are left out."""
        if not rates:
            return [{} for _ in drawn]
        every = [one for own in drawn for one in own]
        steps = DemoSteps(self.wrapped, memory_budget=self.running["memory_budget"], store=self._at("steps"))
        unit = steps.unit_rate(every)
        read = iter(steps.log_probs(every, [rate * unit for rate in rates], progress=self.running["progress"]))
        found = [[next(read) for _ in own] for own in drawn]
        finite = [all(np.isfinite(one[i]).all() for own in found for one in own) for i in range(len(rates))]
        if not any(finite):
            raise ValueError(
                f"one gradient step diverges at every rate of {tuple(rates)}, in units of {unit:.3g}; give lower ones"
            )
        return [
            {
                f"{rate:g} of {unit:.3g}": LabelLayout(prompts, self.task.labels).log_probs([one[i] for one in own])
                for i, rate in enumerate(rates)
                if finite[i]
            }
            for prompts, own in zip(drawn, found, strict=True)
        ]

    def _at(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / name


def _candidates(task: FewShotTask, n_demos: int, given: int | None) -> int | None:
    """How many labels may be answered: of many, those that are shown and the right one."""
    return n_demos + 1 if given is None and len(task.labels) > MANY_LABELS else given


def _check(lengths: Sequence[int], n_contexts: int, n_orders: int, rates: Sequence[float]) -> None:
    if not len(lengths) or min(lengths) < 2 or len(set(lengths)) < len(lengths):
        raise ValueError(f"got lengths={tuple(lengths)}; expected numbers of demonstrations from 2 on, each once")
    if n_contexts < LEAST:
        raise ValueError(f"got n_contexts={n_contexts}; expected {LEAST} or more, for half of them are judged")
    if n_orders < 1:
        raise ValueError(f"got n_orders={n_orders}; expected 1 (no other order) or more")
    for rate in rates:
        check_rate(rate)
    if len(set(rates)) < len(rates):
        raise ValueError(f"got rates={tuple(rates)}; expected each once")
