"""Knockout against edits of patterns and scores in plain runs, and identities: no attention, all but one, all."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks import patch_support
from mechicl.hooks.knockout import knock_out_attention
from mechicl.hooks.patch_items import PatchItem, log_odds
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.replacements import Zero
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.prompts import Prompt

BRIDGED = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"]
EDGES = [("target", "prime"), ("last", "stem")]


def entries(item: PatchItem, p: int, edges: list[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """Query and key positions of all entries that edges knock out."""
    pairs = [(q, k) for query, key in edges for q in item.span(p, query) for k in item.span(p, key) if k <= q]
    rows, columns = zip(*pairs, strict=True)
    return list(rows), list(columns)


def edited_pattern(oracle: Any, item: PatchItem, edges: Any, heads: Any, renormalise: bool) -> float:
    """The metric with the pattern itself edited, in plain runs; on models that heed that."""

    def hooks(p: int) -> Any:
        rows, columns = entries(item, p, edges)

        def put(own: list[int]) -> Any:
            def hook(pattern: torch.Tensor) -> torch.Tensor:
                pattern = pattern.clone()
                for head in own:
                    pattern[0, head, rows, columns] = 0
                    if renormalise:
                        pattern[0, head] /= pattern[0, head].sum(-1, keepdim=True)
                return pattern

            return hook

        return [("pattern", layer, put([h for at, h in heads if at == layer])) for layer in {at for at, _ in heads}]

    with torch.no_grad():
        return float(oracle.metric(item, hooks))


@pytest.mark.parametrize("kind", [*BRIDGED, pytest.param("hooked", marks=pytest.mark.core)])
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_equals_an_edited_pattern(
    kind: str, renormalise: bool, plain: Any, short_items: Callable[..., list[PatchItem]],
    known_model: Callable[..., Any],
) -> None:  # fmt: skip
    model, items = known_model(kind), short_items(4)
    last, oracle = wrap(model).n_layers - 1, plain(model)
    sets = [[(0, 0)], [(0, 3)], [(last, 1)], [(0, 1), (0, 2), (last, 0), (last, 3)], []]
    found = knock_out_attention(model, items, edges=EDGES, sets=sets, renormalise=renormalise, progress=False)
    assert found.values.shape == (5, 4)
    for number in (0, 3):
        for s, heads in enumerate(sets):
            expected = edited_pattern(oracle, items[number], EDGES, heads, renormalise)
            assert found.values[s, number] == pytest.approx(expected, abs=2e-5)
    assert (np.abs(found.effects[:-1]).max(1) > 1e-4).all()
    np.testing.assert_array_equal(found.effects[-1], 0)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "gemma3_text"])
def test_equals_masked_scores(
    kind: str, plain: Any, short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model, (item,) = tiny_model(kind), short_items(1, seed=3)
    (found,) = knock_out_attention(model, [item], edges=EDGES, sets=[[(1, 2), (1, 3)]], progress=False).values[0]
    odds = []
    for p, prompt in enumerate(item.prompts):
        rows, columns = entries(item, p, EDGES)

        def mask(scores: torch.Tensor, hook: Any, rows: Any = rows, columns: Any = columns) -> torch.Tensor:
            for head in (2, 3):
                scores[0, head, rows, columns] = -torch.inf
            return scores

        model.add_hook("blocks.1.attn.hook_attn_scores", mask)
        with torch.no_grad():
            odds.append(plain(model).log_probs(prompt, []).sum())
        model.reset_hooks()
    assert found == pytest.approx(float(odds[0] - odds[1]), abs=2e-5)


@pytest.mark.parametrize("kind", ["llama", "native"])
@pytest.mark.filterwarnings("ignore:patching runs the whole model")
def test_every_way_and_budget_gives_the_same(
    kind: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model, items = known_model(kind), short_items(5)
    usual = knock_out_attention(model, items, edges=EDGES, progress=False)
    assert usual.sets == tuple(((layer, head),) for layer in range(wrap(model).n_layers) for head in range(4))
    tight = knock_out_attention(model, items, edges=EDGES, memory_budget=150_000, progress=False)
    np.testing.assert_allclose(tight.values, usual.values, atol=1e-5)
    for way in ("whole", "hooks"):
        monkeypatch.setitem(patch_support._TRIED, model, way)
        np.testing.assert_allclose(
            knock_out_attention(model, items, edges=EDGES, progress=False).values, usual.values, atol=1e-5
        )


def test_an_edge_without_attention_has_no_effect(known_model: Callable[..., Any]) -> None:
    """Under a sliding window what lies too far back gets no attention: no effect, to the last bit."""
    model = known_model("gemma3_text")
    draw = [int(t) for t in np.random.default_rng(0).integers(5, 60, size=26)]
    roles = {"far": (1, 4), "near": (20, 24), "end": (23, 25), "scored": (25, 26)}
    items = [PatchItem(tuple(Prompt((0, *draw[:24], end), roles) for end in (7, 8)))]
    windowed = [layer for layer, kind in enumerate(model.original_model.config.layer_types) if "sliding" in kind]
    assert windowed and len(windowed) < 3
    for key, nothing in (("far", True), ("near", False)):
        with pytest.warns(UserWarning, match="window of 16"):
            found = knock_out_attention(model, items, edges=[("end", key)], progress=False)
        for (((layer, _),), effect) in zip(found.sets, found.effects[:, 0], strict=True):  # fmt: skip
            assert (effect == 0) == (nothing and layer in windowed)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_with_one_token_left_its_value_is_copied(
    kind: str, plain: Any, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model, (item,) = known_model(kind), short_items(1)
    start = item.prompts[0].roles["scored"][0]
    item = PatchItem(tuple(replace(p, roles={**p.roles, "rest": (1, start)}) for p in item.prompts))
    found = knock_out_attention(model, [item], edges=[("last", "rest")], progress=False)
    oracle, wrapped = plain(model), wrap(model)
    for (((layer, head),), value) in zip(found.sets, found.values[:, 0], strict=True):  # fmt: skip

        def hooks(p: int) -> Any:
            v = oracle.record(item.prompts[p], ["v"])["v", layer][0, head // (4 // wrapped.n_kv_heads)]  # noqa: B023

            def put(z: torch.Tensor) -> torch.Tensor:
                z = z.clone()
                z[0, start - 1, head] = v  # noqa: B023
                return z

            return [("z", layer, put)]  # noqa: B023

        with torch.no_grad():
            assert value == pytest.approx(float(oracle.metric(item, hooks)), abs=2e-5)


def test_with_nothing_left_and_nothing_scaled_a_head_writes_zero(
    short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    model, items = known_model("llama"), short_items(3)
    whole = []
    for item in items:
        start = item.prompts[0].roles["scored"][0]
        whole.append(PatchItem(tuple(replace(p, roles={**p.roles, "all": (0, start)}) for p in item.prompts)))
    found = knock_out_attention(model, whole, edges=[("last", "all")], renormalise=False, progress=False)
    zeroed = patch_heads(model, whole, roles=["last"], replacement=Zero(), progress=False)
    np.testing.assert_allclose(found.values, zeroed.values, atol=1e-5)
    with pytest.raises(ValueError, match="may look at nothing else"):
        knock_out_attention(model, whole, edges=[("last", "all")], progress=False)


def test_hooks_of_the_user_act_with_one_warning(
    plain: Any, short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model, items = tiny_model("gpt2"), short_items(2)
    without = knock_out_attention(model, items, edges=EDGES, sets=[[(1, 0)]], progress=False)
    model.add_hook("blocks.0.hook_attn_out", lambda x, hook: x * 0)
    with pytest.warns(UserWarning, match="hooks of yours") as caught:
        found = knock_out_attention(model, items, edges=EDGES, sets=[[(1, 0)]], progress=False)
    assert len(caught) == 1
    for number, item in enumerate(items):
        expected = edited_pattern(plain(model), item, EDGES, [(1, 0)], True)
        assert found.values[0, number] == pytest.approx(expected, abs=2e-5)
    assert np.abs(found.values - without.values).max() > 1e-2
    assert wrap(model).has_hooks()
    model.add_hook("blocks.1.attn.hook_z", lambda z, hook: z * 0)
    with (
        pytest.warns(UserWarning, match="hooks of yours"),
        pytest.raises(ValueError, match="not its attention pattern times"),
    ):
        knock_out_attention(model, items, edges=EDGES, sets=[[(1, 0)]], progress=False)


def test_bfloat16_is_close(short_items: Callable[..., list[PatchItem]], tiny_folder: Callable[..., Any]) -> None:
    import mechicl

    single, half = (mechicl.load(tiny_folder("llama"), device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    runs = [knock_out_attention(m, short_items(3), edges=EDGES, progress=False).effects for m in (single, half)]
    assert 0 < np.abs(runs[0] - runs[1]).max() < 0.3
    assert np.corrcoef(runs[0].ravel(), runs[1].ravel())[0, 1] > 0.98


def test_nothing_is_left_after_an_exception(
    short_items: Callable[..., list[PatchItem]], tiny_model: Callable[..., Any]
) -> None:
    model, calls = tiny_model("native"), []

    def fail(log_probs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        calls.append(1)
        if len(calls) > 3:
            raise KeyError("a mistake in the metric")
        return log_odds(log_probs)

    before = wrap(model).checksum()
    with pytest.raises(KeyError, match="a mistake"):
        knock_out_attention(model, short_items(3), edges=EDGES, metric=fail, progress=False)
    assert not wrap(model).has_hooks() and wrap(model).checksum() == before
    assert not any("forward" in block.__dict__ for block in model.blocks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edges": []}, r"edges=\[\]"),
        ({"edges": "target"}, "edges='target'"),
        ({"edges": ["target"]}, "expected pairs"),
        ({"edges": [("target", "theme")]}, "no role 'theme'"),
        ({"edges": [("prime", "target")]}, "no token of 'prime' stands behind one of 'target'"),
        ({"sets": [[(0, 4)]]}, r"no head \(0, 4\)"),
        ({"memory_budget": 1000}, "raise the budget"),
        ({"metric": lambda x: log_odds(x) / 0}, "not finite"),
    ],
)
def test_bad_input(
    options: dict[str, Any], message: str, short_items: Callable[..., list[PatchItem]], known_model: Callable[..., Any]
) -> None:
    with pytest.raises(ValueError, match=message):
        knock_out_attention(known_model("gpt2"), short_items(1), **{"edges": EDGES, "progress": False, **options})
