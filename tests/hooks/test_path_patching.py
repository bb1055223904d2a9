"""Path patching against plain hooks that freeze, record and replace; and identities that need no oracle."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.patch_items import PatchItem, log_odds
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.path_patching import path_effects
from mechicl.hooks.replacements import mean_activations
from mechicl.hooks.wrapper import HOOK_NAMES, wrap

BRIDGED = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"]


def by_hand(
    oracle: Any, item: PatchItem, role: str, sender: tuple[int, int], receiver: Any, inputs: Any, freeze: Any
) -> float:
    """The effect of one path in plain runs: freeze all but the sender, record the receiver's inputs, put them in."""
    wrapped = oracle.wrapped
    layers, group = range(wrapped.n_layers), wrapped.n_heads // wrapped.n_kv_heads

    def hooks(p: int) -> Any:
        prompt = item.prompts[p]
        clean = oracle.record(prompt, ["z"])
        donated = oracle.donated(item, p, role, ["z"])["z", sender[0]][:, sender[1]]

        def freeze_z(layer: int) -> Any:
            def hook(z: torch.Tensor) -> torch.Tensor:
                z = clean["z", layer][None].clone() if "heads" in freeze else z.clone()
                if layer == sender[0]:
                    z[0, list(item.span(p, role)), sender[1]] = donated
                return z

            return hook

        first = [("z", layer, freeze_z(layer)) for layer in layers]
        if "mlps" in freeze:
            before = oracle.record(prompt, ["mlp_out"])
            first += [("mlp_out", at, lambda x, old=before["mlp_out", at]: old[None]) for at in layers]
        if receiver == "logits":
            return first
        at, head = receiver
        recorded = oracle.record(prompt, inputs, first)

        def put(name: str) -> Any:
            own = head if name == "q" else head // group

            def hook(x: torch.Tensor) -> torch.Tensor:
                x = x.clone()
                x[0, :, own] = recorded[name, at][:, own]
                return x

            return hook

        def others(z: torch.Tensor) -> torch.Tensor:
            back = clean["z", at][None].clone()
            back[:, :, head] = z[:, :, head]
            return back

        return [*((name, at, put(name)) for name in inputs), ("z", at, others)]

    with torch.no_grad():
        return float(oracle.metric(item, hooks) - oracle.metric(item))


@pytest.mark.parametrize(
    ("kind", "inputs", "freeze"),
    [
        *((kind, "qkv", ["heads"]) for kind in BRIDGED),
        *((kind, "q", ["heads"]) for kind in ("gpt2", "llama", "gemma3_text")),
        *((kind, "kv", ["heads", "mlps"]) for kind in ("qwen2", "gpt_neox", "native")),
        pytest.param("hooked", "qkv", ["heads"], marks=pytest.mark.core),
        pytest.param("hooked", "kv", ["heads", "mlps"], marks=pytest.mark.core),
    ],
)
@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_equals_paths_by_hand(
    kind: str, inputs: str, freeze: list[str], plain: Any, short_items: Callable[..., list[PatchItem]],
    known_model: Callable[..., Any],
) -> None:  # fmt: skip
    model, items = known_model(kind), short_items(3)
    last = wrap(model).n_layers - 1
    senders, receivers = [(0, 1), (0, 2), (last - 1, 3)], [(last, 0), "logits", (last, 3)]
    found = path_effects(
        model, items, senders=senders, receivers=receivers, roles=["target"], inputs=list(inputs), freeze=freeze,
        progress=False,
    )  # fmt: skip
    oracle = plain(model)
    for s, sender in enumerate(senders[1:], 1):
        for r, receiver in enumerate(receivers):
            expected = by_hand(oracle, items[1], "target", sender, receiver, list(inputs), freeze)
            assert found.effects[s, r, 1] == pytest.approx(expected, abs=2e-5)
    assert (np.abs(found.effects).max((0, 2)) > 1e-4).all()


def test_in_two_layers_of_attention_the_paths_add_up_to_the_whole(
    short_items: Callable[..., list[PatchItem]], bare_model: Any
) -> None:
    """Logits are linear in the last layer's heads: whole effect = direct + through each of them."""
    items = short_items(4, one_token=True)
    first, second = [[(layer, head) for head in range(4)] for layer in (0, 1)]
    given = {"roles": ["prime"], "progress": False}
    whole = patch_heads(bare_model, items, sets=[[head] for head in first], **given).effects
    found = path_effects(bare_model, items, senders=first, receivers=[*second, "logits"], **given)
    np.testing.assert_allclose(found.effects.sum(1), whole, atol=1e-9)
    # through queries and keys the softmax acts, so parts do not add up to the path; values alone are a part of it
    parts = [path_effects(bare_model, items, senders=first, receivers=second, inputs=[i], **given) for i in "qkv"]
    assert np.abs(sum(p.effects for p in parts) - found.effects[:, :-1]).max() > 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "gpt_neox", "qwen2"])
