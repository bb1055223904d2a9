"""Few-shot prompts: demonstrations with labels, then a query, every part with a name.

A `FewShotTask` is a frame of texts and labels with a template; `fewshot_prompts` draws demonstrations and queries from
it and gives, beside each prompt, what a comparison needs: the query alone (zero shot), each demonstration alone (what a
gradient step learns from), and the tokens of every label that may be answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from mechicl.tasks.demonstrations import CHOICES, draw_demonstrations, draw_queries, shown_labels
from mechicl.tasks.fewshot_task import FewShotTask
from mechicl.tasks.prompts import Prompt, RoleText, tokenize

__all__ = ["FewShotPrompt", "FewShotTask", "fewshot_prompts"]
Labels = Literal["true", "shuffled"]


@dataclass(frozen=True)
class FewShotPrompt:
    """One query with its demonstrations.

    prompt: demonstrations and query, up to where the label is predicted; roles `demo[i]`, `demo[i].text`,
        `demo[i].label`, `query` (to the end of the prompt), `query.text` and `last`, the token after which it is.
    zero_shot: the same query alone; roles `query`, `query.text`, `last`. Its tokens are those of the prompt's query.
    examples: each demonstration alone, up to its label; roles `text` and `label`. Tokens as in the prompt.
    labels, label_tokens: the labels that may be answered, and the tokens of each after the query; `answer` is the right
        one's number. No label's tokens begin another's, so whole labels compare by their summed log-probability.
    demo_labels: the label shown with each demonstration. demos, query: rows of the task's frame.
    """

    task: str
    prompt: Prompt
    zero_shot: Prompt
    examples: tuple[Prompt, ...]
    labels: tuple[str, ...]
    label_tokens: tuple[tuple[int, ...], ...]
    answer: int
    demo_labels: tuple[str, ...]
    demos: tuple[int, ...]
    query: int

    @property
    def label(self) -> str:
        """The query's true label."""
        return self.labels[self.answer]


def fewshot_prompts(
    task: FewShotTask,
    n_demos: int,
    n_queries: int,
    *,
    tokenizer: Any,
    seed: int,
    balanced: bool = True,
    demonstrations: str = "random",
    labels: Labels = "true",
    n_candidates: int | None = None,
    prepend_bos: bool = True,
    n_ctx: int | None = None,
) -> list[FewShotPrompt]:
    """Draw queries, and for each its own demonstrations from the other rows.

    balanced: as many demonstrations (and queries) of each label as can be. demonstrations: "random". labels: "true", or
    "shuffled": the same labels in another order over the demonstrations. n_candidates: of many labels, only so many may
    be answered: the true one, those of the demonstrations first, then others at random; None: all. n_ctx: the model's
    context window, `model.cfg.n_ctx`.

    Raises `ValueError` for too few rows, an unknown choice, a prompt longer than the window (says how many
    demonstrations fit), labels that the tokenizer cannot tell apart, and a tokenizer that writes a demonstration in
    other tokens alone than among others.
    """
    if labels not in ("true", "shuffled") or demonstrations not in CHOICES:
        raise ValueError(
            f"got demonstrations={demonstrations!r} and labels={labels!r}; expected one of {', '.join(CHOICES)} and "
            "'true' or 'shuffled'"
        )
    frame, rng = task.frame, np.random.default_rng(seed)
    queries = draw_queries(frame, n_queries, balanced=balanced, rng=rng)
    tokens = _label_tokens(task, int(queries[0]), tokenizer, prepend_bos)
    made = []
    for query in queries:
        rows = draw_demonstrations(frame, int(query), n_demos, choice=demonstrations, balanced=balanced, rng=rng)
        shown = shown_labels([str(frame["label"][row]) for row in rows], labels, rng=rng)
        candidates = _candidates(task.labels, str(frame["label"][query]), shown, n_candidates, rng)
        made.append(_written(task, int(query), rows, shown, candidates, tokens, tokenizer, prepend_bos))
    if n_ctx is not None:
        _check_length(made, n_ctx)
    return made


def _written(
    task: FewShotTask,
    query: int,
    rows: Sequence[int],
    shown: Sequence[str],
    candidates: Sequence[str],
    tokens: Mapping[str, tuple[int, ...]],
    tokenizer: Any,
    bos: bool,
) -> FewShotPrompt:
    """The prompt and its parts, as tokens."""
    question = task.question(query).under("query")
    whole = RoleText("", {})
    examples = []
    for i, (row, label) in enumerate(zip(rows, shown, strict=True)):
        whole = whole + task.example(row, label).under(f"demo[{i}]") + task.separator
        examples.append(tokenize(task.example(row, label), tokenizer, prepend_bos=bos))
    prompt = _ending(tokenize(whole + question, tokenizer, prepend_bos=bos))
    alone = _ending(tokenize(question, tokenizer, prepend_bos=bos))
    parts = [(f"demo[{i}]", example.tokens[bos:]) for i, example in enumerate(examples)]
    for role, expected in [*parts, ("query", alone.part("query"))]:
        if prompt.part(role) != expected:
            raise ValueError(
                f"the tokenizer writes {role} in other tokens alone than in the prompt; begin and end the template "
                f"with whole words or line breaks, got {task.template!r}"
            )
    answer = candidates.index(str(task.frame["label"][query]))
    chosen = tuple(tokens[label] for label in candidates)
    return FewShotPrompt(
        task.name, prompt, alone, tuple(examples), tuple(candidates), chosen, answer, tuple(shown), tuple(rows), query
    )


def _ending(prompt: Prompt) -> Prompt:
    """With the role `last`, and the query to the end: a final line break belongs to no word, but to the query."""
    n = len(prompt)
    roles = {**prompt.roles, "query": (prompt.roles["query"][0], n), "last": (n - 1, n)}
    return Prompt(prompt.tokens, roles, prompt.text)


def _label_tokens(task: FewShotTask, row: int, tokenizer: Any, bos: bool) -> dict[str, tuple[int, ...]]:
    """The tokens of every label after a query; none may begin another's."""
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


def _candidates(
    labels: Sequence[str], true: str, shown: Sequence[str], n: int | None, rng: np.random.Generator
) -> list[str]:
    """The labels that may be answered, in the order of the task's labels."""
    if n is None:
        return list(labels)
    if n < 2:
        raise ValueError(f"got n_candidates={n}; expected at least 2 labels to choose from, or None for all")
    others = [labels[i] for i in rng.permutation(len(labels))]
    kept = set(list(dict.fromkeys([true, *shown, *others]))[:n])
    return [label for label in labels if label in kept]


def _check_length(made: Sequence[FewShotPrompt], n_ctx: int) -> None:
    fits = []
    for one in made:
        room = n_ctx - (max(map(len, one.label_tokens)) - 1)
        query = one.prompt.roles["query"][0]
        starts = [one.prompt.roles[f"demo[{i}]"][0] for i in range(len(one.demos))] + [query]
        fits.append(sum(len(one.prompt) - (start - starts[0]) > room for start in starts))
    if any(fits):
        worst = int(np.argmax(fits))
        n_demos = len(made[worst].demos)
        few = n_demos - fits[worst]
        raise ValueError(
            f"prompt {worst} with {n_demos} demonstrations has {len(made[worst].prompt)} tokens, but the context "
            f"window holds {n_ctx}; " + (f"{few} of them fit" if few >= 0 else "not even the query fits")
        )
