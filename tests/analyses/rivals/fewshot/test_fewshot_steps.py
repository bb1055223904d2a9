"""One step on all demonstrations of a prompt: autograd on copies of the weights as oracle, rates, memory, resuming."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechicl.analyses.resemblance.variants import learner_of
from mechicl.analyses.rivals.fewshot.gradients import DemoGradients
from mechicl.analyses.rivals.fewshot.orders import answers
from mechicl.analyses.rivals.fewshot.steps import DemoSteps, scaled
from mechicl.hooks.steps.dense_steps import text_loss
from mechicl.hooks.steps.sites import chosen_parameters, weight_sites
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts, given_prompts

RATES = (0.01, 0.05)


def task() -> FewShotTask:
    texts = [f"{a} {b}" for a in ("old", "new", "king", "ball") for b in ("ring", "cake", "file")]
    labels = ["good" if i % 2 else "bad" for i in range(len(texts))]
    return FewShotTask("letters", pd.DataFrame({"text": texts, "label": labels}), template="{text}\n{label}\n\n")


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def wrapped(request: pytest.FixtureRequest, tiny_model: Callable[..., Any]) -> WrappedModel:
    return wrap(tiny_model(request.param, 128))


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    """Of two lengths; demonstrations are shared."""
    return [one for n in (2, 3) for one in fewshot_prompts(task(), n, 2, tokenizer=tiny_tokenizer, seed=0)]


def by_autograd(wrapped: WrappedModel, one: FewShotPrompt, rate: float, parameters: Any = "all") -> np.ndarray:
    """The same with the weights of a copy moved."""
    copied = wrap(copy.deepcopy(wrapped.model))
    chosen = list(chosen_parameters(copied, parameters).values())
    for parameter in chosen:
        parameter.requires_grad_(True)
    with copied.evaluating(), torch.enable_grad():
        loss = sum(text_loss(copied, [text])[0] for text in learner_of(one))
        gradients = torch.autograd.grad(loss, chosen, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(chosen, gradients, strict=True):
            if gradient is not None:
                parameter.sub_(rate * gradient)
    return answers(copied, [one], zero_shot=True, progress=False)[0]


@pytest.mark.parametrize("parameters", ["all", "key_value"])
def test_a_step_is_that_of_autograd_on_the_summed_loss(
    wrapped: WrappedModel, prompts: list[FewShotPrompt], parameters: Any
) -> None:
    before = wrapped.checksum()
    found = DemoSteps(wrapped, parameters=parameters).log_probs(prompts, RATES, progress=False)
    alone = answers(wrapped, prompts, zero_shot=True, progress=False)
    for one, own, unmoved in zip(prompts, found, alone, strict=True):
        for rate, values in zip(RATES, own, strict=True):
            np.testing.assert_allclose(values, by_autograd(wrapped, one, rate, parameters), atol=2e-4)
        assert np.abs(own[1] - unmoved).max() > 5e-3  # or a step that does nothing would pass
    assert wrapped.checksum() == before and not wrapped.has_hooks()


def test_order_memory_and_the_dense_way_change_nothing(
    wrapped: WrappedModel, prompts: list[FewShotPrompt], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = prompts[2:]
    found = DemoSteps(wrapped).log_probs(three, RATES, progress=False)
    turned = given_prompts(
        task(), [one.query for one in three], [one.demos[::-1] for one in three], tokenizer=tiny_tokenizer
    )
    tight = DemoSteps(wrapped, memory_budget=1 << 16)
    monkeypatch.setattr("mechicl.analyses.rivals.fewshot.steps.way_to_step", lambda *_: "low rank")
    others = [
        DemoSteps(wrapped).log_probs(turned, RATES, progress=False),
        tight.log_probs(three, RATES, progress=False),
    ]
    monkeypatch.setattr("mechicl.analyses.rivals.fewshot.steps.way_to_step", lambda *_: "dense")
    others.append(DemoSteps(wrapped).log_probs(three, RATES, progress=False))
    for other in others:
        np.testing.assert_allclose(np.stack(other), np.stack(found), atol=1e-4)


def test_a_demonstration_is_read_once(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    texts = [text for one in prompts for text in learner_of(one)]
    single = DemoGradients(wrapped, weight_sites(wrapped, "all"), 1 << 30)
    for _ in range(2):
        single.step([learner_of(one) for one in prompts[:2]])
        single.read(texts)
    assert single.n_runs == len(set(texts)) < len(texts)


def test_the_unit_of_rates_is_what_lowers_a_loss_by_a_nat(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    matrices = lambda name: chosen_parameters(wrapped, "all")[name].ndim == 2 and ".mlp." in name  # noqa: E731
    steps = DemoSteps(wrapped, parameters=matrices)
    unit = steps.unit_rate(prompts)
    squared = []
    for text in list(dict.fromkeys(text for one in prompts for text in learner_of(one)))[:8]:
        small = 1e-3 * unit
        with wrapped.evaluating():
            before = float(text_loss(wrapped, [text])[0])
            with scaled(steps.single.step([[text]]), small).applied():
                after = float(text_loss(wrapped, [text])[0])
        squared.append((before - after) / small)
    assert 1 / np.median(squared) == pytest.approx(unit, rel=0.05)
