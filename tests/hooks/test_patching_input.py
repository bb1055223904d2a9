"""What patching refuses, before any long work, and what it says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.head_sets import by_head
from mechicl.hooks.patch_items import PatchItem, log_odds, span_log_prob
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.replacements import Zero
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.prompts import Prompt

ROLES = {"prime": (1, 3), "target": (3, 6), "scored": (4, 6)}
ONE = Prompt((0, 5, 6, 7, 8, 9), ROLES)
OTHER = Prompt((0, 15, 16, 7, 8, 9), ROLES)
LONE = PatchItem((ONE,), (OTHER,))


@pytest.mark.parametrize(
    ("items", "roles", "message"),
    [
        ([], ["target"], "no items"),
        ([LONE], [], "roles"),
        ([LONE], "target", "list of role names"),
        ([LONE, PatchItem((ONE,))], ["target"], "item 1 has no donors"),
        ([PatchItem((ONE,), (OTHER, OTHER))], ["target"], "1 prompts and 2 donors"),
        ([PatchItem((ONE,), (Prompt((0, 15, 16, 7, 8, 10), ROLES),))], ["target"], "must have the same target"),
        ([LONE], ["prime.preposition"], "item 0, prompt has no role 'prime.preposition'"),
        (
            [PatchItem((Prompt(ONE.tokens, {**ROLES, "prime.preposition": (2, 3)}),), (OTHER,))],
            ["prime.preposition"],
            "item 0, donor has no role 'prime.preposition'",
        ),
        ([PatchItem((Prompt((7, 8), {"scored": (0, 2)}),), (Prompt((7, 8), {"scored": (0, 2)}),))], ["scored"], "BOS"),
        ([PatchItem((Prompt((0, 99_999), {"scored": (1, 2)}),), None)], ["scored"], "no donors"),
        ([PatchItem((Prompt((0, 99_999, 3), {"scored": (2, 3)}),), (ONE,))], ["scored"], "token ids outside"),
    ],
)  # fmt: skip
def test_bad_items(items: list[PatchItem], roles: Any, message: str, tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=message):
        patch_heads(tiny_model("gpt2"), items, roles=roles, metric=span_log_prob, progress=False)


def test_a_text_that_is_too_long(tiny_model: Callable[..., Any]) -> None:
    long = Prompt((*([0] * 70), 5), {"scored": (70, 71)})
    with pytest.raises(ValueError, match="71 tokens; the model's context window holds 64"):
        patch_heads(tiny_model("gpt2"), [PatchItem((long,), (long,))], roles=["last"], progress=False)


@pytest.mark.parametrize("head", [(2, 0), (0, 4), (-1, 0)])
def test_heads_that_the_model_has_not(head: tuple[int, int], tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="has layers 0 to 1 and heads 0 to 3"):
        patch_heads(tiny_model("gpt2"), [LONE], roles=["target"], sets=[[head]], progress=False)


def test_a_budget_below_one_item(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"memory_budget is 1000 bytes.*raise the budget"):
        patch_heads(tiny_model("gpt2"), [LONE], roles=["target"], memory_budget=1000, progress=False)


def test_metrics_that_do_not_fit(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2")
    with pytest.raises(ValueError, match="two prompts, got 1"):
        patch_heads(model, [LONE], roles=["target"], metric=log_odds, progress=False)
    with pytest.raises(ValueError, match="one prompt, got 2"):
        patch_heads(
            model, [PatchItem((ONE, ONE), (OTHER, OTHER))], roles=["target"], metric=span_log_prob, progress=False
        )
    with pytest.raises(ValueError, match="must reduce the last axis"):
        patch_heads(model, [LONE], roles=["target"], metric=lambda x: x[0], progress=False)
    with pytest.raises(ValueError, match="not finite for item 0"):
        patch_heads(model, [LONE], roles=["target"], metric=lambda x: x[0].sum(-1) / 0, progress=False)
    assert not wrap(model).has_hooks()


def test_weights_that_are_not_finite(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2")
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite for item 0"), pytest.warns(UserWarning, match="whole model"):
        patch_heads(model, [LONE], roles=["target"], metric=span_log_prob, progress=False)


def test_hooks_of_the_users_go_the_slow_way(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    plain = patch_heads(model, [LONE], roles=["target"], metric=span_log_prob, progress=False)
    model.add_hook("blocks.0.hook_resid_pre", lambda x, hook: x * 0.5)
    with pytest.warns(UserWarning, match="carries hooks of yours"):
        hooked = patch_heads(model, [LONE], roles=["target"], metric=span_log_prob, progress=False)
    assert abs(hooked.clean - plain.clean).max() > 1e-3
    with pytest.raises(ValueError, match="carries hooks"):
        patch_heads(model, [LONE], roles=["target"], metric=span_log_prob, progress=False, store="unused")
    assert wrap(model).has_hooks()


def test_a_window_shorter_than_the_text_goes_the_slow_way(tiny_model: Callable[..., Any]) -> None:
    tokens = tuple(np.random.default_rng(0).integers(2, 300, size=24).tolist())
    roles = {"target": (20, 24), "scored": (22, 24)}
    item = PatchItem((Prompt(tokens, roles),), (Prompt((*tokens[:3], 7, *tokens[4:]), roles),))
    model = tiny_model("gemma3_text")
    with pytest.warns(UserWarning, match="attention window of 16"):
        patch_heads(model, [item], roles=["target"], metric=span_log_prob, replacement=Zero(), progress=False)


def test_heads_that_cannot_be_told_apart(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="cannot be told apart"):
        by_head(wrap(tiny_model("gpt2")), torch.zeros(2, 3, 31))
