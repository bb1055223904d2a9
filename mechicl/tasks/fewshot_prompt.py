"""One few-shot prompt, and how it is written from rows that were chosen before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from mechicl.tasks.fewshot_task import FewShotTask
from mechicl.tasks.label_tokens import tokens_of_labels
from mechicl.tasks.perturbations import Perturbation, perturbation, perturbed
from mechicl.tasks.prompts import Prompt, RoleText, tokenize


@dataclass(frozen=True)
class FewShotPrompt:
    """One query with its demonstrations.

    prompt: demonstrations and query, up to where the label is predicted; roles `demo[i]`, `demo[i].text`,
        `demo[i].label`, `query` (to the end of the prompt), `query.text` and `last`, the token after which it is.
    zero_shot: the same query alone; roles `query`, `query.text`, `last`. Its tokens are those of the prompt's query.
    examples: each demonstration alone, up to its label; roles `text` and `label`. Tokens as in the prompt.
    labels, label_tokens: the labels that may be answered, and the tokens of each after the query; `answer` is the right
        one's number. No label's tokens begin another's, so whole labels compare by their summed log-probability.
    demo_labels: the label shown with each demonstration. demos, query: rows of the task's frame; where `demo_task`
        names another task, `demos` are rows of that one's. demo_texts, query_text: as they are written.
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
    demo_texts: tuple[str, ...] = ()
    query_text: str = ""
    demo_task: str | None = None

    @property
    def label(self) -> str:
        """The query's true label."""
        return self.labels[self.answer]


def shown_numbers(prompts: Sequence[FewShotPrompt]) -> Int[np.ndarray, "item demo"]:
    """Which of the prompt's own labels each demonstration shows; -1 for one that may not be answered."""
    return np.array(
        [[one.labels.index(x) if x in one.labels else -1 for x in one.demo_labels] for one in prompts], dtype=np.int64
    )


def given_prompts(
    task: FewShotTask,
    queries: Sequence[int],
    demos: Sequence[Sequence[int]],
    *,
    tokenizer: Any,
    shown: Sequence[Sequence[str]] | None = None,
    candidates: Sequence[Sequence[str]] | None = None,
    demo_task: FewShotTask | None = None,
    perturb: str | Perturbation | None = None,
    perturb_queries: bool = False,
    seed: int = 0,
    prepend_bos: bool = True,
    n_ctx: int | None = None,
) -> list[FewShotPrompt]:
    """Prompts of given rows: `demos[i]`, in this order, before the query `queries[i]`.

    shown: the labels of the demonstrations, by default their own. candidates: the labels that may be answered, by
    default all. demo_task: the task that `demos` are rows of, with a template of its own; None: the same. perturb,
    perturb_queries, seed: as in `fewshot_prompts`; equal seeds change a row's text alike in every prompt. n_ctx: the
    model's context window.

    Raises `ValueError` as `fewshot_prompts` does, for rows that the tasks lack, and for lists of other lengths.
    """
    source = task if demo_task is None else demo_task
    _check_rows(task, source, queries, demos)
    if shown is None:
        shown = [[str(source.frame["label"][row]) for row in rows] for rows in demos]
    if candidates is None:
        candidates = [task.labels] * len(queries)
    for name, given in (("shown", shown), ("candidates", candidates)):
        if len(given) != len(queries):
            raise ValueError(f"got {len(given)} lists of {name} for {len(queries)} queries; give one for each")
    change = None if perturb is None else perturbation(perturb, source.frame["text"].tolist())
    writer = _Writer(task, source, tokenizer, prepend_bos, change, perturb_queries, seed)
    tokens = tokens_of_labels(task, int(queries[0]), tokenizer, prepend_bos)
    made = [writer.written(*parts, tokens) for parts in zip(queries, demos, shown, candidates, strict=True)]
    if n_ctx is not None:
        check_length(made, n_ctx)
    return made


@dataclass(frozen=True, eq=False)
class _Writer:
    task: FewShotTask
    source: FewShotTask
    tokenizer: Any
    bos: bool
    change: Perturbation | None
    change_queries: bool
    seed: int

    def written(
        self,
        query: int,
        rows: Sequence[int],
        shown: Sequence[str],
        candidates: Sequence[str],
        tokens: Mapping[str, tuple[int, ...]],
    ) -> FewShotPrompt:
        """The prompt and its parts, as tokens."""
        task, source, query = self.task, self.source, int(query)
        true, asked = str(task.frame["label"][query]), self._text(task, query, self.change_queries)
        if true not in candidates or any(label not in tokens for label in candidates):
            raise ValueError(f"got the candidates {list(candidates)}; expected labels of the task, {true!r} among them")
        texts = [self._text(source, int(row), True) for row in rows]
        question = task.question(query, asked).under("query")
        whole = RoleText("", {})
        examples = []
        for i, (row, label, text) in enumerate(zip(rows, shown, texts, strict=True)):
            example = source.example(int(row), label, text)
            whole = whole + example.under(f"demo[{i}]") + source.separator
            examples.append(tokenize(example, self.tokenizer, prepend_bos=self.bos))
        prompt = _ending(tokenize(whole + question, self.tokenizer, prepend_bos=self.bos))
        alone = _ending(tokenize(question, self.tokenizer, prepend_bos=self.bos))
        parts = [(f"demo[{i}]", example.tokens[self.bos :]) for i, example in enumerate(examples)]
        for role, expected in [*parts, ("query", alone.part("query"))]:
            if prompt.part(role) != expected:
                raise ValueError(
                    f"the tokenizer writes {role} in other tokens alone than in the prompt; begin and end the template "
                    f"with whole words or line breaks, got {task.template!r}"
                )
        return FewShotPrompt(
            task=task.name,
            prompt=prompt,
            zero_shot=alone,
            examples=tuple(examples),
            labels=tuple(candidates),
            label_tokens=tuple(tokens[label] for label in candidates),
            answer=list(candidates).index(true),
            demo_labels=tuple(shown),
            demos=tuple(int(row) for row in rows),
            query=query,
            demo_texts=tuple(texts),
            query_text=asked,
            demo_task=None if source is task else source.name,
        )

    def _text(self, task: FewShotTask, row: int, change: bool) -> str:
        text = str(task.frame["text"][row])
        if not change or self.change is None:
            return text
        return perturbed(text, self.change, seed=self.seed, row=row)


def _ending(prompt: Prompt) -> Prompt:
    """With the role `last`, and the query to the end: a final line break belongs to no word, but to the query."""
    n = len(prompt)
    roles = {**prompt.roles, "query": (prompt.roles["query"][0], n), "last": (n - 1, n)}
    return Prompt(prompt.tokens, roles, prompt.text)


def _check_rows(task: FewShotTask, source: FewShotTask, queries: Sequence[int], demos: Sequence[Sequence[int]]) -> None:
    if not len(queries) or len(queries) != len(demos):
        raise ValueError(f"got {len(queries)} queries and {len(demos)} lists of demonstrations; give one list a query")
    if not all(len(rows) for rows in demos):
        raise ValueError("got a query without demonstrations; give it at least one, or take `zero_shot` of a prompt")
    for name, n, rows in (
        ("query", len(task.frame), queries),
        ("demonstration", len(source.frame), [row for own in demos for row in own]),
    ):
        wrong = [row for row in rows if not 0 <= row < n]
        if wrong:
            raise ValueError(f"got row {wrong[0]} as a {name}; the task has the rows 0 to {n - 1}")


def check_length(made: Sequence[FewShotPrompt], n_ctx: int) -> None:
    """Refuse (ValueError) prompts that are, with a label, longer than the window; says how many demonstrations fit."""
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
