"""Generated dative corpora: the design of arXiv 2406.18501, with words of our own.

Forms: PD `DT N V DT N P DT N .` ("A doctor brought a file to a guest.") and DO `DT N V DT N DT N .` ("A doctor brought a
guest a file."); the neutral text is `DT N V DT N .` ("A doctor brought a file."), the same verb with neither structure.
In every pair prime and target have different verbs, opposite determiners (a/an against the) and no content word in common.
Whether they share the preposition, which could prime by itself, is recorded and can be excluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.dative_words import PEOPLE, PRONOUNS, THEMES, VERBS, DativeVerb, find_verb, indefinite
from mechicl.tasks.prompts import RoleText, tokenize

POOL = 25  # candidates for primes, per verb and determiner, of which each target meets one of every verb
RELAX = "ask for fewer targets or primes, other verbs, or tokenizer=None (roles survive words of several tokens)"


def dative_corpus(
    *,
    pronoun: bool = False,
    design: str = "paired",
    verbs: Sequence[str] | None = None,
    targets_per_verb: int = 50,
    primes_per_target: int | None = None,
    primes_per_verb: int | None = None,
    exclude_shared_preposition: bool = False,
    tokenizer: Any = None,
    seed: int = 0,
) -> PrimingCorpus:
    """A dative priming corpus with forms PD and DO.

    `design="paired"` (the paper's): every target meets one random prime of each other verb, or of `primes_per_target`
    random other verbs, balanced. The defaults are the paper's size: 22 verbs x 50 targets x 21 primes = 23,100 pairs.
    `design="factorial"`: `primes_per_verb` primes (2 unless given) meet every target of another verb with the opposite
    determiner; with few primes and many targets, scoring can share the work on a prime. Primes and targets then draw on
    two halves of the nouns.

    `pronoun`: the recipient is one of me, you, us, him, them, her, it, different in prime and target. The same seed gives
    the same pairs in both conditions.
    `verbs`: lemmas or past tenses of the 22 known verbs; sentences are filed under the lemma.
    `exclude_shared_preposition`: only pairs of a *to*-verb and a *for*-verb.
    `tokenizer`: keep only nouns that are one token after a space.

    Half of each verb's targets have "a", half "the"; where the number is odd, verbs take turns with the extra one.
    Factors: `shared_preposition` (bool), `prime_preposition`, `target_preposition`, `prime_determiner` ("a", "the").

    Errors (ValueError): unknown verbs, fewer than two verbs, sizes that cannot be had, a tokenizer that splits a word
    which cannot be replaced, too few nouns.

    >>> corpus = dative_corpus(verbs=["give", "draw", "feed"], targets_per_verb=10, seed=1)
    >>> len(corpus)
    60
    """
    chosen = _chosen_verbs(verbs)
    _check_sizes(design, targets_per_verb, primes_per_target, primes_per_verb)
    partners = {v: [p for p in chosen if _may_prime(p, v, exclude_shared_preposition)] for v in chosen}
    if not all(partners.values()):
        raise ValueError("all verbs take the same preposition, so no pair is left; choose more verbs or allow sharing")
    nouns = _Nouns.kept(chosen, tokenizer, pronoun)
    rng = np.random.default_rng(seed)
    if design == "paired":
        pairs = _paired(partners, nouns, targets_per_verb, primes_per_target, rng)
    else:
        pairs = _factorial(partners, nouns, targets_per_verb, primes_per_verb or 2, rng)
    return _as_corpus(f"datives-{design}-{'pronoun' if pronoun else 'noun'}", pairs, chosen, pronoun, seed)


@dataclass(frozen=True, eq=False)
class _Item:
    """What a sentence says; each item is one object, compared by identity."""

    verb: DativeVerb
    definite: bool
    agent: str
    theme: str
    recipient: str
    pronoun: str

    def may_meet(self, other: _Item) -> bool:
        """Opposite determiners, other nouns, another pronoun: in the noun and in the pronoun condition alike."""
        nouns = {self.agent, self.theme, self.recipient}
        apart = nouns.isdisjoint((other.agent, other.theme, other.recipient)) and self.pronoun != other.pronoun
        return apart and self.definite != other.definite


Pairs = list[tuple[_Item, _Item]]


@dataclass(frozen=True)
class _Nouns:
    """The words that fill a sentence."""

    people: tuple[str, ...]
    themes: Mapping[str, tuple[str, ...]]
    pronouns: tuple[str, ...] = PRONOUNS

    @classmethod
    def kept(cls, verbs: Sequence[DativeVerb], tokenizer: Any, pronoun: bool) -> _Nouns:
        if tokenizer is None:
            return cls(PEOPLE, THEMES)

        def whole(word: str, before: str = "The ") -> bool:
            text = RoleText.of(before, (word, "word"), ".")
            return len(tokenize(text, tokenizer, prepend_bos=False).part("word")) == 1

        fixed = [*(v.past for v in verbs), *sorted({v.preposition for v in verbs}), "a", "an", "the"]
        split = [w for w in [*fixed, *(PRONOUNS if pronoun else ())] if not whole(w)]
        split += [w for w in ("A", "An", "The") if not whole(w, before="")]
        if split:
            raise ValueError(
                f"the tokenizer splits {split}, which every sentence needs; choose other verbs, or {RELAX}"
            )
        return cls(
            tuple(filter(whole, PEOPLE)), {group: tuple(filter(whole, words)) for group, words in THEMES.items()}
        )

    def halves(self, rng: np.random.Generator) -> tuple[_Nouns, _Nouns]:
        """Two disjoint halves; every group of themes is split, so that each verb has some in both."""
        cut = {g: _halves(words, rng) for g, words in {**self.themes, " p": self.people, " r": self.pronouns}.items()}
        first, second = ({g: both[side] for g, both in cut.items()} for side in (0, 1))
        return _Nouns(first.pop(" p"), first, first.pop(" r")), _Nouns(second.pop(" p"), second, second.pop(" r"))


def _halves(words: Sequence[str], rng: np.random.Generator) -> tuple[tuple[str, ...], tuple[str, ...]]:
    order = [words[i] for i in rng.permutation(len(words))]
    return tuple(order[: len(words) // 2]), tuple(order[len(words) // 2 :])


class _Writer:
    """Writes items, never the same agent, verb and theme with the same determiner twice."""

    def __init__(self, nouns: _Nouns, rng: np.random.Generator) -> None:
        self.nouns, self.rng = nouns, rng
        self.written: set[tuple[str, ...]] = set()

    def try_item(self, verb: DativeVerb, definite: bool, target: _Item | None = None) -> _Item | None:
        """A new item, fit to prime `target` if there is one; None if 500 tries gave none."""
        themes = [word for group in verb.themes for word in self.nouns.themes[group]]
        people, pronouns = self.nouns.people, self.nouns.pronouns
        if not themes or len(people) < 2:
            return None
        for _ in range(500):
            agent, other = self.rng.integers(len(people)), self.rng.integers(len(people))
            theme = themes[self.rng.integers(len(themes))]
            pronoun = pronouns[self.rng.integers(len(pronouns))]
            key = (verb.lemma, str(definite), people[agent], theme)
            item = _Item(verb, definite, people[agent], theme, people[other], pronoun)
            if agent != other and key not in self.written and (target is None or item.may_meet(target)):
                self.written.add(key)
                return item
        return None

    def item(self, verb: DativeVerb, definite: bool, target: _Item | None = None) -> _Item:
        """The same, or a ValueError that says what to relax."""
        found = self.try_item(verb, definite, target)
        if found is None:
            themes = sum(len(self.nouns.themes[group]) for group in verb.themes)
            raise ValueError(
                f"too few words left for the verb {verb.lemma!r} ({themes} themes, {len(self.nouns.people)} people); {RELAX}"
            )
        return found

    def items(self, verbs: Sequence[DativeVerb], number: int) -> dict[DativeVerb, list[_Item]]:
        """`number` items a verb, half with "a" and half with "the"."""
        return {v: [self.item(v, (k + i) % 2 == 1) for k in range(number)] for i, v in enumerate(verbs)}


def _paired(
    partners: Mapping[DativeVerb, list[DativeVerb]],
    nouns: _Nouns,
    targets_per_verb: int,
    primes_per_target: int | None,
    rng: np.random.Generator,
) -> Pairs:
    """Each target with one prime of each of its partner verbs; the targets themselves serve as primes where they fit."""
    fewest = min(map(len, partners.values()))
    if primes_per_target is not None and primes_per_target > fewest:
        raise ValueError(f"got primes_per_target={primes_per_target}, but only {fewest} verbs may prime some target")
    writer = _Writer(nouns, rng)
    targets = writer.items(list(partners), targets_per_verb)
    pool = {(v, d): [t for t in targets[v] if t.definite == d] for v in partners for d in (False, True)}
    for (verb, definite), items in pool.items():
        fresh = (writer.try_item(verb, definite) for _ in range(POOL - len(items)))
        items += [item for item in fresh if item is not None]
    met: Counter[Any] = Counter()
    pairs: Pairs = []
    for verb, target in ((v, targets[v][k]) for k in range(targets_per_verb) for v in partners):
        # the verbs that primed this verb least so far, then those that primed least at all, then chance
        order = sorted(partners[verb], key=lambda p: (met[verb, p], met[p], rng.random()))  # noqa: B023
        for prime_verb in order[:primes_per_target]:
            items = pool[prime_verb, not target.definite]
            at_random = (items[i] for i in rng.permutation(len(items)))
            prime = next((p for p in at_random if p.may_meet(target)), None)
            if prime is None:
                prime = writer.item(prime_verb, not target.definite, target)
                items.append(prime)
            met.update([(verb, prime_verb), prime_verb])
            pairs.append((prime, target))
    return pairs


def _factorial(
    partners: Mapping[DativeVerb, list[DativeVerb]],
    nouns: _Nouns,
    targets_per_verb: int,
    primes_per_verb: int,
    rng: np.random.Generator,
) -> Pairs:
    """Every prime with every target that it may meet."""
    if targets_per_verb % 2 and primes_per_verb % 2:
        raise ValueError(
            f"got {primes_per_verb} primes and {targets_per_verb} targets a verb; make one of them even, "
            "so that opposite determiners leave every verb with equally many pairs"
        )
    prime_nouns, target_nouns = nouns.halves(rng)
    primes = _Writer(prime_nouns, rng).items(list(partners), primes_per_verb)
    targets = _Writer(target_nouns, rng).items(list(partners), targets_per_verb)
    verbs = [(p, v) for v in partners for p in partners[v]]
    return [(p, t) for pv, tv in verbs for p, t in product(primes[pv], targets[tv]) if p.may_meet(t)]


def _chosen_verbs(names: Sequence[str] | None) -> list[DativeVerb]:
    verbs = [find_verb(name) for name in ([names] if isinstance(names, str) else VERBS if names is None else names)]
    if len(set(verbs)) < len(verbs):
        raise ValueError(f"got the verbs {names}, some of them twice; name each verb once")
    if len(verbs) < 2:
        raise ValueError(f"got {len(verbs)} verb(s); prime and target have different verbs, so give two or more")
    return verbs


def _may_prime(prime: DativeVerb, target: DativeVerb, exclude_shared_preposition: bool) -> bool:
    return prime != target and not (exclude_shared_preposition and prime.preposition == target.preposition)


def _check_sizes(design: str, targets: int, per_target: int | None, per_verb: int | None) -> None:
    if design not in ("paired", "factorial"):
        raise ValueError(f"got design={design!r}; expected 'paired' or 'factorial'")
    other, value = ("primes_per_verb", per_verb) if design == "paired" else ("primes_per_target", per_target)
    if value is not None:
        raise ValueError(f"{other} belongs to the other design; leave it out with design={design!r}")
    sizes = {"targets_per_verb": targets, "primes_per_target": per_target, "primes_per_verb": per_verb}
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"got {name}={size}; expected 1 or more")


def _as_corpus(name: str, pairs: Pairs, verbs: Sequence[DativeVerb], pronoun: bool, seed: int) -> PrimingCorpus:
    used = {id(item): item for pair in pairs for item in pair}  # in order of first use
    by_verb = {v: [item for item in used.values() if item.verb == v] for v in verbs}
    ids = {id(item): f"{v.lemma}-{k:04d}" for v, items in by_verb.items() for k, item in enumerate(items)}
    table = pd.DataFrame(
        [
            (
                ids[id(prime)],
                ids[id(target)],
                prime.verb.preposition == target.verb.preposition,
                prime.verb.preposition,
                target.verb.preposition,
                "the" if prime.definite else "a",
            )
            for prime, target in pairs
        ],
        columns=[
            "prime", "target", "shared_preposition", "prime_preposition", "target_preposition", "prime_determiner"
        ],
    )  # fmt: skip
    sentences = [(ids[id(item)], v.lemma, _texts(item, pronoun)) for v, items in by_verb.items() for item in items]
    return PrimingCorpus.of(name, ("PD", "DO"), sentences, table, seed=seed)


def _texts(item: _Item, pronoun: bool) -> dict[str, RoleText]:
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
