"""Other primes of the same verb and form: how far a model's answer to one prime is that to any such prime.

An account that knows of a prime its verb and its form cannot foresee what the prime's other words do. To know how much
that is, the target is read after other sentences of the corpus with the same verb in the same form. Chosen are
sentences that prime elsewhere in the corpus and share the recorded factors of the prime (`prime_determiner`, say); of
these the ones with the fewest words in common with the target, at random among equals. No sentence is invented, so a
corpus whose verbs prime with one sentence each has none to offer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mechicl.analyses.priming_texts import PrimingTexts
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.corpus import PrimingCorpus

_END = ".,;:!?\"'"


def other_primes(
    corpus: PrimingCorpus, part: PrimingCorpus, n: int, *, neutral: bool, seed: int = 0
) -> list[tuple[str, ...]]:
    """For each of the part's pairs, sentences that could prime its target as well: n, or fewer, the same for all pairs.

    corpus: where primes are looked for. neutral: whether they must have a neutral text. The number is that of the pair
    with the fewest, and 0 where some verb has one prime only.
    """
    table = corpus.sentences.set_index("sentence")
    factors = [name for name in map(str, corpus.pairs.columns) if name.startswith("prime_")]
    keys: dict[tuple[Any, ...], dict[str, None]] = {}
    for prime, *own in corpus.pairs[["prime", *factors]].itertuples(index=False):
        if not neutral or isinstance(table.at[prime, "neutral"], str):
            keys.setdefault((table.at[prime, "verb"], *own), {})[prime] = None
    words = {name: _words(corpus, name) for name in table.index}
    rng = np.random.default_rng(seed)
    found = []
    for prime, target, *own in part.pairs[["prime", "target", *factors]].itertuples(index=False):
        same = [name for name in keys.get((table.at[prime, "verb"], *own), ()) if name != prime]
        luck = rng.permutation(len(same)).tolist()
        shared = [len(words[name] & words[target]) for name in same]
        order = sorted(range(len(same)), key=lambda i: (shared[i], luck[i]))
        found.append(tuple(same[i] for i in order[:n]))
    fewest = min(map(len, found))
    return [own[:fewest] for own in found]


def moved_by_others(
    wrapped: WrappedModel,
    part: PrimingCorpus,
    corpus: PrimingCorpus,
    others: Sequence[Sequence[str]],
    *,
    base: Float[np.ndarray, " item"] | None,
    options: Mapping[str, Any],
) -> Float[np.ndarray, "order 2 item"]:
    """How far each other prime moves the target's log-odds, in both forms, nats: L after it minus the base.

    base: L without any prime, or None where the base is L after the neutral text of the same prime. options: those of
    `score`.
    """
    texts = PrimingTexts(corpus)
    contexts = [*corpus.forms] + (["neutral"] if base is None else [])
    pairs = list(zip(part.pairs["target"].tolist(), others, strict=True))
    asked = [
        text
        for context in contexts
        for k in range(len(others[0]))
        for target, own in pairs
        for text in texts.pair(target, corpus.text(own[k], context).text)
    ]
    log_probs = score(wrapped, [before for before, _ in asked], [after for _, after in asked], **options)
    found = (log_probs[0::2] - log_probs[1::2]).reshape(len(contexts), len(others[0]), len(pairs))
    start = found[2] if base is None else base
    return np.asarray(np.moveaxis(found[:2] - start, 0, 1))


def _words(corpus: PrimingCorpus, name: str) -> set[str]:
    """The words of a sentence in both forms, without case and punctuation."""
    whole = " ".join(corpus.text(name, form).text for form in corpus.forms)
    return {word.strip(_END).lower() for word in whole.split()}
