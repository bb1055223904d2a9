"""The dual form of attention: sizes against plain products, linear attention against loops, controls where known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import mechicl
from mechicl.analyses.updates.dual_form import AttentionDual, attention_dual
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.analyses.updates.dual_tables import random_spans
from mechicl.analyses.updates.linear_update import LinearUpdate, effective_rank, relaxed_updates
from mechicl.hooks.attention_split import attention_parts
from mechicl.hooks.wrapper import wrap
from mechicl.stats import cluster_mean_interval
from mechicl.tasks.prompts import Prompt

DEMOS = ["demo[0]", "demo[1]", "demo[2]"]
QUICK: dict[str, Any] = {"n_boot": 200, "progress": False}


def prompt(seed: int, longer: int = 0) -> Prompt:
    rng, roles = np.random.default_rng(seed), {"bos": (0, 1)}
    ends = np.cumsum([1, 2, 3, 2 + longer])
    roles |= {demo: (int(a), int(b)) for demo, a, b in zip(DEMOS, ends, ends[1:], strict=False)}
    n = int(ends[-1]) + 3
    return Prompt((0, *rng.integers(5, 60, size=n - 1).tolist()), roles | {"last": (n - 1, n)})


PROMPTS = [prompt(seed, seed % 2) for seed in range(6)]


@pytest.fixture(scope="module")
def exact(tiny_folder: Callable[..., Any]) -> Any:
    return mechicl.load(tiny_folder("llama"), device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def found(exact: Any) -> AttentionDual:
    return attention_dual(exact, PROMPTS, demos=DEMOS, **QUICK)


def test_measures_are_means_over_items_of_plain_products(exact: Any, found: AttentionDual) -> None:
    parts = attention_parts(exact, PROMPTS, contexts={"c": DEMOS}).parts["c"]
    wrapped = wrap(exact)
    for layer in range(3):
        for head in range(4):
            out = wrapped.W_O(layer)[head].detach().numpy()
            dz, without = parts.update[:, layer, head], parts.without_context[:, layer, head]
            sizes = [np.linalg.norm(x, axis=1).mean() for x in (dz, without, dz @ out, without @ out)]
            row = found.heads.query("context == 'context' and layer == @layer and head == @head").iloc[0]
            expected = [parts.alpha[:, layer, head].mean(), sizes[0] / sizes[1], sizes[2], sizes[2] / sizes[3]]
            np.testing.assert_allclose(row[["alpha", "relative", "written", "written_relative"]].tolist(), expected)
            matrices = parts.contributions[:, layer, head]
            ranks = [np.trace(m @ m.T) ** 2 / np.sum((m @ m.T) ** 2) for m in matrices]  # no singular values needed
            np.testing.assert_allclose(row["effective_rank"], np.mean(ranks))
            np.testing.assert_allclose(
                (found.spectrum[layer, head] ** 2).sum() > 0 and found.spectrum[layer, head, 0],
                np.mean([np.linalg.norm(m, 2) for m in matrices]),
            )
    np.testing.assert_allclose(found.demos.groupby(["layer", "head"])["share"].sum(), 1)
    assert (found.heads["alpha_low"] <= found.heads["alpha"]).all() and found.caveat and found.n_items == 6


def test_bos_and_random_spans_stand_beside(exact: Any, found: AttentionDual) -> None:
    bos = attention_parts(exact, PROMPTS, contexts={"bos": ["bos"]}).parts["bos"].alpha.mean(0)
    np.testing.assert_allclose(found.values("alpha", "bos"), bos)
    np.testing.assert_allclose(found.values("alpha_with_bos"), found.values("alpha") + bos)
    assert set(found.heads["context"]) == {"context", "bos", "random"} and 0 < found.random_overlap <= 1
    other = attention_dual(exact, PROMPTS, demos=DEMOS, seed=1, **QUICK)
    np.testing.assert_array_equal(other.values("alpha"), found.values("alpha"))
    assert (other.values("alpha", "random") != found.values("alpha", "random")).any()
    bare = attention_dual(exact, PROMPTS, demos=DEMOS, prepended_bos=False, **QUICK)
    assert set(bare.heads["context"]) == {"context", "random"}
    held = attention_dual(exact, PROMPTS, demos=["bos"], **QUICK)  # BOS in the context is not counted twice
    np.testing.assert_allclose(held.values("alpha_with_bos"), held.values("alpha"))


def test_random_spans_have_the_lengths_and_keep_off_bos_and_query() -> None:
    mask = np.zeros((3, 14), dtype=bool)
    mask[0, 1:4] = mask[1, 4:5] = mask[2, 6:8] = True
    places = set()
    for seed in range(200):
        (spans,) = random_spans([mask], [13], seed=seed)
        np.testing.assert_array_equal(spans.sum(1), [3, 1, 2])
        assert spans.sum(0).max() == 1 and not spans[:, [0, 13]].any()
        assert all(np.ptp(np.flatnonzero(row)) == row.sum() - 1 for row in spans)  # each in one piece
        places.add(tuple(np.flatnonzero(spans.any(0))))
    assert len(places) > 30 and set().union(*places) == set(range(1, 13))


def test_equal_values_everywhere_are_no_update(exact: Any) -> None:
    same = [("v", layer, torch.ones_like) for layer in range(3)]
    with wrap(exact).hooked(same):
        null = attention_dual(exact, PROMPTS, demos=DEMOS, **QUICK)
    assert null.values("alpha").min() > 0  # attention goes there, and takes nothing from it
    np.testing.assert_allclose(null.values("relative"), 0, atol=1e-12)


def test_intervals_are_those_of_the_cluster_bootstrap() -> None:
    rng = np.random.default_rng(0)
    values, labels = rng.normal(2, 1, size=(60, 2)), rng.integers(12, size=60)
    estimate, low, high = ratio_intervals(values, np.ones_like(values), labels, n_boot=4_000)
    for head in range(2):
        own = cluster_mean_interval(values[:, head], labels, n_boot=4_000, method="percentile")
        np.testing.assert_allclose([estimate[head]], [own.estimate])
        np.testing.assert_allclose([low[head], high[head]], [own.low, own.high], atol=0.03)
    _, low, high = ratio_intervals(2 * np.ones((9, 1)), np.ones((9, 1)), np.arange(9))
    assert (low, high) == (2, 2)
    assert np.isnan(ratio_intervals(np.ones((4, 1)), np.zeros((4, 1)), np.arange(4))[0]).all()


def test_linear_attention_is_its_weight_update() -> None:
    rng = np.random.default_rng(0)
    v, k, q = rng.normal(size=(4, 5, 3)), rng.normal(size=(4, 5, 6)), rng.normal(size=(4, 6))
    update = LinearUpdate(v, k)
    for b in range(4):
        by_hand = sum(v[b, i] * sum(k[b, i, d] * q[b, d] for d in range(6)) for i in range(5))
        np.testing.assert_allclose(update.apply(q)[b], by_hand, rtol=0, atol=1e-12)
        whole = sum(np.outer(v[b, i], k[b, i]) for i in range(5))
        np.testing.assert_allclose(update.matrix()[b], whole, rtol=0, atol=1e-12)
        np.testing.assert_allclose(update.norm()[b], np.linalg.norm(whole), rtol=0, atol=1e-12)
        np.testing.assert_allclose(update.singular_values()[b], np.linalg.svd(whole)[1], rtol=0, atol=1e-12)
        left, right = (vectors[b] for vectors in update.singular_vectors())
        np.testing.assert_allclose((left * update.singular_values()[b]) @ right.T, whole, rtol=0, atol=1e-12)
        for vectors in (left, right):
            np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), rtol=0, atol=1e-12)
    assert update.rank().tolist() == [3] * 4
    alike = LinearUpdate(np.repeat(v[:, :1], 5, axis=1), k)
    assert alike.rank().tolist() == [1] * 4  # values in one direction
    np.testing.assert_allclose(effective_rank(alike.singular_values()), 1)
    np.testing.assert_allclose(effective_rank(np.ones((2, 3))), 3)
    assert np.isnan(effective_rank(np.zeros((1, 3)))).all()
    with pytest.raises(ValueError, match="the context is empty"):
        LinearUpdate(v[:, :0], k[:, :0])


def test_the_linear_transformers_heads_multiply_by_their_update() -> None:
    from mechicl.organisms.linear_transformer import LinearConfig, LinearTransformer

    rng, cfg = np.random.default_rng(0), LinearConfig(dim=4, n_layers=2, n_heads=2)
    model = LinearTransformer(cfg, dtype=torch.float64)
    model.randomise(seed=0, spread=0.5)
    context = rng.normal(size=(3, 7, 4)), rng.normal(size=(3, 7)), rng.normal(size=(3, 4))
    _, cache = model.run_with_cache(*model.tensors(*context))
    for layer in range(2):
        q, k, v, z = (cache[f"blocks.{layer}.attn.hook_{name}"].detach().numpy().swapaxes(1, 2) for name in "qkvz")
        update = LinearUpdate(v[:, :, :-1], k[:, :, :-1] / 7)  # the seven demonstrations
        np.testing.assert_allclose(update.apply(q[:, :, -1]), z[:, :, -1], rtol=0, atol=1e-12)
        assert abs(z[:, :, -1]).max() > 0.01


def test_the_relaxed_update_is_that_of_cached_keys_and_values(exact: Any) -> None:
    table = relaxed_updates(exact, PROMPTS[:1], demos=DEMOS, top=8).set_index(["layer", "kv_head"])
    one = PROMPTS[0]
    _, cache = exact.run_with_cache(torch.tensor([one.tokens]))
    inside = [j for demo in DEMOS for j in range(*one.roles[demo])]
    for (layer, head), row in table.iterrows():
        k, v = (cache[f"blocks.{layer}.attn.hook_{name}"][0].reshape(len(one), 2, 8)[inside, head].numpy()
                for name in "kv")  # fmt: skip
        whole = sum(np.outer(a, b) for a, b in zip(v, k, strict=True))
        np.testing.assert_allclose(row["norm"], np.linalg.norm(whole), atol=1e-12)
        shares = np.linalg.svd(whole)[1][: len(inside)] / np.linalg.norm(whole)
        np.testing.assert_allclose(row[[f"s{i + 1}" for i in range(len(shares))]].tolist(), shares, atol=1e-10)
    assert (table["n_tokens"] == 7).all() and (table["rank"] == 7).all()


def test_results_are_kept_and_drawn(found: AttentionDual, tmp_path: Any) -> None:
    assert AttentionDual.load(found.save(tmp_path / "dual")) == found
    with pytest.raises(ValueError, match="expected a column of heads"):
        found.values("size")
    for axes in (found.plot(), found.plot_spectrum(1), found.plot_shares(1, 2)):
        assert axes.has_data()


def test_bad_input_is_refused(exact: Any) -> None:
    for options, message in (
        ({"demos": []}, "is empty"),
        ({"demos": DEMOS, "clusters": ["a"]}, "1 cluster labels for 6 prompts"),
        ({"demos": DEMOS, "clusters": ["a"] * 6}, r"got 1 cluster\(s\)"),
        ({"demos": DEMOS, "level": 1.5}, "got level"),
        ({"demos": ["last"]}, "reaches the query"),
    ):
        with pytest.raises(ValueError, match=message):
            attention_dual(exact, PROMPTS, **{**QUICK, **options})
