"""Other primes of the same verb and form: which are chosen, and what they do, against loops and planted models."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mechicl.analyses.priming import measure_priming
from mechicl.analyses.rivals.prime_ceiling import moved_by_others, other_primes
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted import planted_ife
from mechicl.organisms.planted_language import planted_corpus
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.datives import dative_corpus
from mechicl.tasks.speaker_pairs import speaker_corpus

DATIVES = dative_corpus(verbs=["give", "send", "draw", "buy"], targets_per_verb=6, seed=1)
SPEAKERS = speaker_corpus(targets_per_verb=4, verbs=["gave", "sold", "sent", "lent"], seed=1)


def content(corpus: PrimingCorpus, sentence: str) -> set[str]:
    return {w.strip(".").lower() for form in corpus.forms for w in corpus.text(sentence, form).text.split()}


@pytest.mark.parametrize("corpus", [DATIVES, SPEAKERS], ids=["datives", "speakers"])
def test_others_have_the_verb_and_the_factors_and_share_fewest_words(corpus: PrimingCorpus) -> None:
    frame = corpus.to_frame()
    verb = corpus.sentences.set_index("sentence")["verb"]
    determiner = frame.drop_duplicates("prime").set_index("prime").get("prime_determiner")
    found = other_primes(corpus, corpus, 2, neutral=True)
    assert len({len(own) for own in found}) == 1 and 1 <= len(found[0]) <= 2
    for (_, row), own in zip(frame.iterrows(), found, strict=True):
        assert row["prime"] not in own and len(set(own)) == len(own)
        pool = [p for p in frame["prime"].unique() if verb[p] == row["prime_verb"] and p != row["prime"]]
        if determiner is not None:
            pool = [p for p in pool if determiner[p] == row["prime_determiner"]]
        assert set(own) <= set(pool)
        shared = {p: len(content(corpus, p) & content(corpus, row["target"])) for p in pool}
        assert sorted(shared.values())[: len(own)] == sorted(shared[p] for p in own)


def test_the_same_seed_gives_the_same_primes() -> None:
    first, again, other = (other_primes(SPEAKERS, SPEAKERS, 1, neutral=True, seed=s) for s in (0, 0, 1))
    assert first == again != other


def test_a_part_finds_primes_in_the_whole_corpus() -> None:
    part = DATIVES.sample(12, seed=3)
    alone, whole = (other_primes(c, part, 20, neutral=True) for c in (part, DATIVES))
    assert len(alone[0]) < len(whole[0])


def test_verbs_with_one_prime_have_no_others() -> None:
    corpus = planted_corpus(n_verbs=4, targets_per_verb=1)
    assert other_primes(corpus, corpus, 3, neutral=True) == [()] * len(corpus)


def test_primes_without_a_neutral_text_are_passed_over() -> None:
    corpus = planted_corpus(n_verbs=4, targets_per_verb=1, primes_per_verb=3, design="factorial")
    lacking = corpus.sentences["sentence"].str.endswith("prime-2")
    without = replace(
        corpus,
        sentences=corpus.sentences.assign(neutral=corpus.sentences["neutral"].mask(lacking, None)),
        spans=corpus.spans[~(corpus.spans["sentence"].str.endswith("prime-2") & (corpus.spans["form"] == "neutral"))],
    )
    for neutral, n in ((True, 1), (False, 2)):
        found = other_primes(
            without, without.where((corpus.pairs["prime"].str[-1] == "0").to_numpy()), 3, neutral=neutral
        )
        assert {len(own) for own in found} == {n}


@pytest.mark.parametrize("neutral", [True, False])
def test_what_others_do_is_what_they_do_as_primes(neutral: bool) -> None:
    """In a factorial corpus every other prime of a target is a pair of its own."""
    words: Any = {"n_verbs": 4, "n_persons": 8, "n_things": 6}
    corpus = planted_corpus(**words, targets_per_verb=1, primes_per_verb=3, design="factorial")
    planted = planted_ife(corpus=corpus, noise=0.3, item_noise=0.5, **words)
    others = other_primes(corpus, corpus, 2, neutral=neutral)
    items = measure_priming(planted.model, corpus, n_boot=100, progress=False).items
    base = None if neutral else items["L_unprimed"].to_numpy()
    found = moved_by_others(wrap(planted.model), corpus, corpus, others, base=base, options={"progress": False})
    pairs = items.set_index(["prime", "target"])
    for i, target in enumerate(items["target"]):
        for k, prime in enumerate(others[i]):
            row = pairs.loc[(prime, target)]
            start = row["L_neutral" if neutral else "L_unprimed"]
            np.testing.assert_allclose(found[k, :, i], [row["L_PD"] - start, row["L_DO"] - start], atol=1e-4)
    assert found.std(0).max() > 0.1  # the nouns of a prime do something
