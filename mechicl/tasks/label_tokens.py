"""The tokens of labels after a query, and which of many labels may be answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mechicl.tasks.fewshot_task import FewShotTask
from mechicl.tasks.prompts import tokenize

FIRST_TOKENS = ("any", "distinct")


def tokens_of_labels(task: FewShotTask, row: int, tokenizer: Any, bos: bool) -> dict[str, tuple[int, ...]]:
    """The tokens of every label after the query of a row; none may begin another's."""
    question = task.question(row)
    asked = tokenize(question, tokenizer, prepend_bos=bos).tokens
    found: dict[str, tuple[int, ...]] = {}
    for label in task.labels:
        whole = tokenize(question + task.word(label), tokenizer, prepend_bos=bos).tokens
        if whole[: len(asked)] != asked or len(whole) == len(asked):
            raise ValueError(
                f"the tokenizer merges the label {task.word(label)!r} with what stands before it; put a space or a "
                f"line break before {{label}}, got {task.template!r}"
            )
        found[label] = whole[len(asked) :]
    ordered = sorted(found.items(), key=lambda pair: pair[1])
    for (one, first), (other, second) in pairwise(ordered):
        if second[: len(first)] == first:
            raise ValueError(
                f"the tokens of the label {one!r} begin those of {other!r}, so that their probabilities cannot be "
                "compared; choose other label words"
            )
    return found


def check_first_tokens(task: FewShotTask, tokens: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse (ValueError) labels that begin with the same token: what is read at one position cannot part them."""
    seen: dict[int, str] = {}
    for label, own in tokens.items():
        other = seen.setdefault(own[0], label)
        if other != label:
            raise ValueError(
                f"the label words {task.word(other).strip()!r} and {task.word(label).strip()!r} begin with the same "
                "token; give other words with task.written(label_words=...), let n_candidates draw labels that differ, "
                "or allow it with first_tokens='any'"
            )


def draw_candidates(
    task: FewShotTask,
    true: str,
    shown: Sequence[str],
    n: int | None,
    tokens: Mapping[str, tuple[int, ...]],
    first_tokens: str,
    rng: np.random.Generator,
) -> list[str]:
    """The labels that may be answered, in the order of the task's labels: the true one, those shown, then any.

    first_tokens "distinct": one that begins as an earlier one does is passed over, be it shown or not.
    """
    if n is None:
        return list(task.labels)
    if n < 2:
        raise ValueError(f"got n_candidates={n}; expected at least 2 labels to choose from, or None for all")
    others = [task.labels[i] for i in rng.permutation(len(task.labels))]
    queue = [label for label in dict.fromkeys([true, *shown, *others]) if label in tokens]
    if first_tokens == "distinct":
        firsts: dict[int, str] = {}
        for label in queue:
            firsts.setdefault(tokens[label][0], label)
        queue = list(firsts.values())
        if len(queue) < min(n, len(task.labels)):
            raise ValueError(
                f"got n_candidates={n}, but only {len(queue)} labels have first tokens that differ; ask for fewer, "
                "give other words with task.written(label_words=...), or allow it with first_tokens='any'"
            )
    kept = set(queue[:n])
    return [label for label in task.labels if label in kept]
