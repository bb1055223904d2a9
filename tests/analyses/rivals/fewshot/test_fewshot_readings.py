"""Few-shot readings of a model whose answers are known in closed form, and what accounts make of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from mechicl.accounts.contexts import Contexts
from mechicl.accounts.judging import judge_accounts
from mechicl.accounts.labels import ANCHOR, label_accounts
from mechicl.analyses.rivals.fewshot.kernels import compared_layers, input_kernels
from mechicl.analyses.rivals.fewshot.layout import LabelLayout
from mechicl.analyses.rivals.fewshot.orders import answers, reordered
from mechicl.analyses.rivals.fewshot.readings import read_fewshot
from mechicl.hooks.demos.alone import AloneRuns
from mechicl.hooks.demos.readings import read_demonstrations
from mechicl.hooks.wrapper import wrap
from mechicl.organisms import planted_kernel
from mechicl.tasks.fewshot import fewshot_prompts
from mechicl.tasks.similarity import WordOverlap

LENGTHS = (3, 6)
READ: dict[str, Any] = {"lengths": LENGTHS, "n_contexts": 24, "n_orders": 3, "progress": False, "seed": 1}


@pytest.fixture(scope="module")
def planted() -> Any:
    return planted_kernel(dtype="float64", n_labels=3, seed=2)


@pytest.fixture(scope="module")
def read(planted: Any) -> list[Contexts]:
    return read_fewshot(planted.model, planted.task, **READ)


def drawn(planted: Any, n: int) -> Any:
    return fewshot_prompts(
        planted.task, n, 24, tokenizer=planted.tokenizer, seed=1, balanced=False, first_tokens="distinct"
    )


def test_answers_attention_and_labels_are_those_in_closed_form(planted: Any, read: list[Contexts]) -> None:
    for one, n in zip(read, LENGTHS, strict=True):
        prompts = drawn(planted, n)
        assert one.length == n and one.mask is None
        np.testing.assert_allclose(one.model, softmax(planted.label_log_probs(prompts), axis=-1), atol=1e-9)
        for role, own in planted.attention(prompts).items():
            layer, head = planted.heads[role]
            np.testing.assert_allclose(one.examples.attention[f"L{layer}H{head}"], own, atol=1e-9)
        for i, prompt in enumerate(prompts):
            labels = [planted.task.labels[k] for k in one.examples.shown[i].argmax(-1)]
            assert labels == list(prompt.demo_labels) and one.examples.shown[i].sum() == n
            assert planted.task.labels[int(one.truth[i].argmax())] == prompt.label and one.cluster[i] == prompt.query
    np.testing.assert_array_equal(read[0].cluster, read[1].cluster)  # the same queries at all lengths


def test_order_is_nothing_to_this_model_and_orders_are_orders(planted: Any, read: list[Contexts]) -> None:
    for one in read:
        assert one.orders is not None and one.orders.shape[0] == 3
        np.testing.assert_array_equal(one.orders[0], one.model)
        np.testing.assert_allclose(one.orders, np.broadcast_to(one.model, one.orders.shape), atol=1e-9)
    prompts = drawn(planted, 6)
    versions = reordered(wrap(planted.model), planted.task, prompts, 3, prepend_bos=True, seed=0)
    assert len(versions) == 2
    for own, first, second in zip(prompts, *versions, strict=True):
        for other in (first, second):
            assert sorted(zip(other.demos, other.demo_labels, strict=True)) == sorted(
                zip(own.demos, own.demo_labels, strict=True)
            )
            assert (other.query, other.labels) == (own.query, own.labels)
    assert sum(own.demos != first.demos for own, first in zip(prompts, versions[0], strict=True)) > 18


def test_a_model_that_reads_order_is_seen_to(planted: Any) -> None:
    recent = planted_kernel(dtype="float64", writes=("recency",), seed=2)
    found = read_fewshot(recent.model, recent.task, rates=(), **READ)
    assert all(one.orders is not None and np.ptp(one.orders, axis=0).max() > 0.1 for one in found)


def test_the_planted_head_is_chosen_and_explains_all(planted: Any, read: list[Contexts]) -> None:
    found = judge_accounts(read, label_accounts(read[0].examples), anchor=ANCHOR, n_boot=200)
    layer, head = planted.heads["rbf"]
    assert found.named == "attention of one head"
    assert found.parameters[found.named]["head"] == f"L{layer}H{head}"
    assert found.row(found.named)["distance"] < 1e-5 and found.row(found.named)["share"] > 0.999
    rng = np.random.default_rng(0)
    shuffled = [
        replace(one, examples=replace(one.examples, shown=rng.permutation(one.examples.shown, axis=0))) for one in read
    ]
    null = judge_accounts(shuffled, label_accounts(read[0].examples), anchor=ANCHOR, n_boot=200)
    assert null.named != "attention of one head" and null.row("attention of one head")["share"] < 0.2


def test_kernels_of_inputs_by_hand(planted: Any) -> None:
    wrapped, prompts = wrap(planted.model), drawn(planted, 3)[:4]
    alone = AloneRuns(wrapped, memory=1 << 20, budget=1 << 28)
    read = read_demonstrations(wrapped, prompts, places=("ask",), n_references=2, progress=False)
    with wrapped.evaluating():
        found = input_kernels(wrapped, planted.task, prompts, alone, read)
    layer = compared_layers(wrapped.n_layers)[0]
    for i, one in enumerate(prompts):
        states = []
        for text in [*(own.tokens[: own.roles["label"][0]] for own in one.examples), one.zero_shot.tokens]:
            _, cache = planted.model.run_with_cache(torch.tensor([text]))
            states.append(cache[f"blocks.{layer - 1}.hook_resid_post"][0, -1].double().numpy())
        query = states.pop()
        cosines = [s @ query / np.linalg.norm(s) / np.linalg.norm(query) for s in states]
        np.testing.assert_allclose(found[f"states, layer {layer}"][i], cosines, atol=1e-9)
        _, cache = planted.model.run_with_cache(torch.tensor([one.prompt.tokens]))
        inside = cache[f"blocks.{layer - 1}.hook_resid_post"][0].double().numpy()
        places = [one.prompt.roles[f"demo[{k}].label"][0] - 1 for k in range(3)]
        norms = np.linalg.norm(inside[places], axis=-1) * np.linalg.norm(inside[-1])
        np.testing.assert_allclose(found[f"states in context, layer {layer}"][i], inside[places] @ inside[-1] / norms)
        overlap = WordOverlap(planted.task.frame["text"].tolist()).cosines([one.query_text], one.demo_texts)[0]
        np.testing.assert_allclose(found["words"][i], overlap)


def test_layers_that_are_compared() -> None:
    assert compared_layers(30) == (15, 25) and compared_layers(2) == (1,) and compared_layers(1) == (1,)


def test_labels_that_differ_from_prompt_to_prompt_lie_on_one_axis(planted: Any) -> None:
    prompts = fewshot_prompts(planted.task, 2, 12, tokenizer=planted.tokenizer, seed=0, balanced=False, n_candidates=2)
    layout = LabelLayout(prompts, planted.task.labels)
    own = answers(wrap(planted.model), prompts, progress=False)
    log_probs, mask = layout.log_probs(own), layout.mask
    assert mask is not None and (mask.sum(-1) == 2).all()
    for i, one in enumerate(prompts):
        for label, value in zip(one.labels, own[i] - np.logaddexp(*own[i]), strict=True):
            assert log_probs[i, planted.task.labels.index(label)] == pytest.approx(value)
        for demo, label in enumerate(one.demo_labels):
            assert layout.one_hot[i, demo, planted.task.labels.index(label)] == (label in one.labels)
    assert np.isneginf(log_probs[~mask]).all()


def test_finished_work_is_taken_from_the_store_and_nothing_is_left_on_the_model(
    planted: Any, read: list[Contexts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapped = wrap(planted.model)
    before = wrapped.checksum()
    first = read_fewshot(planted.model, planted.task, store=tmp_path, **READ)
    refuse = lambda *_, **__: pytest.fail("run again")  # noqa: E731
    monkeypatch.setattr("mechicl.hooks.demos.runs.DemoRun.read", refuse)
    monkeypatch.setattr("mechicl.analyses.rivals.fewshot.gradients.DemoGradients.read", refuse)
    monkeypatch.setattr("mechicl.analyses.rivals.fewshot.orders.label_log_probs", refuse)
    again = read_fewshot(planted.model, planted.task, store=tmp_path, **READ)
    for one, two, three in zip(first, again, read, strict=True):
        for found in (two, three):
            np.testing.assert_array_equal(one.model, found.model)
            np.testing.assert_array_equal(one.orders, found.orders)
            for name, own in one.examples.stepped.items():
                np.testing.assert_array_equal(own, found.examples.stepped[name])
    assert wrapped.checksum() == before and not wrapped.has_hooks()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lengths": (1, 2)}, "lengths"),
        ({"lengths": (2, 2)}, "lengths"),
        ({"n_contexts": 3}, "n_contexts"),
        ({"n_orders": 0}, "n_orders"),
        ({"rates": (0.1, -1.0)}, "learning_rate"),
        ({"rates": (0.1, 0.1)}, "rates"),
        ({"lengths": (60,), "n_contexts": 4}, "fit"),
    ],
)
def test_what_cannot_be_read_is_refused_before_the_model_runs(
    planted: Any, options: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(planted.model), "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=said):
        read_fewshot(planted.model, planted.task, **(READ | options))
