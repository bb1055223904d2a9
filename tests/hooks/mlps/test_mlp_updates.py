"""The updated model without the context is the model with it: exactly, in hooks and in weights; and not by chance."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from mechicl.hooks.mlps.mlp_patches import State, chunks, matrix_update, with_rest
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.mlps.mlp_updates import build_updates, random_updates, run_updated
from mechicl.hooks.mlps.mlp_weights import context_in_weights, updated_weights
from mechicl.hooks.wrapper import wrap

CONTEXTS = [(0, 5, 9, 20, 31, 7, 100, 200), (0, 7, 8, 9, 200, 100)]
QUERIES = [(0, 7, 100, 200), (0, 200, 100)]  # GELU with biases; SwiGLU without; norms behind; parallel; native
KINDS = ["gpt2", "llama", "gemma3_text", "gpt_neox", "native"]


def exact(tiny_model: Any, kind: str) -> Any:
    """In float64, norms included: transformers' own norms compute in float32 whatever the dtype."""
    model = tiny_model(kind).to(torch.float64)
    for module in model.modules():
        if hasattr(module, "use_native_layernorm_autograd"):
            module.use_native_layernorm_autograd = False
    return model


def gap(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(((x - y).norm(dim=-1) / y.norm(dim=-1)).max().detach())


@pytest.mark.parametrize("kind", KINDS)
def test_the_updated_model_without_context_is_the_model_with_it(tiny_model, kind):
    wrapped = wrap(exact(tiny_model, kind))
    parts = find_mlps(wrapped)
    updates, goal, reached = build_updates(wrapped, parts, CONTEXTS, QUERIES)
    again = run_updated(wrapped, parts, QUERIES, updates)
    plain = wrapped.model(torch.tensor([CONTEXTS[1]]), return_type="logits")[0, -1]
    torch.testing.assert_close(goal.logits[1], plain, rtol=1e-12, atol=1e-12)
    for ends in (reached, again):
        assert gap(ends.resid, goal.resid) < 1e-12
        assert gap(ends.logits, goal.logits) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_weights_and_without_any_hook_as_well(tiny_model, kind):
    wrapped = wrap(exact(tiny_model, kind))
    parts, before = find_mlps(wrapped), wrapped.checksum()
    plain = wrapped.model(torch.tensor([CONTEXTS[0]]), return_type="logits")[0, -1]
    with context_in_weights(wrapped, parts, CONTEXTS[0], QUERIES[0]) as (updates, goal):
        assert not wrapped.has_hooks() and wrapped.checksum() != before
        found = wrapped.model(torch.tensor([QUERIES[0]]), return_type="logits")[0, -1]
        resid = run_updated(wrapped, parts, QUERIES[:1], None).resid
    assert gap(found, plain) < 1e-12
    assert gap(resid, goal.resid) < 1e-12
    assert wrapped.checksum() == before
    by_hooks, _, _ = build_updates(wrapped, parts, CONTEXTS[:1], QUERIES[:1])
    for part, one, other in zip(parts, updates, by_hooks, strict=True):
        for name, norm in one.norms(part).items():
            torch.testing.assert_close(norm, other.norms(part)[name], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3_text"])
def test_a_random_update_of_the_same_norms_fails(tiny_model, kind):
    wrapped = wrap(exact(tiny_model, kind))
    parts = find_mlps(wrapped)
    updates, goal, reached = build_updates(wrapped, parts, CONTEXTS, QUERIES)
    drawn = random_updates(updates, seed=0)
    for part, own, random in zip(parts, updates, drawn, strict=True):
        for name, norm in own.norms(part).items():
            torch.testing.assert_close(random.norms(part)[name], norm)
    failed = run_updated(wrapped, parts, QUERIES, drawn)
    assert gap(failed.resid, goal.resid) > 0.1 > 1e8 * gap(reached.resid, goal.resid)
    same = random_updates(updates, seed=0)
    assert torch.equal(same[0].rest, drawn[0].rest) and not torch.equal(
        random_updates(updates, seed=1)[0].rest, same[0].rest
    )


def test_factors_are_the_formula(tiny_model):
    """W (n_C - n_0) n_0^T / |n_0|^2 from activations that TransformerLens cached, in the first layer."""
    model = exact(tiny_model, "gpt2")
    wrapped = wrap(model)
    (own, *_), _, _ = build_updates(wrapped, find_mlps(wrapped), CONTEXTS[:1], QUERIES[:1])
    with torch.no_grad():
        with_context = model.run_with_cache(torch.tensor(CONTEXTS[:1]))[1]
        without = model.run_with_cache(torch.tensor(QUERIES[:1]))[1]
    n_c, n_0 = (cache["blocks.0.mlp.hook_in"][0, -1] for cache in (with_context, without))
    weight = model.blocks[0].mlp.W_in.detach().T
    expected = torch.outer(weight @ (n_c - n_0), n_0) / (n_0 @ n_0)
    torch.testing.assert_close(torch.outer(own.left[0][0], own.right[0]), expected, rtol=1e-10, atol=1e-13)
    base = with_context["blocks.0.hook_resid_mid"][0, -1] - without["blocks.0.hook_resid_mid"][0, -1]
    torch.testing.assert_close(own.rest[0], base, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(own.cosine[0], torch.nn.functional.cosine_similarity(n_c, n_0, dim=0))


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_weight_changes_have_rank_one_and_the_reported_norm(tiny_model, kind):
    wrapped = wrap(exact(tiny_model, kind))
    parts = find_mlps(wrapped)
    names = [name for name in (*parts[0].matrices, parts[0].rest_name) if name.startswith("W")]
    before = [{name: part.weight(name).clone() for name in names} for part in parts]
    with context_in_weights(wrapped, parts, CONTEXTS[0], QUERIES[0]) as (updates, _):
        for part, own, old in zip(parts, updates, before, strict=True):
            for name in names:
                sigma = torch.linalg.svdvals(part.weight(name) - old[name])
                assert sigma[1] / sigma[0] < 1e-10
                torch.testing.assert_close(sigma[0], own.norms(part)[name][0])


def test_no_context_is_no_update(tiny_model):
    for kind in ("gpt2", "gemma3_text"):
        wrapped = wrap(exact(tiny_model, kind))
        parts = find_mlps(wrapped)
        updates, _, _ = build_updates(wrapped, parts, QUERIES[:1], QUERIES[:1])
        for part, own in zip(parts, updates, strict=True):
            assert all(float(norm) < 1e-12 for norm in own.norms(part).values())
            assert float(own.cosine) == pytest.approx(1)


def test_batches_give_what_single_items_give(tiny_model, monkeypatch):
    wrapped = wrap(exact(tiny_model, "llama"))
    parts = find_mlps(wrapped)
    together = build_updates(wrapped, parts, CONTEXTS, QUERIES)
    monkeypatch.setattr("mechicl.hooks.mlps.mlp_patches._NODES", 1)
    apart = build_updates(wrapped, parts, CONTEXTS, QUERIES)
    assert chunks(CONTEXTS) == [slice(0, 1), slice(1, 2)]
    torch.testing.assert_close(together[2].logits, apart[2].logits, rtol=1e-10, atol=1e-12)
    for one, other in zip(together[0], apart[0], strict=True):
        torch.testing.assert_close(one.left[1], other.left[1], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(one.hidden, other.hidden, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("how", ["given", "built"])
def test_weights_come_back_bit_for_bit_also_after_an_error(tiny_model, how):
    wrapped = wrap(tiny_model("gemma3_text"))
    wrapped.model.blocks[0].mlp.gate.weight.requires_grad_(False)
    parts, before = find_mlps(wrapped), wrapped.checksum()
    flags = [parameter.requires_grad for parameter in wrapped.model.parameters()]
    updates, _, _ = build_updates(wrapped, parts, CONTEXTS, QUERIES)
    within: Any = updated_weights(parts, updates, 1)
    if how == "built":
        within = context_in_weights(wrapped, parts, CONTEXTS[0], QUERIES[0])
    with pytest.raises(RuntimeError, match="stop"), within:
        assert wrapped.checksum() != before
        raise RuntimeError("stop")
    assert wrapped.checksum() == before
    assert [parameter.requires_grad for parameter in wrapped.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in wrapped.model.parameters())
    assert all(not module._forward_hooks for module in wrapped.model.hook_dict.values())


def test_weights_come_back_where_an_update_is_undefined(tiny_model):
    """The second layer's input is made 0: the first layer is changed already when that is found."""
    wrapped = wrap(tiny_model("llama"))
    parts, before = find_mlps(wrapped), wrapped.checksum()
    point = wrapped.model.blocks[1].mlp.hook_in
    handle = point.register_forward_hook(lambda m, a, x: x * (x.shape[1] > 5))
    for attempt in (
        lambda: build_updates(wrapped, parts, CONTEXTS[:1], QUERIES[:1]),
        lambda: context_in_weights(wrapped, parts, CONTEXTS[0], QUERIES[0]).__enter__(),
    ):
        with pytest.raises(ValueError, match="layer 1: the MLP's input without the context is 0"):
            attempt()
    handle.remove()
    assert wrapped.checksum() == before


def test_where_updates_are_undefined_and_where_they_are_zero(tiny_model):
    parts = {kind: find_mlps(wrap(tiny_model(kind)))[0] for kind in ("llama", "gemma3_text")}
    zero, one = torch.zeros(1, 32), torch.ones(1, 32)
    state = State(one, (one,), one, one, one)
    nothing = State(zero, (zero,), zero, zero, zero)
    with pytest.raises(ValueError, match="input without the context is 0"):
        matrix_update(parts["llama"], state, nothing)
    update = matrix_update(parts["llama"], nothing, nothing)
    assert not update.right.any() and not update.left[0].any()
    with pytest.raises(ValueError, match="hidden state is 0"):
        with_rest(parts["llama"], update, state, nothing)
    assert not with_rest(parts["llama"], update, nothing, nothing).rest.any()
    half = replace(nothing, unit=torch.arange(32.0)[None])
    with pytest.raises(ValueError, match=r"normalised output of the MLP has zeros \(row 0 of the batch\)"):
        with_rest(parts["gemma3_text"], update, state, half)
    goal = replace(nothing, base=one * (torch.arange(32) > 0))
    gains = with_rest(parts["gemma3_text"], update, goal, half).rest[0]
    assert gains[0] == 0 and torch.equal(gains[1:], 1 / torch.arange(1.0, 32))


def test_the_users_own_hooks_stay_and_count(tiny_model):
    """With the first layer's attention switched off a context moves the base by its positions alone."""
    model = exact(tiny_model, "gpt2")
    wrapped = wrap(model)
    parts = find_mlps(wrapped)
    with wrapped.hooked([("attn_out", 0, lambda x: x * 0)]):
        updates, goal, reached = build_updates(wrapped, parts, CONTEXTS[:1], QUERIES[:1])
        assert wrapped.has_hooks()
    assert gap(reached.resid, goal.resid) < 1e-12
    places = model.pos_embed.W_pos.detach()
    torch.testing.assert_close(updates[0].rest[0], places[len(CONTEXTS[0]) - 1] - places[len(QUERIES[0]) - 1])


@pytest.mark.core
@pytest.mark.parametrize("kind", ["hooked", "native"])
def test_both_kinds_of_model_take_updates_in_hooks_and_in_weights(tiny_model, kind):
    wrapped = wrap(tiny_model(kind))
    parts, before = find_mlps(wrapped), wrapped.checksum()
    updates, goal, reached = build_updates(wrapped, parts, CONTEXTS, QUERIES)
    assert gap(reached.resid, goal.resid) < 1e-5
    assert gap(run_updated(wrapped, parts, QUERIES, random_updates(updates, seed=0)).resid, goal.resid) > 0.1
    with context_in_weights(wrapped, parts, CONTEXTS[0], QUERIES[0]):
        found = run_updated(wrapped, parts, QUERIES[:1], None)
    assert gap(found.resid, goal.resid[:1]) < 1e-5
    assert wrapped.checksum() == before
