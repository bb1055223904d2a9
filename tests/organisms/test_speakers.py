"""Speakers: what they say, counted over many documents, against closed forms; and the corpus in their language."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.tasks.mini_language import BOS, PERSONS, THINGS, VERBS, VOCABULARY, mini_texts, mini_tokenizer
from mechicl.tasks.prompts import tokenize
from mechicl.tasks.speaker_pairs import speaker_corpus
from mechicl.tasks.speakers import DO, LEARNERS, NEUTRAL, PD, Speaker

N = 120_000


def words(tokens):
    return [VOCABULARY[i] for i in tokens if VOCABULARY[i] != "<pad>"]


# ------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize("learner", LEARNERS)
def test_forms_after_one_prime_come_as_often_as_the_closed_form_says(learner):
    """Counted frequencies of PD, by the form and the verb of the first sentence; nothing of `p_pd` is used."""
    speaker = Speaker(learner)
    said = speaker.documents(N, n_sentences=2, seed=3)
    table = speaker.one_prime_table().set_index("verb").loc[list(VERBS)]
    for form, name in ((PD, "PD"), (DO, "DO"), (NEUTRAL, "neutral")):
        here = (said.form[:, 0] == form) & (said.form[:, 1] != NEUTRAL)
        counts = np.bincount(said.verb[here, 0], minlength=len(VERBS))
        hits = np.bincount(said.verb[here, 0], weights=said.form[here, 1] == PD, minlength=len(VERBS))
        expected = table[f"y_{name}"].to_numpy()
        z = (hits - counts * expected) / np.sqrt(counts * expected * (1 - expected))
        assert np.abs(z).max() < 4.5
        assert (z**2).sum() < 60  # chi-squared with 22 degrees of freedom: above 60 once in 50,000 times


def test_frequencies_tell_the_learners_apart():
    """The null control of the test above: the closed form of another learner does not fit the same counts."""
    said = Speaker("delta").documents(N, n_sentences=2, seed=3)
    here = (said.form[:, 0] == PD) & (said.form[:, 1] != NEUTRAL)
    counts = np.bincount(said.verb[here, 0], minlength=len(VERBS))
    hits = np.bincount(said.verb[here, 0], weights=said.form[here, 1] == PD, minlength=len(VERBS))
    for other in ("boost", "static"):
        expected = Speaker(other).one_prime_table().set_index("verb").loc[list(VERBS), "y_PD"].to_numpy()
        assert (((hits - counts * expected) ** 2) / (counts * expected * (1 - expected))).sum() > 200


@pytest.mark.parametrize("learner", LEARNERS)
def test_the_state_is_a_naive_loop_over_what_was_said(learner):
    speaker = Speaker(learner, rate=1.2, neutral=0.4)
    said = speaker.documents(40, n_sentences=5, seed=1)
    for i in range(40):
        state = 0.0
        for verb, form, p, before in zip(said.verb[i], said.form[i], said.p_pd[i], said.state[i], strict=True):
            assert before == pytest.approx(state, abs=1e-12)
            assert p == pytest.approx(1 / (1 + np.exp(-speaker.bias[verb] - state)), abs=1e-12)
            if form != NEUTRAL:
                state += {"delta": 1.2 * (form - p), "boost": 0.6 * (1 if form == PD else -1), "static": 0.0}[learner]


def test_tokens_say_what_the_forms_and_verbs_are():
    said = Speaker().documents(200, n_sentences=4, seed=2)
    for i in range(200):
        assert words(said.tokens[i])[0] == BOS
        sentences = " ".join(words(said.tokens[i])[1:]).removesuffix(" .").split(" . ")
        assert len(sentences) == 4
        for sentence, verb, form, at in zip(sentences, said.verb[i], said.form[i], said.verb_at[i], strict=True):
            agent, surface, *rest = sentence.split()
            assert agent in PERSONS
            assert surface == VERBS[verb] == VOCABULARY[said.tokens[i, at]]
            if form == PD:
                thing, to, recipient = rest
                assert to == "to"
            elif form == DO:
                recipient, thing = rest
            else:
                assert rest == []
                continue
            assert (thing in THINGS, recipient in PERSONS, recipient != agent) == (True, True, True)


def test_documents_are_a_function_of_the_seed():
    speaker = Speaker()
    first, again, other = (speaker.documents(50, seed=seed) for seed in ((1, 2), (1, 2), (1, 3)))
    assert np.array_equal(first.tokens, again.tokens)
    assert first.tokens.shape != other.tokens.shape or not np.array_equal(first.tokens, other.tokens)


def test_what_follows_a_verb_comes_as_often_as_its_distribution_says():
    speaker = Speaker()
    said = speaker.documents(40_000, n_sentences=2, seed=6)
    probs = speaker.after_verb(said)
    assert np.allclose(probs.sum(axis=-1), 1)
    following = np.take_along_axis(said.tokens, said.verb_at + 1, axis=1)[..., None]
    assert np.take_along_axis(probs, following, axis=-1).min() > 0
    assert np.all(
        np.take_along_axis(probs, np.take_along_axis(said.tokens, said.verb_at - 1, axis=1)[..., None], 2) == 0
    )
    counts = np.bincount(following.ravel(), minlength=len(VOCABULARY))
    expected, variance = probs.sum(axis=(0, 1)), (probs * (1 - probs)).sum(axis=(0, 1))
    possible = variance > 0
    assert np.all(counts[~possible] == 0)
    assert np.abs((counts - expected)[possible] / np.sqrt(variance[possible])).max() < 4.5


def test_noun_choice_is_even_and_tells_nothing_of_the_form():
    said = Speaker().documents(20_000, n_sentences=1, seed=5)
    agents = np.bincount(said.tokens[:, 1])[VOCABULARY.index(PERSONS[0]) :][: len(PERSONS)]
    assert np.abs(agents / 20_000 - 1 / len(PERSONS)).max() < 0.01
    by_agent = [said.form[said.tokens[:, 1] == t, 0] for t in np.unique(said.tokens[:, 1])]
    shares = [np.mean(forms[forms != NEUTRAL] == PD) for forms in by_agent]
    assert np.ptp(shares) < 0.08


# ------------------------------------------------------------------------------------------- closed forms


def test_delta_speakers_have_the_effect_and_the_others_have_not():
    """L_s has the slope -rate over the verb's probability of PD; the priming of a prime is the same for all three."""
    delta, boost, static = (Speaker(learner, rate=1.3) for learner in LEARNERS)
    for speaker, expected in ((delta, -1.3), (boost, 0.0), (static, 0.0)):
        table = speaker.one_prime_table()
        for form in ("PD", "DO"):
            assert np.polyfit(table["bias"], table[f"L_{form}"], 1)[0] == pytest.approx(expected, abs=1e-9)
        priming = table["L_PD"] - table["L_DO"]
        assert np.allclose(priming, speaker.ideal_priming(), atol=1e-12)
    assert (delta.ideal_priming(), boost.ideal_priming(), static.ideal_priming()) == (1.3, 1.3, 0.0)


