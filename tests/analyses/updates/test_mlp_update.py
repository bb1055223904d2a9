"""The result of `measure_mlp_updates`: the formula's norms, controls beside them, a check that can fail, the caveat."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import mechicl
from mechicl.analyses.updates.mlp_update import MLPUpdates, measure_mlp_updates
from mechicl.analyses.updates.update_items import CAVEAT, other_of
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.mlps.mlp_weights import context_in_weights
from mechicl.hooks.wrapper import wrap
from mechicl.models import model_status
from mechicl.organisms.planted import planted_ife
from mechicl.organisms.planted_language import planted_corpus
from mechicl.untrained import shuffled_weights

CONTEXTS = ["A doctor brought a file.", "The king gave the queen.", "The nurse baked a cake."]
QUERIES = [" The actor", " A guest threw", " The ball"]
QUICK: dict[str, Any] = {"n_boot": 100, "seed": 3}


@pytest.fixture(scope="module")
def found(tiny_model) -> MLPUpdates:
    return measure_mlp_updates(tiny_model("llama"), CONTEXTS, QUERIES, untrained=True, **QUICK)


def test_norms_are_those_of_the_weights_that_the_context_comes_to(tiny_model, found):
    wrapped = wrap(tiny_model("llama"))
    parts, tokenizer = find_mlps(wrapped), wrapped.tokenizer
    before = [{name: part.weight(name).clone() for name in ("W_gate", "W_up", "W_out")} for part in parts]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (CONTEXTS[1], QUERIES[1])]
    rows = found.updates[found.updates["item"] == 1].set_index(["layer", "matrix"])
    with context_in_weights(wrapped, parts, (0, *ids[0], *ids[1]), (0, *ids[1])):
        for part, old in zip(parts, before, strict=True):
            for name, weight in old.items():
                norm = float((part.weight(name) - weight).norm())
                row = rows.loc[(part.layer, name)]
                assert norm == pytest.approx(row["norm"], rel=1e-4)
                assert norm / float(weight.norm()) == pytest.approx(row["relative"], rel=1e-4)


def test_controls_are_the_same_query_after_another_context_and_shuffled_weights(tiny_model, found):
    others = other_of([(1,), (2,), (3,)], QUICK["seed"])  # what they are does not count, only which are equal
    assert sorted(others) == [0, 1, 2] and all(i != j for i, j in enumerate(others))
    crossed = measure_mlp_updates(tiny_model("llama"), [CONTEXTS[j] for j in others], QUERIES, proof_items=0, **QUICK)
    np.testing.assert_allclose(found.updates["norm_other"], crossed.updates["norm"], rtol=1e-4)
    np.testing.assert_allclose(found.updates["cosine_other"], crossed.updates["cosine"], rtol=1e-4)
    shuffled = shuffled_weights(tiny_model("llama"), seed=QUICK["seed"])
    control = measure_mlp_updates(shuffled, CONTEXTS, QUERIES, proof_items=0, **QUICK)
    np.testing.assert_allclose(found.updates["relative_untrained"], control.updates["relative"], rtol=1e-4)
    assert control.verified  # the identity holds for any weights


def test_layers_are_means_over_items_with_differences_to_the_controls(found):
    row = found.layers.set_index(["layer", "matrix", "measure"]).loc[(1, "W_up", "relative")]
    items = found.updates[(found.updates["layer"] == 1) & (found.updates["matrix"] == "W_up")]
    assert row["estimate"] == pytest.approx(items["relative"].mean())
    for control in ("other", "untrained"):
        assert row[control] == pytest.approx(items[f"relative_{control}"].mean())
        assert row[f"minus_{control}"] == pytest.approx(row["estimate"] - row[control])
        assert row[f"minus_{control}_low"] <= row[f"minus_{control}"] <= row[f"minus_{control}_high"]
    one = measure_one_cluster(found)
    assert np.isnan(one["low"]).all()


def measure_one_cluster(found: MLPUpdates) -> Any:
    from mechicl.analyses.updates.mlp_update import _layers

    return _layers(found.updates, ["other"], ["a"] * 3, 100, 0.95, 0)


def test_the_identity_is_checked_and_a_random_update_fails_it(found):
    assert set(found.checks["run"]) == {"hooks", "weights"} and len(found.checks) == 4
    assert found.verified and found.tolerance == 1e-4
    assert (found.checks["layer_error"] < 1e-5).all() and (found.checks["probability_error"] < 1e-5).all()
    assert (found.checks["random_error"] > 0.1).all() and (found.checks["times_larger"] > 1e4).all()
    assert (found.checks["unchanged_error"] > 0.1).all()
    worse = found.checks.assign(layer_error=2 * found.tolerance)
    broken = dataclasses.replace(found, checks=worse)
    assert not broken.verified and "NOT VERIFIED" in broken.report()
    lax = dataclasses.replace(found, checks=found.checks.assign(random_error=1e-6))
    assert not lax.verified  # a check that a random update passes checks nothing


def test_the_caveat_is_wherever_the_numbers_are(found):
    assert "trained or not" in CAVEAT and "does not prove" in CAVEAT
    for text in (repr(found), str(found), found.report(), found.caveat):
        assert CAVEAT in text
    assert "times as large" in found.report() and "holds (tolerance 0.0001 in float32)" in found.report()


def test_a_result_is_kept_bit_for_bit_and_repeats(tiny_model, found, tmp_path):
    found.save(tmp_path / "updates")
    assert MLPUpdates.load(tmp_path / "updates") == found
    again = measure_mlp_updates(tiny_model("llama"), CONTEXTS, QUERIES, **QUICK)
    assert again.layers.equals(found.layers[again.layers.columns]) and again.checks.equals(found.checks)
    assert found.to_frame().equals(found.updates)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-7), ("float64", 1e-10)])
def test_the_tolerance_is_that_of_the_dtype(tiny_folder, dtype, tolerance):
    import mechicl

    model = mechicl.load(tiny_folder("gpt2"), device="cpu", dtype=dtype)
    found = measure_mlp_updates(model, CONTEXTS, QUERIES, **QUICK)
    assert found.tolerance == tolerance and f"tolerance {tolerance:.2g} in {dtype}" in found.report()
    assert found.verified
    if dtype == "bfloat16":  # what float32 must reach cannot be reached here, and is not claimed
        assert found.checks.loc[found.checks["run"] == "weights", "layer_error"].item() > 1e-4


def test_a_norm_in_float32_sets_the_tolerance_of_a_float64_model(tiny_folder):
    import mechicl

    model = mechicl.load(tiny_folder("gemma3_text"), device="cpu", dtype="float64")
    found = measure_mlp_updates(model, CONTEXTS, QUERIES, **QUICK)
    assert found.tolerance == 1e-4 and found.verified
    assert set(found.updates["matrix"]) == {"W_gate", "W_up", "gain"}


def test_token_ids_without_bos_are_texts_without_bos(tiny_model):
    model = tiny_model("gpt2")
    encode = lambda text: model.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    options = {**QUICK, "prepend_bos": False, "proof_items": 0}
    texts = measure_mlp_updates(model, CONTEXTS, QUERIES, **options)
    ids = measure_mlp_updates(model, [encode(t) for t in CONTEXTS], [np.array(encode(t)) for t in QUERIES], **options)
    assert texts.updates.equals(ids.updates) and texts.provenance.prepend_bos is False
    with_bos = measure_mlp_updates(model, CONTEXTS, QUERIES, **{**options, "prepend_bos": True})
    assert not np.allclose(with_bos.updates["norm"], texts.updates["norm"])


def test_refuses_bad_input_before_it_runs(tiny_model):
    model = tiny_model("gpt2")
    long = torch.full((60,), 9)
    bad: list[tuple[Any, Any, dict[str, Any], str]] = [
        (["", "b"], ["c", "d"], {}, "context 0 is empty: without a context there is no update"),
        (["a", "b"], ["c", ""], {}, "query 1 is empty"),
        ([long, "b"], [" A guest", [7] * 10], {}, r"context 0 has 60 tokens, but only 53 fit beside query 1 \(of 10"),
        (["a"], ["c"], {}, "at least 2 different contexts"),
        (["a", "a"], ["c", "d"], {}, "all contexts are the same"),
        (["a", "b"], ["c"], {}, "got 2 contexts and 1 queries"),
        ("a", "c", {}, "got one text, expected a list"),
        ([[7], [9999]], ["c", "d"], {}, "context 1 has the token id 9999, expected 0 to"),
        (["a", "b"], ["c", "d"], {"clusters": [1]}, "got 1 cluster labels for 2 items"),
        (["a", "b"], ["c", "d"], {"n_boot": 3}, "n_boot=3"),
    ]
    for contexts, queries, options, message in bad:
        with pytest.raises(ValueError, match=message):
            measure_mlp_updates(model, contexts, queries, **options)


def test_refuses_a_model_without_mlps():
    words = {"n_verbs": 6, "n_persons": 4, "n_things": 3}
    model = planted_ife(corpus=planted_corpus(**words, seed=2), seed=3, strength=1.0, **words).model
    with pytest.raises(ValueError, match="the block has no MLP"):
        measure_mlp_updates(model, [[1], [2]], [[3], [4]], prepend_bos=False)


def test_a_context_that_fills_most_items_still_gets_other_controls():
    contexts = [(1,), (1,), (1,), (2,)]
    assert all(contexts[i] != contexts[j] for i, j in enumerate(other_of(contexts, 0)))


@pytest.mark.weights
def test_gemma_with_its_context_in_its_weights():
    """Norms behind the blocks: their gains are updated too."""
    if not next(row for row in model_status() if row.name == "gemma3-270m").ready:
        pytest.skip("the weights package of gemma3-270m is absent")
    gemma = mechicl.load("gemma3-270m", device="cpu")
    texts = ["The capital of France is Paris.", " red -> rouge\n"], [" The capital of Italy is", " blue ->"]
    found = measure_mlp_updates(gemma, *texts, **QUICK)
    assert found.verified and found.checks["layer_error"].max() < 1e-4
    assert found.checks["times_larger"].min() > 1e3
    assert "gain" in set(found.updates["matrix"])


@pytest.mark.weights
def test_smollm2_with_its_context_in_its_weights(smollm2):
    before = wrap(smollm2).checksum()
    found = measure_mlp_updates(
        smollm2,
        ["The capital of France is Paris.", " red -> rouge\n"],
        [" The capital of Italy is", " blue ->"],
        **QUICK,
    )
    assert found.verified and found.checks["layer_error"].max() < 1e-4
    assert found.checks["times_larger"].min() > 1e3
    assert wrap(smollm2).checksum() == before
