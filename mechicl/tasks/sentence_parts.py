"""Finds verb, subject and dative roles in plain English sentences of two forms, by comparing the forms.

No parser: what both forms share, and how their ends are exchanged, says enough for the simple sentences of priming
corpora.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mechicl.tasks.prompts import RoleText, Span

PREPOSITIONS = ("to", "for")  # of the dative alternation
_ONLY_DETERMINERS = {"a", "an", "the", "my", "your", "its", "our", "their", "every", "each", "no"}
_DETERMINER_OR_PRONOUN = {"his", "her", "this", "that", "these", "those", "some", "any"}
_PRONOUNS = {"i", "you", "he", "she", "it", "we", "they", "me", "him", "us", "them"}
_BE = {"am", "is", "are", "was", "were", "be", "been", "being"}
_MODAL = {"will", "would", "shall", "should", "can", "could", "may", "might", "must"}
_AUXILIARIES = _BE | _MODAL | {"has", "have", "had", "do", "does", "did"}
_NO_NOUN = _ONLY_DETERMINERS | _DETERMINER_OR_PRONOUN | _PRONOUNS | _AUXILIARIES | {*PREPOSITIONS, "by", ""}
_WORD = re.compile(r"[^\s.,;:!?\"()]+")


@dataclass(frozen=True)
class Words:
    """A text and its words: lower-cased, without punctuation, each with its characters' span."""

    text: str
    words: tuple[str, ...]
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, text: str) -> Words:
        """Split a text at spaces and punctuation."""
        found = list(_WORD.finditer(text))
        return cls(text, tuple(m.group().lower() for m in found), tuple(m.span() for m in found))

    def span(self, start: int, stop: int) -> Span:
        """The characters of words `start` to `stop`, the last not included."""
        return self.spans[start][0], self.spans[stop - 1][1]


def tidy(text: str) -> str:
    """First letter capital, single spaces, no space before punctuation: "a cat slept ." -> "A cat slept."."""
    text = re.sub(r"\s+([.,;:!?])", r"\1", " ".join(text.split()))
    return text[:1].upper() + text[1:]


def find_verbs(first: Words, second: Words, known: Mapping[str, str]) -> tuple[int, int, str] | None:
    """Where the verb stands in each form, and its name; None where the rule gives none or several.

    With `known` (surface word -> name) the verb is the known word; the two forms may inflect it differently. Otherwise
    it is the one word that both forms have outside their noun phrases (determiner and noun, or pronoun).
    """
    if known:
        at = [[i for i, word in enumerate(form.words) if word in known] for form in (first, second)]
        names = {known[form.words[i]] for form, places in zip((first, second), at, strict=True) for i in places}
        return (at[0][0], at[1][0], names.pop()) if len(at[0]) == len(at[1]) == len(names) == 1 else None
    outside = [_outside_noun_phrases(form.words) for form in (first, second)]
    shared = set(outside[0]) & set(outside[1])
    shared = shared - _AUXILIARIES or shared  # "has" is the verb only where there is no other
    if len(shared) != 1:
        return None
    word = shared.pop()
    return outside[0][word], outside[1][word], word


def parts(form: Words, verb: int) -> dict[str, Span]:
    """The roles subject (without auxiliaries), verb and post_verb; one that has no words is left out."""
    stop = verb
    while stop and form.words[stop - 1] in _AUXILIARIES:
        stop -= 1
    roles = {"subject": form.span(0, stop)} if stop else {}
    roles["verb"] = form.spans[verb]
    if verb + 1 < len(form.words):
        roles["post_verb"] = form.span(verb + 1, len(form.words))
    return roles


@dataclass(frozen=True)
class DativeParts:
    """Dative roles of both forms, the preposition, and the neutral text: the prepositional form without its phrase."""

    first: dict[str, Span]
    second: dict[str, Span]
    preposition: str
    neutral: RoleText


def dative_parts(first: Words, second: Words, verbs: tuple[int, int]) -> DativeParts | None:
    """Theme and recipient, found because one form says "X to Y" (or "for") and the other "Y X"; None otherwise."""
    if first.words[: verbs[0] + 1] != second.words[: verbs[1] + 1]:
        return None
    swapped = len(first.words) < len(second.words)
    long, short = (second, first) if swapped else (first, second)
    after, n, total = verbs[0] + 1, len(long.words), len(short.words)
    for p in range(after + 1, n - 1):
        theme, recipient = long.words[after:p], long.words[p + 1 :]
        if long.words[p] in PREPOSITIONS and short.words[after:] == recipient + theme:
            in_long = {
                "theme": long.span(after, p),
                "preposition": long.spans[p],
                "recipient": long.span(p + 1, n),
            }
            border = after + len(recipient)
            in_short = {"recipient": short.span(after, border), "theme": short.span(border, total)}
            theme_span = in_long["theme"]
            roles = {**parts(long, verbs[0]), "post_verb": theme_span, "theme": theme_span}
            neutral = RoleText(long.text[: theme_span[1]] + ".", roles)
            both = (in_short, in_long) if swapped else (in_long, in_short)
            return DativeParts(*both, long.words[p], neutral)
    return None


def _outside_noun_phrases(words: tuple[str, ...]) -> dict[str, int]:
    """Words outside noun phrases, each with its first place."""
    outside: dict[str, int] = {}
    i = 0
    while i < len(words):
        word = words[i]
        following = words[i + 1] if i + 1 < len(words) else ""
        if word in _ONLY_DETERMINERS or (word in _DETERMINER_OR_PRONOUN and following not in _NO_NOUN):
            i += 2
            continue
        if word not in _PRONOUNS | _DETERMINER_OR_PRONOUN:
            outside.setdefault(word, i)
        i += 1
    return outside