@pytest.mark.parametrize("learner", LEARNERS)
def test_ideal_slopes_are_those_that_the_analysis_finds_in_the_ideal_table(learner):
    speaker = Speaker(learner)
    found = inverse_frequency_effect(speaker.one_prime_table(), n_boot=200, n_permutations=200)
    ideal = speaker.ideal_slopes().merge(found.estimates, on=["scale", "estimand"], suffixes=("_ideal", ""))
    assert len(ideal) == 12
    assert np.allclose(ideal["estimate_ideal"], ideal["estimate"], atol=1e-9)
    assert found.evidence == dict.fromkeys(("PD", "DO"), "ife" if learner == "delta" else "none")


def test_biases_are_even_and_dealt_by_the_seed():
    speaker = Speaker(spread=1.0)
    assert np.allclose(np.sort(speaker.bias), np.linspace(-1, 1, len(VERBS)))
    assert not np.array_equal(speaker.bias, Speaker(spread=1.0, bias_seed=1).bias)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"learner": "gradient"}, "expected one of"),
        ({"rate": -1.0}, "rate >= 0"),
        ({"spread": float("nan")}, "spread > 0"),
        ({"neutral": 1.0}, "below 1"),
    ],
)
def test_what_is_no_speaker_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Speaker(**wrong)


