"""The corpus type: what it holds, what it refuses, and its way to disk and back."""

import pandas as pd
import pytest

from mechicl.tasks.corpus import PrimingCorpus, load_corpus
from mechicl.tasks.prompts import RoleText

FORMS = ("PD", "DO")


def texts(agent: str, verb: str, *, neutral: bool = True) -> dict[str, RoleText]:
    head = RoleText.of((f"The {agent}", "subject"), " ", (verb, "verb"), " ")
    forms = {
        "PD": head + RoleText.of(('the "file", old', "theme"), " to ", ("a guest", "recipient"), "."),
        "DO": head + RoleText.of(("a guest", "recipient"), " ", ('the "file", old', "theme"), "."),
    }
    return {**forms, "neutral": head + RoleText.of(('the "file", old', "theme"), ".")} if neutral else forms


SENTENCES = [
    ("s0", "give", texts("doctor", "gave")),
    ("s1", "send", texts("nurse", "sent")),
    ("s2", "send", texts("king", "sent", neutral=False)),
    ("007", "null", texts("queen", "nulled")),
]
PAIRS = pd.DataFrame(
    {
        "prime": ["s0", "s1", "s2", "007", "s0"],
        "target": ["s1", "s0", "s0", "s0", "s2"],
        "shared": [True, True, True, False, True],
        "lag": [1, 2, 3, 4, 5],
        "distance": [0.1, float("nan"), 1 / 3, 2.0, 1.7976931348623157e308],
        "note": ["NA", None, "x,y", "None", ""],
    }
)


@pytest.fixture
def corpus() -> PrimingCorpus:
    return PrimingCorpus.of("small", FORMS, SENTENCES, PAIRS, seed=3)


def test_texts_come_back_with_their_roles(corpus):
    for sentence, _, forms in SENTENCES:
        for form, text in forms.items():
            assert corpus.text(sentence, form) == text


def test_verbs_and_size(corpus):
    assert corpus.verbs == ("give", "null", "send")
    assert len(corpus) == 5
    assert repr(corpus) == "PrimingCorpus('small', PD/DO, 3 verbs, 4 sentences, 5 pairs, seed=3)"


def test_prime_and_target_are_joined_by_a_space(corpus):
    text = corpus.prime_target(1, "neutral", "DO")
    assert text.text == 'The nurse sent the "file", old. The doctor gave a guest the "file", old.'
    assert text.part("prime.verb") == "sent"
    assert text.part("target.recipient") == "a guest"
    assert text.part("target") == corpus.text("s0", "DO").text


def test_unprimed_is_the_target_alone(corpus):
    assert corpus.prime_target(1, "unprimed", "PD") == corpus.text("s0", "PD").under("target")


def test_frame_holds_texts_verbs_and_factors(corpus):
    frame = corpus.to_frame()
    texts_and_verbs = ["prime", "target", "prime_verb", "target_verb", "prime_PD", "prime_DO", "prime_neutral"]
    texts_and_verbs += ["target_PD", "target_DO"]
    assert list(frame.columns) == [*texts_and_verbs, "shared", "lag", "distance", "note", "same_verb"]
    for i in range(len(corpus)):
        row = frame.loc[i]
        assert row["prime_PD"] + " " + row["target_DO"] == corpus.prime_target(i, "PD", "DO").text
    assert frame["prime_neutral"].isna().tolist() == [False, False, True, False, False]
    assert frame["prime_verb"].tolist() == ["give", "send", "send", "null", "give"]


def test_same_verb_is_computed_not_believed():
    pairs = pd.DataFrame({"prime": ["s1", "s0"], "target": ["s2", "s1"], "same_verb": [False, True]})
    assert PrimingCorpus.of("x", FORMS, SENTENCES, pairs).pairs["same_verb"].tolist() == [True, False]


def test_where_keeps_the_chosen_pairs_and_drops_the_other_sentences(corpus):
    by_query = corpus.where("target_verb == 'give' and lag > 2")
    by_mask = corpus.where(corpus.pairs["lag"].isin([3, 4]))
    assert by_query == by_mask == corpus.where((corpus.pairs["lag"].isin([3, 4])).to_numpy())
    assert by_query.sentences["sentence"].tolist() == ["s0", "s2", "007"]
    assert by_query.text("007", "DO") == corpus.text("007", "DO")
    assert "s1" not in set(by_query.spans["sentence"])
    assert corpus.where("lag > 0") == corpus


