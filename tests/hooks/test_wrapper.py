"""One face over both kinds of model: what it reports must be what the model computes with."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from einops import einsum

from mechicl.hooks import wrap

KINDS = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native", "hooked"]


def seen(wrapped: Any, names: list[tuple[str, int | None]], tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    hooks = [(name, layer, lambda x, key=f"{name}{layer}": found.update({key: x.clone()})) for name, layer in names]
    with wrapped.evaluating(), wrapped.hooked(hooks):
        wrapped.model(tokens)
    return found


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_weights_are_those_of_the_activations(tiny_model: Callable[..., Any], kind: str) -> None:
    wrapped = wrap(tiny_model(kind))
    tokens = torch.tensor([[3, 5, 6, 7, 8]])
    found = seen(wrapped, [("resid_pre", 1), ("q", 1), ("k", 1), ("v", 1), ("z", 1), ("pattern", 1)], tokens)
    assert found["resid_pre1"].shape == (1, 5, wrapped.d_model)
    assert found["q1"].shape == (1, 5, wrapped.n_heads, wrapped.d_head)
    assert found["k1"].shape == found["v1"].shape == (1, 5, wrapped.n_kv_heads, wrapped.d_head)
    assert found["pattern1"].shape == (1, wrapped.n_heads, 5, 5)
    assert wrapped.W_Q(1).shape == (wrapped.n_heads, wrapped.d_model, wrapped.d_head)
    assert wrapped.W_K(1).shape == wrapped.W_V(1).shape == (wrapped.n_kv_heads, wrapped.d_model, wrapped.d_head)
    assert wrapped.W_O(1).shape == (wrapped.n_heads, wrapped.d_head, wrapped.d_model)
    # z is the pattern over values, query head h reading key-value head h // group
    group = wrapped.n_heads // wrapped.n_kv_heads
    values = found["v1"].repeat_interleave(group, dim=2)
    z = einsum(found["pattern1"], values, "batch head query key, batch key head d_head -> batch query head d_head")
    torch.testing.assert_close(found["z1"], z, atol=1e-5, rtol=1e-4)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["llama", "qwen2", "native", "hooked"])
def test_heads_add_up_to_the_attention_output(tiny_model: Callable[..., Any], kind: str) -> None:
    wrapped = wrap(tiny_model(kind))
    found = seen(wrapped, [("z", 0), ("attn_out", 0)], torch.tensor([[3, 5, 6, 7]]))
    heads = einsum(found["z0"], wrapped.W_O(0), "batch pos head d_head, head d_head d_model -> batch pos d_model")
    torch.testing.assert_close(found["attn_out0"], heads, atol=1e-5, rtol=1e-4)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["llama", "hooked"])
def test_only_own_hooks_are_removed_also_after_an_error(tiny_model: Callable[..., Any], kind: str) -> None:
    wrapped = wrap(tiny_model(kind))
    wrapped.point("z", 0).add_hook(lambda z, hook: z * 0)
    wrapped.point("z", 1).add_hook(lambda z, hook: None, is_permanent=True)
    before = [list(point.fwd_hooks) for point in wrapped.model.hook_dict.values()]
    with pytest.raises(RuntimeError), wrapped.hooked([("z", 0, lambda z: None), ("pattern", 1, lambda p: None)]):
        raise RuntimeError
    with pytest.raises(ValueError), wrapped.hooked([("z", 0, lambda z: None), ("z", 99, lambda z: None)]):
        pass
    assert [list(point.fwd_hooks) for point in wrapped.model.hook_dict.values()] == before


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_kept_logits_are_rows_of_all_logits(tiny_model: Callable[..., Any], kind: str) -> None:
    wrapped = wrap(tiny_model(kind))
    tokens = torch.tensor([[3, 5, 6], [4, 8, 9]])
    with wrapped.evaluating():
        whole = wrapped.model(tokens).flatten(0, 1)
        torch.testing.assert_close(wrapped.logits(tokens, torch.tensor([1, 5, 5])), whole[[1, 5, 5]])


@pytest.mark.core
def test_facts_tell_models_apart(tiny_model: Callable[..., Any]) -> None:
    one, other = wrap(tiny_model("llama")), wrap(tiny_model("llama"))
    assert one.facts() == other.facts()
    assert one.facts()["n_params"] == sum(p.numel() for p in one.model.parameters())
    assert one.facts()["processed"] is False
    with torch.no_grad():
        next(iter(other.model.parameters())).view(-1)[0] += 1
    assert one.checksum() != other.checksum()


def test_processing_is_recorded(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2")
    model.enable_compatibility_mode()
    assert wrap(model).facts()["processed"] is True


def test_an_activation_that_is_not_there_is_named(tiny_model: Callable[..., Any]) -> None:
    wrapped = wrap(tiny_model("gpt_neox"))
    with pytest.raises(ValueError, match="unknown activation 'resid'"):
        wrapped.point("resid", 0)
    with pytest.raises(ValueError, match="layers 0 to 1"):
        wrapped.point("z", 2)
