"""Answers rebuilt from attention: plain loops, a choice that sees one half only, intervals and p that hold."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.kernels.rebuilt import (
    DECAYS,
    SCALES,
    Answers,
    fitted_scale,
    head_agreement,
    kernel_weights,
    nearest_votes,
    rebuilt_predictions,
)
from mechicl.hooks.demos.readings import DemoReadings

LAYERS, HEADS, DEMOS, LABELS = 2, 3, 5, 3
QUICK: dict[str, Any] = {"n_boot": 200, "n_permutations": 50}


def draw(n: int = 40, seed: int = 0, labels: int = LABELS) -> tuple[DemoReadings, Answers, np.ndarray]:
    """Attention, labels and answers that have nothing to do with each other, and the half for selection."""
    rng = np.random.default_rng(seed)
    attention = {how: rng.dirichlet(np.ones(DEMOS), size=(n, LAYERS, HEADS)) for how in ("sum", "max", "label")}
    log_probs = np.log(rng.dirichlet(np.ones(labels), size=n))
    table = pd.DataFrame({"kind": [], "place": [], "layer": []})
    empty = np.zeros((n, 0, DEMOS))
    readings = DemoReadings(attention, np.zeros((n, LAYERS, HEADS, 3)), empty, empty, table, log_probs)
    shown = rng.integers(labels, size=(n, DEMOS))
    answers = Answers(shown, readings.predicted, log_probs, rng.integers(labels, size=n), np.arange(n))
    return readings, answers, np.arange(n) % 2 == 0


def loop_agreement(weights: np.ndarray, answers: Answers, given: np.ndarray) -> list[float]:
    """1, 0, or a share for ties, a prompt at a time."""
    found = []
    for w, shown, answer in zip(weights, answers.demo_labels, given, strict=True):
        total = [w[shown == label].sum() for label in range(answers.n_labels)]
        best = [label for label in range(answers.n_labels) if total[label] >= max(total) - 1e-9]
        found.append(float(answer in best) / len(best))
    return found


def test_heads_agree_as_a_plain_loop_says() -> None:
    readings, answers, _ = draw()
    readings.attention["max"][:, 1, 2] = 0.2  # ties
    with_model, with_truth = head_agreement(readings, answers)
    for how, attention in readings.attention.items():
        for at in np.ndindex(LAYERS, HEADS):
            for found, given in ((with_model, answers.predicted), (with_truth, answers.true)):
                assert found[how][at] == pytest.approx(np.mean(loop_agreement(attention[:, *at], answers, given)))


def test_rows_are_what_a_plain_loop_says() -> None:
    readings, answers, half = draw(60)
    kernels = {"one": np.random.default_rng(1).normal(size=(60, DEMOS))}
    found = rebuilt_predictions(readings, answers, half, kernels, **QUICK).set_index("name")
    numbers = {how: {} for how in readings.attention}
    for how, attention in readings.attention.items():
        for layer, head in np.ndindex(LAYERS, HEADS):
            right = np.array(loop_agreement(attention[:, layer, head], answers, answers.predicted))
            numbers[how][f"L{layer}H{head} {how}"] = (right[half].mean(), right[~half].mean())
        best = max(numbers[how], key=lambda name: numbers[how][name][0])
        assert found.loc[f"best head, {how}", "chosen"] == best
        assert found.loc[f"best head, {how}", "agreement"] == pytest.approx(numbers[how][best][1])
    every = {name: values for own in numbers.values() for name, values in own.items()}
    best = max(every, key=lambda name: every[name][0])
    assert found.loc["best head", "chosen"] == best and found.loc["best head", "agreement"] == every[best][1]
    decays = {decay: np.array(loop_agreement(np.tile([decay ** (DEMOS - 1 - i) for i in range(DEMOS)], (60, 1)),
                                             answers, answers.predicted)) for decay in DECAYS}  # fmt: skip
    recency = max(DECAYS, key=lambda decay: decays[decay][half].mean())
    assert found.loc["recency", "chosen"] == f"decay {recency:g}"
    expected = {
        "all heads": readings.attention["sum"].mean((1, 2)),
        "nearest": kernels["one"] == kernels["one"].max(-1, keepdims=True),
        "majority": np.ones((60, DEMOS)),
        "last label": np.arange(DEMOS) == np.full((60, 1), DEMOS - 1),
    }
    for name, weights in expected.items():
        right, true = (np.array(loop_agreement(weights, answers, x)) for x in (answers.predicted, answers.true))
        row = found.loc[name]
        assert row["agreement"] == pytest.approx(right[~half].mean())
        assert row["accuracy"] == pytest.approx(true[~half].mean())
        assert row["gain"] == pytest.approx(right[~half].mean() - decays[recency][~half].mean())
        assert row["low"] <= row["agreement"] <= row["high"]
        every_order = [loop_agreement(weights, answers, np.full(60, label)) for label in range(LABELS)]
        drawn_apart = [np.mean(np.array(own)[~half]) for own in every_order]
        often = np.bincount(answers.predicted[~half], minlength=LABELS) / 30
        assert row["chance"] == pytest.approx(often @ drawn_apart)
    assert (found.loc["recency", ["gain", "gain_low", "gain_high"]] == 0).all()


def test_what_chooses_does_not_judge() -> None:
    """Other answers on one half change the choice or the numbers, never both."""
    readings, answers, half = draw()
    kernels = {"one": np.random.default_rng(1).normal(size=(40, DEMOS))}
    plain = rebuilt_predictions(readings, answers, half, kernels, **QUICK)
    for changed in (half, ~half):
        predicted, log_probs = answers.predicted.copy(), answers.log_probs.copy()
        predicted[changed] = (predicted[changed] + 1) % LABELS
        log_probs[changed] = np.roll(log_probs[changed], 1, axis=1)
        other = Answers(answers.demo_labels, predicted, log_probs, answers.true, answers.queries)
        found = rebuilt_predictions(readings, other, half, kernels, **QUICK)
        if changed is half:
            assert (found["chosen"] != plain["chosen"]).any()
            same = found["name"].isin(["all heads", "majority", "last label"])
            numbers = [name for name in plain if name not in ("name", "chosen", "p", "gain", "gain_low", "gain_high")]
            pd.testing.assert_frame_equal(found.loc[same, numbers], plain.loc[same, numbers])
        else:
            assert (found["chosen"] == plain["chosen"]).all()
            assert (found["agreement"] != plain["agreement"]).any()


def test_chance_is_found_as_often_as_p_says_and_intervals_hold() -> None:
    """The best of 18 heads agrees by chance on the other half: 36 draws of answers that owe nothing to attention."""
    low, p, held, flattered = [], [], [], []
    for seed in range(36):
        readings, answers, half = draw(60, seed=seed, labels=2)
        best = rebuilt_predictions(readings, answers, half, {}, n_boot=100, n_permutations=19, seed=seed).iloc[0]
        held.append(best["low"] <= 0.5 <= best["high"])
        low.append(best["agreement"])
        p.append(best["p"])
        agreed = head_agreement(readings, answers.taken(np.ones(60, dtype=bool)))[0]
        flattered.append(max(own.max() for own in agreed.values()))
    assert np.mean(low) == pytest.approx(0.5, abs=0.03) and np.mean(flattered) > 0.58
    assert np.mean(held) > 0.82
    assert np.mean(np.array(p) <= 0.05) <= 0.17  # 1.8 expected, 6 or fewer with probability .998


def test_a_head_that_answers_is_found() -> None:
    readings, answers, half = draw()
    readings.attention["label"][:, 1, 2] = (answers.demo_labels == answers.predicted[:, None]) + 1e-3
    found = rebuilt_predictions(readings, answers, half, {}, **QUICK).set_index("name")
    assert found.loc["best head", "chosen"] == "L1H2 label" and found.loc["best head", "p"] <= 2 / 51
    shown = (answers.demo_labels == answers.predicted[:, None]).any(1)[~half]
    assert found.loc["best head", "agreement"] == pytest.approx(shown.mean())  # others have no vote
    assert found.loc["best head", "gain_low"] > 0
    numbers = [name for name in found if name != "name"]
    assert (found.loc["best head", numbers] == found.loc["best head, label", numbers]).all()
    assert found.loc["best head", "r"] > found.loc["majority", "r"]


def test_the_scale_of_a_kernel_is_found() -> None:
    """Answers drawn with the probabilities of a kernel's votes at a known scale."""
    rng = np.random.default_rng(0)
    log_kernel, shown = 40 * rng.normal(size=(3_000, DEMOS)), rng.integers(2, size=(3_000, DEMOS))
    blank = Answers(shown, shown[:, 0], np.zeros((3_000, 2)), shown[:, 0], np.arange(3_000))
    for scale in (0.02, 0.1):
        predicted = (rng.uniform(size=3_000) < blank.votes(kernel_weights(log_kernel, scale))[:, 1]).astype(int)
        answers = Answers(shown, predicted, np.zeros((3_000, 2)), predicted, np.arange(3_000))
        found, _ = fitted_scale(log_kernel, answers, np.ones(3_000, dtype=bool))
        assert abs(np.log(found / scale)) <= 1.01 * np.log(SCALES[1] / SCALES[0])  # the next of the grid at most
    assert fitted_scale(np.full((3_000, DEMOS), -7.0), answers, np.ones(3_000, dtype=bool)) == (0.0, -np.inf)


