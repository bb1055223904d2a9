"""Dative sentences before they are paired: what one says, the words that may fill it, and its texts.

`DativeItem` is the content, `Nouns` the words at hand, `Writer` draws items from them, `dative_texts` gives the forms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mechicl.tasks.dative_words import PEOPLE, PRONOUNS, THEMES, DativeVerb, indefinite
from mechicl.tasks.prompts import RoleText, tokenize

RELAX = "ask for fewer targets or primes, other verbs, or tokenizer=None (roles survive words of several tokens)"
TRIES = 500  # random draws before the words count as used up


@dataclass(frozen=True, eq=False)
class DativeItem:
    """What a sentence says; each item is one object, compared by identity."""

    verb: DativeVerb
    definite: bool
    agent: str
    theme: str
    recipient: str
    pronoun: str

    def may_meet(self, other: DativeItem) -> bool:
        """Opposite determiners, other nouns, another pronoun: in the noun and in the pronoun condition alike."""
        nouns = {self.agent, self.theme, self.recipient}
        apart = nouns.isdisjoint((other.agent, other.theme, other.recipient)) and self.pronoun != other.pronoun
        return apart and self.definite != other.definite


@dataclass(frozen=True)
class Nouns:
    """The words that fill a sentence; themes come in groups."""

    people: tuple[str, ...] = PEOPLE
    themes: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: THEMES)
    pronouns: tuple[str, ...] = PRONOUNS

    @classmethod
    def whole(cls, verbs: Sequence[DativeVerb], tokenizer: Any, *, pronoun: bool) -> Nouns:
        """The nouns that are one token after a space; a ValueError if another word that the corpus needs is not."""

        def is_whole(word: str, before: str = "The ") -> bool:
            text = RoleText.of(before, (word, "word"), ".")
            return len(tokenize(text, tokenizer, prepend_bos=False).part("word")) == 1

        fixed = [*(v.past for v in verbs), *sorted({v.preposition for v in verbs}), "a", "an", "the"]
        split = [word for word in (*fixed, *(PRONOUNS if pronoun else ())) if not is_whole(word)]
        split += [word for word in ("A", "An", "The") if not is_whole(word, before="")]
        if split:
            raise ValueError(f"the tokenizer splits {split}, and no other word can stand in for these; {RELAX}")
        themes = {group: tuple(filter(is_whole, words)) for group, words in THEMES.items()}
        return cls(tuple(filter(is_whole, PEOPLE)), themes)

    def halves(self, rng: np.random.Generator) -> tuple[Nouns, Nouns]:
        """Two disjoint halves; every group of themes is split, so that each verb has some in both."""
        people, pronouns = _halves(self.people, rng), _halves(self.pronouns, rng)
        themes = {group: _halves(words, rng) for group, words in self.themes.items()}
        first, second = (Nouns(people[i], {g: w[i] for g, w in themes.items()}, pronouns[i]) for i in (0, 1))
        return first, second


def _halves(words: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    order = [words[i] for i in rng.permutation(len(words))]
    return tuple(order[: len(words) // 2]), tuple(order[len(words) // 2 :])


class Writer:
    """Writes items at random, never the same agent, verb and theme with the same determiner twice."""

    def __init__(self, nouns: Nouns, rng: np.random.Generator) -> None:
        """Draw words from `nouns` with `rng`."""
        self.nouns, self.rng = nouns, rng
        self.written: set[tuple[str, bool, str, str]] = set()

    def try_item(self, verb: DativeVerb, definite: bool, target: DativeItem | None = None) -> DativeItem | None:
        """A new item, fit to prime `target` if there is one; None if many tries gave none."""
        themes, people, pronouns = self._themes(verb), self.nouns.people, self.nouns.pronouns
        if not themes or len(people) < 2:
            return None
        for _ in range(TRIES):
            agent, theme, recipient, pronoun = (self._any(words) for words in (people, themes, people, pronouns))
            item = DativeItem(verb, definite, agent, theme, recipient, pronoun)
            key = (verb.lemma, definite, agent, theme)
            if agent != recipient and key not in self.written and (target is None or item.may_meet(target)):
                self.written.add(key)
                return item
        return None

    def item(self, verb: DativeVerb, definite: bool, target: DativeItem | None = None) -> DativeItem:
        """The same, or a ValueError that says what to relax."""
        found = self.try_item(verb, definite, target)
        if found is None:
            left = f"{len(self._themes(verb))} themes, {len(self.nouns.people)} people"
            raise ValueError(f"too few words left for the verb {verb.lemma!r} ({left}); {RELAX}")
        return found

    def items(self, verbs: Sequence[DativeVerb], number: int) -> dict[DativeVerb, list[DativeItem]]:
        """`number` items a verb, half of them with "a", half with "the"; verbs take turns with an odd one."""
        return {v: [self.item(v, (k + i) % 2 == 1) for k in range(number)] for i, v in enumerate(verbs)}

    def _themes(self, verb: DativeVerb) -> tuple[str, ...]:
        return tuple(word for group in verb.themes for word in self.nouns.themes[group])

    def _any(self, words: Sequence[str]) -> str:
        return words[int(self.rng.integers(len(words)))]


def dative_texts(item: DativeItem, *, pronoun: bool) -> dict[str, RoleText]:
    """The texts PD, DO and neutral of an item, with their roles; `pronoun` puts one in the recipient's place."""

    def phrase(noun: str) -> str:
        return f"{'the' if item.definite else indefinite(noun)} {noun}"

    agent = phrase(item.agent)
    theme = (phrase(item.theme), "theme")
    recipient = (item.pronoun if pronoun else phrase(item.recipient), "recipient")
    head = RoleText.of((agent[0].upper() + agent[1:], "subject"), " ", (item.verb.past, "verb"), " ")
    tails = {
        "PD": RoleText.of(theme, " ", (item.verb.preposition, "preposition"), " ", recipient),
        "DO": RoleText.of(recipient, " ", theme),
        "neutral": RoleText.of(theme),
    }
    return {
        form: head + RoleText(tail.text, {"post_verb": (0, len(tail.text)), **tail.roles}) + "."
        for form, tail in tails.items()
    }
