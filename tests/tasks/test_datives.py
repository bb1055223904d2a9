"""Generated dative corpora: counts, balance, what pairs may not share, and the words themselves."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mechicl.tasks.corpus import PrimingCorpus, load_corpus
from mechicl.tasks.dative_words import PEOPLE, PRONOUNS, THEMES, VERBS, find_verb, indefinite
from mechicl.tasks.datives import dative_corpus

NOUNS = {*PEOPLE, *(word for words in THEMES.values() for word in words)}
PAST = {verb.past for verb in VERBS.values()}
FEW = ["give", "draw", "feed", "buy"]


@pytest.fixture(scope="module")
def full() -> PrimingCorpus:
    return dative_corpus()


@pytest.fixture(scope="module")
def pronoun() -> PrimingCorpus:
    return dative_corpus(verbs=FEW, targets_per_verb=50, pronoun=True)


@pytest.fixture(scope="module")
def factorial() -> PrimingCorpus:
    return dative_corpus(design="factorial", targets_per_verb=10)


def content(text: str) -> set[str]:
    """Nouns and verbs of a text, found by looking every word up; nothing of the generator is used."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    assert words <= NOUNS | PAST | {"a", "an", "the", "to", "for", *PRONOUNS}
    return words & (NOUNS | PAST)


def determiners(text: str) -> set[str]:
    return {"a" if word == "an" else word for word in text.lower().split() if word in ("a", "an", "the")}


# ----------------------------------------------------------------------------------- sizes and balance


def test_the_papers_size(full):
    assert len(full) == 23_100
    assert full.pairs["target"].nunique() == 22 * 50
    assert full.forms == ("PD", "DO")
    assert full.verbs == tuple(sorted(VERBS))
    assert len(VERBS) == 22
    frame = full.to_frame()
    assert frame.groupby("target")["prime_verb"].nunique().eq(21).all()
    assert (frame.groupby(["prime_verb", "target_verb"]).size() == 50).all()


def test_about_half_the_pairs_share_the_preposition(full):
    """10 *to*-verbs and 12 *for*-verbs: (10 x 9 + 12 x 11) of 22 x 21, the paper's 48%."""
    assert full.pairs["shared_preposition"].mean() == pytest.approx((10 * 9 + 12 * 11) / (22 * 21), abs=1e-12)


def test_shared_prepositions_can_be_excluded():
    corpus = dative_corpus(exclude_shared_preposition=True, targets_per_verb=2)
    assert len(corpus) == 2 * 2 * 10 * 12
    assert not corpus.pairs["shared_preposition"].any()


@pytest.mark.parametrize(("targets", "primes"), [(4, 3), (5, 2), (1, 1), (1, 20)])
def test_some_primes_per_target_stay_balanced(targets, primes):
    corpus = dative_corpus(targets_per_verb=targets, primes_per_target=primes)
    assert len(corpus) == 22 * targets * primes
    frame = corpus.to_frame()
    assert frame.groupby("target")["prime_verb"].nunique().eq(primes).all()
    cells = pd.crosstab(frame["target_verb"], frame["prime_verb"]).to_numpy()
    off_diagonal = cells[~np.eye(22, dtype=bool)]
    assert off_diagonal.max() - off_diagonal.min() <= 1
    as_prime = frame["prime_verb"].value_counts().reindex(list(VERBS), fill_value=0)
    assert as_prime.max() - as_prime.min() <= 2


