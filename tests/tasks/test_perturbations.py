"""Texts out of the ordinary: what each change keeps and what it changes, alike for equal seeds."""

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

from mechicl.tasks.facts import capitals_task, sentiment_task
from mechicl.tasks.fewshot import fewshot_prompts
from mechicl.tasks.perturbations import (
    NAMES,
    perturbation,
    perturbed,
    rare_words,
    replaced_by,
    shuffled_words,
    typos,
)

TEXTS = sentiment_task().frame["text"].tolist()


def distance(one: str, other: str) -> int:
    """Levenshtein's, with neighbours that change places as one step."""
    rows = np.zeros((len(one) + 1, len(other) + 1), dtype=int)
    rows[:, 0], rows[0] = np.arange(len(one) + 1), np.arange(len(other) + 1)
    for i in range(1, len(one) + 1):
        for k in range(1, len(other) + 1):
            rows[i, k] = min(
                rows[i - 1, k] + 1, rows[i, k - 1] + 1, rows[i - 1, k - 1] + (one[i - 1] != other[k - 1])
            )  # fmt: skip
            if i > 1 and k > 1 and one[i - 2 : i] == other[k - 2 : k][::-1]:
                rows[i, k] = min(rows[i, k], rows[i - 2, k - 2] + 1)
    return int(rows[-1, -1])


def test_a_typo_is_one_slip_in_a_word() -> None:
    rng = np.random.default_rng(0)
    change = typos(1.0)
    for text in TEXTS[:12]:
        before, after = text.split(), change(text, rng).split()
        for word, slipped in zip(before, after, strict=True):
            if re.search(r"['-]", word):
                continue  # two words to the perturbation
            letters = len(re.sub(r"\W", "", word))
            assert distance(word, slipped) == (letters >= 3), (word, slipped)


def test_the_share_of_typos() -> None:
    rng = np.random.default_rng(0)
    word = "abcdefgh"
    changed = np.mean([x != word for x in typos(0.3)(" ".join([word] * 2000), rng).split()])
    assert abs(changed - 0.3) < 0.04


def test_shuffled_words_are_the_same_words() -> None:
    change = shuffled_words()
    for text in TEXTS:
        found = change(text, np.random.default_rng(1))
        assert Counter(found.split()) == Counter(text.split()) and found != text
    assert change("one", np.random.default_rng(0)) == "one" and change("so so", np.random.default_rng(0)) == "so so"


def test_rare_words_are_rare() -> None:
    texts = ["the cat saw the dog"] * 5 + [f"the cat saw zz{chr(97 + i)}q" for i in range(25)]
    found = rare_words(texts, 1.0)("The cat saw it", np.random.default_rng(0)).split()
    assert found[0].startswith("Zz") and found[1].startswith("zz") and found[2].startswith("zz") and found[3] == "it"
    share = rare_words(texts, 0.4)(" ".join(["cat"] * 1000), np.random.default_rng(0)).split()
    assert abs(np.mean([word != "cat" for word in share]) - 0.4) < 0.06


def test_texts_from_elsewhere() -> None:
    found = {replaced_by(["x", "y"])(text, np.random.default_rng(i)) for i, text in enumerate(TEXTS)}
    assert found == {"x", "y"}


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_change_a_row_alike(name: str) -> None:
    change = perturbation(name, TEXTS)
    one, same, other, row = (perturbed(TEXTS[0], change, seed=s, row=r) for s, r in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert one == same and len({one, other, row}) > 1 and one != TEXTS[0]


def test_every_row_and_seed_draws_for_itself() -> None:
    def drawn(text: str, rng: np.random.Generator) -> str:
        return f"{text}{rng.random()}"

    assert len({perturbed("x", drawn, seed=seed, row=row) for seed in range(3) for row in range(3)}) == 9


@pytest.mark.parametrize("name", NAMES)
def test_only_the_demonstrations_texts_change(name: str, tiny_tokenizer: Any) -> None:
    task = sentiment_task()
    plain = fewshot_prompts(task, 3, 4, tokenizer=tiny_tokenizer, seed=0)
    changed = fewshot_prompts(task, 3, 4, tokenizer=tiny_tokenizer, seed=0, perturb=name)
    both = fewshot_prompts(task, 3, 4, tokenizer=tiny_tokenizer, seed=0, perturb=name, perturb_queries=True)
    for one, two, three in zip(plain, changed, both, strict=True):
        assert (one.demos, one.demo_labels, one.query) == (two.demos, two.demo_labels, two.query)
        assert two.zero_shot == one.zero_shot != three.zero_shot
        assert one.demo_texts != two.demo_texts == three.demo_texts
        for i, text in enumerate(two.demo_texts):
            assert tiny_tokenizer.decode(two.prompt.part(f"demo[{i}].text")).strip() == text
            assert two.examples[i].tokens[1:] == two.prompt.part(f"demo[{i}]")
        assert tiny_tokenizer.decode(three.prompt.part("query.text")).strip() == three.query_text != one.query_text


def test_a_function_of_the_callers(tiny_tokenizer: Any) -> None:
    (one,) = fewshot_prompts(
        sentiment_task(), 2, 1, tokenizer=tiny_tokenizer, seed=0, perturb=lambda text, rng: text.upper()
    )
    assert all(text.isupper() for text in one.demo_texts) and not one.query_text.isupper()


def test_demonstrations_from_another_task(tiny_tokenizer: Any) -> None:
    task, other = sentiment_task(), capitals_task()
    plain, foreign = (
        fewshot_prompts(task, 3, 4, tokenizer=tiny_tokenizer, seed=0, demo_task=source) for source in (None, other)
    )
    assert [one.query for one in plain] == [one.query for one in foreign]
    assert plain[0].demo_task is None
    for one in foreign:
        assert one.demo_task == "capitals" and one.labels == ("positive", "negative")
        lines = [f"Input: {other.frame['text'][row]}\nOutput: {other.frame['label'][row]}\n\n" for row in one.demos]
        assert one.prompt.text == "".join(lines) + f"Review: {one.query_text}\nSentiment:"
        assert one.demo_labels == tuple(other.frame["label"][row] for row in one.demos)


def test_the_querys_text_is_no_demonstration_of_another_task(tiny_tokenizer: Any) -> None:
    task = sentiment_task()
    twin = task.written(name="twin", template="arrow")
    for one in fewshot_prompts(task, 40, 3, tokenizer=tiny_tokenizer, seed=0, demo_task=twin, balanced=False):
        assert one.query_text not in one.demo_texts and one.demo_task == "twin"
        assert one.prompt.text is not None and "\n\n" not in one.prompt.text  # parted as the other task's template says


def test_what_is_refused(tiny_tokenizer: Any) -> None:
    def ask(change: Any) -> None:
        fewshot_prompts(sentiment_task(), 2, 2, tokenizer=tiny_tokenizer, seed=0, perturb=change)

    with pytest.raises(ValueError, match="got perturb='noise'; expected one of typos, shuffled words, rare words"):
        ask("noise")
    with pytest.raises(ValueError, match=r"made ' ' of row \d+, .*; expected a text that is not empty"):
        ask(lambda text, rng: " ")
    for make in (typos, lambda share: rare_words(TEXTS, share)):
        with pytest.raises(ValueError, match=r"share=0\.0"):
            make(0.0)
    with pytest.raises(ValueError, match="hold 0 words"):
        rare_words(["a b", "1 2"])
    with pytest.raises(ValueError, match="no texts to put"):
        replaced_by([])
