"""The language of the planted models: a dative alternation with a word a token, and a priming corpus in it.

    PD        "Person03 verb07 thing05 to person08."
    DO        "Person03 verb07 person08 thing05."
    neutral   "Person03 verb07 again."                 the same verb with neither structure

After the verb PD goes on with a thing and DO with a person, so the structure is decided by one prediction, the one made
at the verb. Nouns come in two halves: primes draw on the first, targets on the second, and the verbs of a pair differ,
so prime and target never share a content word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.prompts import RoleText

BOS, PAD, UNKNOWN = "<s>", "<pad>", "<unk>"
TO, AGAIN, PERIOD = "to", "again", "."


@dataclass(frozen=True)
class Language:
    """How many words of each kind there are. A word is named by its kind and number; numbers have equal lengths."""

    n_verbs: int = 22
    n_persons: int = 12
    n_things: int = 12

    def __post_init__(self) -> None:
        """Refuse a language in which prime and target cannot have different words."""
        if self.n_verbs < 2:
            raise ValueError(f"got n_verbs={self.n_verbs}; prime and target have different verbs, so give 2 or more")
        if self.n_persons < 4:
            raise ValueError(
                f"got n_persons={self.n_persons}; a sentence names 2 and a pair shares none: give 4 or more"
            )
        if self.n_things < 2:
            raise ValueError(f"got n_things={self.n_things}; prime and target have different things: give 2 or more")

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs, sorted."""
        return _numbered("verb", self.n_verbs)

    @property
    def persons(self) -> tuple[str, ...]:
        """The persons; the first half stands in primes, the other in targets."""
        return _numbered("person", self.n_persons)

    @property
    def things(self) -> tuple[str, ...]:
        """The things; the first half stands in primes, the other in targets."""
        return _numbered("thing", self.n_things)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens; a token's id is its place."""
        return (BOS, PAD, UNKNOWN, PERIOD, TO, AGAIN, *self.verbs, *self.persons, *self.things)

    def tokenizer(self) -> Any:
        """A fast word-level tokenizer of transformers; one object for all languages of these sizes."""
        return _tokenizer(self)

    def texts(self, verb: str, agent: str, theme: str, recipient: str) -> dict[str, RoleText]:
        """The forms PD, DO and neutral of a sentence, with the roles that the other dative corpora have."""
        head = RoleText.of((agent.capitalize(), "subject"), " ", (verb, "verb"), " ")
        tails = {
            "PD": RoleText.of((theme, "theme"), " ", (TO, "preposition"), " ", (recipient, "recipient")),
            "DO": RoleText.of((recipient, "recipient"), " ", (theme, "theme")),
            "neutral": RoleText.of(AGAIN),
        }
        return {
            form: head + RoleText(tail.text, {"post_verb": (0, len(tail.text)), **tail.roles}) + "."
            for form, tail in tails.items()
        }


def planted_corpus(
    *,
    n_verbs: int = 22,
    n_persons: int = 12,
    n_things: int = 12,
    design: str = "paired",
    targets_per_verb: int = 1,
    primes_per_verb: int | None = None,
    seed: int = 0,
) -> PrimingCorpus:
    """A priming corpus in which every verb primes every other verb equally often.

    Each verb has `targets_per_verb` target sentences and `primes_per_verb` prime sentences (as many unless given).
    `design="paired"`: every target meets one prime of each other verb, n_verbs (n_verbs - 1) targets_per_verb pairs.
    `design="factorial"`: every target meets every prime of each other verb, primes_per_verb times as many pairs.
    A verb never has the same sentence twice. All nouns are drawn with `seed`.

    As in the other corpora no verb primes itself, so plain means over a prime verb's items fall with the verb's own
    bias by 1 / (n_verbs - 1) where nothing is primed; means adjusted for targets (`mechicl.adjustment`) do not.

    Errors (ValueError): sizes that cannot be had, an unknown design.

    >>> len(planted_corpus(n_verbs=4, targets_per_verb=3))
    36
    """
    language = Language(n_verbs, n_persons, n_things)
    primes_per_verb = targets_per_verb if primes_per_verb is None else primes_per_verb
    if design not in ("paired", "factorial"):
        raise ValueError(f"got design={design!r}; expected 'paired' or 'factorial'")
    rng = np.random.default_rng(seed)
    sizes = {"prime": primes_per_verb, "target": targets_per_verb}
    sentences = []
    for half, (side, number) in enumerate(sizes.items()):
        persons, things = (_half(words, half) for words in (language.persons, language.things))
        meanings = [(a, t, r) for a, t, r in product(persons, things, persons) if a != r]
        if not 1 <= number <= len(meanings):
            raise ValueError(
                f"got {side}s_per_verb={number}; expected 1 to {len(meanings)}, the number of different sentences that "
                f"{n_persons} persons and {n_things} things give; ask for more of these"
            )
        for verb in language.verbs:
            drawn = rng.choice(len(meanings), number, replace=False)
            sentences += [(f"{verb}-{side}-{k}", verb, language.texts(verb, *meanings[i])) for k, i in enumerate(drawn)]
    pairs = [
        (f"{prime}-prime-{i}", f"{target}-target-{k}")
        for prime, target in product(language.verbs, language.verbs)
        if prime != target
        for k in range(targets_per_verb)
        for i in (range(primes_per_verb) if design == "factorial" else [k % primes_per_verb])
    ]
    table = pd.DataFrame(pairs, columns=["prime", "target"])
    return PrimingCorpus.of(f"planted-{design}", ("PD", "DO"), sentences, table, seed=seed)


def _numbered(kind: str, number: int) -> tuple[str, ...]:
    width = max(2, len(str(number - 1)))
    return tuple(f"{kind}{i:0{width}}" for i in range(number))


def _half(words: tuple[str, ...], which: int) -> tuple[str, ...]:
    middle = len(words) // 2
    return words[middle:] if which else words[:middle]


@lru_cache(maxsize=8)
def _tokenizer(language: Language) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(language.vocabulary)}
    core = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()  # a sentence's first word is the same word
    core.pre_tokenizer = pre_tokenizers.Whitespace()  # parts words and the period
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=BOS, pad_token=PAD, unk_token=UNKNOWN, padding_side="right"
    )
