"""The whole account on a model that is a kernel regression: every head is named rightly; and in a null none is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from mechicl.analyses import kernel_regression
from mechicl.analyses.kernel_regression import KernelRegression, measure_kernel_regression
from mechicl.hooks.demos.readings import DemoReadings, read_demonstrations
from mechicl.organisms.kernel_model import PlantedKernel, planted_kernel
from mechicl.tasks.fewshot import FewShotPrompt, fewshot_prompts

QUICK: dict[str, Any] = {"n_permutations": 99, "n_boot": 200, "progress": False}


@pytest.fixture(scope="module")
def planted() -> PlantedKernel:
    return planted_kernel(seed=0, dtype="float64")


@pytest.fixture(scope="module")
def prompts(planted: PlantedKernel) -> list[FewShotPrompt]:
    return fewshot_prompts(planted.task, 8, 80, tokenizer=planted.tokenizer, seed=1)


@pytest.fixture(scope="module")
def readings(planted: PlantedKernel, prompts: list[FewShotPrompt]) -> DemoReadings:
    return read_demonstrations(planted.model, prompts, progress=False)


@pytest.fixture(scope="module")
def account(planted: PlantedKernel, prompts: list[FewShotPrompt], readings: DemoReadings) -> KernelRegression:
    return measure_kernel_regression(planted.model, prompts, readings=readings, **QUICK)


@pytest.fixture(scope="module")
def heads(planted: PlantedKernel, account: KernelRegression) -> dict[str, Any]:
    """The rows of the planted heads, by role."""
    frame = account.to_frame().set_index(["layer", "head"])
    return {role: frame.loc[at] for role, at in planted.heads.items()}


def test_planted_heads_are_named_rightly(planted: PlantedKernel, heads: dict[str, Any]) -> None:
    kinds = {"rbf": "kernel", "dot": "kernel", "cosine": "kernel", "recency": "recency", "label": "label",
             "uniform": "constant"}  # fmt: skip
    assert {role: heads[role]["kind"] for role in kinds} == kinds
    for role in ("rbf", "dot", "cosine"):
        row = heads[role]
        assert row["kernel"].split()[0] == role and row["follows_kernel"] and row["p_fwe"] == 0.01
        for name in ("r2", "joint_r2", "share_r2"):
            assert row[name] == pytest.approx(1, abs=1e-6)
        assert 0.5 < row["unique_r2_low"] <= row["unique_r2"] <= row["unique_r2_high"] <= 1 + 1e-9
        assert row["nuisance_r2"] < 0.5
    assert heads["rbf"]["bandwidth"] == pytest.approx(planted.bandwidth, rel=1e-6)
    assert heads["cosine"]["slope_beyond"] == pytest.approx(1 / planted.circuit.temperature, rel=1e-6)
    assert np.isnan(heads["cosine"]["bandwidth"])
    assert heads["recency"]["position_r2"] == pytest.approx(1) and heads["recency"]["recency"] == pytest.approx(1)
    assert heads["label"]["label_r2"] == pytest.approx(1)
    for role in ("recency", "label"):
        assert not heads[role]["follows_kernel"] and heads[role]["nuisance_r2"] == pytest.approx(1)


def test_constant_heads_are_named_in_notes(planted: PlantedKernel, account: KernelRegression) -> None:
    layer, head = planted.heads["uniform"]
    assert len(account.notes) == 1 and "all demonstrations alike" in account.notes[0]
    named = account.notes[0].split(": ")[1].split(", ")
    assert f"L{layer}H{head}" in named and f"L{planted.heads['rbf'][0]}H{planted.heads['rbf'][1]}" not in named
    assert np.isnan(account.r2[layer, head]).all() and np.isnan(account.p_fwe[layer, head]).all()


def test_the_head_that_writes_answers(
    planted: PlantedKernel, account: KernelRegression, heads: dict[str, Any], readings: DemoReadings
) -> None:
    rebuilt = account.rebuilt.set_index("name")
    layer, head = planted.heads["rbf"]
    assert heads["rbf"]["agreement_label"] == rebuilt.loc["best head", "agreement"] == 1
    assert rebuilt.loc["best head", "chosen"].startswith(f"L{layer}H{head} ")
    assert rebuilt.loc["best head", "p"] == 0.01 and rebuilt.loc["best head", "gain_low"] > 0
    assert rebuilt.loc["best head", "r"] > 0.99
    assert rebuilt.loc["majority", "agreement"] == 0.5  # balanced demonstrations have none
    assert heads["recency"]["agreement_label"] < 0.75 and heads["uniform"]["agreement_label"] == 0.5
    assert account.named["agreement"][0] == (layer, head)
    assert set(account.named["kernel"]) == {planted.heads[role] for role in ("rbf", "dot", "cosine")}
    assert "L1H0" in account.verdict and account.accuracy["estimate"] > 0.7
    np.testing.assert_array_equal(readings.predicted, readings.label_log_probs.argmax(-1))


def test_predicted_weights_are_the_planted_ones(
    planted: PlantedKernel, prompts: list[FewShotPrompt], account: KernelRegression
) -> None:
    """Also for prompts that nothing was fitted on."""
    truth = planted.attention(prompts)
    for role in ("rbf", "dot", "cosine"):
        at = account.named_heads.index(planted.heads[role])
        np.testing.assert_allclose(account.kernel_weights[:, at], truth[role], atol=1e-6)
    assert account.kernel_weights.shape == account.nuisance_weights.shape == (80, len(account.named_heads), 8)
    np.testing.assert_allclose(account.nuisance_weights.sum(-1), 1)
    curve = account.curves[account.curves["head"] == planted.heads["rbf"][1]].query("layer == 1")
    slope = np.polyfit(curve["log_kernel"], curve["log_attention"], 1)[0]
    assert slope == pytest.approx(1 / planted.bandwidth**2, rel=1e-6)
    assert curve["n"].sum() == account.evaluation.sum() * 8


@pytest.mark.parametrize("bandwidth", [0.3, 1.5])
def test_single_precision_finds_the_bandwidth(bandwidth: float) -> None:
    small = planted_kernel(n_items=60, bandwidth=bandwidth, heads=("recency", "rbf"), seed=3)
    prompts = fewshot_prompts(small.task, 6, 40, tokenizer=small.tokenizer, seed=2)
    found = measure_kernel_regression(small.model, prompts, places=("ask",), **QUICK)
    row = found.heads.set_index(["layer", "head"]).loc[small.heads["rbf"]]
    assert row["bandwidth"] == pytest.approx(bandwidth, rel=1e-3) and row["kind"] == "kernel"
    assert row["r2"] == pytest.approx(1, abs=1e-4)


def test_attention_of_other_prompts_follows_no_kernel(
    planted: PlantedKernel, prompts: list[FewShotPrompt], readings: DemoReadings
) -> None:
    """The null: what heads owe to the place stays, what they owe to query and demonstrations is gone."""
    found, agreed = [], []
    for shift in (7, 20, 33, 50, 61):
        rolled = {how: np.roll(attention, shift, axis=0) for how, attention in readings.attention.items()}
        null = measure_kernel_regression(planted.model, prompts, readings=replace(readings, attention=rolled), **QUICK)
        heads = null.heads.set_index(["layer", "head"])
        assert heads.loc[planted.heads["recency"], "kind"] == "recency"
        found.append(null.heads["follows_kernel"].sum())
        assert not (null.heads["unique_r2"] >= 0.1).any()
        agreed.append(null.rebuilt["agreement"][0])
        assert null.rebuilt["p"][0] > 0.01
    assert sum(found) <= 1
    assert np.mean(agreed) == pytest.approx(0.5, abs=0.15)
    assert "No head's attention follows a kernel" in null.verdict


def test_shuffled_labels_leave_the_kernel_and_take_the_accuracy(planted: PlantedKernel) -> None:
    shuffled = fewshot_prompts(planted.task, 8, 80, tokenizer=planted.tokenizer, seed=1, labels="shuffled")
    found = measure_kernel_regression(planted.model, shuffled, places=("ask",), **QUICK)
    best = found.rebuilt.iloc[0]
    assert best["agreement"] == 1 and best["accuracy"] == pytest.approx(0.5, abs=0.2)
    assert found.heads.set_index(["layer", "head"]).loc[planted.heads["rbf"], "kind"] == "kernel"


def test_a_model_that_writes_by_recency_gains_nothing_over_it() -> None:
    last = planted_kernel(n_items=60, heads=("rbf", "recency"), writes=("recency",), decay=0.4, seed=1)
    prompts = fewshot_prompts(last.task, 6, 40, tokenizer=last.tokenizer, seed=2)
    rebuilt = measure_kernel_regression(last.model, prompts, places=("ask",), **QUICK).rebuilt.set_index("name")
    assert rebuilt.loc["best head", "agreement"] == 1 and rebuilt.loc["best head", "p"] == 0.01  # which says little
    assert rebuilt.loc["last label", "agreement"] == 1 and rebuilt.loc["best head", "gain_high"] == 0


def test_queries_are_on_one_side_only(planted: PlantedKernel) -> None:
    twice = [one for seed in (1, 2) for one in
             fewshot_prompts(planted.task, 4, 70, tokenizer=planted.tokenizer, seed=seed)]  # fmt: skip
    queries = np.array([one.query for one in twice])
    assert len(np.unique(queries)) < 0.8 * len(queries)
    found = measure_kernel_regression(planted.model, twice, places=("ask",), **QUICK)
    assert not set(queries[found.evaluation]) & set(queries[~found.evaluation])
    assert 0.35 < found.evaluation.mean() < 0.65


def test_equal_seeds_give_equal_numbers(
    planted: PlantedKernel, prompts: list[FewShotPrompt], readings: DemoReadings, account: KernelRegression,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """From readings at hand, from the model, and from a folder of finished prompts."""
    fresh = measure_kernel_regression(planted.model, prompts, store=tmp_path, **QUICK)
    monkeypatch.setattr("mechicl.hooks.demos.runs.DemoRun.read", None)  # no forward pass is possible any more
    stored = measure_kernel_regression(planted.model, prompts, store=tmp_path, **QUICK)
    for other in (fresh, stored):
        pd.testing.assert_frame_equal(other.heads, account.heads)
        pd.testing.assert_frame_equal(other.rebuilt, account.rebuilt)
        assert other.named == account.named and other.verdict == account.verdict
    moved = measure_kernel_regression(planted.model, prompts, readings=readings, seed=1, **QUICK)
    assert (moved.evaluation != account.evaluation).any()


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_head_without_attention_to_some_is_no_constant_one(
    planted: PlantedKernel, prompts: list[FewShotPrompt], readings: DemoReadings
) -> None:
    """As beyond the window of a local layer: its logarithm cannot be regressed, and that is said."""
    layer, head = planted.heads["rbf"]
    attention = readings.attention["label"].copy()
    attention[5, layer, head, 0] = 0.0
    cut = replace(readings, attention={**readings.attention, "label": attention})
    found = measure_kernel_regression(planted.model, prompts, readings=cut, **QUICK)
    row = found.heads.set_index(["layer", "head"]).loc[(layer, head)]
    assert row["kind"] == "undefined" and np.isnan(row["r2"]) and np.isnan(row["nuisance_r2"])
    assert found.notes[1] == f"no R^2, for no attention at all to some demonstration: L{layer}H{head}"
    assert f"L{layer}H{head}" not in found.notes[0]
    assert row["agreement_label"] > 0.95  # which needs no logarithm
    assert row["kernel"] == "none" and (layer, head) not in found.named_heads


def test_bad_input_is_refused_before_any_forward_pass(
    planted: PlantedKernel, prompts: list[FewShotPrompt], readings: DemoReadings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: Any, **__: Any) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr(kernel_regression, "read_demonstrations", read)
    same = [replace(one, query=3) for one in prompts]
    cases: list[tuple[list[FewShotPrompt], dict[str, Any], str]] = [
        (prompts, {"aggregate": "mean"}, "expected one of sum, max, label"),
        (prompts[:19], {}, "19 different queries; expected at least 20"),
        (same, {}, "1 different queries"),
        ([], {}, "0 different queries"),
        (prompts, {"level": 95.0}, "level"),
        (prompts, {"n_boot": 10}, "n_boot=10; expected at least 100"),
        (prompts, {"n_folds": 1}, "n_folds=1"),
        (prompts, {"n_permutations": 0}, "n_permutations=0"),
        (prompts, {"n_named": 0}, "n_named=0"),
        (prompts, {"places": ()}, "kernels to regress on"),
        (prompts[:60], {"readings": readings}, r"\(80, 2, 6, 8\) for \(60, 2, 6, 8\)"),
    ]
    for given, options, message in cases:
        with pytest.raises(ValueError, match=message):
            measure_kernel_regression(planted.model, given, **{**QUICK, **options})


@pytest.mark.parametrize("seed", [0, 1])
def test_an_untrained_model_follows_no_kernel(seed: int, planted: PlantedKernel, prompts: list[FewShotPrompt]) -> None:
    config = TransformerBridgeConfig(
        d_model=32, d_head=8, n_layers=2, n_ctx=20, n_heads=4, d_mlp=48, act_fn="gelu", seed=seed,
        d_vocab=len(planted.circuit.vocabulary), initializer_range=0.2,
    )  # fmt: skip
    found = measure_kernel_regression(TransformerBridge.boot_native(config), prompts, **QUICK)
    # A random product of queries and keys may favour like tokens a little, so that p alone would not do.
    assert not found.heads["kind"].isin(["kernel", "constant", "undefined"]).any()
    best = found.rebuilt.iloc[0]
    assert best["gain_low"] < 0.1 and abs(best["accuracy"] - 0.5) < 0.2 and abs(found.accuracy["estimate"] - 0.5) < 0.2