def test_nothing_frozen_is_the_whole_effect(
    kind: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model, items = known_model(kind), short_items(4)
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    means = mean_activations(model, short_items(5, seed=7), roles=["target"], progress=False)
    given = {"roles": ["target"], "replacement": means, "progress": False}
    found = path_effects(model, items, senders=heads, receivers=["logits"], freeze=[], **given)
    exact = patch_heads(model, items, sets=[[head] for head in heads], **given)
    np.testing.assert_allclose(found.effects[:, 0], exact.effects, atol=1e-5)
    np.testing.assert_allclose(found.clean, exact.clean, atol=1e-5)
    frozen = path_effects(model, items, senders=heads, receivers=["logits"], **given).effects[:, 0]
    np.testing.assert_allclose(frozen[4:], exact.effects[4:], atol=1e-5)  # nothing is left to freeze
    assert np.abs(frozen[:4] - exact.effects[:4]).max() > 1e-2


def test_there_is_no_path_backwards_and_none_without_a_change(
    short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model, items = known_model("llama"), short_items(3)
    heads = [(layer, head) for layer in range(3) for head in (0, 3)]
    found = path_effects(model, items, senders=heads, receivers=heads, roles=["target"], progress=False).effects
    for s, (sent, _) in enumerate(heads):
        for r, (received, _) in enumerate(heads):
            assert (np.abs(found[s, r]).max() > 1e-5) == (received > sent)
    same = [PatchItem(item.prompts, item.prompts) for item in items]
    null = path_effects(model, same, senders=heads, receivers=[*heads, "logits"], roles=["target"], progress=False)
    np.testing.assert_allclose(null.effects, 0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_batches_budgets_and_ways_do_not_matter(
    short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model, items = tiny_model("llama"), short_items(5)
    heads = [(layer, head) for layer in range(3) for head in range(4)]
    given = {"senders": heads[:6], "receivers": [*heads[3:10], "logits"], "roles": ["stem"], "progress": False}
    usual = path_effects(model, items, **given).effects
    np.testing.assert_allclose(path_effects(model, items, memory_budget=400_000, **given).effects, usual, atol=1e-5)
    np.testing.assert_allclose(path_effects(model, items[2:3], **given).effects[:, :, 0], usual[:, :, 2], atol=1e-5)
    model.add_hook("blocks.0.hook_resid_pre", lambda x, hook: None)  # looks on
    np.testing.assert_allclose(path_effects(model, items, **given).effects, usual, atol=1e-5)


def test_hooks_of_the_user_act_with_one_warning(short_items: Callable[..., list[PatchItem]], bare_model: Any) -> None:
    items = short_items(2, one_token=True)
    given = {"senders": [(0, 1)], "receivers": [(1, 0), (1, 2)], "roles": ["target"], "progress": False}
    bare_model.add_hook("blocks.1.attn.hook_z", lambda z, hook: z * torch.tensor([1.0, 1, 0, 0])[:, None])
    try:
        with pytest.warns(UserWarning, match="hooks of yours") as caught:
            found = path_effects(bare_model, items, **given).effects
    finally:
        bare_model.reset_hooks()
    assert len(caught) == 1
    assert np.abs(found[0, 0]).max() > 1e-4
    np.testing.assert_allclose(found[0, 1], 0, atol=1e-12)  # nothing passes through a head that the hook removed


def test_bfloat16_and_models_without_mlps(
    short_items: Callable[..., list[PatchItem]], tiny_folder: Callable[..., Any], bare_model: Any
) -> None:
    import mechicl

    items = short_items(2)
    given = {"senders": [(0, 0), (0, 3)], "receivers": [(1, 1), "logits"], "roles": ["target"], "progress": False}
    single, half = (mechicl.load(tiny_folder("llama"), device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    one, other = (path_effects(m, items, **given).effects for m in (single, half))
    assert 0 < np.abs(one - other).max() < 0.2
    assert HOOK_NAMES["mlp_out"].format(layer=0) not in bare_model.hook_dict
    both = [path_effects(bare_model, items, freeze=f, **given).effects for f in (["heads"], ["heads", "mlps"])]
    np.testing.assert_array_equal(*both)


def test_nothing_is_left_after_an_exception(
    short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model, calls = tiny_model("gpt2"), []

    def fail(log_probs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise KeyError("a mistake in the metric")
        return log_odds(log_probs)

    with pytest.raises(KeyError, match="a mistake"):
        path_effects(
            model, short_items(3), senders=[(0, 0)], receivers=[(1, 0)], roles=["target"], metric=fail, progress=False
        )
    assert not wrap(model).has_hooks()
    assert not any("forward" in block.__dict__ for block in model.blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"senders": []}, "at least one of each"),
        ({"receivers": "logits"}, "at least one of each"),
        ({"senders": [(0, 4)]}, r"no head \(0, 4\)"),
        ({"receivers": [(9, 0)]}, r"no head \(9, 0\)"),
        ({"receivers": ["unembed"]}, "receiver 'unembed'"),
        ({"inputs": ["z"]}, "inputs="),
        ({"inputs": []}, "inputs="),
        ({"freeze": ["everything"]}, "freeze="),
        ({"freeze": [], "inputs": ["q"]}, "add 'heads' to freeze"),
        ({"roles": ["theme"]}, "no role 'theme'"),
        ({"memory_budget": 1000}, "raise the budget"),
    ],
)
def test_bad_input(
    options: dict[str, Any], message: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    given = {"senders": [(0, 0)], "receivers": ["logits"], "roles": ["target"], "progress": False}
    with pytest.raises(ValueError, match=message):
        path_effects(known_model("gpt2"), short_items(1), **{**given, **options})
