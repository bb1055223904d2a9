"""Which demonstrations are shown, in which order, with which labels: naive retrieval as oracle, and rates of chance."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.tasks.demonstrations import draw_demonstrations, shown_labels
from mechicl.tasks.facts import capitals_task, sentiment_task
from mechicl.tasks.fewshot import fewshot_prompts
from mechicl.tasks.similarity import WordOverlap, similarities

FRAME = pd.DataFrame({"text": [f"t{i}" for i in range(12)], "label": ["a"] * 8 + ["b"] * 4})
LIKE = np.linspace(0.0, 1.1, 12)  # the last rows, all "b", are the most alike


def draw(n: int, **options: Any) -> list[int]:
    options = {"balanced": False, "similarity": LIKE, "order": "most similar last", **options}
    return draw_demonstrations(FRAME, "t11", n, rng=np.random.default_rng(0), **options)


def test_the_most_alike_are_retrieved_in_order() -> None:
    assert draw(4) == [7, 8, 9, 10]  # row 11 has the query's text
    assert draw(4, order="most similar first") == [10, 9, 8, 7]
    drawn = draw(4, order="random")
    assert sorted(drawn) == [7, 8, 9, 10]
    orders = {
        tuple(draw_demonstrations(FRAME, "t11", 4, balanced=False, rng=np.random.default_rng(seed), similarity=LIKE))
        for seed in range(30)
    }
    assert len(orders) > 10


def test_balance_holds_for_what_is_retrieved() -> None:
    assert draw(4, balanced=True) == [6, 7, 9, 10]
    assert draw(5, balanced=True) == [6, 7, 8, 9, 10]  # the odd one goes to the label whose next row is more alike
    assert draw(8, balanced=True) == [3, 4, 5, 6, 7, 8, 9, 10]  # only three rows of "b" may be taken
    assert draw(2, balanced=True, similarity=-LIKE, order="most similar first") == [0, 8]


def test_rows_equally_alike_fall_to_chance() -> None:
    flat = np.zeros(12)
    taken = [
        row
        for seed in range(200)
        for row in draw_demonstrations(
            FRAME, "t11", 3, balanced=False, rng=np.random.default_rng(seed), similarity=flat, order="random"
        )
    ]
    counts = np.bincount(taken, minlength=12)
    assert counts[11] == 0 and counts[:11].min() > 25  # 54.5 expected


def test_unknown_orders_and_too_many_rows() -> None:
    with pytest.raises(ValueError, match="got order='last'"):
        draw(3, order="last")
    with pytest.raises(ValueError, match="n_demos=12; expected 1 to 11"):
        draw(12)


def naive_cosines(texts: list[str]) -> np.ndarray:
    """TF-IDF by its formula."""
    words = sorted({word for text in texts for word in text.split()})
    counts = np.array([[text.split().count(word) for word in words] for text in texts], dtype=float)
    idf = np.log((1 + len(texts)) / (1 + (counts > 0).sum(0))) + 1
    vectors = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors @ vectors.T)


def test_similarity_is_the_cosine_of_tfidf() -> None:
    texts = ["a b b c", "b c", "d e", "a a a d", "c"]
    found = WordOverlap(texts).cosines(texts, texts)
    np.testing.assert_allclose(found, naive_cosines(texts), atol=1e-12)
    np.testing.assert_allclose(similarities(texts, [3, 0], texts, "tfidf"), found[[3, 0]], atol=1e-12)
    assert WordOverlap(texts).cosines(["z z"], texts).tolist() == [[0.0] * 5]


def test_similarities_of_the_callers_own() -> None:
    def lengths(texts: Any) -> np.ndarray:
        return np.array([[len(text), 1.0] for text in texts])

    texts, pool = ["aaaa", "b"], ["bbbb", "c", "dd"]
    found = similarities(texts, [0, 1], pool, lengths)
    np.testing.assert_allclose(np.diag(found), 1.0)
    assert found[0].argsort().tolist() == [1, 2, 0]
    matrix = np.arange(6.0).reshape(2, 3)
    assert (similarities(texts, [1], pool, matrix) == matrix[[1]]).all()
    zero = similarities(texts, [0], pool, lambda texts: np.zeros((len(texts), 2)))
    assert (zero == 0).all()
    for by, message in (
        ("bm25", "similarity='bm25'"),
        (matrix.T, r"of shape \(3, 2\); expected \(2, 3\)"),
        (matrix * np.nan, "6 similarities"),
        (lambda texts: np.ones(3), r"gave the shape \(3,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            similarities(texts, [0, 1], pool, by)
    with pytest.raises(ValueError, match="no word in 2 texts"):
        WordOverlap(["...", "!"])


@pytest.mark.parametrize("balanced", [True, False])
def test_prompts_with_retrieved_demonstrations(balanced: bool, tiny_tokenizer: Any) -> None:
    task = sentiment_task()
    texts = task.frame["text"].tolist()
    cosines = WordOverlap(texts).cosines(texts, texts)
    made = {
        how: fewshot_prompts(task, 4, 8, tokenizer=tiny_tokenizer, seed=0, demonstrations=how, balanced=balanced)
        for how in ("random", "similar", "dissimilar")
    }
    for alike, unlike, any_one in zip(made["similar"], made["dissimilar"], made["random"], strict=True):
        assert alike.query == unlike.query == any_one.query
        near, far = (cosines[one.query][list(one.demos)] for one in (alike, unlike))
        assert (np.diff(near) >= 0).all() and (np.diff(far) >= 0).all()  # the most similar last, whichever are taken
        if balanced:
            assert alike.demo_labels.count("positive") == unlike.demo_labels.count("positive") == 2
        else:
            others = np.delete(cosines[alike.query], alike.query)
            np.testing.assert_allclose(near, np.sort(others)[-4:])
            np.testing.assert_allclose(far, np.sort(others)[:4])
    rows = np.arange(len(texts), dtype=float)
    by_row = fewshot_prompts(
        task, 3, 2, tokenizer=tiny_tokenizer, seed=0, demonstrations="similar", balanced=False,
        similarity=np.tile(rows, (len(texts), 1)),
    )  # fmt: skip
    assert all(set(one.demos) <= {44, 45, 46, 47} for one in by_row)


def test_retrieval_by_nothing_is_refused(tiny_tokenizer: Any) -> None:
    """Names of countries have no word in common."""
    options: Any = {"tokenizer": tiny_tokenizer, "seed": 0, "n_candidates": 4}
    for how in ("similar", "dissimilar"):
        with pytest.raises(ValueError, match="no demonstration is more similar to its query than any other"):
            fewshot_prompts(capitals_task(), 3, 4, demonstrations=how, **options)
    letters = lambda texts: np.array([[text.count(x) for x in "aeiou"] for text in texts])  # noqa: E731
    assert len(fewshot_prompts(capitals_task(), 3, 4, demonstrations="similar", similarity=letters, **options)) == 4


def test_flipped_labels_are_all_wrong() -> None:
    rng = np.random.default_rng(0)
    true = ["a", "b", "b", "a"]
    assert shown_labels(true, "flipped", rng=rng, labels=["a", "b"]) == ["b", "a", "a", "b"]
    many = shown_labels(["a"] * 300, "flipped", rng=rng, labels=["a", "b", "c", "d"])
    assert set(many) == {"b", "c", "d"} and min(many.count(x) for x in "bcd") > 70
    with pytest.raises(ValueError, match="need the labels that there are"):
        shown_labels(true, "flipped", rng=rng)


def test_random_labels_are_right_by_chance() -> None:
    found = shown_labels(["a"] * 900, "random", rng=np.random.default_rng(0), labels=["a", "b", "c"])
    assert all(260 < found.count(x) < 340 for x in "abc")


@pytest.mark.parametrize("how", ["flipped", "random"])
def test_the_same_demonstrations_with_other_labels(how: Any, tiny_tokenizer: Any) -> None:
    task = sentiment_task()
    true, other = (fewshot_prompts(task, 6, 8, tokenizer=tiny_tokenizer, seed=1, labels=x) for x in ("true", how))
    assert [(one.query, one.demos) for one in true] == [(one.query, one.demos) for one in other]
    right = [
        a == b for x, y in zip(true, other, strict=True) for a, b in zip(x.demo_labels, y.demo_labels, strict=True)
    ]
    assert not any(right) if how == "flipped" else 0.25 < np.mean(right) < 0.75


def test_an_open_set_is_flipped_within_the_task(tiny_tokenizer: Any) -> None:
    task = capitals_task()
    for one in fewshot_prompts(task, 3, 4, tokenizer=tiny_tokenizer, seed=0, labels="flipped", n_candidates=8):
        own = [task.frame["label"][row] for row in one.demos]
        assert all(a != b for a, b in zip(own, one.demo_labels, strict=True))
        assert set(one.demo_labels) <= set(one.labels) <= set(task.labels)
