"""Generated dative corpora: the design of arXiv 2406.18501, with words of our own.

Forms: PD `DT N V DT N P DT N .` ("A doctor brought a file to a guest.") and DO `DT N V DT N DT N .` ("A doctor brought
a guest a file."); the neutral text is `DT N V DT N .` ("A doctor brought a file."), the same verb with neither
structure. In every pair prime and target have different verbs, opposite determiners (a/an against the) and no content
word in common. Whether they share the preposition, which could prime by itself, is recorded and can be excluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.dative_sentences import DativeItem, Nouns, Writer, dative_texts
from mechicl.tasks.dative_words import VERBS, DativeVerb, find_verb

POOL = 25  # sentences per verb and determiner, at least, among which primes are chosen
Pairs = list[tuple[DativeItem, DativeItem]]
Partners = Mapping[DativeVerb, list[DativeVerb]]  # target verb -> the verbs that may prime it


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
    other verbs, chosen at random and balanced. Primes are sentences of the same corpus (new ones where none fits), so
    a verb's bias is measured on sentences that prime. Defaults are the paper's size: 22 x 50 x 21 = 23,100 pairs.
    `design="factorial"`: `primes_per_verb` primes (2 unless given) meet every target of another verb with the opposite
    determiner; with few primes and many targets, scoring can share the work on a prime. Primes and targets then draw
    on two halves of the nouns.

    `pronoun`: the recipient is one of me, you, us, him, them, her, it, different in prime and target. The same seed
    gives the same pairs in both conditions.
    `verbs`: lemmas or past tenses of the 22 known verbs; sentences are filed under the lemma.
    `exclude_shared_preposition`: only pairs of a *to*-verb and a *for*-verb.
    `tokenizer`: keep only nouns that are one token after a space.

    Half of each verb's targets have "a", half "the"; where the number is odd, verbs take turns with the extra one.
    Factors: `shared_preposition` (bool), `prime_preposition`, `target_preposition`, `prime_determiner` ("a", "the").
    For a number of pairs that no design gives exactly, take `corpus.sample(n)`.

    Errors (ValueError): unknown verbs, fewer than two verbs, sizes that cannot be had, a tokenizer that splits a word
    which nothing can replace, too few nouns.

    >>> corpus = dative_corpus(verbs=["give", "draw", "feed"], targets_per_verb=10, seed=1)
    >>> len(corpus)
    60
    """
    chosen = _chosen_verbs(verbs)
    _check_sizes(design, targets_per_verb, primes_per_target, primes_per_verb)
    partners = {v: [p for p in chosen if _may_prime(p, v, exclude_shared_preposition)] for v in chosen}
    if not all(partners.values()):
        raise ValueError("all verbs take the same preposition, so no pair is left; choose more verbs or allow sharing")
    nouns = Nouns() if tokenizer is None else Nouns.whole(chosen, tokenizer, pronoun=pronoun)
    rng = np.random.default_rng(seed)
    if design == "paired":
        pairs = _paired(partners, nouns, targets_per_verb, primes_per_target, rng)
    else:
        pairs = _factorial(partners, nouns, targets_per_verb, primes_per_verb or 2, rng)
    return _as_corpus(f"datives-{design}-{'pronoun' if pronoun else 'noun'}", pairs, chosen, pronoun, seed)


def _paired(
    partners: Partners, nouns: Nouns, targets_per_verb: int, primes_per_target: int | None, rng: np.random.Generator
) -> Pairs:
    """Each target with one prime of each of its partner verbs; the targets themselves serve as primes too."""
    fewest = min(map(len, partners.values()))
    if primes_per_target is not None and primes_per_target > fewest:
        raise ValueError(f"got primes_per_target={primes_per_target}, but some target has {fewest} verbs to prime it")
    writer = Writer(nouns, rng)
    targets = writer.items(list(partners), targets_per_verb)
    pool = {(v, d): [t for t in targets[v] if t.definite == d] for v in partners for d in (False, True)}
    for (verb, definite), items in pool.items():
        fresh = [writer.try_item(verb, definite) for _ in range(POOL - len(items))]
        items.extend(item for item in fresh if item is not None)
    met: Counter[Any] = Counter()
    pairs: Pairs = []
    for k, verb in product(range(targets_per_verb), partners):
        target = targets[verb][k]
        # first the verbs that primed this verb least so far, then those that primed least at all, then chance
        rank = {p: (met[verb, p], met[p], rng.random()) for p in partners[verb]}
        for prime_verb in sorted(rank, key=rank.__getitem__)[:primes_per_target]:
            items = pool[prime_verb, not target.definite]
            at_random = (items[i] for i in rng.permutation(len(items)))
            prime = next((item for item in at_random if item.may_meet(target)), None)
            if prime is None:
                prime = writer.item(prime_verb, not target.definite, target)
                items.append(prime)
            met.update([(verb, prime_verb), prime_verb])
            pairs.append((prime, target))
    return pairs


def _factorial(
    partners: Partners, nouns: Nouns, targets_per_verb: int, primes_per_verb: int, rng: np.random.Generator
) -> Pairs:
    """Every prime with every target that it may meet."""
    if primes_per_verb % 2:
        raise ValueError(
            f'got primes_per_verb={primes_per_verb}, expected an even number: half with "a", half with "the". With an '
            "odd one some verbs would meet more targets of one determiner, which by itself changes what follows"
        )
    prime_nouns, target_nouns = nouns.halves(rng)
    primes = Writer(prime_nouns, rng).items(list(partners), primes_per_verb)
    targets = Writer(target_nouns, rng).items(list(partners), targets_per_verb)
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
    used = dict.fromkeys(item for pair in pairs for item in pair)  # each once, in order of first use
    by_verb = {verb: [item for item in used if item.verb == verb] for verb in verbs}
    ids = {item: f"{verb.lemma}-{k:04d}" for verb, items in by_verb.items() for k, item in enumerate(items)}
    primes, targets = [prime for prime, _ in pairs], [target for _, target in pairs]
    table = pd.DataFrame(
        {
            "prime": [ids[p] for p in primes],
            "target": [ids[t] for t in targets],
            "shared_preposition": [p.verb.preposition == t.verb.preposition for p, t in pairs],
            "prime_preposition": [p.verb.preposition for p in primes],
            "target_preposition": [t.verb.preposition for t in targets],
            "prime_determiner": ["the" if p.definite else "a" for p in primes],
        }
    )
    sentences = [(key, item.verb.lemma, dative_texts(item, pronoun=pronoun)) for item, key in ids.items()]
    return PrimingCorpus.of(name, ("PD", "DO"), sentences, table, seed=seed)