@pytest.mark.parametrize("targets", [50, 5])
def test_half_the_targets_of_each_verb_are_definite(targets):
    corpus = dative_corpus(verbs=FEW, targets_per_verb=targets)
    frame = corpus.to_frame().drop_duplicates("target")
    definite = frame["target_PD"].str.startswith("The ").groupby(frame["target_verb"]).sum()
    assert set(definite) == {targets // 2, (targets + 1) // 2}
    assert definite.sum() == len(FEW) * targets / 2


def test_fifty_pairs(full):
    corpus = dative_corpus(verbs=[*FEW, "send"], targets_per_verb=10, primes_per_target=1)
    assert len(corpus) == 50
    assert len(full.sample(50, seed=1)) == 50
    assert set(full.sample(50, seed=1).to_frame()["prime_verb"].value_counts()) == {2, 3}


def test_factorial_design_crosses_primes_and_targets(factorial):
    primes, targets = 2, 10
    assert len(factorial) == 22 * 21 * primes * targets / 2
    frame = factorial.to_frame()
    assert frame["prime"].nunique() == 22 * primes
    assert frame["target"].nunique() == 22 * targets
    met = set(zip(frame["prime"], frame["target"], strict=True))
    for prime, verb, determiner in (
        frame[["prime", "prime_verb", "prime_determiner"]].drop_duplicates().itertuples(index=False)
    ):
        opposite = frame[(frame["target_verb"] != verb) & (frame["prime_determiner"] == determiner)]
        assert met >= {(prime, target) for target in opposite["target"]}
    assert (frame.groupby("prime").size() == 21 * targets / 2).all()
    assert (frame.groupby("target").size() == 21 * primes / 2).all()


def test_factorial_primes_and_targets_share_no_noun_at_all(factorial):
    frame = factorial.to_frame()
    used = {side: set().union(*map(content, frame[f"{side}_PD"].unique())) & NOUNS for side in ("prime", "target")}
    assert used["prime"]
    assert not used["prime"] & used["target"]


# -------------------------------------------------------------------------------- what pairs may share


@pytest.mark.parametrize("which", ["full", "pronoun", "factorial"])
def test_no_pair_shares_a_content_word_or_a_determiner(which, request):
    frame = request.getfixturevalue(which).to_frame()
    parts = {text: (content(text), determiners(text)) for text in {*frame["prime_PD"], *frame["target_PD"]}}
    nouns = 2 if which == "pronoun" else 3
    for prime, target, recorded in zip(frame["prime_PD"], frame["target_PD"], frame["prime_determiner"], strict=True):
        (words, dets), (other_words, other_dets) = parts[prime], parts[target]
        assert len(words) == len(other_words) == nouns + 1
        assert not words & other_words
        assert dets | other_dets == {"a", "the"}
        assert dets == {recorded}
        assert other_dets != dets


def test_pronoun_condition_has_the_same_pairs_with_pronouns(pronoun):
    nouns = dative_corpus(verbs=FEW, targets_per_verb=50)
    assert nouns.pairs.equals(pronoun.pairs)
    for form in ("PD", "DO"):
        for i in range(0, len(nouns), 20):
            text = pronoun.prime_target(i, form, "DO")
            one, other = text.part("prime.recipient"), text.part("target.recipient")
            assert one in PRONOUNS and other in PRONOUNS
            assert one != other
            assert text.part("prime.theme") == nouns.prime_target(i, form, "DO").part("prime.theme")
    frame = pronoun.to_frame()
    last = [frame[f"{side}_PD"].str.removesuffix(".").str.split().str[-1] for side in ("prime", "target")]
    assert (last[0] != last[1]).all()
    assert set(last[0]) == set(last[1]) == set(PRONOUNS)


def test_sentences_are_all_different(full):
    assert not full.sentences["PD"].duplicated().any()
    assert not full.sentences["neutral"].duplicated().any()


# --------------------------------------------------------------------------------------- the sentences


def test_both_forms_say_the_same_and_neutral_has_neither_structure(full):
    for row in full.sentences.iloc[::37].itertuples():
        verb = VERBS[row.verb]
        roles = {form: full.text(row.sentence, form) for form in ("PD", "DO", "neutral")}
        subject, theme, recipient = (roles["PD"].part(r) for r in ("subject", "theme", "recipient"))
        assert roles["PD"].text == f"{subject} {verb.past} {theme} {verb.preposition} {recipient}."
        assert roles["DO"].text == f"{subject} {verb.past} {recipient} {theme}."
        assert roles["neutral"].text == f"{subject} {verb.past} {theme}."
        assert theme.split()[-1] in {word for group in verb.themes for word in THEMES[group]}
        assert {subject.split()[-1], recipient.split()[-1]} <= set(PEOPLE)
        assert subject[0].isupper()


def test_spans_point_at_the_right_words(full, pronoun):
    for corpus in (full, pronoun):
        texts = corpus.sentences.set_index("sentence")
        spans = corpus.spans.sample(3_000, random_state=0)
        for sentence, form, role, start, stop in spans.itertuples(index=False):
            verb, text = VERBS[texts.loc[sentence, "verb"]], texts.loc[sentence, form]
            part = text[start:stop]
            before, after = text[:start], text[stop:]
            if role == "verb":
                assert part == verb.past
            elif role == "preposition":
                assert form == "PD" and part == verb.preposition
            elif role == "subject":
                assert before == "" and after.startswith(f" {verb.past} ")
            elif role == "post_verb":
                assert before.endswith(f" {verb.past} ") and after == "."
            elif role == "theme":
                assert part.split()[-1] in NOUNS - set(PEOPLE)
            else:
                assert role == "recipient" and (part in PRONOUNS or part.split()[-1] in PEOPLE)


def test_prepositions_are_recorded(full):
    for i in range(0, len(full), 2_311):
        text, row = full.prime_target(i, "PD", "PD"), full.pairs.iloc[i]
        assert text.part("prime.preposition") == row["prime_preposition"]
        assert text.part("target.preposition") == row["target_preposition"]
        assert row["shared_preposition"] == (row["prime_preposition"] == row["target_preposition"])


def test_articles_follow_the_sound(full):
    assert [indefinite(w) for w in ("actor", "uncle", "egg", "uniform", "horse", "doctor")] == ["an"] * 3 + ["a"] * 3
    wrong = re.compile(r"\b(a [aeio]|a u(?!nif)|an [^aeiou]|an unif)", re.IGNORECASE)
    assert wrong.search("A doctor saw an uniform.") and wrong.search("an doctor") and not wrong.search("an uncle")
    texts = full.sentences[["PD", "DO", "neutral"]].to_numpy().ravel()
    assert not [text for text in texts if wrong.search(text)]


def test_word_lists_are_large_and_disjoint():
    words = [*PEOPLE, *(word for group in THEMES.values() for word in group)]
    assert len(PEOPLE) >= 60
    assert len(words) - len(PEOPLE) >= 70
    assert not [word for word, count in Counter(words).items() if count > 1]
    assert not set(words) & (PAST | set(PRONOUNS))
    for verb in VERBS.values():
        assert sum(len(THEMES[group]) for group in verb.themes) >= 10, verb
    assert {group for verb in VERBS.values() for group in verb.themes} == set(THEMES)


# --------------------------------------------------------------------------------- seeds, files, names


def test_the_seed_decides_everything():
    options = dict(verbs=FEW, targets_per_verb=6)
    for design in ("paired", "factorial"):
        one = dative_corpus(**options, design=design, seed=1)
        assert one == dative_corpus(**options, design=design, seed=1)
        other = dative_corpus(**options, design=design, seed=2)
        assert not one.sentences.equals(other.sentences)
        assert len(set(one.sentences["PD"]) & set(other.sentences["PD"])) < 5
        assert (one.seed, other.seed) == (1, 2)


def test_round_trip(tmp_path):
    corpus = dative_corpus(verbs=FEW, targets_per_verb=6, pronoun=True)
    assert load_corpus(corpus.save(tmp_path)) == corpus


def test_verbs_go_by_lemma_or_past_tense():
    assert find_verb("brought") is find_verb("bring") is VERBS["bring"]
    assert dative_corpus(verbs=["gave", "draw"], targets_per_verb=2).verbs == ("draw", "give")


# ------------------------------------------------------------------------------------------ tokenizers


def tokenizer_without(*unknown: str) -> PreTrainedTokenizerFast:
    """Knows every word of the corpora whole, but splits those given into characters."""
    words = sorted({*NOUNS, *PAST, *PRONOUNS, "a", "an", "the", "A", "An", "The", "to", "for", "."} - {*unknown})
    chars = [chr(c) for c in range(ord("A"), ord("z") + 1)]
    tokens = ["[UNK]", *words, *(c for c in chars if c not in words), *("##" + c for c in chars)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")


def test_a_tokenizer_drops_the_nouns_that_it_splits(full):
    split = ["doctor", "apple", "letter"]
    used = set().union(*map(content, full.sentences["PD"]))
    assert used >= set(split)  # without a tokenizer they occur
    corpus = dative_corpus(tokenizer=tokenizer_without(*split), targets_per_verb=20, primes_per_target=1)
    kept = set().union(*map(content, corpus.sentences["PD"]))
    assert not kept & set(split)
    assert len(kept) > 150


def test_a_tokenizer_that_knows_every_word_changes_nothing():
    options = dict(verbs=FEW, targets_per_verb=4)
    assert dative_corpus(**options, tokenizer=tokenizer_without()) == dative_corpus(**options)


@pytest.mark.parametrize("word", ["gave", "to", "an", "The", "them"])
def test_a_tokenizer_that_splits_what_nothing_replaces(word):
    tokenizer = tokenizer_without(word)
    with pytest.raises(ValueError, match=rf"splits \['{word}'\].*tokenizer=None"):
        dative_corpus(tokenizer=tokenizer, pronoun=True)
    if word == "gave":
        assert "give" not in dative_corpus(tokenizer=tokenizer, verbs=["draw", "feed"], targets_per_verb=2).verbs
    if word == "them":
        assert len(dative_corpus(tokenizer=tokenizer, verbs=FEW, targets_per_verb=2)) == 24


def test_too_few_words_left():
    few_people = tokenizer_without(*PEOPLE[3:])
    with pytest.raises(ValueError, match=r"too few words left.*3 people.*fewer targets"):
        dative_corpus(tokenizer=few_people)
    no_prey = tokenizer_without(*THEMES["prey"])
    with pytest.raises(ValueError, match=r"'catch' \(0 themes"):
        dative_corpus(tokenizer=no_prey)
    assert len(dative_corpus(tokenizer=no_prey, verbs=FEW, targets_per_verb=2)) == 24
    with pytest.raises(ValueError, match="too few words left"):
        dative_corpus(verbs=["catch", "feed"], targets_per_verb=1_600)


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (dict(verbs=["give", "donate"]), "unknown dative verb 'donate'; known are bring, give, sell.*deliver"),
        (dict(verbs=["give"]), r"got 1 verb\(s\)"),
        (dict(verbs="give"), r"got 1 verb\(s\)"),
        (dict(verbs=[]), r"got 0 verb\(s\)"),
        (dict(verbs=["give", "gave"]), "some of them twice"),
        (dict(design="latin square"), "'latin square'; expected 'paired' or 'factorial'"),
        (dict(primes_per_verb=2), "primes_per_verb belongs to the other design"),
        (dict(design="factorial", primes_per_target=2), "primes_per_target belongs to the other design"),
        (dict(targets_per_verb=0), "targets_per_verb=0; expected 1 or more"),
        (dict(primes_per_target=0), "primes_per_target=0"),
        (dict(primes_per_target=22), "primes_per_target=22, but some target has 21"),
        (dict(primes_per_target=11, exclude_shared_preposition=True), "but some target has 10"),
        (dict(design="factorial", primes_per_verb=0), "primes_per_verb=0"),
        (dict(design="factorial", primes_per_verb=3, targets_per_verb=4), "expected an even number"),
        (dict(verbs=["give", "send"], exclude_shared_preposition=True), "the same preposition"),
    ],
)
def test_impossible_requests(options, says):
    with pytest.raises(ValueError, match=says):
        dative_corpus(**options)