def test_sample_is_balanced_over_prime_verbs(corpus):
    assert sorted(corpus.sample(3, seed=0).to_frame()["prime_verb"]) == ["give", "null", "send"]
    assert corpus.sample(5).pairs.equals(corpus.pairs)
    draws = {tuple(corpus.sample(2, seed=seed).pairs["lag"]) for seed in range(20)}
    assert len(draws) > 3


@pytest.mark.parametrize("number", [0, 6])
def test_sample_of_an_impossible_size(corpus, number):
    with pytest.raises(ValueError, match=f"n_pairs={number}; expected 1 to 5"):
        corpus.sample(number)


def test_frames_are_copies():
    pairs = PAIRS.copy()
    corpus = PrimingCorpus.of("x", FORMS, SENTENCES, pairs)
    pairs.loc[0, "prime"] = "nobody"
    assert corpus.pairs.loc[0, "prime"] == "s0"


def test_equality_sees_every_difference(corpus):
    def built(**changes):
        return PrimingCorpus.of(
            **{**dict(name="small", forms=FORMS, sentences=SENTENCES, pairs=PAIRS, seed=3), **changes}
        )

    assert built() == corpus
    assert built(pairs=PAIRS.set_index(pd.Index(list("abcde")))) == corpus  # the index is nobody's business
    assert built(seed=4) != corpus
    assert built(name="other") != corpus
    assert built(pairs=PAIRS.assign(lag=PAIRS["lag"] + 1)) != corpus
    assert built(sentences=[*SENTENCES[:3], ("007", "null", texts("boy", "nulled"))]) != corpus
    bare = {form: RoleText(text.text, {}) for form, text in SENTENCES[3][2].items()}
    assert built(sentences=[*SENTENCES[:3], ("007", "null", bare)]) != corpus
    assert corpus != "small"


# ----------------------------------------------------------------------------------------------- files


def test_round_trip(corpus, tmp_path):
    folder = corpus.save(tmp_path / "new" / "corpus")
    back = load_corpus(folder)
    assert back == corpus
    assert back.pairs.dtypes.equals(corpus.pairs.dtypes)
    assert back.prime_target(3, "PD", "DO") == corpus.prime_target(3, "PD", "DO")
    assert back.seed == 3


def test_round_trip_without_any_neutral_text(tmp_path):
    sentences = [
        ("a", "give", texts("doctor", "gave", neutral=False)),
        ("b", "send", texts("king", "sent", neutral=False)),
    ]
    corpus = PrimingCorpus.of("x", FORMS, sentences, pd.DataFrame({"prime": ["a"], "target": ["b"]}))
    back = load_corpus(corpus.save(tmp_path))
    assert back == corpus
    assert back.seed is None
    assert back.sentences["neutral"].isna().all()


