"""Conditions under which in-context learning is known to do better or worse, as options of few-shot prompts.

All conditions of one task have the same queries. Those that change only how things are written, or which labels are
shown, have the same demonstrations too.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechicl.tasks.facts import capitals_task, sentiment_task
from mechicl.tasks.fewshot import FewShotPrompt, fewshot_prompts, given_prompts
from mechicl.tasks.fewshot_task import TEMPLATES, FewShotTask
from mechicl.tasks.perturbations import replaced_by
from mechicl.tasks.rules import LABEL_WORDS

REFERENCE, ZERO_SHOT, ORDER = "random", "zero shot", "order"


@dataclass(frozen=True)
class Condition:
    """A name, options of `fewshot_prompts`, and how the task is written (`FewShotTask.written`).

    kind: "demonstrations"; "zero shot", the query alone; "order", the reference's demonstrations in several orders, the
    first of them their own.

    >>> Condition("typos everywhere", {"perturb": "typos", "perturb_queries": True}).kind
    'demonstrations'
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    written: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "demonstrations"


def standard_conditions(task: FewShotTask, other_task: FewShotTask | None = None) -> list[Condition]:
    """What the literature varies; the first, demonstrations drawn at random, is what all others are compared to.

    zero shot; similar, dissimilar (retrieved, in random order); similar last (the same with the most similar at the
    end, where a model that goes by the last demonstration answers as one that goes by the most similar); other words
    (for labels: letters, or words of no language where letters are taken), other format; typos, shuffled words, rare
    words, unrelated texts (in the demonstrations, their labels as they were); other task (texts, labels and format of
    another one); flipped labels, random labels; order. The other task is capitals for any task but capitals, else
    sentiment.
    """
    other = other_task or (sentiment_task() if task.name == "capitals" else capitals_task())
    conditions = [
        Condition(REFERENCE),
        Condition(ZERO_SHOT, kind=ZERO_SHOT),
        Condition("similar", {"demonstrations": "similar", "order": "random"}),
        Condition("similar last", {"demonstrations": "similar", "order": "most similar last"}),
        Condition("dissimilar", {"demonstrations": "dissimilar", "order": "random"}),
        Condition("other format", written={"template": _other_template(task)}),
        Condition("typos", {"perturb": "typos"}),
        Condition("shuffled words", {"perturb": "shuffled words"}),
        Condition("rare words", {"perturb": "rare words"}),
        Condition("unrelated texts", {"perturb": replaced_by(other.frame["text"].tolist())}),
        Condition("other task", {"demo_task": other}),
        Condition("flipped labels", {"labels": "flipped"}),
        Condition("random labels", {"labels": "random"}),
        Condition(ORDER, kind=ORDER),
    ]
    words = _other_words(task)
    if words is not None:  # an open set of labels has no other words at hand
        conditions.insert(5, Condition("other words", written={"label_words": words}))
    return conditions


@dataclass(frozen=True, eq=False)
class Design:
    """What all conditions share: the task, how many demonstrations and queries, how prompts are written, the seed."""

    task: FewShotTask
    n_demos: int
    n_queries: int
    n_orders: int
    seed: int
    writing: Mapping[str, Any]  # tokenizer, prepend_bos, n_ctx
    drawing: Mapping[str, Any]  # balanced, n_candidates, first_tokens, similarity

    def prompts(self, condition: Condition, reference: Sequence[FewShotPrompt] = ()) -> list[list[FewShotPrompt]]:
        """The prompts of a condition, a list a version: one, or for "order" as many as there are orders.

        reference: the prompts of the reference; zero shot and order are made of them.
        """
        if condition.kind == ZERO_SHOT:
            return [list(reference)]
        if condition.kind == ORDER:
            return self._orders(reference)
        task = self.task.written(**condition.written)
        options = {**self.writing, **self.drawing, **condition.options}
        return [fewshot_prompts(task, self.n_demos, self.n_queries, seed=self.seed, **options)]

    def _orders(self, reference: Sequence[FewShotPrompt]) -> list[list[FewShotPrompt]]:
        """The order as it was, then others; each query has orders of its own, none twice while there are new ones."""
        rng = np.random.default_rng([3, self.seed])
        orders = [_different_orders(self.n_demos, self.n_orders, rng) for _ in reference]
        versions = [list(reference)]
        for version in range(1, self.n_orders):
            own = [order[version] for order in orders]
            versions.append(
                given_prompts(
                    self.task,
                    [one.query for one in reference],
                    [[one.demos[i] for i in order] for one, order in zip(reference, own, strict=True)],
                    shown=[[one.demo_labels[i] for i in order] for one, order in zip(reference, own, strict=True)],
                    candidates=[one.labels for one in reference],
                    **self.writing,
                )
            )
        return versions


def chosen_conditions(
    task: FewShotTask, wanted: Sequence[str | Condition] | None, other_task: FewShotTask | None
) -> list[Condition]:
    """Conditions by name or of the caller's own, the reference first; None: all standard ones."""
    standard = {condition.name: condition for condition in standard_conditions(task, other_task)}
    if wanted is None:
        return list(standard.values())
    if isinstance(wanted, str):
        raise ValueError(f"got conditions={wanted!r}; expected a sequence of names, such as [{wanted!r}]")
    unknown = [name for name in wanted if isinstance(name, str) and name not in standard]
    if unknown:
        raise ValueError(f"got the condition {unknown[0]!r}; expected some of {', '.join(standard)}, or a Condition")
    if any(not isinstance(one, str) and (one.name == REFERENCE or one.kind != "demonstrations") for one in wanted):
        raise ValueError(
            f"{REFERENCE!r}, {ZERO_SHOT!r} and {ORDER!r} are what they are: ask for them by name; to change how all is "
            "written, change the task"
        )
    found = [standard[one] if isinstance(one, str) else one for one in wanted]
    if REFERENCE not in [condition.name for condition in found]:
        found.insert(0, standard[REFERENCE])
    found.sort(key=lambda condition: condition.name != REFERENCE)
    names = [condition.name for condition in found]
    if len(set(names)) < len(names):
        raise ValueError(f"got the conditions {names}; give each a name of its own")
    return found


def _different_orders(n: int, n_orders: int, rng: np.random.Generator) -> list[list[int]]:
    """Orders of n things, the first as it is; repeated only where there are fewer than asked for."""
    found = [list(range(n))]
    while len(found) < n_orders:
        order = [int(i) for i in rng.permutation(n)]
        all_there = n <= 6 and len(found) >= int(np.prod(np.arange(1, n + 1)))
        if all_there or order not in found:
            found.append(order)
    return found


def _other_template(task: FewShotTask) -> str:
    return TEMPLATES["question"] if task.template == TEMPLATES["input"] else TEMPLATES["input"]


def _other_words(task: FewShotTask) -> dict[str, str] | None:
    """Letters, or words of no language where labels are letters already; None for too many labels."""
    own = {task.word(label).strip() for label in task.labels}
    for pool in (string.ascii_uppercase, LABEL_WORDS):
        if len(task.labels) <= len(pool) and not own & set(pool):
            return dict(zip(task.labels, pool, strict=False))
    return None
