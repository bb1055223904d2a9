"""Attribution: bad input, hooks of the user, other number formats, and a model that is left as it was."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.attribution import attribute_heads
from mechicl.hooks.patch_items import PatchItem, log_odds
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.wrapper import wrap


@pytest.mark.parametrize("kind", ["gpt2", "native"])
def test_the_model_is_left_as_it_was(
    kind: str, short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model, items = tiny_model(kind).train(), short_items(2)
    parameters = list(model.parameters())
    parameters[1].requires_grad_(False)  # a mixed state must come back mixed

    def state() -> Any:
        flags = [parameter.requires_grad for parameter in parameters]
        training = [module.training for module in model.modules()]
        backward = [len(module._backward_hooks) + len(module._forward_hooks) for module in model.modules()]
        return wrap(model).checksum(), flags, training, backward, torch.is_grad_enabled(), wrap(model).has_hooks()

    def fail(log_probs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        if log_probs[0].requires_grad:
            raise KeyError("a mistake in the metric")
        return log_odds(log_probs)

    with torch.no_grad():
        model(torch.tensor([[5, 6]]))  # at a first run transformers installs hooks of its own
    before = state()
    attribute_heads(model, items, roles=["target"], progress=False)
    assert state() == before
    with pytest.raises(KeyError, match="a mistake"):
        attribute_heads(model, items, roles=["target"], metric=fail, progress=False)
    assert state() == before
    assert all(parameter.grad is None for parameter in parameters)


def test_inside_inference_mode(short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]) -> None:
    model, items = known_model("llama"), short_items(2)
    usual = attribute_heads(model, items, roles=["target"], progress=False)
    with torch.inference_mode():
        inside = attribute_heads(model, items, roles=["target"], progress=False)
        assert torch.is_inference_mode_enabled()
    np.testing.assert_allclose(inside.effects, usual.effects, atol=1e-6)


def test_hooks_of_the_user_act(short_items: Callable[..., list[PatchItem]], bare_model: Any) -> None:
    items = short_items(3, one_token=True)
    plain_run = attribute_heads(bare_model, items, roles=["stem"], progress=False)
    bare_model.add_hook("blocks.0.attn.hook_z", lambda z, hook: z * 0.1)
    try:
        with pytest.warns(UserWarning, match="hooks of yours") as caught:
            found = attribute_heads(bare_model, items, roles=["stem"], progress=False)
        assert len(caught) == 1
        with pytest.warns(UserWarning, match="hooks of yours"):
            truth = patch_heads(bare_model, items, roles=["stem"], progress=False).effects[4:]
    finally:
        bare_model.reset_hooks()
    np.testing.assert_allclose(found.effects[1], truth, atol=1e-9)
    assert np.abs(found.effects[1] - plain_run.effects[1]).max() > 1e-3


def test_a_hook_that_detaches_is_noticed(
    short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model = tiny_model("gpt2")
    model.add_hook("unembed.hook_in", lambda x, hook: x.detach())
    with pytest.warns(UserWarning, match="hooks of yours"), pytest.raises(ValueError, match="no gradient passes"):
        attribute_heads(model, short_items(1), roles=["target"], progress=False)


def test_bfloat16_is_close(short_items: Callable[..., list[PatchItem]], tiny_folder: Callable[..., Any]) -> None:
    import mechicl

    single, half = (mechicl.load(tiny_folder("llama"), device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    runs = [attribute_heads(m, short_items(4), roles=["target"], progress=False).effects for m in (single, half)]
    assert np.corrcoef(runs[0].ravel(), runs[1].ravel())[0, 1] > 0.99
    assert np.abs(runs[0] - runs[1]).max() > 0


def test_a_role_that_nothing_reads_has_no_effect(
    short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    items = []
    for item in short_items(2):
        sides = [
            tuple(replace(p, roles={**p.roles, "end": (len(p) - 1, len(p))}) for p in side)
            for side in (item.prompts, item.donors)
        ]
        items.append(PatchItem(*sides))
    found = attribute_heads(known_model("gpt2"), items, roles=["end"], progress=False)
    assert not found.effects.any() and np.isfinite(found.clean).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": ["theme"]}, "no role 'theme'"),
        ({"integrated_steps": 0}, "integrated_steps=0"),
        ({"joint": True}, "joint=True"),
        ({"weights": np.ones(3)}, "one finite number for each of 2 items"),
        ({"weights": np.array([1, np.nan])}, "one finite number"),
        ({"memory_budget": 1000}, "raise the budget"),
        ({"metric": lambda x: log_odds(x).detach()}, "no gradient"),
        ({"metric": lambda x: log_odds(x) * torch.nan}, "not finite for item"),
        ({"metric": lambda x: log_odds(x).sum()}, "keep the others"),
    ],
)
def test_bad_input(
    options: dict[str, Any], message: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model = known_model("gpt2")
    with pytest.raises(ValueError, match=message):
        attribute_heads(model, short_items(2), **{"roles": ["target"], "progress": False, **options})
    assert not wrap(model).has_hooks()
