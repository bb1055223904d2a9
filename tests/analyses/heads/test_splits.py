"""Two halves without a verb or target in common, of the same range of biases."""

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.heads.splits import split_rows
from mechicl.organisms.planted_language import planted_corpus
from mechicl.tasks.datives import dative_corpus

CORPUS = planted_corpus(n_verbs=12, n_persons=8, n_things=6, targets_per_verb=3, seed=1)
FRAME = CORPUS.to_frame()
ALL = np.arange(len(CORPUS))
BIAS = pd.Series({verb: i / 12 for i, verb in enumerate(reversed(CORPUS.verbs))})


@pytest.mark.parametrize("n_items", [60, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_halves_share_no_verb_and_no_target(seed, n_items) -> None:
    first, second = split_rows(FRAME, ALL, BIAS, n_items, seed)
    assert not set(first.prime_verb) & set(second.prime_verb)
    assert not set(first.target) & set(second.target)
    assert len(set(first.prime_verb)) == len(set(second.prime_verb)) == 6
    for rows in (first, second):
        np.testing.assert_array_equal(rows.prime_verb, FRAME["prime_verb"].to_numpy()[rows.numbers])
        np.testing.assert_array_equal(rows.target, FRAME["target"].to_numpy()[rows.numbers])
        assert len(set(rows.numbers.tolist())) == len(rows.numbers)


@pytest.mark.parametrize("seed", range(5))
def test_of_every_two_neighbours_in_bias_each_half_has_one(seed) -> None:
    first, _ = split_rows(FRAME, ALL, BIAS, 10_000, seed)
    rank = sorted(round(12 * BIAS[verb]) for verb in set(first.prime_verb))
    assert [r // 2 for r in rank] == list(range(6))


def test_whole_targets_until_there_are_enough() -> None:
    for rows in split_rows(FRAME, ALL, BIAS, 40, 0):
        eligible = FRAME[FRAME["prime_verb"].isin(set(rows.prime_verb))]
        for target in set(rows.target):
            assert (rows.target == target).sum() == (eligible["target"] == target).sum()
        sizes = pd.Series(rows.target).value_counts()
        assert 40 <= len(rows.numbers) < 40 + sizes.max()
        met = pd.Series(rows.prime_verb).value_counts()
        assert met.max() - met.min() <= 2  # verbs that met few targets come first


def test_more_than_there_is_gives_all_of_it() -> None:
    first, second = split_rows(FRAME, ALL, BIAS, 10_000, 0)
    for rows in (first, second):
        same = FRAME["prime_verb"].isin(set(rows.prime_verb)) & FRAME["target"].isin(set(rows.target))
        np.testing.assert_array_equal(rows.numbers, np.flatnonzero(same))


def test_only_usable_pairs_are_taken() -> None:
    usable = np.flatnonzero(FRAME["prime_verb"] != CORPUS.verbs[0])
    for rows in split_rows(FRAME, usable, BIAS, 60, 0):
        assert set(rows.numbers.tolist()) <= set(usable.tolist())


def test_the_seed_decides() -> None:
    one, same, other = (split_rows(FRAME, ALL, BIAS, 60, seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.numbers, same.numbers)
    assert not np.array_equal(one.numbers, other.numbers)


def test_a_random_pairing_of_primes_and_targets_is_split_too() -> None:
    corpus = dative_corpus(targets_per_verb=4, seed=0)
    frame = corpus.to_frame()
    bias = pd.Series(np.linspace(0, 1, len(corpus.verbs)), index=list(corpus.verbs))
    first, second = split_rows(frame, np.arange(len(corpus)), bias, 96, 0)
    assert not set(first.prime_verb) & set(second.prime_verb) and not set(first.target) & set(second.target)
    assert min(len(first.numbers), len(second.numbers)) >= 96


def test_too_few_verbs_are_refused() -> None:
    few = np.flatnonzero(FRAME["prime_verb"].isin(CORPUS.verbs[:5]))
    with pytest.raises(ValueError, match="has 2 prime verbs, expected at least 3"):
        split_rows(FRAME, few, BIAS, 60, 0)
    with pytest.raises(ValueError, match="has 6 prime verbs, expected at least 7"):
        split_rows(FRAME, ALL, BIAS, 60, 0, fewest=7)