def test_a_saved_corpus_is_not_overwritten_unasked(corpus, tmp_path):
    corpus.save(tmp_path)
    other = corpus.where("lag < 3")
    with pytest.raises(ValueError, match=r"already holds a corpus.*overwrite=True"):
        other.save(tmp_path)
    assert load_corpus(tmp_path) == corpus
    assert load_corpus(other.save(tmp_path, overwrite=True)) == other


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_things_is_left_alone(corpus, tmp_path, overwrite):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="thesis"):
        corpus.save(tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_is_no_corpus_is_not_loaded(corpus, tmp_path):
    with pytest.raises(ValueError, match="no complete corpus"):
        load_corpus(tmp_path)
    corpus.save(tmp_path)
    (tmp_path / "corpus.json").write_text('{"kind": "something else"}')
    with pytest.raises(ValueError, match="something else"):
        load_corpus(tmp_path)


# ------------------------------------------------------------------------------------------- bad input


def frames(corpus: PrimingCorpus) -> dict:
    return dict(
        name="x", forms=FORMS, sentences=corpus.sentences.copy(), spans=corpus.spans.copy(), pairs=corpus.pairs.copy()
    )


def without_form(f):
    f["sentences"].loc[1, "DO"] = None


def twice_the_same_id(f):
    f["sentences"].loc[1, "sentence"] = "s0"


def no_verb(f):
    f["sentences"].loc[1, "verb"] = ""


def unknown_target(f):
    f["pairs"].loc[1, "target"] = "s9"


def missing_prime(f):
    f["pairs"].loc[1, "prime"] = None


def span_too_long(f):
    f["spans"].loc[2, "stop"] = 400


def span_of_no_sentence(f):
    f["spans"].loc[2, "sentence"] = "s9"


def span_of_no_text(f):
    f["spans"].loc[0, ["sentence", "form"]] = ["s2", "neutral"]


def empty_span(f):
    f["spans"].loc[2, "stop"] = f["spans"].loc[2, "start"]


def role_twice(f):
    f["spans"].loc[1, "role"] = f["spans"].loc[0, "role"]


def hole_in_spans(f):
    f["spans"]["start"] = f["spans"]["start"].astype(float)
    f["spans"].loc[1, "start"] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (without_form, r"1 sentences lack the form DO, e\.g\. \['s1'\]"),
        (twice_the_same_id, r"1 sentence ids occur twice, e\.g\. \['s0'\]"),
        (no_verb, "no id or no verb"),
        (unknown_target, r"1 target ids are unknown, e\.g\. \['s9'\]"),
        (missing_prime, "1 prime ids are unknown.*missing"),
        (span_too_long, "1 spans lie outside"),
        (span_of_no_sentence, "1 spans lie outside.*s9"),
        (span_of_no_text, "1 spans lie outside.*neutral"),
        (empty_span, "half-open, not empty"),
        (role_twice, "two spans of one role"),
        (hole_in_spans, "missing values"),
        (lambda f: f.update(pairs=f["pairs"].iloc[:0]), "no pairs"),
        (lambda f: f.update(sentences=f["sentences"].iloc[:0]), "no sentences"),
        (lambda f: f.update(pairs=f["pairs"][["prime"]]), r"`pairs` lacks the columns \['target'\]"),
        (lambda f: f.update(sentences=f["sentences"].drop(columns="DO")), r"`sentences` lacks the columns \['DO'\]"),
        (lambda f: f.update(spans=f["spans"].drop(columns="role")), r"`spans` lacks the columns \['role'\]"),
        (lambda f: f.update(forms=("PD", "PD")), "two different names"),
        (lambda f: f.update(forms=("PD", "neutral")), "none of them in"),
        (lambda f: f.update(pairs=f["pairs"].assign(prime_verb="x")), r"factors named \['prime_verb'\]"),
        (lambda f: f.update(pairs=f["pairs"].assign(odd=[[1]] * 5)), r"'odd' holds \[1\] \(list\)"),
        (lambda f: f.update(sentences=f["sentences"].assign(verb=[1, 2, 3, 4])), "'verb' holds 1 "),
    ],
)
def test_frames_that_do_not_fit_are_refused(corpus, spoil, says):
    given = frames(corpus)
    assert len(PrimingCorpus(**given)) == 5  # before it is spoilt
    spoil(given)
    with pytest.raises(ValueError, match=says):
        PrimingCorpus(**given)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda c: c.text("s9", "PD"), "unknown sentence 's9'"),
        (lambda c: c.text("s0", "PO"), r"no form 'PO'; it has \['PD', 'DO', 'neutral'\]"),
        (lambda c: c.text("s2", "neutral"), r"it has \['PD', 'DO'\]"),
        (lambda c: c.prime_target(5, "PD", "PD"), "the pairs 0 to 4"),
        (lambda c: c.prime_target(-1, "PD", "PD"), "got pair -1"),
        (lambda c: c.where("lag > 100"), "selects none of the 5 pairs"),
        (lambda c: c.where(pd.Series([True, False])), "expected 5 booleans"),
        (lambda c: c.where(pd.Series([1, 0, 1, 0, 1])), "mask of int64"),
    ],
)
def test_questions_without_an_answer(corpus, ask, says):
    with pytest.raises(ValueError, match=says):
        ask(corpus)
