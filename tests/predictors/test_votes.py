"""Votes of demonstrations: plain loops, known cases, ties that no order of labels decides."""

import numpy as np
import pytest

from mechicl.predictors.kernels import nadaraya_watson
from mechicl.predictors.votes import agreement, label_votes, majority_votes, recency_votes, shares_of_best

LABELS = np.array([[0, 1, 1, 2], [2, 2, -1, 0], [-1, 1, -1, 1]])


def test_votes_are_shares_of_the_weight() -> None:
    rng = np.random.default_rng(0)
    weights = rng.uniform(size=(3, 2, 5, 4))  # item layer head demo
    found = label_votes(weights, LABELS, 3)
    assert found.shape == (3, 2, 5, 3)
    for at in np.ndindex(3, 2, 5):
        total = [
            sum(w for w, own in zip(weights[at], LABELS[at[0]], strict=True) if own == label) for label in range(3)
        ]
        np.testing.assert_allclose(found[at], np.array(total) / sum(total), atol=1e-15)
    np.testing.assert_allclose(label_votes(1e-12 * weights, LABELS, 3), found, rtol=1e-12)  # scale is nothing


def test_they_are_the_nadaraya_watson_estimate() -> None:
    rng = np.random.default_rng(0)
    log_weights, labels = rng.normal(size=(6, 8)), rng.integers(3, size=(6, 8))
    expected = nadaraya_watson(log_weights, np.eye(3)[labels])
    np.testing.assert_allclose(label_votes(np.exp(log_weights), labels, 3), expected, atol=1e-12)


def test_no_weight_is_no_vote() -> None:
    weights = np.array([[0.0, 0, 0, 0], [0, 0, 5, 0], [1, 0, 1, 0]])  # of the last two all on labels not to be answered
    votes = label_votes(weights, LABELS, 3)
    assert np.isnan(votes).all()
    np.testing.assert_allclose(shares_of_best(votes), 1 / 3)
    np.testing.assert_allclose(agreement(votes, np.array([0, 1, 2])), 1 / 3)


def test_ties_are_shared() -> None:
    votes = np.array([[0.4, 0.4, 0.2], [0.2, 0.3, 0.5], [1 / 3, 1 / 3, 1 / 3], [0.5 - 1e-12, 0.5, 0.0]])
    expected = [[0.5, 0.5, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]
    np.testing.assert_allclose(shares_of_best(votes), expected)
    np.testing.assert_allclose(agreement(votes, np.array([1, 2, 0, 2])), [0.5, 1, 1 / 3, 0])
    heads = np.stack([votes, votes[:, ::-1]], 1)
    np.testing.assert_allclose(agreement(heads, np.array([1, 2, 0, 2])), [[0.5, 0.5], [1, 0], [1 / 3, 1 / 3], [0, 0.5]])


def test_renaming_labels_renames_votes() -> None:
    """No order of labels decides, ties included: weights of few values make many."""
    rng = np.random.default_rng(0)
    weights, labels = rng.integers(3, size=(200, 6)).astype(float), rng.integers(3, size=(200, 6))
    order, answers = np.array([2, 0, 1]), rng.integers(3, size=200)
    found = agreement(label_votes(weights, labels, 3), answers)
    assert ((found > 0) & (found < 1)).sum() > 10
    np.testing.assert_allclose(agreement(label_votes(weights, order[labels], 3), order[answers]), found)


def test_answers_drawn_apart_agree_by_chance() -> None:
    rng = np.random.default_rng(0)
    weights, labels, answers = (
        rng.uniform(size=(4_000, 5)),
        rng.integers(4, size=(4_000, 5)),
        rng.integers(4, size=4_000),
    )
    assert agreement(label_votes(weights, labels, 4), answers).mean() == pytest.approx(1 / 4, abs=0.02)


def test_rivals_look_at_no_text() -> None:
    np.testing.assert_allclose(majority_votes(LABELS, 3), [[1 / 4, 1 / 2, 1 / 4], [1 / 3, 0, 2 / 3], [0, 1, 0]])
    np.testing.assert_allclose(recency_votes(LABELS, 3), [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(recency_votes(LABELS, 3, decay=1.0), majority_votes(LABELS, 3))
    np.testing.assert_allclose(recency_votes(LABELS, 3, decay=0.5)[0], np.array([1, 6, 8]) / 15)


def test_what_is_no_weight_or_label_is_refused() -> None:
    with pytest.raises(ValueError, match="weights below 0"):
        label_votes(-np.ones((3, 4)), LABELS, 3)
    with pytest.raises(ValueError, match="from -1 to 2; expected -1 to 1"):
        label_votes(np.ones((3, 4)), LABELS, 2)
    with pytest.raises(ValueError, match="from -2 to"):
        majority_votes(LABELS - 1, 3)
    with pytest.raises(ValueError, match=r"decay=1\.5"):
        recency_votes(LABELS, 3, decay=1.5)
