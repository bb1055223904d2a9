"""Rows from results that are at hand: on a planted kernel model they say what was planted."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.kernel_account import KernelAccount, measure_kernel_account
from mechicl.analyses.resemblance.gradient_comparison import GradientComparison, compare_to_gradient
from mechicl.analyses.rivals.fewshot.inside import COLUMNS, fewshot_mechanisms, mechanisms_beside
from mechicl.organisms import planted_kernel
from mechicl.tasks.fewshot import FewShotTask, fewshot_prompts


@pytest.fixture(scope="module")
def account() -> KernelAccount:
    planted = planted_kernel(seed=0)
    return measure_kernel_account(
        planted.model, planted.task, n_prompts=24, n_demos=6, parts=("causality",), places=("ask",), n_boot=200,
        n_permutations=40, progress=False, seed=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def comparison(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> GradientComparison:
    texts = [f"{a} {b}" for a in ("old", "new", "king", "ball") for b in ("ring", "cake", "file")]
    labels = ["good" if i % 2 else "bad" for i in range(len(texts))]
    task = FewShotTask("letters", pd.DataFrame({"text": texts, "label": labels}), template="{text}\n{label}\n\n")
    prompts = fewshot_prompts(task, 2, 6, tokenizer=tiny_tokenizer, seed=0)
    return compare_to_gradient(
        tiny_model("llama", 128), prompts, controls=("random init",), learning_rate=0.05, n_boot=100, progress=False
    )


def row(table: pd.DataFrame, words: str) -> Any:
    found = table[table["measure"].str.contains(words, regex=False)]
    assert len(found) == 1, table["measure"].tolist()
    return found.iloc[0]


def test_the_planted_kernel_is_followed_and_gives_the_answers_back(account: KernelAccount) -> None:
    table = fewshot_mechanisms(account)
    assert list(table.columns) == COLUMNS
    unique = row(table, "unique R^2")
    assert unique["account"] == "kernel of the inputs" and unique["measure"].endswith(("L1H0", "L1H4", "L1H5"))
    assert unique["low"] <= unique["estimate"] <= unique["high"] and unique["estimate"] > 0.5
    assert np.isnan(unique["control"])  # the others are constant, or follow nothing that is a kernel
    faithful = row(table, "faithfulness of the kernel's weights in heads named by agreement")
    assert faithful["estimate"] > faithful["control"] and "nuisance weights" in faithful["note"]
    causality = account.causality
    assert causality is not None
    frame = causality.frame.set_index(["set", "condition", "reference", "measure", "control"]).sort_index()
    own = frame.loc[("agreement", "kernel", "uniform", "faithfulness")]
    assert faithful["estimate"] == own["estimate"]["none"]
    assert faithful["control"] == own["estimate"]["nuisance weights"]
    votes = row(table, "votes with the answers")
    assert votes["estimate"] > 0.9 > votes["control"] and votes["account"] == "attention of one head"


def test_without_a_head_that_follows_the_row_says_so(account: KernelAccount) -> None:
    heads = account.regression.heads.assign(follows_kernel=False)
    bare = replace(account, regression=replace(account.regression, heads=heads), causality=None)
    table = fewshot_mechanisms(bare)
    unique = row(table, "unique R^2")
    assert np.isnan(unique["estimate"]) and "none of 12 heads" in unique["note"]
    assert unique["control"] == account.regression.heads["unique_r2"].median()
    assert not table["measure"].str.contains("faithfulness").any()


def test_resemblance_stands_beside_shuffled_weights(comparison: GradientComparison) -> None:
    table = fewshot_mechanisms(comparison=comparison)
    assert set(table["account"]) == {"gradient step"}
    every = comparison.frame[comparison.frame["layer"] == "all"].set_index(["measure", "control"])["estimate"]
    for name in ("SimAOU", "SimAM", "effect correlation"):
        found = row(table, f"{name}, steps on key_value")
        np.testing.assert_equal(found["estimate"], every[name, "none"])
        np.testing.assert_equal(found["control"], every[name, "random init"])


def test_results_are_picked_by_what_they_are(account: KernelAccount, comparison: GradientComparison) -> None:
    both = mechanisms_beside([comparison, "something else", account])
    pd.testing.assert_frame_equal(both, fewshot_mechanisms(account, comparison))
    assert mechanisms_beside([]).empty and list(mechanisms_beside([]).columns) == COLUMNS
