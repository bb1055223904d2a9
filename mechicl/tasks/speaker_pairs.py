"""A priming corpus in the mini-language, for models that read speakers' documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.mini_language import PERSONS, THINGS, VERBS, mini_texts

POOL = 25  # sentences per verb, at least, among which primes are chosen
Item = tuple[str, str, str, str]  # verb, agent, thing, recipient


def speaker_corpus(
    *,
    targets_per_verb: int = 10,
    primes_per_target: int | None = None,
    verbs: Sequence[str] | None = None,
    seed: int = 0,
) -> PrimingCorpus:
    """A corpus with forms PD and DO and neutral primes, whose words are those of `mechicl.tasks.mini_language`.

    Every target meets a random prime of each other verb, or of `primes_per_target` other verbs, such that all verbs
    prime equally often. Prime and target share neither verb nor noun. Targets serve as primes too, as in the paper's
    design, so that a verb's bias is measured on sentences that prime.

    Errors (ValueError): unknown or repeated verbs, fewer than two, sizes that cannot be had.

    >>> len(speaker_corpus(targets_per_verb=2, verbs=["gave", "sold", "sent"]))
    12
    """
    chosen = _chosen(verbs)
    per_target = len(chosen) - 1 if primes_per_target is None else primes_per_target
    if targets_per_verb < 1 or not 1 <= per_target < len(chosen):
        raise ValueError(
            f"got targets_per_verb={targets_per_verb}, primes_per_target={primes_per_target}; expected 1 or more "
            f"targets, and from 1 to {len(chosen) - 1} primes for each, as there are {len(chosen)} verbs"
        )
    rng = np.random.default_rng(seed)
    pool: dict[str, list[Item]] = {verb: [] for verb in chosen}
    for verb, items in pool.items():
        while len(items) < max(targets_per_verb, POOL):
            _add(items, _item(verb, rng))
    pairs: list[tuple[Item, Item]] = []
    order = [chosen[i] for i in rng.permutation(len(chosen))]
    for k in range(targets_per_verb):
        for place, verb in enumerate(order):
            target = pool[verb][k]
            for j in range(per_target):
                # the same distances around the circle of verbs for all of them, so that all prime equally often
                distance = 1 + (k * per_target + j) % (len(chosen) - 1)
                pairs.append((_prime(pool[order[(place + distance) % len(order)]], target, rng), target))
    return _as_corpus(pairs, seed)


def _item(verb: str, rng: np.random.Generator) -> Item:
    agent, recipient = rng.choice(len(PERSONS), size=2, replace=False)
    return verb, PERSONS[agent], THINGS[rng.integers(len(THINGS))], PERSONS[recipient]


def _add(items: list[Item], item: Item) -> None:
    if item not in items:
        items.append(item)


def _prime(items: list[Item], target: Item, rng: np.random.Generator) -> Item:
    """A random item that shares no noun with the target; a new one where there is none."""
    fit = [item for item in items if set(item).isdisjoint(target)]
    while not fit:
        new = _item(items[0][0], rng)
        if set(new).isdisjoint(target):
            _add(items, new)
            fit = [new]
    return fit[int(rng.integers(len(fit)))]


def _chosen(names: Sequence[str] | None) -> list[str]:
    chosen = list(VERBS if names is None else names)
    unknown = [name for name in chosen if name not in VERBS]
    if unknown or len(set(chosen)) < max(len(chosen), 2):
        raise ValueError(f"got the verbs {names}; expected two or more different ones of {', '.join(VERBS)}")
    return chosen


def _as_corpus(pairs: list[tuple[Item, Item]], seed: int) -> PrimingCorpus:
    used = dict.fromkeys(item for pair in pairs for item in pair)  # each once, in order of first use
    number = dict.fromkeys(VERBS, 0)
    ids: dict[Item, str] = {}
    for item in used:
        ids[item] = f"{item[0]}-{number[item[0]]:04d}"
        number[item[0]] += 1
    table = pd.DataFrame({"prime": [ids[p] for p, _ in pairs], "target": [ids[t] for _, t in pairs]})
    sentences = [(key, item[0], mini_texts(*item)) for item, key in ids.items()]
    return PrimingCorpus.of("speakers", ("PD", "DO"), sentences, table, seed=seed)
