"""Transfer is 1 to the query itself, 0 where nothing is carried, and beside its controls elsewhere."""

import numpy as np
import pytest
import scipy.stats
import torch

from mechicl.analyses.updates.update_transfer import UpdateTransfer, divergence, measure_update_transfer
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.mlps.mlp_updates import build_updates
from mechicl.hooks.mlps.mlp_weights import updated_weights
from mechicl.hooks.wrapper import wrap

CONTEXTS = [[7, 9, 20, 31], [50, 60, 70], [80, 33, 21]]
QUERIES = [[100, 200], [30, 40], [200]]


@pytest.fixture(scope="module")
def found(tiny_model) -> UpdateTransfer:
    return measure_update_transfer(tiny_model("llama"), CONTEXTS, QUERIES, n_boot=100, seed=1, untrained=True)


def test_to_the_query_itself_an_update_carries_all_the_way(tiny_model):
    own = measure_update_transfer(tiny_model("gpt2"), CONTEXTS, QUERIES, others=[[q] for q in QUERIES], n_boot=100)
    np.testing.assert_allclose(own.pairs["transfer"], 1, atol=1e-6)
    assert (own.pairs[["transfer_other", "transfer_random"]] < 0.9).all(axis=None)
    row = own.estimates.set_index("condition").loc["own"]
    assert row["estimate"] == pytest.approx(1, abs=1e-6) and row["high"] == pytest.approx(1, abs=1e-6)


def test_a_pair_is_what_the_updated_weights_give(tiny_model):
    """By plain runs: the query after the context, alone, and alone with the other query's update in the weights."""
    model = tiny_model("llama")
    wrapped = wrap(model)
    parts, target = find_mlps(wrapped), [90, 91]
    pairs = measure_update_transfer(model, CONTEXTS[:2], QUERIES[:2], others=[[target], [target]], n_boot=100).pairs
    updates, _, _ = build_updates(wrapped, parts, [(0, *CONTEXTS[0], *QUERIES[0])], [(0, *QUERIES[0])])

    def probabilities(*tokens: int) -> np.ndarray:
        with torch.no_grad():
            return model(torch.tensor([tokens]), return_type="logits")[0, -1].double().softmax(-1).numpy()

    goal, alone = probabilities(0, *CONTEXTS[0], *target), probabilities(0, *target)
    with updated_weights(parts, updates):
        updated = probabilities(0, *target)
    kl, kl_own = scipy.stats.entropy(goal, alone), scipy.stats.entropy(goal, updated)
    assert pairs.loc[0, "kl_without"] == pytest.approx(kl, rel=1e-4)
    assert pairs.loc[0, "kl_own"] == pytest.approx(kl_own, rel=1e-4)
    assert pairs.loc[0, "transfer"] == pytest.approx(1 - kl_own / kl, rel=1e-3)


def test_where_the_context_cannot_reach_the_query_there_is_nothing_to_carry(tiny_model):
    """Attention switched off, rotary positions: the context changes no output, and no update is made of it."""
    wrapped = wrap(tiny_model("llama").to(torch.float64))
    with wrapped.hooked([("attn_out", layer, lambda x: x * 0) for layer in range(wrapped.n_layers)]):
        none = measure_update_transfer(wrapped, CONTEXTS, QUERIES, n_boot=100)
    assert (none.pairs[["kl_without", "kl_own", "kl_other"]] < 1e-12).all(axis=None)
    assert none.estimates["low"].isna().all()
    some = measure_update_transfer(wrapped, CONTEXTS, QUERIES, n_boot=100)
    assert (some.pairs[["kl_without", "kl_random"]] > 1e-3).all(axis=None)


def test_divergence_is_that_of_the_distributions():
    p, q = (torch.randn(3, 9, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    expected = scipy.stats.entropy(p.double().softmax(-1).numpy(), q.double().softmax(-1).numpy(), axis=1)
    np.testing.assert_allclose(divergence(p, q).numpy(), expected)
    assert (divergence(p, p) == 0).all()


def test_estimates_are_ratios_of_sums_with_intervals_over_items(found):
    pairs, rows = found.pairs, found.estimates.set_index("condition")
    assert len(pairs) == 6 and set(pairs["item"]) == {0, 1, 2}
    own = 1 - pairs["kl_own"].sum() / pairs["kl_without"].sum()
    other = 1 - pairs["kl_other"].sum() / pairs["kl_without"].sum()
    untrained = 1 - pairs["kl_untrained"].sum() / pairs["kl_untrained_without"].sum()
    assert rows.loc["own", "estimate"] == pytest.approx(own)
    assert rows.loc["own - other", "estimate"] == pytest.approx(own - other)
    assert rows.loc["untrained", "estimate"] == pytest.approx(untrained)
    assert rows.loc["own - other", "median"] == pytest.approx((pairs["transfer"] - pairs["transfer_other"]).median())
    assert (rows["low"] <= rows["estimate"]).all() and (rows["estimate"] <= rows["high"]).all()


def test_clusters_are_resampled_together(tiny_model):
    one = measure_update_transfer(tiny_model("llama"), CONTEXTS, QUERIES, clusters=["a"] * 3, n_boot=100)
    assert one.estimates["low"].isna().all() and (one.estimates["n_clusters"] == 1).all()


def test_report_carries_the_caveat_and_saves(found, tmp_path):
    assert found.caveat in repr(found) and "own - random" in str(found)
    found.save(tmp_path / "transfer")
    assert UpdateTransfer.load(tmp_path / "transfer") == found
    assert len(found.plot().patches) == 4


def test_refuses_bad_input(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(ValueError, match="expected for each of the 3"):
        measure_update_transfer(model, CONTEXTS, QUERIES, others=[[[1]]])
    with pytest.raises(ValueError, match="an item has no other query"):
        measure_update_transfer(model, CONTEXTS, QUERIES, others=[[[1]], [], [[1]]])
    with pytest.raises(ValueError, match="1 different queries"):
        measure_update_transfer(model, CONTEXTS, [[5]] * 3)
    with pytest.raises(ValueError, match="context 0 has 4 tokens, but only 3 fit beside query 0"):
        measure_update_transfer(model, CONTEXTS, QUERIES, others=[[[1] * 60]] * 3)
