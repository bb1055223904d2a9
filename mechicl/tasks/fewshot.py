"""Few-shot prompts: demonstrations with labels, then a query, every part with a name.

A `FewShotTask` is a frame of texts and labels with a template; `fewshot_prompts` draws demonstrations and queries from
it and gives, beside each prompt, what a comparison needs: the query alone (zero shot), each demonstration alone (what a
gradient step learns from), and the tokens of every label that may be answered. `given_prompts` writes rows of the
caller's choice, in the caller's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mechicl.tasks.demonstrations import CHOICES, LABELS, ORDERS, draw_demonstrations, draw_queries, shown_labels
from mechicl.tasks.fewshot_prompt import FewShotPrompt, given_prompts
from mechicl.tasks.fewshot_task import FewShotTask
from mechicl.tasks.label_tokens import FIRST_TOKENS, check_first_tokens, draw_candidates, tokens_of_labels
from mechicl.tasks.perturbations import Perturbation
from mechicl.tasks.similarity import By, similarities

__all__ = ["FewShotPrompt", "FewShotTask", "fewshot_prompts", "given_prompts"]


def fewshot_prompts(
    task: FewShotTask,
    n_demos: int,
    n_queries: int,
    *,
    tokenizer: Any,
    seed: int,
    balanced: bool = True,
    demonstrations: str = "random",
    similarity: By = "tfidf",
    order: str = "most similar last",
    labels: str = "true",
    demo_task: FewShotTask | None = None,
    perturb: str | Perturbation | None = None,
    perturb_queries: bool = False,
    n_candidates: int | None = None,
    first_tokens: str = "any",
    prepend_bos: bool = True,
    n_ctx: int | None = None,
) -> list[FewShotPrompt]:
    """Draw queries, and for each its own demonstrations from the other rows.

    balanced: as many demonstrations (and queries) of each label as can be.
    demonstrations: "random", or the most "similar" or "dissimilar" to the query by `similarity`: "tfidf", a function
        that embeds texts, or a matrix (see `mechicl.tasks.similarity`); texts are compared as they are in the frame.
        order: of retrieved ones, "most similar last", "most similar first" or "random". No retrieval asks for labels.
    labels: "true"; "shuffled": the same labels in another order over the demonstrations; "flipped": each shows another
        label of the task, with two labels the other one; "random": any label each.
    demo_task: another task that demonstrations come from, in that one's template and with its labels.
    perturb: the demonstrations' texts, with perturb_queries the queries' too, are changed: "typos", "shuffled words",
        "rare words", or a function of (text, generator); see `mechicl.tasks.perturbations`.
    n_candidates: of many labels, only so many may be answered: the true one, those of the demonstrations first, then
        others at random; None: all. first_tokens "distinct": no two of them may begin with the same token.
    n_ctx: the model's context window, `model.cfg.n_ctx`.

    Equal seeds draw equal queries whatever else is asked, and equal demonstrations in equal order for any template,
    label words, perturbation, and the labels "true", "flipped" and "random".

    Raises `ValueError` for too few rows, an unknown choice, a prompt longer than the window (says how many
    demonstrations fit), labels that the tokenizer cannot tell apart, a tokenizer that writes a demonstration in other
    tokens alone than among others, similarities that are the same for all rows, and a perturbation that leaves nothing
    of a text.
    """
    _check_choices(demonstrations, order, labels, first_tokens)
    source, rng = task if demo_task is None else demo_task, np.random.default_rng(seed)
    # A generator of its own: with these labels the demonstrations are those that the true labels have.
    own_rng = np.random.default_rng([2, seed]) if labels in ("flipped", "random") else rng
    queries = draw_queries(task.frame, n_queries, balanced=balanced, rng=rng)
    tokens = tokens_of_labels(task, int(queries[0]), tokenizer, prepend_bos)
    if first_tokens == "distinct" and n_candidates is None:
        check_first_tokens(task, tokens)
    texts = task.frame["text"].tolist()
    alike = None
    if demonstrations != "random":
        alike = similarities(texts, queries, source.frame["text"].tolist(), similarity)
        _check_apart(alike, [texts[query] for query in queries], source.frame["text"].to_numpy())
        if demonstrations == "dissimilar":
            alike, order = -alike, {ORDERS[0]: ORDERS[1], ORDERS[1]: ORDERS[0]}.get(order, order)
    demos, shown, candidates = [], [], []
    for i, query in enumerate(queries):
        rows = draw_demonstrations(
            source.frame, texts[query], n_demos, balanced=balanced, rng=rng,
            similarity=None if alike is None else alike[i], order=order,
        )  # fmt: skip
        own = [str(source.frame["label"][row]) for row in rows]
        demos.append(rows)
        shown.append(shown_labels(own, labels, rng=own_rng, labels=source.labels))
        true = str(task.frame["label"][query])
        candidates.append(draw_candidates(task, true, shown[-1], n_candidates, tokens, first_tokens, rng))
    return given_prompts(
        task, queries, demos, tokenizer=tokenizer, shown=shown, candidates=candidates, demo_task=demo_task,
        perturb=perturb, perturb_queries=perturb_queries, seed=seed, prepend_bos=prepend_bos, n_ctx=n_ctx,
    )  # fmt: skip


def _check_apart(alike: np.ndarray, queries: Sequence[str], pool: np.ndarray) -> None:
    """Refuse similarities by which no query has a row more alike than another: retrieval would be chance."""
    if all(np.ptp(own[pool != query]) == 0 for own, query in zip(alike, queries, strict=True) if (pool != query).any()):
        raise ValueError(
            "no demonstration is more similar to its query than any other (no words in common, perhaps); give a "
            "similarity that tells them apart, such as a function that embeds texts"
        )


def _check_choices(demonstrations: str, order: str, labels: str, first_tokens: str) -> None:
    for name, got, expected in (
        ("demonstrations", demonstrations, CHOICES),
        ("order", order, ORDERS),
        ("labels", labels, LABELS),
        ("first_tokens", first_tokens, FIRST_TOKENS),
    ):
        if got not in expected:
            raise ValueError(f"got {name}={got!r}; expected one of {', '.join(map(repr, expected))}")