@pytest.mark.parametrize("sizes", [{"n": 0}, {"n": 2, "n_sentences": 0}])
def test_empty_documents_are_refused(sizes):
    with pytest.raises(ValueError, match="1 or more"):
        Speaker().documents(**sizes)


# ------------------------------------------------------------------------------------------- texts and corpus


def test_texts_and_documents_have_the_same_tokens():
    """What an analysis reads is what a model was trained on: the tokenizer inverts the documents' words."""
    said = Speaker().documents(30, n_sentences=2, seed=7)
    tokenizer = mini_tokenizer()
    for row in said.tokens:
        text = " ".join(words(row)[1:]).replace(" .", ".")
        expected = [i for i in row.tolist() if VOCABULARY[i] != "<pad>"]
        assert [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]] == expected


def test_roles_fall_on_their_words():
    texts = mini_texts("gave", "Anna", "tea", "Ben")
    assert [t.text for t in texts.values()] == ["Anna gave tea to Ben.", "Anna gave Ben tea.", "Anna gave."]
    two = texts["PD"].under("prime") + " " + texts["DO"].under("target")
    prompt = tokenize(two, mini_tokenizer(), prepend_bos=True)
    said = {role: " ".join(VOCABULARY[i] for i in prompt.part(role)) for role in prompt.roles}
    assert said["prime.verb"] == said["target.verb"] == "gave"
    assert (said["prime.post_verb"], said["target.post_verb"]) == ("tea to Ben", "Ben tea")
    assert (said["prime.preposition"], said["target.recipient"]) == ("to", "Ben")


def test_the_corpus_is_balanced_and_pairs_share_no_word():
    corpus = speaker_corpus(targets_per_verb=4, primes_per_target=5, seed=1)
    frame = corpus.to_frame()
    assert len(corpus) == 22 * 4 * 5
    assert frame["prime_verb"].value_counts().eq(20).all()
    assert not frame["same_verb"].any()
    assert frame.groupby("target")["prime_verb"].nunique().eq(5).all()
    for prime, target in zip(frame["prime_PD"], frame["target_PD"], strict=True):
        assert set(prime.rstrip(".").split()) & set(target.rstrip(".").split()) == {"to"}
    assert frame["prime_neutral"].str.fullmatch(r"\w+ \w+\.").all()
    assert corpus == speaker_corpus(targets_per_verb=4, primes_per_target=5, seed=1)
    assert corpus != speaker_corpus(targets_per_verb=4, primes_per_target=5, seed=2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"targets_per_verb": 0}, "1 or more targets"),
        ({"primes_per_target": 22}, "from 1 to 21 primes"),
        ({"verbs": ["gave"]}, "two or more different"),
        ({"verbs": ["gave", "gave", "sold"]}, "two or more different"),
        ({"verbs": ["gave", "slept"]}, "two or more different"),
    ],
)
def test_sizes_that_cannot_be_had_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        speaker_corpus(**wrong)


def test_the_share_of_structures_is_as_asked():
    forms = Speaker(neutral=0.25).documents(10_000, seed=4).form
    shares = pd.Series(forms.ravel()).value_counts(normalize=True)
    assert shares[NEUTRAL] == pytest.approx(0.25, abs=0.01)
    assert shares[PD] == pytest.approx(float(expit(Speaker().bias).mean()) * 0.75, abs=0.02)
