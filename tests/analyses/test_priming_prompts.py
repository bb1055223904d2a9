"""Items of a corpus that can be patched: L as measured by scoring, roles, donors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mechicl.analyses.priming import measure_priming
from mechicl.analyses.priming_prompts import priming_items
from mechicl.hooks.patching import patch_heads
from mechicl.hooks.replacements import Zero
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.datives import dative_corpus

CONTEXTS = ("PD", "DO", "neutral", "unprimed")


@pytest.fixture(scope="module")
def corpus() -> PrimingCorpus:
    return dative_corpus(verbs=["give", "draw", "feed", "buy"], targets_per_verb=2, seed=4)


def clean_L(model: Any, items: list[Any]) -> np.ndarray:
    return patch_heads(model, items, roles=["target"], replacement=Zero(), sets=[[]], progress=False).clean


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_L_is_what_scoring_gives(
    corpus: PrimingCorpus, tiny_model: Callable[..., Any], tiny_tokenizer: Any, prepend_bos: bool
) -> None:
    """Words of many tokens, forms that part within a word or after it, texts of many lengths."""
    model = tiny_model("gpt2", n_ctx=128)
    wanted = measure_priming(model, corpus, prepend_bos=prepend_bos, n_boot=100, progress=False).items
    rows = np.array([0, 3, 11, 17, len(corpus) - 1])
    for context in CONTEXTS:
        found = clean_L(model, priming_items(corpus, tiny_tokenizer, rows, context, prepend_bos=prepend_bos))
        np.testing.assert_allclose(found, wanted[f"L_{context}"].to_numpy()[rows], atol=1e-4)
        assert np.ptp(found) > 0.01


def test_L_of_a_planted_model_is_its_closed_form(planted) -> None:
    made = planted("decoys", True)
    rows = np.arange(0, len(made.corpus), 7)
    for context in CONTEXTS:
        found = clean_L(made.model, priming_items(made.corpus, made.model.tokenizer, rows, context))
        np.testing.assert_allclose(found, made.expected_L(context)[rows], atol=1e-5)


def test_roles(corpus: PrimingCorpus, tiny_tokenizer: Any) -> None:
    (item,) = priming_items(corpus, tiny_tokenizer, [5], "PD")
    assert item.label == "PD" and item.donors is None
    first, second = item.prompts
    stem = first.roles["scored"][0]
    assert first.tokens[:stem] == second.tokens[:stem] and first.tokens[stem] != second.tokens[stem]
    for prompt, form in zip(item.prompts, corpus.forms, strict=True):
        assert prompt.roles["last"] == (stem - 1, stem) and prompt.roles["bos"] == (0, 1)
        assert prompt.roles["scored"] == (stem, prompt.roles["target"][1])
        text = corpus.prime_target(5, "PD", form)
        ids = tiny_tokenizer(text.text, add_special_tokens=False)["input_ids"]
        assert prompt.tokens == (tiny_tokenizer.bos_token_id, *ids)
        assert tiny_tokenizer.decode(prompt.part("prime.verb")).strip() == text.part("prime.verb")
    (plain,) = priming_items(corpus, tiny_tokenizer, [5], "PD", prepend_bos=False)
    assert "bos" not in plain.prompts[0].roles and plain.prompts[0].tokens == first.tokens[1:]


def test_donors_are_the_same_target_after_the_other_prime(corpus: PrimingCorpus, tiny_tokenizer: Any) -> None:
    rows = [2, 9]
    swapped = priming_items(corpus, tiny_tokenizer, rows, "DO", donor_context="PD")
    other = priming_items(corpus, tiny_tokenizer, rows, "PD")
    assert [item.donors for item in swapped] == [item.prompts for item in other]
    targets = corpus.pairs["target"].to_numpy()
    donor = int(np.flatnonzero((targets == targets[2]) & (np.arange(len(corpus)) != 2))[0])
    (resampled,) = priming_items(corpus, tiny_tokenizer, [2], "PD", donor_rows=[donor])
    (own,) = priming_items(corpus, tiny_tokenizer, [donor], "PD")
    assert resampled.donors == own.prompts != resampled.prompts


def test_donors_with_another_target_are_refused(corpus: PrimingCorpus, tiny_tokenizer: Any) -> None:
    targets = corpus.pairs["target"].to_numpy()
    wrong = int(np.flatnonzero(targets != targets[0])[0])
    with pytest.raises(ValueError, match=f"pair {wrong} was given as donor of pair 0, but its target is"):
        priming_items(corpus, tiny_tokenizer, [0], "PD", donor_rows=[wrong])


def test_a_sentence_without_the_context_is_refused(corpus: PrimingCorpus, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="has no form 'passive'"):
        priming_items(corpus, tiny_tokenizer, [0], "passive")
