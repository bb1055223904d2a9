"""Few-shot prompts that cannot be: tasks, requests and rows that are refused, with what to do about them."""

from typing import Any

import pandas as pd
import pytest

from mechicl.tasks.facts import sentiment_task
from mechicl.tasks.fewshot import FewShotTask, fewshot_prompts, given_prompts


@pytest.mark.parametrize(
    ("queries", "demos", "options", "message"),
    [
        ([], [], {}, "got 0 queries"),
        ([0, 1], [[2]], {}, "got 2 queries and 1 lists"),
        ([0], [[]], {}, "without demonstrations"),
        ([48], [[2]], {}, "got row 48 as a query; the task has the rows 0 to 47"),
        ([0], [[-1]], {}, "got row -1 as a demonstration"),
        ([0], [[1]], {"shown": [["positive"]] * 2}, "got 2 lists of shown for 1 queries"),
        ([0], [[1]], {"candidates": [["negative"]]}, "expected labels of the task, 'positive' among them"),
        ([0], [[1, 2]], {"n_ctx": 8}, "not even the query fits"),
    ],
)
def test_rows_that_cannot_be_given(queries: Any, demos: Any, options: Any, message: str, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=message):
        given_prompts(sentiment_task(), queries, demos, tokenizer=tiny_tokenizer, **options)


def test_label_words_that_share_their_first_token(tiny_tokenizer: Any) -> None:
    task = sentiment_task().written(label_words={"positive": "xylem", "negative": "xenon"})
    make = lambda **options: fewshot_prompts(task, 2, 2, tokenizer=tiny_tokenizer, seed=0, **options)  # noqa: E731
    (one, _) = make()
    assert one.label_tokens[0][0] == one.label_tokens[1][0]
    with pytest.raises(ValueError, match=r"'xylem' and 'xenon' begin with the same token; give other words"):
        make(first_tokens="distinct")
    with pytest.raises(ValueError, match="n_candidates=2, but only 1 labels have first tokens that differ"):
        make(first_tokens="distinct", n_candidates=2)
    with pytest.raises(ValueError, match="got first_tokens='same'; expected one of 'any', 'distinct'"):
        make(first_tokens="same")


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
    for option in ({"demonstrations": "best"}, {"labels": "wrong"}, {"order": "best first"}):
        with pytest.raises(ValueError, match="got {}='{}'; expected one of".format(*next(iter(option.items())))):
            ask(**option)
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
