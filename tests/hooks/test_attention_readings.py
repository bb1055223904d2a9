"""Attention at the last token: equal to the cache of a run alone, with and without changed weights."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.attention_readings import attention_states, token_numbers
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import low_rank_steps
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.prompts import Prompt

KINDS = ["gpt2", "llama", "gpt_neox", "gemma3_text", "hooked"]
PROMPTS = [
    Prompt((0, 5, 6, 7, 8, 9), {"demo[0]": (1, 3), "query": (4, 6)}),
    Prompt((0, 11, 12), {"demo[0]": (1, 2), "query": (2, 3)}),
    Prompt((0, 20, 21, 22), {"demo[0]": (1, 2), "query": (2, 4)}),
]


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_a_run_alone_caches(kind: str, known_model: Callable[..., Any]) -> None:
    model = known_model(kind)
    for prompt, found in zip(PROMPTS, attention_states(model, PROMPTS, inputs=True), strict=True):
        with torch.no_grad():
            _, cache = model.run_with_cache(torch.tensor([prompt.tokens]))
        assert found.scores is not None and found.inputs is not None
        for layer in range(len(found.output)):
            at = f"blocks.{layer}"
            np.testing.assert_allclose(found.output[layer], cache[f"{at}.hook_attn_out"][0, -1], atol=1e-5)
            np.testing.assert_allclose(found.scores[layer], cache[f"{at}.attn.hook_attn_scores"][0, :, -1], atol=1e-4)
            np.testing.assert_allclose(found.inputs[layer], cache[f"{at}.ln1.hook_normalized"][0], atol=1e-5)
            if kind != "gpt_neox":  # attention and MLP side by side: no stream between them
                added = cache[f"{at}.hook_resid_mid"] - cache[f"{at}.hook_resid_pre"]
                np.testing.assert_allclose(found.output[layer], added[0, -1], atol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["gpt2", "llama", "hooked"])
def test_scores_are_those_before_the_softmax(kind: str, known_model: Callable[..., Any]) -> None:
    model = known_model(kind)
    found = attention_states(model, PROMPTS[:1])[0]
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([PROMPTS[0].tokens]))
    weights = np.exp(found.scores) / np.exp(found.scores).sum(-1, keepdims=True)
    for layer, own in enumerate(weights):
        np.testing.assert_allclose(own, cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1], atol=1e-5)


def test_a_pattern_is_not_taken_for_scores(known_model: Callable[..., Any]) -> None:
    found = attention_states(known_model("native"), PROMPTS)
    assert all(one.scores is None for one in found)
    with pytest.raises(ValueError, match="no attention scores before the softmax"):
        found[0].scores_of(["query"])


def test_roles_choose_tokens_in_their_order(known_model: Callable[..., Any]) -> None:
    found = attention_states(known_model("gpt2"), PROMPTS)[0]
    assert found.scores is not None
    np.testing.assert_array_equal(found.scores_of(["query", "demo[0]"]), found.scores[..., [4, 5, 1, 2]])
    assert token_numbers(PROMPTS[0], ["demo[0]"]) == [1, 2]
    with pytest.raises(ValueError, match="unknown role 'verb'"):
        found.scores_of(["verb"])


@pytest.mark.parametrize("budget", [1, 1 << 30])
def test_each_prompt_runs_with_its_learner(budget: int, known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("llama"))
    learners = [[Continuation((0, 30 + i, 31, 32), 1)] for i in range(3)]
    together = low_rank_steps(wrapped, learners, learning_rate=0.5)
    found = attention_states(wrapped, PROMPTS, updates=together, memory_budget=budget)
    for prompt, learner, own in zip(PROMPTS, learners, found, strict=True):
        alone = low_rank_steps(wrapped, [learner], learning_rate=0.5)
        expected = attention_states(wrapped, [prompt], updates=alone)[0]
        np.testing.assert_allclose(own.output, expected.output, atol=1e-5)
        np.testing.assert_allclose(own.scores, expected.scores, atol=1e-4)
        assert abs(own.output - attention_states(wrapped, [prompt])[0].output).max() > 1e-2


def test_nothing_of_it_stays(known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("llama"))
    before, hooks = wrapped.checksum(), [len(m._forward_hooks) for m in wrapped.model.modules()]
    attention_states(wrapped, PROMPTS, inputs=True)
    broken = wrapped.point("attn_out", 1)
    handle = broken.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attention_states(wrapped, PROMPTS)
    handle.remove()
    assert before == wrapped.checksum() and hooks == [len(m._forward_hooks) for m in wrapped.model.modules()]


def test_bad_input_is_refused(known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("llama"))
    with pytest.raises(ValueError, match="no prompts"):
        attention_states(wrapped, [])
    with pytest.raises(ValueError, match="prompt 1 has 65 tokens, but the model's context window holds 64"):
        attention_states(wrapped, [PROMPTS[0], Prompt((0,) * 65, {})])
    updates = low_rank_steps(wrapped, [[Continuation((0, 5, 6), 1)]], learning_rate=0.1)
    with pytest.raises(ValueError, match="3 prompts and 1 learners"):
        attention_states(wrapped, PROMPTS, updates=updates)
