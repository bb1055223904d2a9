"""What every analysis of few-shot prompts asks of them before it runs a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from mechicl.tasks.fewshot import FewShotPrompt


def n_demonstrations(prompts: Sequence[FewShotPrompt]) -> int:
    """The number of demonstrations, the same in all; raises `ValueError` for none, and where numbers differ."""
    if not prompts:
        raise ValueError("got no prompts; make some with fewshot_prompts")
    found = sorted({len(one.demos) for one in prompts})
    if len(found) != 1 or found[0] < 1:
        raise ValueError(f"got prompts with {found} demonstrations; expected equally many, at least one, in all")
    return found[0]


def query_clusters(prompts: Sequence[FewShotPrompt]) -> Int[np.ndarray, " item"]:
    """The query's row of each prompt: prompts of one query are resampled together; `ValueError` for fewer than 2."""
    clusters = np.array([one.query for one in prompts])
    if len(set(clusters.tolist())) < 2:
        raise ValueError(
            f"got {len(set(clusters.tolist()))} different query, expected at least 2: the spread between queries is "
            "unknown; draw more prompts"
        )
    return clusters


def last_words(prompts: Sequence[FewShotPrompt]) -> list[tuple[int, ...]]:
    """The first token of every label of each prompt, by which labels are told apart at the last token.

    Raises `ValueError`, with the labels, where two labels of a prompt begin with the same token, and where prompts have
    different numbers of labels.
    """
    for number, one in enumerate(prompts):
        met: dict[int, str] = {}
        for label, tokens in zip(one.labels, one.label_tokens, strict=True):
            if tokens[0] in met:
                raise ValueError(
                    f"prompt {number}: the labels {met[tokens[0]]!r} and {label!r} begin with the same token, so they "
                    "cannot be told apart at the last token; choose label words whose first tokens differ"
                )
            met[tokens[0]] = label
    if len(sizes := sorted({len(one.labels) for one in prompts})) != 1:
        raise ValueError(f"got prompts with {sizes} labels to answer; expected equally many (n_candidates) in all")
    return [tuple(tokens[0] for tokens in one.label_tokens) for one in prompts]
