"""Few-shot prompts: names where the parts are, balance, twins without demonstrations, labels scored whole."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.tasks.facts import CAPITALS, capitals_task, sentiment_task
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ["a", "a"]}, "expected at least two"),
        ({"label": ["a", None]}, "1 rows have no label, the first is row 1"),
        ({"label": [0, 1]}, "labels must be texts"),
        ({"text": ["x", " "]}, "1 rows have no text, the first is row 1"),
        ({"text": None}, "no column 'text'"),
        ({"template": "{text} {text} {label}"}, "once each"),
        ({"template": "{label} {text}"}, "after"),
        ({"template": "{text} {label}."}, "expected a line break or another space"),
        ({"label_words": {"a": "yes"}}, "no word for the label 'b'"),
        ({"label_words": {"a": "yes", "b": "yes "}}, "expected words that differ"),
    ],
)
def test_tasks_that_cannot_be(change: dict[str, Any], message: str) -> None:
    columns = {"text": ["x", "y"], "label": ["a", "b"]}
    options = {key: value for key, value in change.items() if key not in columns}
    columns |= {key: value for key, value in change.items() if key in columns}
    frame = pd.DataFrame({key: value for key, value in columns.items() if value is not None})
    with pytest.raises(ValueError, match=message):
        FewShotTask("task", frame, **options)


def test_bad_requests_are_refused(tiny_tokenizer: Any) -> None:
    ask = lambda task=sentiment_task(), *counts, **options: fewshot_prompts(  # noqa: E731, B008
        task, *(counts or (4, 4)), **{"tokenizer": tiny_tokenizer, "seed": 0, **options}
    )
    with pytest.raises(ValueError, match="n_demos=48; expected 1 to 47"):
        ask(sentiment_task(), 48, 2)
    with pytest.raises(ValueError, match="n_queries=48; expected 1 to 47"):
        ask(sentiment_task(), 2, 48)
    with pytest.raises(ValueError, match="got demonstrations='best'"):
        ask(demonstrations="best")
    with pytest.raises(ValueError, match="at least 2 labels to choose from"):
        ask(n_candidates=1)
    frame = sentiment_task().frame
    nested = FewShotTask(
        "nested", frame, label_words={"positive": "good", "negative": "goods"}, template="{text}\n{label}\n"
    )
    with pytest.raises(ValueError, match="the tokens of the label 'positive' begin those of 'negative'"):
        ask(nested)
    glued = {"positive": "he", "negative": "o"}
    with pytest.raises(ValueError, match="merges the label 'he' with what stands before it"):
        ask(FewShotTask("glued", frame, label_words=glued, template="{text} t{label}\n"))


def test_too_many_demonstrations_for_the_window(tiny_tokenizer: Any) -> None:
    make = lambda n, n_ctx: fewshot_prompts(  # noqa: E731
        sentiment_task(), n, 1, tokenizer=tiny_tokenizer, seed=0, n_ctx=n_ctx
    )
    (six,) = make(6, None)
    room = len(six.prompt) + max(map(len, six.label_tokens)) - 1
    assert make(6, room) == [six]
    with pytest.raises(ValueError, match=rf"has {len(six.prompt)} tokens, but the context window holds .*; 5 of them"):
        make(6, room - 1)
    with pytest.raises(ValueError, match="; not even the query fits"):
        make(6, len(six.zero_shot) - 2)


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
