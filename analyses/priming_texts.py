"""The texts of a priming corpus: which are scored after what, and where the answers belong."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.tasks.corpus import PrimingCorpus


class Asked(NamedTuple):
    """One question: both forms of a sentence, after a prime (None: unprimed)."""

    context: str
    prime: str | None
    sentence: str


class PrimingTexts:
    """What has to be asked about a corpus: each sentence alone, each item's target after each of its primes."""

    def __init__(self, corpus: PrimingCorpus) -> None:
        self.corpus = corpus
        self.frame = corpus.to_frame()
        self.contexts = [*corpus.forms] + (["neutral"] if self.frame["prime_neutral"].notna().any() else [])
        self.asked = [Asked("unprimed", None, sentence) for sentence in corpus.sentences["sentence"]]
        for context in self.contexts:
            for prime, target in zip(self.frame[f"prime_{context}"], self.frame["target"], strict=True):
                if isinstance(prime, str):
                    self.asked.append(Asked(context, prime, target))

    def pair(self, sentence: str, prime: str | None = None) -> tuple[tuple[str, str], tuple[str, str]]:
        """Both forms of a sentence, after a prime if there is one, as (context, continuation), cut where they part."""
        before = "" if prime is None else prime + " "
        first, second = (self.corpus.text(sentence, form).text for form in self.corpus.forms)
        # The space between two parts goes with the second: " brought" is one token, "brought " is not.
        context = (before + first[: _last_common_space(first, second)]).rstrip(" ")
        return (context, (before + first)[len(context) :]), (context, (before + second)[len(context) :])

    def filled(self, differences: Float[np.ndarray, " asked"]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Frames of sentences and items with their L, in the order in which the texts were asked."""
        answers = iter(differences)
        sentences = self.corpus.sentences[["sentence", "verb"]].copy()
        sentences["L_unprimed"] = [next(answers) for _ in range(len(sentences))]
        items = self.frame[["prime", "target", "prime_verb", "target_verb"]].copy()
        for context in self.contexts:
            has = self.frame[f"prime_{context}"].notna()
            items[f"L_{context}"] = [next(answers) if there else np.nan for there in has]
        if "L_neutral" not in items:
            items["L_neutral"] = np.nan
        items["L_unprimed"] = items["target"].map(sentences.set_index("sentence")["L_unprimed"])
        return sentences, items.join(self.corpus.pairs.drop(columns=["prime", "target"]))


def _last_common_space(first: str, second: str) -> int:
    """Where the two texts part, at a word's border: the index of the last space of their common beginning, or 0."""
    length = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(map(len, (first, second)))
    )
    return max(first.rfind(" ", 0, length), 0)
