import pytest

from mechicl.organisms.planted_language import Language, planted_corpus
from mechicl.tasks.prompts import tokenize

WORDS = {"n_verbs": 5, "n_persons": 8, "n_things": 6}


def corpus(**more):
    return planted_corpus(**WORDS, **{"targets_per_verb": 2, "seed": 5, **more})


@pytest.mark.parametrize(("design", "times"), [("paired", 3), ("factorial", 6)])
def test_every_verb_primes_every_other_equally_often_and_no_word_repeats(design, times) -> None:
    made = corpus(design=design, targets_per_verb=3, primes_per_verb=2)
    frame = made.to_frame()
    met = frame.groupby(["prime_verb", "target_verb"]).size()
    assert len(met) == 5 * 4 and set(met) == {times}
    assert not made.pairs.duplicated().any()
    for pair in frame.itertuples():
        words = [set(text.lower().rstrip(".").split()) - {"to"} for text in (pair.prime_PD, pair.target_PD)]
        assert not words[0] & words[1]
    assert not made.sentences["PD"].duplicated().any()


def test_texts_and_their_roles() -> None:
    made = planted_corpus(n_verbs=2, n_persons=4, n_things=2)
    pd_text, do_text, neutral = (made.text("verb00-prime-0", form) for form in ("PD", "DO", "neutral"))
    agent, theme, recipient = (pd_text.part(role) for role in ("subject", "theme", "recipient"))
    assert pd_text.text == f"{agent} verb00 {theme} to {recipient}."
    assert do_text.text == f"{agent} verb00 {recipient} {theme}." and do_text.part("theme") == theme
    assert neutral.text == f"{agent} verb00 again." and neutral.part("post_verb") == "again"
    assert {agent.lower(), recipient} == {"person00", "person01"} and theme == "thing00"


def test_the_corpus_depends_on_its_seed_alone() -> None:
    assert corpus(seed=1) == corpus(seed=1) and corpus(seed=1) != corpus(seed=2)


def test_one_token_a_word() -> None:
    made, tokenizer = corpus(), Language(**WORDS).tokenizer()
    for form, number in [("PD", 6), ("DO", 5), ("neutral", 4)]:
        text = made.text("verb03-target-1", form)
        prompt = tokenize(text, tokenizer, prepend_bos=True)
        assert len(prompt) == number + 1 and prompt.tokens[0] == tokenizer.bos_token_id
        assert tokenizer.decode(prompt.part("verb")) == "verb03"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"design": "crossed"}, "'paired' or 'factorial'"),
        ({"targets_per_verb": 0}, "targets_per_verb=0|primes_per_verb=0"),
        ({"primes_per_verb": 37}, "expected 1 to 36"),
    ],
)
def test_corpora_that_cannot_be_had(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        corpus(**options)
