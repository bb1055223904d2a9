"""Priming against a naive loop, and a model that cannot look back as the null control."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from mechicl.analyses.priming import PrimingResult, measure_priming
from mechicl.analyses.priming_texts import _last_common_space
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.datives import dative_corpus

QUICK: dict[str, Any] = {"n_boot": 200, "progress": False}
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # tiny samples: BCa may be undefined
    pytest.mark.filterwarnings("ignore:shared prefixes are computed again"),
]


@pytest.fixture(scope="module")
def corpus() -> PrimingCorpus:
    return dative_corpus(verbs=["give", "send", "buy", "make"], targets_per_verb=2, primes_per_target=2, seed=3)


def whole_log_prob(model: Any, context: str, text: str) -> float:
    """Sum over all tokens of `text` after BOS and `context`, one forward pass, nothing cut or shared."""
    tokenizer = model.tokenizer
    ids = [0, *tokenizer(context + text, add_special_tokens=False)["input_ids"]]
    start = 1 + len(tokenizer(context, add_special_tokens=False)["input_ids"]) if context else 1
    with torch.no_grad():
        found = model(torch.tensor([ids]))[0].log_softmax(-1)
    return sum(found[i - 1, ids[i]].item() for i in range(start, len(ids)))


def naive_L(model: Any, context: str, pd: str, do: str) -> float:
    return whole_log_prob(model, context, pd) - whole_log_prob(model, context, do)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["llama", "gpt2", "hooked"])
def test_every_item_equals_a_naive_loop(tiny_model: Callable[..., Any], corpus: PrimingCorpus, kind: str) -> None:
    model = tiny_model(kind, 512).eval()
    result = measure_priming(model, corpus, **QUICK)
    frame = corpus.to_frame()
    for i, row in frame.iloc[::3].iterrows():
        pd, do = " " + row["target_PD"], " " + row["target_DO"]
        for context in ("PD", "DO", "neutral"):
            expected = naive_L(model, row[f"prime_{context}"], pd, do)
            assert result.items.loc[i, f"L_{context}"] == pytest.approx(expected, abs=1e-4)
        assert result.items.loc[i, "L_unprimed"] == pytest.approx(naive_L(model, "", pd[1:], do[1:]), abs=1e-4)


def test_means_are_means_of_the_items(tiny_model: Callable[..., Any], corpus: PrimingCorpus) -> None:
    result = measure_priming(tiny_model("llama", 512), corpus, **QUICK)
    items, table = result.items, result.verb_table().set_index("verb")
    for verb in corpus.verbs:
        own = items[items["prime_verb"] == verb]
        assert table.loc[verb, "y_PD"] == pytest.approx(expit(own["L_PD"]).mean())
        assert table.loc[verb, "L_DO"] == pytest.approx(own["L_DO"].mean())
        assert table.loc[verb, "n_pairs"] == len(own)
        sentences = result.sentences[result.sentences["verb"] == verb]["L_unprimed"]
        assert table.loc[verb, "bias"] == pytest.approx(expit(sentences).mean())
        assert table.loc[verb, "bias_logit"] == pytest.approx(sentences.mean())
    effect = result.effects.set_index(["contrast", "scale"])
    nats = effect.loc[("PD vs DO", "nats")]
    assert nats["estimate"] == pytest.approx((items["L_PD"] - items["L_DO"]).mean())
    assert nats["low"] <= nats["estimate"] <= nats["high"]
    parts = [effect.loc[(c, "nats"), "estimate"] for c in ("PD vs neutral", "neutral vs DO")]
    assert nats["estimate"] == pytest.approx(sum(parts))
    by_verb = result.verb_effects.query("contrast == 'PD vs DO' and scale == 'nats'")
    assert np.average(by_verb["estimate"], weights=by_verb["n_pairs"]) == pytest.approx(nats["estimate"])


def test_a_model_that_cannot_look_back_is_not_primed(tiny_model: Callable[..., Any], corpus: PrimingCorpus) -> None:
    model = tiny_model("llama", 512)
    for layer in range(model.cfg.n_layers):
        model.add_hook(f"blocks.{layer}.attn.hook_z", lambda z, hook: z * 0)
    result = measure_priming(model, corpus, **QUICK)
    assert result.effects["estimate"].abs().max() < 1e-4
    assert result.items["L_PD"].std() > 0.1  # it still prefers some forms to others
    unablated = measure_priming(tiny_model("llama", 512), corpus, **QUICK)
    assert (unablated.items["L_PD"] - unablated.items["L_DO"]).abs().mean() > 0.1


@pytest.mark.parametrize(
    ("first", "second", "cut"),
    [
        ("A man sent a box to me.", "A man sent me a box.", len("A man sent")),
        ("A man sent a box to a pal.", "A man sent a pal a box.", len("A man sent a")),
        ("The cat ate.", "A dog ran.", 0),
        ("The theme a.", "The them b.", len("The")),
        ("Same text", "Same text and more", len("Same")),
    ],
)
def test_forms_are_cut_at_the_last_space_that_they_share(first: str, second: str, cut: int) -> None:
    assert _last_common_space(first, second) == cut


def test_a_corpus_without_neutral_primes(tiny_model: Callable[..., Any], corpus: PrimingCorpus) -> None:
    bare = PrimingCorpus("bare", corpus.forms, corpus.sentences.assign(neutral=None),
                         corpus.spans[corpus.spans["form"] != "neutral"], corpus.pairs)  # fmt: skip
    result = measure_priming(tiny_model("llama", 512), bare, **QUICK)
    assert result.items["L_neutral"].isna().all()
    assert set(result.effects["contrast"]) == {"PD vs DO", "PD vs unprimed", "unprimed vs DO"}
    assert result.verb_table()["y_neutral"].isna().all()


@pytest.mark.core
def test_a_saved_result_comes_back_bit_for_bit(
    tiny_model: Callable[..., Any], corpus: PrimingCorpus, tmp_path: Path
) -> None:
    result = measure_priming(tiny_model("llama", 512), corpus, **QUICK, store=tmp_path / "scores")
    result.save(tmp_path / "run")
    assert PrimingResult.load(tmp_path / "run") == result
    again = measure_priming(tiny_model("llama", 512), corpus, **QUICK, store=tmp_path / "scores")
    assert again.items.equals(result.items) and again.effects.equals(result.effects)
    assert result.provenance.prepend_bos is True and result.provenance.seeds == {"bootstrap": 0, "corpus": 3}


def test_one_verb_is_refused_before_any_work(tiny_model: Callable[..., Any], corpus: PrimingCorpus) -> None:
    with pytest.raises(ValueError, match="1 prime verb"):
        measure_priming(tiny_model("llama", 512), corpus.where("prime_verb == 'give'"), **QUICK)


def test_texts_longer_than_the_window_are_refused(tiny_model: Callable[..., Any], corpus: PrimingCorpus) -> None:
    with pytest.raises(ValueError, match="context window holds 24"):
        measure_priming(tiny_model("llama", 24), corpus, **QUICK)
