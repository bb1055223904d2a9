"""Log-probabilities of whole labels after short prompts, each prompt with the weights of a learner of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from jaxtyping import Float

from mechicl.hooks.attention_readings import Learned
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.prompts import Prompt

Label = tuple[int, ...]


def label_log_probs(
    wrapped: WrappedModel,
    prompts: Sequence[Prompt],
    labels: Sequence[Sequence[Label]],
    *,
    updates: Learned | None = None,
    memory_budget: int = 1 << 30,
) -> list[Float[np.ndarray, "label"]]:
    """Summed log-probability, nats, of every label after its prompt; prompt i runs with learner i's weights.

    Labels of one token are all read off one row; a longer one takes a row more unless it begins as another does. For
    long prompts without updates `mechicl.hooks.scoring.score` is faster: it runs what rows share once.
    """
    rows = [(number, prefix) for number, own in enumerate(labels) for prefix in _longest({label[:-1] for label in own})]
    found = [np.full(len(own), np.nan) for own in labels]
    start = 0
    with wrapped.evaluating():
        while start < len(rows):
            width = max(len(prompts[number]) + len(prefix) for number, prefix in rows[start:])
            part = rows[start : start + max(1, memory_budget // wrapped.bytes_of_row(width))]
            _read(wrapped, prompts, labels, part, updates, found)
            start += len(part)
    return found


def _read(
    wrapped: WrappedModel,
    prompts: Sequence[Prompt],
    labels: Sequence[Sequence[Label]],
    rows: Sequence[tuple[int, Label]],
    updates: Learned | None,
    found: list[np.ndarray],
) -> None:
    texts = [(*prompts[number].tokens, *prefix) for number, prefix in rows]
    kept = max(len(prefix) for _, prefix in rows) + 1
    tokens = torch.zeros(len(rows), max(map(len, texts)), dtype=torch.long)
    keep = torch.zeros(len(rows), kept, dtype=torch.long)
    for row, ((number, prefix), text) in enumerate(zip(rows, texts, strict=True)):
        tokens[row, : len(text)] = torch.tensor(text)
        keep[row, : len(prefix) + 1] = torch.arange(len(prefix) + 1) + len(prompts[number]) - 1
    learners = torch.tensor([number for number, _ in rows], device=wrapped.device)
    with updates.taken(learners).applied() if updates is not None else nullcontext():
        logits = wrapped.row_logits(tokens.to(wrapped.device), keep.to(wrapped.device))
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_probs = logits.log_softmax(-1).cpu()
    for row, (number, prefix) in enumerate(rows):
        for i, label in enumerate(labels[number]):
            if prefix[: len(label) - 1] == label[:-1]:
                own = log_probs[row, torch.arange(len(label)), torch.tensor(label)]
                found[number][i] = float(own.double().sum())


def _longest(prefixes: set[Label]) -> list[Label]:
    """Those that begin no other one."""
    return [one for one in sorted(prefixes) if not any(other[: len(one)] == one for other in prefixes - {one})]
