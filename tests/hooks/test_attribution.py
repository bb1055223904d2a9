"""Attribution: the derivative of the exact patch, exact where the model is linear, complete when heads move jointly."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks import patch_support
from mechicl.hooks.attribution import attribute_heads
from mechicl.hooks.patch_items import PatchItem, span_log_prob
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.replacements import Zero, mean_activations
from mechicl.hooks.wrapper import wrap

BRIDGED = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"]
STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}  # a derivative, right to the fourth order


def exact(model: Any, items: list[PatchItem], **options: Any) -> np.ndarray:
    """Effects of patching every head alone, [layer head item]."""
    effects = patch_heads(model, items, progress=False, **options).effects
    return effects.reshape(wrap(model).n_layers, -1, len(items))


def slope_of_patch(oracle: Any, item: PatchItem, role: str, layer: int, head: int, step: float = 0.02) -> float:
    """d/d alpha of the metric with z + alpha (z_new - z) in a plain run, at alpha = 0."""
    donated = [oracle.donated(item, p, role, ["z"])["z", layer][:, head] for p in range(len(item.prompts))]

    def at(alpha: float) -> float:
        def hooks(p: int) -> Any:
            def hook(z: torch.Tensor) -> torch.Tensor:
                z, where = z.clone(), list(item.span(p, role))
                z[0, where, head] += alpha * (donated[p] - z[0, where, head])
                return z

            return [("z", layer, hook)]

        with torch.no_grad():
            return float(oracle.metric(item, hooks))

    return sum(weight * at(n * step) for n, weight in STENCIL.items()) / step


@pytest.mark.parametrize(
    ("kind", "role"),
    [
        *((kind, "target") for kind in BRIDGED),
        ("gpt2", "prime"),
        ("llama", "prime"),
        ("qwen2", "last"),
        pytest.param("hooked", "target", marks=pytest.mark.core),
    ],
)
@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_it_is_the_derivative_of_the_exact_patch(
    kind: str, role: str, plain: Any, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model, items = known_model(kind, double=True), short_items(2, seed=1)
    found = attribute_heads(model, items, roles=[role], progress=False)
    oracle = plain(model)
    assert found.effects.shape == (wrap(model).n_layers, 4, 2)
    for layer in range(wrap(model).n_layers):
        for head, number in ((0, 0), (3, 1)):
            slope = slope_of_patch(oracle, items[number], role, layer, head)
            # some norms compute in float32, whatever the model's dtype
            assert found.effects[layer, head, number] == pytest.approx(slope, rel=2e-3, abs=2e-3)
    assert np.abs(found.effects).max() > 0.1
    with torch.no_grad():
        np.testing.assert_allclose(found.clean, [float(oracle.metric(item)) for item in items], atol=1e-5)


@pytest.mark.parametrize("way", ["cached", "whole", "hooks"])
@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_every_way_gives_the_same(
    way: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model, items = known_model("llama"), short_items(5)
    usual = attribute_heads(model, items, roles=["target"], integrated_steps=3, progress=False)
    monkeypatch.setitem(patch_support._TRIED, model, way)
    other = attribute_heads(model, items, roles=["target"], integrated_steps=3, progress=False)
    np.testing.assert_allclose(other.effects, usual.effects, atol=1e-5)


@pytest.mark.parametrize("source", ["donors", "means", "zero"])
def test_exact_where_the_model_is_linear(
    source: str, short_items: Callable[..., list[PatchItem]], bare_model: Any
) -> None:
    items = short_items(4, one_token=True)
    means = mean_activations(bare_model, short_items(6, seed=9, one_token=True), roles=["target"], progress=False)
    given = {"roles": ["target"], "replacement": {"donors": None, "means": means, "zero": Zero()}[source]}
    found = attribute_heads(bare_model, items, progress=False, **given)
    truth = exact(bare_model, items, **given)
    np.testing.assert_allclose(found.effects[1], truth[1], atol=1e-9)
    # the control: the first layer acts through the second one's softmax, and there it is an estimate
    assert np.abs(found.effects[0] - truth[0]).max() > 1e-3


@pytest.mark.parametrize("kind", BRIDGED)
def test_shares_of_the_joint_replacement_add_up(
    kind: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model, items = known_model(kind, double=True), short_items(3)
    everything = [(layer, head) for layer in range(wrap(model).n_layers) for head in range(4)]
    whole = patch_heads(model, items, roles=["target"], sets=[everything], progress=False).effects[0]
    options = {"roles": ["target"], "integrated_steps": 48, "progress": False}
    shares = attribute_heads(model, items, joint=True, **options).effects.sum((0, 1))
    np.testing.assert_allclose(shares, whole, atol=2e-3)
    alone = attribute_heads(model, items, **options).effects.sum((0, 1))
    assert np.abs(alone - whole).max() > 0.05  # where later heads follow, effects are counted twice


def test_integrated_gradients_are_means_of_gradients_along_the_way(
    plain: Any, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    """One step at the middle, by hand: all heads halfway, the slope of one of them, later ones following."""
    model = known_model("gpt2", double=True)
    (item,) = short_items(1)
    oracle, n_layers, role = plain(model), wrap(model).n_layers, "stem"
    donated = [oracle.donated(item, p, role, ["z"]) for p in range(2)]
    clean = [oracle.record(prompt, ["z"]) for prompt in item.prompts]
    halves = {}
    for steps in (2, 4):
        points = (np.arange(steps) + 0.5) / steps
        expected = np.zeros((n_layers, 4))
        for point in points:
            leaves = [torch.zeros(4, dtype=torch.float64, requires_grad=True) for _ in range(n_layers)]

            def hooks(p: int, point: float = point, leaves: list[torch.Tensor] = leaves) -> Any:
                where = list(item.span(p, role))

                def put(layer: int) -> Any:
                    old, new = clean[p]["z", layer][where], donated[p]["z", layer]

                    def hook(z: torch.Tensor) -> torch.Tensor:
                        z = z.clone()
                        fixed = old + point * (new - old)
                        z[0, where] += (fixed - z[0, where]).detach() + leaves[layer][:, None] * (new - old)
                        return z

                    return hook

                return [("z", layer, put(layer)) for layer in range(n_layers)]

            grads = torch.autograd.grad(oracle.metric(item, hooks), leaves)
            expected += torch.stack(grads).numpy() / steps
        found = attribute_heads(model, [item], roles=[role], integrated_steps=steps, progress=False)
        np.testing.assert_allclose(found.effects[:, :, 0], expected, atol=1e-9)
        halves[steps] = expected
    assert np.abs(halves[2] - halves[4]).max() > 1e-4


def test_items_do_not_see_each_other_and_weights_contract(
    short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model, items = known_model("qwen2"), short_items(6)
    weights = np.random.default_rng(0).normal(size=6)
    together = attribute_heads(model, items, roles=["target"], weights=weights, progress=False)
    for number, item in enumerate(items):
        alone = attribute_heads(model, [item], roles=["target"], progress=False)
        np.testing.assert_allclose(together.effects[:, :, number], alone.effects[:, :, 0], atol=1e-5)
    by_hand = sum(w * together.effects[:, :, i] for i, w in enumerate(weights))
    np.testing.assert_allclose(together.weighted, by_hand, atol=1e-12)
    usual = attribute_heads(model, items, roles=["target"], progress=False)
    np.testing.assert_allclose(usual.weighted, usual.effects.mean(-1), atol=1e-12)
    narrow = attribute_heads(model, items, roles=["target"], memory_budget=1_000_000, progress=False)
    np.testing.assert_allclose(narrow.effects, usual.effects, atol=1e-5)


def test_agrees_with_transformer_lens(
    short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    from transformer_lens.tools.analysis.attribution_patching import attribution_patch

    model = known_model("gpt2").eval()
    item = short_items(2)[1]
    prompt = item.prompts[0]
    donor = replace(prompt, tokens=(0, *item.donors[0].tokens[1:4], *prompt.tokens[4:]))  # of the same length
    start, stop = prompt.roles["scored"]
    at = torch.arange(start, stop)

    def score(logits: torch.Tensor) -> torch.Tensor:
        return logits[0].log_softmax(-1)[at - 1, torch.tensor(prompt.tokens)[at]].sum()

    theirs = attribution_patch(model, torch.tensor([donor.tokens]), torch.tensor([prompt.tokens]), score).node_scores
    ours = attribute_heads(
        model, [PatchItem((prompt,), (donor,))], roles=["prime", "target"], metric=span_log_prob, progress=False
    )
    summed = np.zeros_like(ours.effects[:, :, 0])
    for node, value in theirs.items():
        if node.kind == "attn_head_out":
            summed[node.layer, node.head] += value
    np.testing.assert_allclose(ours.effects[:, :, 0], summed, atol=1e-5)
    assert np.abs(summed).max() > 0.1
