"""Sites hold every weight once, whatever the architecture, and what is no site is named."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from mechicl.hooks.steps.sites import chosen_parameters, swapped_parameters, weight_sites
from mechicl.hooks.wrapper import wrap

ARCHITECTURES = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_parameter_has_its_sites(known_model: Callable[..., Any], kind: str) -> None:
    wrapped = wrap(known_model(kind))
    sites = weight_sites(wrapped)
    named = [name for site in sites for name in (site.weight, site.bias) if name]
    every = dict(wrapped.model.named_parameters())
    assert set(named) == set(every)
    places = {name: named.count(name) for name in every}  # a tied weight acts in two places
    assert {name for name, n in places.items() if n > 1} <= {n for n in every if "wte" in n or "embed_tokens" in n}
    assert max(places.values()) == (2 if kind in ("gpt2", "gemma3_text") else 1)
    for site in sites:
        assert site.weight is None or site.module._parameters["weight"] is every[site.weight]
        assert site.bias is None or site.module._parameters["bias"] is every[site.bias]
    norms = [site for site in sites if site.kind == "norm"]
    assert len(norms) == sum("norm" in n or "ln" in n for n in every if n.endswith("weight"))
    assert {site.offset for site in norms} == {1.0 if kind == "gemma3_text" else 0.0}
    scales = [site.scale for site in sites if site.kind == "embedding"]
    assert len(scales) == (2 if kind in ("gpt2", "native") else 1)
    assert scales == pytest.approx([math.sqrt(32) if kind == "gemma3_text" else 1.0] * len(scales))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_choices_take_what_they_say(known_model: Callable[..., Any], kind: str) -> None:
    wrapped = wrap(known_model(kind))
    found = {name: chosen_parameters(wrapped, name) for name in ("all", "attention", "key_value", "mlp")}
    every = found["all"]
    assert found["key_value"].keys() < found["attention"].keys() < every.keys()
    assert not found["attention"].keys() & found["mlp"].keys()
    blocks = wrapped.model.blocks
    own = {id(p) for block in blocks for part in (block.attn.k, block.attn.v) for p in part.parameters()}
    assert {id(p) for p in found["key_value"].values()} == own
    assert all("mlp" in name for name in found["mlp"]) and len(found["mlp"]) == sum("mlp" in name for name in every)
    assert not any("norm" in name and "self_attn" not in name for name in found["attention"])
    picked = chosen_parameters(wrapped, lambda name: name.endswith("bias") or "mlp" in name)
    assert picked.keys() == {name for name in every if name.endswith("bias") or "mlp" in name}
    # Embeddings are always there, for gradients start from them; unchosen, they have no weight to be changed.
    sites = weight_sites(wrapped, "key_value")
    assert {site.kind for site in sites} == {"embedding", "linear"}
    assert {site.weight for site in sites if site.kind == "embedding"} == {None}
    assert {n for site in sites for n in (site.weight, site.bias) if n} == found["key_value"].keys()


def test_unknown_choices_and_empty_ones_are_refused(known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("llama"))
    with pytest.raises(ValueError, match=r"got parameters=.keys.; expected .all., .key_value."):  # behind type checks
        inspect.unwrap(chosen_parameters)(wrapped, "keys")
    with pytest.raises(ValueError, match="no parameter of this model is chosen"):
        chosen_parameters(wrapped, lambda name: "adapter" in name)


def test_a_module_of_another_kind_is_named_where_it_is_chosen(tiny_model: Callable[..., Any]) -> None:
    class Mixture(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.Parameter(torch.zeros(3, 4, 5))

    model = tiny_model("native")
    before = len(weight_sites(wrap(model)))
    model.blocks[0].mlp.original_component.add_module("extra", Mixture())
    with pytest.raises(ValueError, match=r"a Mixture with \{'experts': \(3, 4, 5\)\} is no linear layer"):
        weight_sites(wrap(model))
    assert len(weight_sites(wrap(model), lambda name: "experts" not in name)) == before


def test_swapped_parameters_come_back_as_the_objects_they_were() -> None:
    for module in (torch.nn.LayerNorm(4), torch.nn.LayerNorm(4, bias=False), torch.nn.RMSNorm(4)):
        torch.nn.init.uniform_(module.weight)
        before = dict(module._parameters)
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
        expected, gain = module(x), module.weight.detach().clone()
        back = swapped_parameters(module, 2.0, 0.5)
        assert torch.equal(module.weight, torch.full((4,), 2.0)) and not module.weight.requires_grad
        bias = 0.5 if before.get("bias") is not None else 0.0
        torch.testing.assert_close(module(x), (expected / gain) * 2 + bias)
        back()
        assert dict(module._parameters).keys() == before.keys()
        assert all(module._parameters[name] is value for name, value in before.items())
        assert torch.equal(module(x), expected) and isinstance(module.weight, torch.nn.Parameter)
