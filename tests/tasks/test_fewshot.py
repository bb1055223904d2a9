"""Few-shot prompts: names where the parts are, balance, twins without demonstrations, labels scored whole."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.tasks.facts import CAPITALS, capitals_task, sentiment_task
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts, given_prompts
from mechicl.tasks.prompts import Prompt


def words(tokenizer: Any, prompt: Prompt, role: str) -> str:
    return str(tokenizer.decode(prompt.part(role))).strip()


@pytest.fixture(scope="module")
def made(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    return fewshot_prompts(sentiment_task(), 4, 6, tokenizer=tiny_tokenizer, seed=0)


def test_roles_name_what_is_written(made: list[FewShotPrompt], tiny_tokenizer: Any) -> None:
    frame = sentiment_task().frame
    for one in made:
        for i, row in enumerate(one.demos):
            assert words(tiny_tokenizer, one.prompt, f"demo[{i}].text") == frame["text"][row]
            assert words(tiny_tokenizer, one.prompt, f"demo[{i}].label") == one.demo_labels[i] == frame["label"][row]
            example = f"Review: {frame['text'][row]}\nSentiment: {frame['label'][row]}"
            assert words(tiny_tokenizer, one.prompt, f"demo[{i}]") == example == one.examples[i].text
            assert words(tiny_tokenizer, one.examples[i], "label") == one.demo_labels[i]
        assert words(tiny_tokenizer, one.prompt, "query.text") == frame["text"][one.query]
        assert one.label == frame["label"][one.query] and one.query not in one.demos


def test_the_label_is_predicted_after_the_last_token(made: list[FewShotPrompt], tiny_tokenizer: Any) -> None:
    for one in made:
        for prompt in (one.prompt, one.zero_shot):
            assert prompt.roles["last"] == (len(prompt) - 1, len(prompt)) and prompt.roles["query"][1] == len(prompt)
            assert prompt.text is not None and prompt.text.endswith("Sentiment:")
            for label, tokens in zip(one.labels, one.label_tokens, strict=True):
                whole = tiny_tokenizer(f"{prompt.text} {label}", add_special_tokens=False)["input_ids"]
                assert [*prompt.tokens[1:], *tokens] == whole


def test_the_twin_is_the_query_alone(made: list[FewShotPrompt]) -> None:
    for one in made:
        assert one.zero_shot.part("query") == one.prompt.part("query")
        assert not [role for role in one.zero_shot.roles if role.startswith("demo")]
        for i, example in enumerate(one.examples):
            assert example.tokens[1:] == one.prompt.part(f"demo[{i}]")


@pytest.mark.parametrize(
    ("make", "counts", "options", "first", "checksum"),
    [
        (sentiment_task, (4, 6), {"seed": 0}, (14, (43, 31, 2, 16)), "baac775dbe22a820"),
        (sentiment_task, (5, 7), {"seed": 3, "balanced": False}, (22, (24, 29, 45, 16, 31)), "bcf169854eb571a3"),
        (sentiment_task, (6, 8), {"seed": 1, "labels": "shuffled"}, (32, (40, 15, 43, 12, 31, 9)), "bfeecdad06af7746"),
        (capitals_task, (3, 5), {"seed": 0, "n_candidates": 6}, (36, (4, 47, 39)), "5bbb5fcaedc2a73c"),
        (
            capitals_task,
            (2, 4),
            {"seed": 2, "labels": "shuffled", "n_candidates": 3, "balanced": False},
            (44, (32, 25)),
            "f0fdee531400774a",
        ),
    ],
)
def test_seeds_mean_what_they_meant(
    make: Any, counts: tuple[int, int], options: Any, first: Any, checksum: str, tiny_tokenizer: Any
) -> None:
    """Recorded from the first version: whoever repeats a result by its seed gets the same prompts."""
    made = fewshot_prompts(make(), *counts, tokenizer=tiny_tokenizer, **options)
    assert (made[0].query, made[0].demos) == first
    parts = [(p.prompt.text, p.labels, p.answer, p.demo_labels, p.demos, p.query) for p in made]
    assert hashlib.sha256(repr(parts).encode()).hexdigest()[:16] == checksum


def test_given_rows_in_a_given_order(made: list[FewShotPrompt], tiny_tokenizer: Any) -> None:
    task = sentiment_task()
    queries, demos = [one.query for one in made], [one.demos for one in made]
    assert given_prompts(task, queries, demos, tokenizer=tiny_tokenizer) == made
    backwards = given_prompts(task, queries, [rows[::-1] for rows in demos], tokenizer=tiny_tokenizer)
    for one, other in zip(made, backwards, strict=True):
        assert other.demo_texts == one.demo_texts[::-1] and other.zero_shot == one.zero_shot
        assert other.examples == one.examples[::-1] and other.prompt.tokens != one.prompt.tokens
    (shown,) = given_prompts(
        task, [0], [[1, 2]], tokenizer=tiny_tokenizer, shown=[["negative", "positive"]],
        candidates=[["positive"]],
    )  # fmt: skip
    assert shown.demo_labels == ("negative", "positive") and shown.labels == ("positive",)


def test_candidates_with_first_tokens_of_their_own(tiny_tokenizer: Any) -> None:
    shared, task = [], capitals_task().written(template="lines")  # no space before a label, which all would begin with
    for how in ("any", "distinct"):
        made = fewshot_prompts(task, 3, 12, tokenizer=tiny_tokenizer, seed=0, n_candidates=8, first_tokens=how)
        assert all(len(one.labels) == 8 and one.label in one.labels for one in made)
        shared.append(sum(8 - len({tokens[0] for tokens in one.label_tokens}) for one in made))
    assert shared[0] > 0 == shared[1]


def test_labels_are_balanced(tiny_tokenizer: Any) -> None:
    frame = pd.concat([sentiment_task().frame.head(24), sentiment_task().frame.tail(3)])
    skewed = FewShotTask("skewed", frame)
    for n_demos in (2, 4, 5):
        for one in fewshot_prompts(skewed, n_demos, 6, tokenizer=tiny_tokenizer, seed=n_demos):
            counts = [one.demo_labels.count(label) for label in ("positive", "negative")]
            left = 3 - (one.label == "negative")
            assert counts[1] == min(n_demos // 2, left) or counts == [2, 3] or counts == [3, 2]
    queries = fewshot_prompts(skewed, 2, 6, tokenizer=tiny_tokenizer, seed=0)
    assert [one.label for one in queries].count("negative") == 3
    free = fewshot_prompts(skewed, 8, 20, tokenizer=tiny_tokenizer, seed=0, balanced=False)
    assert np.mean([label == "negative" for one in free for label in one.demo_labels]) < 0.25


def test_shuffled_labels_are_the_same_labels(tiny_tokenizer: Any) -> None:
    true, shuffled = (
        fewshot_prompts(sentiment_task(), 6, 8, tokenizer=tiny_tokenizer, seed=1, labels=how)
        for how in ("true", "shuffled")
    )
    moved = 0
    for one in shuffled:
        own = [sentiment_task().frame["label"][row] for row in one.demos]
        assert sorted(one.demo_labels) == sorted(own) and list(one.demo_labels) != own
        moved += sum(a != b for a, b in zip(one.demo_labels, own, strict=True))
    assert 0.3 < moved / 48 < 0.8
    assert [one.query for one in true] == [one.query for one in shuffled]


def test_the_seed_decides(tiny_tokenizer: Any) -> None:
    one, same, other = (
        fewshot_prompts(sentiment_task(), 3, 4, tokenizer=tiny_tokenizer, seed=seed) for seed in (3, 3, 4)
    )
    assert one == same != other


def test_an_open_set_of_labels(tiny_tokenizer: Any) -> None:
    made = fewshot_prompts(capitals_task(), 3, 5, tokenizer=tiny_tokenizer, seed=0, n_candidates=6)
    for one in made:
        assert len(one.labels) == 6 and {one.label, *one.demo_labels} <= set(one.labels)
        assert CAPITALS[words(tiny_tokenizer, one.prompt, "query.text")] == one.label not in one.demo_labels
        assert all(len(tokens) > 1 for tokens in one.label_tokens)
    everything = fewshot_prompts(capitals_task(), 3, 1, tokenizer=tiny_tokenizer, seed=0)[0]
    assert everything.labels == tuple(CAPITALS.values())


def test_embedded_tasks_are_sound() -> None:
    assert len(CAPITALS) >= 60 and len(set(CAPITALS.values())) == len(CAPITALS)
    frame = sentiment_task().frame
    assert frame["text"].is_unique and (frame["label"].value_counts() == 24).all()


def test_other_templates_and_words(tiny_tokenizer: Any) -> None:
    frame = pd.DataFrame({"text": ["a b", "c d", "e f", "g h"], "label": ["0", "1", "0", "1"]})
    task = FewShotTask("lines", frame, template="{text}\n{label}\n", label_words={"0": "no", "1": "yes"})
    (one,) = fewshot_prompts(task, 3, 1, tokenizer=tiny_tokenizer, seed=0, prepend_bos=False)
    lines = [x for row in one.demos for x in (frame["text"][row], {"0": "no", "1": "yes"}[frame["label"][row]])]
    assert one.prompt.text == "\n".join([*lines, frame["text"][one.query], ""])
    assert one.prompt.roles["query"][1] == len(one.prompt)


def test_real_reviews(tiny_tokenizer: Any, data_folder: Path) -> None:
    path = data_folder / "movie_reviews.tsv"
    if not path.is_file():
        pytest.skip("the file of reviews is absent")
    reviews = pd.read_csv(path, sep="\t", quoting=3)
    strong = reviews[reviews["score"].abs() > 1.5]
    frame = strong.assign(label=np.where(strong["score"] > 0, "positive", "negative"))
    made = fewshot_prompts(FewShotTask("films", frame), 8, 20, tokenizer=tiny_tokenizer, seed=0)
    assert [one.label for one in made].count("positive") == 10
    assert all(one.demo_labels.count("negative") == 4 for one in made)


@pytest.mark.weights
def test_a_real_model_learns_the_task_from_its_context(smollm2: Any) -> None:
    from mechicl.hooks.scoring import score

    made = fewshot_prompts(
        capitals_task(), 6, 6, tokenizer=smollm2.tokenizer, seed=1, n_candidates=8, n_ctx=smollm2.cfg.n_ctx
    )
    right = {}
    for which in ("prompt", "zero_shot"):
        pairs = [(getattr(one, which).tokens, label) for one in made for label in one.label_tokens]
        values = score(smollm2, [a for a, _ in pairs], [b for _, b in pairs], prepend_bos=False, progress=False)
        odds = [own[one.answer] - np.delete(own, one.answer).max() for one, own in zip(made, values.reshape(6, -1))]  # noqa: B905
        right[which] = np.array(odds)
    assert (right["prompt"] > 0).mean() >= 5 / 6
    assert (right["prompt"] - right["zero_shot"]).mean() > 1
