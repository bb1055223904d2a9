"""Kernel accounts that need no model: votes of the demonstrations by their words, their number and their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mechicl.predictors.votes import label_votes, majority_votes, recency_votes
from mechicl.tasks.fewshot_prompt import FewShotPrompt, shown_numbers
from mechicl.tasks.similarity import WordOverlap

# Receives prompts with equally many demonstrations and labels; gives, by name, votes for each of a prompt's own labels.
Votes = Callable[[Sequence[FewShotPrompt]], Mapping[str, Float[np.ndarray, "item label"]]]
MODEL_FREE = ("TF-IDF kernel", "nearest neighbour", "majority", "recency")


def model_free_votes(texts: Sequence[str]) -> Votes:
    """Votes of `MODEL_FREE`, by the words of texts as they are written in a prompt.

    "TF-IDF kernel": weight of a demonstration = cosine of its TF-IDF vector with the query's, words weighted by how few
    of `texts` hold them; "nearest neighbour": 1 for the demonstration with the largest, shared between equals. Both are
    NaN, no vote, where no demonstration has a word of the query. "majority": 1 each. "recency": 1 for the last.
    """
    words = WordOverlap(texts)

    def votes(prompts: Sequence[FewShotPrompt]) -> dict[str, Float[np.ndarray, "item label"]]:
        cosines = np.concatenate([words.cosines([one.query_text], one.demo_texts) for one in prompts])
        best = cosines.max(-1, keepdims=True)
        nearest = ((cosines >= best - 1e-9) & (best > 0)).astype(np.float64)
        shown, n_labels = shown_numbers(prompts), len(prompts[0].labels)
        return {
            "TF-IDF kernel": label_votes(cosines, shown, n_labels),
            "nearest neighbour": label_votes(nearest, shown, n_labels),
            "majority": majority_votes(shown, n_labels),
            "recency": recency_votes(shown, n_labels),
        }

    return votes


def all_votes(prompts: Sequence[FewShotPrompt], sources: Sequence[Votes]) -> dict[str, Float[np.ndarray, "item label"]]:
    """The votes of all sources; ValueError for a name given twice and for votes of another shape."""
    found: dict[str, Float[np.ndarray, "item label"]] = {}
    expected = (len(prompts), len(prompts[0].labels))
    for source in sources:
        for name, votes in source(prompts).items():
            if name in found or name == "ICL":
                raise ValueError(f"two predictors have the name {name!r}; give each one of its own")
            if np.shape(votes) != expected:
                raise ValueError(
                    f"the votes {name!r} have the shape {np.shape(votes)}; expected {expected}, a row a prompt"
                )
            found[name] = np.asarray(votes, dtype=np.float64)
    return found
