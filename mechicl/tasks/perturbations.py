"""Texts made unlike those a model knows, by seeded changes that need no download.

A perturbation is a function of a text and a random generator. "rare words" are rare in the task's own texts, not in the
language: no list of frequencies is at hand.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

Perturbation = Callable[[str, np.random.Generator], str]
NAMES = ("typos", "shuffled words", "rare words")
_WORD = re.compile(r"[^\W\d_]+")
# the neighbours of each letter on a QWERTY keyboard, in its row
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {letter: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in _ROWS for i, letter in enumerate(row)}


def perturbation(how: str | Perturbation, texts: Sequence[str]) -> Perturbation:
    """The perturbation of a name in `NAMES`, or the caller's own; `texts` are those that words are rare among."""
    if callable(how):
        return how
    if how not in NAMES:
        raise ValueError(f"got perturb={how!r}; expected one of {', '.join(NAMES)}, or a function of (text, generator)")
    if how == "rare words":
        return rare_words(texts)
    return typos() if how == "typos" else shuffled_words()


def perturbed(text: str, change: Perturbation, *, seed: int, row: int) -> str:
    """The text of a row, changed alike wherever it is written; ValueError if nothing is left of it."""
    found = change(text, np.random.default_rng([1, seed, row]))
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"the perturbation made {found!r} of row {row}, {text!r}; expected a text that is not empty")
    return found


def typos(share: float = 0.5) -> Perturbation:
    """One slip in each word of three letters or more, with probability `share`.

    A slip, each kind as likely: two letters change places, a letter is left out, typed twice, or its neighbour on the
    keyboard is hit. Where that would change nothing (equal letters, no neighbour known) a letter is typed twice.
    """
    if not 0 < share <= 1:
        raise ValueError(f"got share={share}; expected a number above 0, at most 1")

    def change(text: str, rng: np.random.Generator) -> str:
        def slip(match: re.Match[str]) -> str:
            word = match.group()
            # drawn for short words as well, so that the share does not depend on what stands before
            if rng.random() >= share or len(word) < 3:
                return word
            return _slip(word, rng)

        return _WORD.sub(slip, text)

    return change


def shuffled_words() -> Perturbation:
    """The words in another order, if there are two that differ; what parts them are single spaces then."""

    def change(text: str, rng: np.random.Generator) -> str:
        words = text.split()
        if len(set(words)) < 2:
            return text
        while True:
            found = [words[i] for i in rng.permutation(len(words))]
            if found != words:
                return " ".join(found)

    return change


def rare_words(texts: Sequence[str], share: float = 0.5) -> Perturbation:
    """Each word of three letters or more is replaced, with probability `share`, by one that few of `texts` hold.

    The rare words are those in the fewest texts, at least 20 of them; each replacement is drawn from them, with the
    capital of the word that it replaces. Where all words are equally frequent (each text holds its own), any is drawn.
    """
    if not 0 < share <= 1:
        raise ValueError(f"got share={share}; expected a number above 0, at most 1")
    counts = Counter(word for text in texts for word in {w.lower() for w in _WORD.findall(text)} if len(word) >= 3)
    ordered = sorted(counts.items(), key=lambda pair: (pair[1], pair[0]))
    if len(ordered) < 2:
        raise ValueError(f"the texts hold {len(ordered)} words of three letters or more; expected at least 2")
    bound = ordered[min(20, len(ordered)) - 1][1]
    rare = [word for word, count in ordered if count <= bound]

    def change(text: str, rng: np.random.Generator) -> str:
        def other(match: re.Match[str]) -> str:
            word, drawn = match.group(), rare[int(rng.integers(len(rare)))]
            if rng.random() >= share or len(word) < 3:
                return word
            return drawn.capitalize() if word[0].isupper() else drawn

        return _WORD.sub(other, text)

    return change


def replaced_by(texts: Sequence[str]) -> Perturbation:
    """Any of `texts` instead, drawn at random: inputs from elsewhere under the task's own labels.

    Source: Min et al., arXiv 2202.12837, where such inputs cost more accuracy than wrong labels do.
    """
    own = list(texts)
    if not own:
        raise ValueError("got no texts to put in the place of others; give at least one")
    return lambda text, rng: own[int(rng.integers(len(own)))]


def _slip(word: str, rng: np.random.Generator) -> str:
    kind, i = int(rng.integers(4)), int(rng.integers(len(word)))
    twice = word[: i + 1] + word[i:]
    if kind == 0:
        k = min(i, len(word) - 2)
        return twice if word[k] == word[k + 1] else word[:k] + word[k + 1] + word[k] + word[k + 2 :]
    if kind == 1:
        return word[:i] + word[i + 1 :]
    beside = _BESIDE.get(word[i].lower(), "")
    if kind == 2 or not beside:
        return twice
    hit = beside[int(rng.integers(len(beside)))]
    return word[:i] + (hit.upper() if word[i].isupper() else hit) + word[i + 1 :]
