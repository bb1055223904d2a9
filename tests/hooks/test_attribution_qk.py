"""Attribution of queries, keys and values: by hand with plain hooks, and exact where only the softmax is not linear."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.attribution_qk import PARTS, attribute_inputs
from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.wrapper import wrap

BRIDGED = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"]
STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}


def swapped(
    oracle: Any, item: PatchItem, role: str, part: str, layer: int, head: int, alpha: float = 1.0
) -> Callable[[int], Any]:
    """Hooks that swap one head's part, or share alpha of the difference; the rest of a query group keeps its z."""
    wrapped = oracle.wrapped
    own = head if part == "q" else head // (wrapped.n_heads // wrapped.n_kv_heads)
    donated = [oracle.donated(item, p, role, [part])[part, layer][:, own] for p in range(len(item.prompts))]
    clean = [oracle.record(prompt, ["z"])["z", layer] for prompt in item.prompts]

    def hooks(p: int) -> Any:
        def put(x: torch.Tensor) -> torch.Tensor:
            x, where = x.clone(), list(item.span(p, role))
            x[0, where, own] += alpha * (donated[p] - x[0, where, own])
            return x

        def others(z: torch.Tensor) -> torch.Tensor:
            back = clean[p][None].clone()
            back[:, :, head] = z[:, :, head]
            return back

        return [(part, layer, put), ("z", layer, others)]

    return hooks


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        *((kind, part) for kind in BRIDGED for part in ("q", "k")),
        ("gpt2", "v"),
        ("llama", "v"),
        *(pytest.param("hooked", part, marks=pytest.mark.core) for part in PARTS),
    ],
)
@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_equals_the_same_by_hand(
    kind: str, part: str, plain: Any, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    """With the fix (z' - z) . dm/dz of plain runs; without, the slope of the exact swap."""
    model, items = known_model(kind, double=True), short_items(3)
    item, role, layer, oracle = items[1], "target", wrap(model).n_layers - 1, plain(model)
    found = {fix: attribute_inputs(model, items, roles=[role], parts=[part], qk_fix=fix, progress=False)
             for fix in (True, False)}  # fmt: skip
    for head in (0, 3):
        leaves = [torch.zeros(len(p), 4, 8, dtype=torch.float64, requires_grad=True) for p in item.prompts]
        metric = oracle.metric(item, lambda p: [("z", layer, lambda z: z + leaves[p])])  # noqa: B023
        slopes = torch.autograd.grad(metric, leaves)
        hooks = swapped(oracle, item, role, part, layer, head)
        recomputed = 0.0
        for p, prompt in enumerate(item.prompts):
            change = oracle.record(prompt, ["z"], hooks(p)[:1])["z", layer] - oracle.record(prompt, ["z"])["z", layer]
            recomputed += float((change * slopes[p])[:, head].sum())
        assert found[True].part(part)[layer, head, 1] == pytest.approx(recomputed, rel=1e-4, abs=1e-5)
        with torch.no_grad():
            slope = sum(
                weight * float(oracle.metric(item, swapped(oracle, item, role, part, layer, head, 0.02 * n)))
                for n, weight in STENCIL.items()
            )
        assert found[False].part(part)[layer, head, 1] == pytest.approx(slope / 0.02, rel=2e-3, abs=2e-3)
    assert np.abs(found[True].effects).max() > 0.01


def test_with_the_fix_it_is_exact_where_all_but_the_softmax_is_linear(
    plain: Any, short_items: Callable[..., list[PatchItem]], bare_model: Any
) -> None:
    items, oracle = short_items(3, one_token=True), plain(bare_model)
    estimates = {fix: attribute_inputs(bare_model, items, roles=["target"], qk_fix=fix, progress=False)
                 for fix in (True, False)}  # fmt: skip
    for part in PARTS:
        truth = np.zeros((4, len(items)))
        with torch.no_grad():
            for head in range(4):
                for number, item in enumerate(items):
                    patched = oracle.metric(item, swapped(oracle, item, "target", part, 1, head))
                    truth[head, number] = float(patched - oracle.metric(item))
        np.testing.assert_allclose(estimates[True].part(part)[1], truth, atol=1e-9)
        gap = np.abs(estimates[False].part(part)[1] - truth).max()
        assert gap < 1e-6 if part == "v" else gap > 1e-3  # values are linear; queries and keys are not
        assert np.abs(truth).max() > 1e-2


@pytest.mark.parametrize("fix", [True, False])
def test_donors_that_are_the_prompts_change_nothing(
    fix: bool, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    items = [PatchItem(item.prompts, item.prompts) for item in short_items(3)]
    found = attribute_inputs(known_model("llama"), items, roles=["prime", "target"], qk_fix=fix, progress=False)
    np.testing.assert_allclose(found.effects, 0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_hooks_of_the_user_act_and_nothing_is_left(
    short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model, items = tiny_model("qwen2"), short_items(3)
    usual = attribute_inputs(model, items, roles=["target"], progress=False)
    assert not wrap(model).has_hooks() and all(p.requires_grad and p.grad is None for p in model.parameters())
    model.add_hook("blocks.0.hook_resid_pre", lambda x, hook: None)  # looks on: the slow way, the same numbers
    slow = attribute_inputs(model, items, roles=["target"], progress=False)
    np.testing.assert_allclose(slow.effects, usual.effects, atol=1e-5)
    assert wrap(model).has_hooks()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"parts": "q"}, "parts='q'"), ({"parts": ["z"]}, r"parts=\['z'\]"), ({"parts": []}, "expected some of"),
     ({"roles": ["theme"]}, "no role 'theme'")],
)  # fmt: skip
def test_bad_input(
    options: dict[str, Any], message: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        attribute_inputs(known_model("gpt2"), short_items(1), **{"roles": ["target"], "progress": False, **options})


def test_asking_for_a_part_that_is_not_there(
    short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    found = attribute_inputs(known_model("gpt2"), short_items(1), roles=["target"], parts=["k"], progress=False)
    assert found.part("k").shape == (2, 4, 1)
    with pytest.raises(ValueError, match="no effect was estimated for 'q'"):
        found.part("q")