def test_weights_of_a_kernel_are_exponentials() -> None:
    log_kernel = np.array([[-1e5, -1e5 - 2, -2e5]])
    np.testing.assert_allclose(kernel_weights(log_kernel, 0.5), [[1, np.exp(-1), 0]])
    np.testing.assert_allclose(kernel_weights(log_kernel, 0.0), 1)


def test_a_kernel_that_tells_nothing_is_the_majority() -> None:
    readings, answers, half = draw()
    found = rebuilt_predictions(readings, answers, half, {"flat": np.zeros((40, DEMOS))}, **QUICK).set_index("name")
    for name in ("agreement", "chance", "accuracy"):
        assert found.loc["flat", name] == found.loc["majority", name] == found.loc["nearest", name]


def test_the_nearest_is_by_the_kernel_that_serves() -> None:
    _, answers, half = draw()
    rng = np.random.default_rng(2)
    good = (answers.demo_labels == answers.predicted[:, None]) + 0.1 * rng.uniform(size=(40, DEMOS))
    kernels = {"poor": rng.normal(size=(40, DEMOS)), "good": good}
    name, votes = nearest_votes(kernels, answers, half)
    assert name == "by good"
    np.testing.assert_array_equal(votes, np.eye(LABELS)[answers.demo_labels[np.arange(40), good.argmax(-1)]])
