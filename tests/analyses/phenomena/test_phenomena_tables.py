"""The parts of the phenomena: votes by words in closed form, tables of made-up items, conditions for any task."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.phenomena.conditions import Condition, chosen_conditions, standard_conditions
from mechicl.analyses.phenomena.items import Run, items_of, votes_of
from mechicl.analyses.phenomena.tables import Sampling, account_table, condition_table, correlation_table
from mechicl.analyses.phenomena.votes import MODEL_FREE, model_free_votes
from mechicl.stats import holm
from mechicl.tasks.facts import capitals_task, sentiment_task
from mechicl.tasks.fewshot import FewShotTask, fewshot_prompts, given_prompts
from mechicl.tasks.fewshot_prompt import shown_numbers

WORDS = pd.DataFrame(
    {
        "text": ["red cat", "red dog", "blue cat", "blue dog", "red sun", "green tree"],
        "label": ["a", "a", "b", "b", "a", "b"],
    }
)


def test_votes_by_words(tiny_tokenizer: Any) -> None:
    task = FewShotTask("words", WORDS)
    votes = model_free_votes(WORDS["text"].tolist())
    made = given_prompts(task, [0, 5], [[1, 4, 2], [0, 1, 2]], tokenizer=tiny_tokenizer)
    found = votes(made)
    assert tuple(found) == MODEL_FREE
    # red is in three texts, cat and dog in two each and sun in one: "blue cat" shares the rarest word with "red cat"
    idf = {word: np.log(7 / (1 + n)) + 1 for word, n in {"red": 3, "cat": 2, "dog": 2, "sun": 1, "blue": 2}.items()}
    length = lambda *words: np.sqrt(sum(idf[word] ** 2 for word in words))  # noqa: E731
    red = idf["red"] ** 2 / (length("red", "dog") * length("red", "cat"))
    sun = idf["red"] ** 2 / (length("red", "sun") * length("red", "cat"))
    cat = idf["cat"] ** 2 / (length("blue", "cat") * length("red", "cat"))
    np.testing.assert_allclose(found["TF-IDF kernel"][0], np.array([red + sun, cat]) / (red + sun + cat))
    assert found["nearest neighbour"][0].tolist() == [0, 1]
    assert found["majority"][0] == pytest.approx([2 / 3, 1 / 3])
    assert found["recency"].tolist() == [[0, 1], [0, 1]]
    assert np.isnan(found["TF-IDF kernel"][1]).all() and np.isnan(found["nearest neighbour"][1]).all()


def test_labels_that_may_not_be_answered_have_no_vote(tiny_tokenizer: Any) -> None:
    made = fewshot_prompts(sentiment_task(), 3, 2, tokenizer=tiny_tokenizer, seed=0, demo_task=capitals_task())
    assert (shown_numbers(made) == -1).all()
    assert all(np.isnan(votes).all() for votes in model_free_votes(["a word"])(made).values())


def table(model: Sequence[float], account: Sequence[float], n: int = 40) -> pd.DataFrame:
    """Items with these accuracies in "random" and one condition after another."""
    parts = []
    for predictor, shares in (("ICL", model), ("k", account)):
        for i, share in enumerate(shares):
            right = (np.arange(n) < round(share * n)).astype(float)
            name = "random" if i == 0 else f"c{i}"
            parts.append(
                pd.DataFrame({"condition": name, "predictor": predictor, "query": np.arange(n), "right": right})
            )
    return pd.concat(parts, ignore_index=True)


def test_verdicts_and_correlation() -> None:
    items = table([0.5, 0.9, 0.9, 0.5, 0.1, 0.5], [0.5, 0.9, 0.5, 0.9, 0.9, 0.5]).assign(
        agrees=1.0, changed=0.0, agreement_chance=0.5
    )
    sampling = Sampling(n_boot=200, n_permutations=500, level=0.95, seed=0)
    frame = condition_table(items, sampling)
    p = frame[frame["predictor"] == "ICL"]
    np.testing.assert_allclose(p["p_holm"], holm(p["p"].to_numpy()))
    assert (p["p_holm"] > p["p"]).any()
    made = account_table(frame, items, sampling).set_index("condition")
    assert made["verdict"].tolist() == [
        "both change", "only the model changes", "only the account changes", "opposite changes", "no change seen",
    ]  # fmt: skip
    assert made.loc["c2", "gap"] == pytest.approx(0.4) and made.loc["c2", "low"] > 0.2
    assert made.loc["c1", "gap"] == 0 and made.loc["c1", "p"] == 1
    expected = np.corrcoef([0.5, 0.9, 0.9, 0.5, 0.1, 0.5], [0.5, 0.9, 0.5, 0.9, 0.9, 0.5])[0, 1]
    (row,) = correlation_table(items, sampling).to_dict("records")
    assert row["correlation"] == pytest.approx(expected) and row["low"] <= expected <= row["high"]
    flat = correlation_table(table([0.5, 0.6, 0.7], [0.5, 0.5, 0.5]), sampling).to_dict("records")[0]
    assert np.isnan(flat["correlation"])


def test_items_of_made_up_answers(tiny_tokenizer: Any) -> None:
    """Three orders of which two answer alike; ties are shared, and two answers that are tied agree half the time."""
    made = fewshot_prompts(sentiment_task(), 2, 2, tokenizer=tiny_tokenizer, seed=0)
    other = fewshot_prompts(sentiment_task(), 2, 2, tokenizer=tiny_tokenizer, seed=0, labels="flipped")
    first = np.array([[-1.0, -3.0], [-2.0, -2.0]])
    runs = [Run(Condition("random"), 0, made)] + [
        Run(Condition("order", kind="order"), i, prompts) for i, prompts in enumerate((made, made, other))
    ]
    runs.append(Run(Condition("zero shot", kind="zero shot"), 0, made))
    scores = [first, first, first, first[:, ::-1], first]
    tied: Any = lambda prompts: {"tied": np.ones((len(prompts), 2))}  # noqa: E731
    items = items_of(runs, scores, votes_of(runs, [tied]))
    model, account = (items[items["predictor"] == name] for name in ("ICL", "tied"))
    order = model[model["condition"] == "order"].pivot_table("order_disagreement", "version", "query", sort=False)
    np.testing.assert_allclose(order.to_numpy(), [[0.5, 0], [0.5, 0], [1, 0]])
    np.testing.assert_allclose(model["changed"], [0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
    right = float(made[0].answer == 0)
    np.testing.assert_allclose(model["right"], [right, 0.5, right, 0.5, right, 0.5, 1 - right, 0.5, right, 0.5])
    assert model["log_odds"].iloc[0] == (2.0 if right else -2.0)
    np.testing.assert_allclose(account["agrees"], [0.5] * 8 + [np.nan] * 2)
    np.testing.assert_allclose(account["agreement_chance"], [0.5] * 8 + [np.nan] * 2)


def test_votes_are_asked_for_once(tiny_tokenizer: Any) -> None:
    made = fewshot_prompts(sentiment_task(), 2, 2, tokenizer=tiny_tokenizer, seed=0)
    calls = []

    def votes(prompts: Any) -> dict[str, np.ndarray]:
        calls.append(len(prompts))
        return {"k": np.ones((len(prompts), 2))}

    runs = [Run(Condition("random"), 0, made), Run(Condition("zero shot", kind="zero shot"), 0, list(made))]
    found = votes_of(runs, [votes])
    assert calls == [2] and (found[0]["k"] == 0.5).all() and np.isnan(found[1]["k"]).all()


def test_conditions_for_tasks_of_many_labels() -> None:
    names = [condition.name for condition in chosen_conditions(capitals_task(), None, None)]
    assert names[0] == "random" and "other words" not in names
    own = chosen_conditions(sentiment_task(), ["order", Condition("mine")], None)
    assert [one.name for one in own] == ["random", "order", "mine"]
    letters = sentiment_task().written(label_words={"positive": "A", "negative": "B"})
    words = {one.name: one.written for one in standard_conditions(letters)}["other words"]["label_words"]
    assert set(words) == {"positive", "negative"} and not set(words.values()) & {"A", "B"}
