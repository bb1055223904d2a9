"""Where the last token looks: plain patterns as oracle, equal attention as null, binning, and bad input."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechicl.analyses.demonstrations.attention_maps import AttentionMap, attention_map
from mechicl.analyses.demonstrations.prompt_parts import KINDS, Bins, overlap, parts_of
from mechicl.hooks.demos.profiles import attention_profile
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.kernel_model import planted_kernel
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts
from mechicl.untrained import shuffled_weights

QUICK: dict[str, Any] = {"n_boot": 200, "progress": False}


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    texts = [f"{a} {b}" for a in ("old", "new doctor", "king", "ball and ring") for b in ("ring", "cake", "a child")]
    frame = pd.DataFrame({"text": texts, "label": ["good" if i % 2 else "bad" for i in range(len(texts))]})
    task = FewShotTask("letters", frame, template="Say {text}\nis {label}\n\n")
    return fewshot_prompts(task, 2, 6, tokenizer=tiny_tokenizer, seed=0)


@pytest.fixture(scope="module")
def model(tiny_model: Callable[..., Any]) -> Any:
    return tiny_model("llama", 128)


@pytest.fixture(scope="module")
def found(model: Any, prompts: list[FewShotPrompt]) -> AttentionMap:
    return attention_map(model, prompts, n_bins=7, by_head=True, untrained=True, **QUICK)


def patterns(model: Any, one: FewShotPrompt) -> np.ndarray:
    """Attention from the last token, [layer head pos], from a plain run of this prompt alone."""
    with torch.no_grad():
        _, cache = model.run_with_cache(torch.tensor([one.prompt.tokens]))
    layers = range(wrap(model).n_layers)
    return np.stack([cache[f"blocks.{i}.attn.hook_pattern"][0, :, -1].double().numpy() for i in layers])


def test_parts_hold_every_token_once_and_in_order(prompts: list[FewShotPrompt]) -> None:
    for one in prompts:
        parts, roles = parts_of(one), one.prompt.roles
        assert parts[0][2] == (0, 1) and parts[-1][2][1] == len(one.prompt)
        assert all(before[2][1] == after[2][0] for before, after in pairwise(parts))
        spans = {name: span for name, _, span in parts}
        for role in ("demo[0].text", "demo[1].label", "query.text"):
            assert spans[role] == roles[role]
        kinds = Bins.of(prompts, 5).rows(one)[1]
        np.testing.assert_array_equal(kinds.sum(0), 1)
        assert kinds[KINDS.index("label")].sum() == sum(stop - start for name, (start, stop) in roles.items()
                                                        if name.endswith("label"))  # fmt: skip


def test_shares_equal_plain_patterns(model: Any, prompts: list[FewShotPrompt], found: AttentionMap) -> None:
    expected, chance = np.zeros((len(prompts), 3, 4, len(KINDS))), np.zeros((len(prompts), len(KINDS)))
    for i, one in enumerate(prompts):
        own = patterns(model, one)
        for _, kind, (start, stop) in parts_of(one):
            expected[i, ..., KINDS.index(kind)] += own[..., start:stop].sum(-1)
            chance[i, KINDS.index(kind)] += (stop - start) / len(one.prompt)
    np.testing.assert_allclose(found.head_shares, expected.mean(0), atol=1e-6)
    rows = found.frame[found.frame["layer"] != "all"]
    np.testing.assert_allclose(rows["share"].to_numpy().reshape(3, -1), expected.mean((0, 2)), atol=1e-6)
    np.testing.assert_allclose(rows["chance"].to_numpy().reshape(3, -1), [chance.mean(0)] * 3)
    np.testing.assert_allclose(rows["excess"], rows["share"] - rows["chance"], atol=1e-9)
    every = found.frame[found.frame["layer"] == "all"]
    np.testing.assert_allclose(every["share"], expected.mean((0, 1, 2)), atol=1e-6)
    assert (every["low"] <= every["share"]).all() and (every["share"] <= every["high"]).all()


def test_the_map_conserves_mass_and_its_density_is_attention_a_token(
    model: Any, prompts: list[FewShotPrompt], found: AttentionMap
) -> None:
    np.testing.assert_allclose(found.mass.sum(-1), 1, atol=1e-5)
    assert found.mass_chance.sum() == pytest.approx(1)
    for kind, share in zip(found.kind_names, found.head_shares.mean(1).T, strict=True):
        own = np.array(found.kinds) == kind
        np.testing.assert_allclose(found.mass[:, own].sum(-1), share, atol=1e-6)
    # a naive loop: bin b of the query's text is a mean over what it covers of this prompt's tokens
    where, total = np.flatnonzero(np.array(found.parts) == "query.text"), np.zeros((3, 4, 7))
    for one in prompts:
        start, stop = one.prompt.roles["query.text"]
        fine = np.repeat(patterns(model, one)[..., start:stop], 7, axis=-1)  # 7 bins of n tokens: n pieces each
        total += fine.reshape(3, 4, 7, stop - start).mean(-1)
    assert found.head_density is not None
    np.testing.assert_allclose(found.head_density[..., where], total / len(prompts), atol=1e-6)
    np.testing.assert_allclose(found.density, found.head_density.mean(1), atol=1e-12)


def test_equal_attention_is_chance(model: Any, prompts: list[FewShotPrompt]) -> None:
    flat = shuffled_weights(model)
    with torch.no_grad():
        for layer in range(3):
            wrap(flat).W_Q(layer).zero_()
    shuffled = attention_map(flat, prompts, n_bins=7, **QUICK)
    own = patterns(flat, prompts[0])
    np.testing.assert_allclose(own, 1 / own.shape[-1], atol=1e-6)  # the queries are indeed 0
    np.testing.assert_allclose(shuffled.frame["share"], shuffled.frame["chance"], atol=1e-6)
    np.testing.assert_allclose(shuffled.frame["excess"], 0, atol=1e-6)
    np.testing.assert_allclose(shuffled.mass, [shuffled.mass_chance] * 3, atol=1e-6)
    np.testing.assert_allclose(shuffled.density, [shuffled.density_chance] * 3, atol=1e-6)


def test_the_control_is_the_shuffled_model_and_batches_do_not_matter(
    model: Any, prompts: list[FewShotPrompt], found: AttentionMap
) -> None:
    before = wrap(model).checksum()
    other = attention_map(shuffled_weights(model, seed=0), prompts, n_bins=7, memory_budget=1, **QUICK)
    np.testing.assert_allclose(found.frame["untrained"], other.frame["share"], atol=1e-6)
    again = attention_map(model, prompts, n_bins=7, memory_budget=1, **QUICK)  # one prompt a pass
    np.testing.assert_allclose(again.mass, found.mass, atol=1e-6)
    np.testing.assert_allclose(again.frame["low"], found.frame["low"], atol=1e-6)
    assert again.frame["untrained"].isna().all() and again.head_density is None
    assert wrap(model).checksum() == before and not wrap(model).has_hooks()


def test_a_planted_kernel_looks_at_labels_alone() -> None:
    planted = planted_kernel(n_items=40, heads=("rbf", "recency"))
    made = fewshot_prompts(planted.task, 4, 6, tokenizer=planted.tokenizer, seed=0, balanced=False)
    found = attention_map(planted.model, made, n_bins=1, by_head=True, **QUICK)
    for role, weights in planted.attention(made).items():
        layer, head = planted.heads[role]
        assert found.head_shares[layer, head, KINDS.index("label")] == pytest.approx(1, abs=1e-6)
        assert found.head_density is not None
        by_demo = found.head_density[layer, head][np.array(found.kinds) == "label"]
        np.testing.assert_allclose(by_demo, weights.mean(0), atol=1e-6)


@pytest.mark.parametrize(("n", "bins"), [(3, 7), (7, 3), (5, 5), (1, 4), (0, 3), (4, 0)])
def test_binning_conserves_every_token(n: int, bins: int) -> None:
    found = overlap(n, bins)
    assert found.shape == (bins, n) and (found >= 0).all()
    if n and bins:
        np.testing.assert_allclose(found.sum(0), 1)
        np.testing.assert_allclose(found.sum(1), n / bins)
    if n == bins:
        np.testing.assert_allclose(found, np.eye(n), atol=1e-12)


def test_pictures_and_files(found: AttentionMap, tmp_path: Any) -> None:
    from mechicl.views.attention_maps import plot_attention_map

    ax = found.plot()
    ticks = [text.get_text() for text in ax.get_xticklabels()]
    assert ticks == ["start", "demo[0]", "demo[1]", "query"]
    one = plot_attention_map(found, measure="density", head=(1, 2))
    assert [text.get_text() for text in one.get_yticklabels()] == ["1.2"]
    bars = found.plot_shares(layer=1).patches
    rows = found.frame[(found.frame["layer"] == "1") & (found.frame["chance"] > 0)]
    np.testing.assert_allclose([bar.get_width() for bar in bars], rows["share"])
    with pytest.raises(ValueError, match="measure"):
        plot_attention_map(found, measure="logits")
    with pytest.raises(ValueError, match="layer"):
        found.plot_shares(layer=9)
    assert AttentionMap.load(found.save(tmp_path / "map")) == found


def test_bad_input(model: Any, prompts: list[FewShotPrompt], tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="no prompts"):
        attention_map(model, [], **QUICK)
    with pytest.raises(ValueError, match="different query"):
        attention_map(model, prompts[:1], **QUICK)
    with pytest.raises(ValueError, match="n_bins"):
        attention_map(model, prompts, n_bins=0, **QUICK)
    with pytest.raises(ValueError, match="fewer demonstrations"):
        attention_map(tiny_model("llama", 16), prompts, **QUICK)
    texts = [one.prompt for one in prompts]
    with pytest.raises(ValueError, match="matrix of prompt 0"):
        attention_profile(model, texts, lambda _: np.ones((2, 1)))
    with pytest.raises(ValueError, match="at least 3 rows"):
        attention_profile(model, texts, lambda i: np.ones((2, len(texts[i]))), n_kept=3)
    with pytest.raises(ValueError, match="no prompts"):
        attention_profile(model, [], lambda _: np.ones((2, 1)))
