"""Priming by gradient steps against a naive loop of copies; error-driven by construction; trouble is named."""

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import TypeCheckError

import mechicl
from mechicl.analyses.finetuning import FinetunedPriming, finetune_on_primes
from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.priming import measure_priming
from mechicl.hooks.prefix_tree import Continuation
from mechicl.organisms.shipped import load_organism
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.datives import dative_corpus
from mechicl.tasks.speaker_pairs import speaker_corpus

ORACLE = runpy.run_path(str(Path(__file__).parents[1] / "hooks" / "steps" / "torch_steps.py"))
QUICK: dict[str, Any] = {"n_boot": 200, "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # tiny samples: BCa may be undefined


@pytest.fixture(scope="module")
def corpus() -> PrimingCorpus:
    return dative_corpus(verbs=["give", "send", "buy", "make"], targets_per_verb=1, primes_per_target=2, seed=3)


@pytest.fixture(scope="module")
def pair(tiny_folder: Callable[..., Path]) -> tuple[Any, Any]:
    """The same weights as a TransformerLens model and as copies for torch."""
    folder = tiny_folder("gpt2", 256)
    return mechicl.load(folder, device="cpu", dtype="float64"), ORACLE["TorchLearners"](folder)


def ids(model: Any, text: str, bos: bool) -> tuple[int, ...]:
    return (*([0] if bos else []), *model.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("steps", [1, 2])
def test_every_item_equals_a_loop_of_copies(pair: Any, corpus: PrimingCorpus, steps: int, bos: bool) -> None:
    model, oracle = pair
    found = finetune_on_primes(model, corpus, learning_rate=0.05, steps=steps, prepend_bos=bos, **QUICK)
    frame, training = corpus.to_frame(), found.training.set_index("prime")
    assert found.training["prime"].is_unique and len(training) == len({*frame["prime_PD"], *frame["prime_DO"],
                                                                       *frame["prime_neutral"].dropna()})  # fmt: skip
    moved = []
    for i, row in list(frame.iterrows())[:: 3 * steps]:
        both = [Continuation(ids(model, row[f"target_{form}"], bos), 1) for form in corpus.forms]
        own = np.subtract(*oracle.before([both])[0])
        assert found.priming.items.loc[i, "L_unprimed"] == pytest.approx(own, abs=1e-9)
        for context in (*corpus.forms, "neutral"):
            # without BOS the first token has no probability, so it is not learned
            prime = Continuation(ids(model, row[f"prime_{context}"], bos), 1)
            (scores,), (losses,) = oracle.after([[prime] * steps], [both], 0.05)
            assert found.priming.items.loc[i, f"L_{context}"] == pytest.approx(np.subtract(*scores), abs=1e-9)
            assert training.loc[row[f"prime_{context}"], "context"] == context
            assert training.loc[row[f"prime_{context}"], "loss_before"] == pytest.approx(losses[0], abs=1e-9)
            assert training.loc[row[f"prime_{context}"], "loss_after"] == pytest.approx(losses[-1], abs=1e-9)
            moved.append(abs(np.subtract(*scores) - own))
    assert min(moved) > 1e-4 and max(moved) > 0.05
    worse = (found.training["loss_after"] > found.training["loss_before"]).mean()
    assert found.share_diverged == worse < 0.2


def test_effects_vanish_with_the_learning_rate(pair: Any, corpus: PrimingCorpus) -> None:
    model, _ = pair
    own = measure_priming(model, corpus, **QUICK)
    effects = {}
    for rate in (1e-6, 2e-6):
        items = finetune_on_primes(model, corpus, learning_rate=rate, **QUICK).priming.items
        np.testing.assert_allclose(items["L_unprimed"], own.items["L_unprimed"], atol=1e-9)
        effects[rate] = (items["L_PD"] - items["L_unprimed"]).to_numpy()
    np.testing.assert_allclose(effects[2e-6], 2 * effects[1e-6], rtol=1e-2, atol=1e-9)  # linear in small steps
    assert 1e-8 < np.abs(effects[1e-6]).max() < 1e-3
    with pytest.raises(ValueError, match="learning_rate=0"):
        finetune_on_primes(model, corpus, learning_rate=0.0, **QUICK)


def test_the_result_saves_loads_and_feeds_other_analyses(pair: Any, corpus: PrimingCorpus, tmp_path: Path) -> None:
    model, _ = pair
    found = finetune_on_primes(
        model, corpus, learning_rate=0.05, parameters="mlp", fillers=["A doctor brought a file."], **QUICK
    )
    found.save(tmp_path / "tuned")
    again = FinetunedPriming.load(tmp_path / "tuned")
    for name in ("items", "sentences", "bias", "effects", "verb_effects"):
        assert getattr(again.priming, name).equals(getattr(found.priming, name))
    assert again.training.equals(found.training) and again.to_frame().equals(found.to_frame())
    assert (again.learning_rate, again.steps, again.optimizer, again.parameters, again.fillers) == (
        0.05, 1, "sgd", "mlp", 1,
    )  # fmt: skip
    options = again.provenance.options
    assert options["learning_rate"] == 0.05 and options["filler_weight"] == 0.8
    assert again.provenance.weights_sha256 == measure_priming(model, corpus, **QUICK).provenance.weights_sha256
    assert set(inverse_frequency_effect(again.priming, n_boot=200).verbs["verb"]) == set(corpus.verbs)
    assert again.plot().get_xlabel().startswith("Priming effect")


def test_a_store_keeps_what_was_learned(pair: Any, corpus: PrimingCorpus, tmp_path: Path) -> None:
    model, _ = pair
    runs = [finetune_on_primes(model, corpus, learning_rate=0.05, store=store, **QUICK)
            for store in (None, tmp_path, tmp_path)]  # fmt: skip
    for other in runs[1:]:
        assert other.priming.items.equals(runs[0].priming.items) and other.training.equals(runs[0].training)
    tuned = finetune_on_primes(model, corpus, learning_rate=0.06, store=tmp_path, **QUICK)
    assert not tuned.priming.items["L_PD"].equals(runs[0].priming.items["L_PD"])


def test_steps_that_raise_the_loss_are_warned_of(pair: Any, corpus: PrimingCorpus) -> None:
    model, _ = pair
    with pytest.warns(UserWarning, match=r"raise the loss of \d+% of the primes .* a learning rate below 20"):
        found = finetune_on_primes(model, corpus, learning_rate=20.0, **QUICK)
    assert found.share_diverged > 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": -0.1}, "learning_rate=-0.1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"steps": 0}, "got steps=0, expected at least 1"),
        ({"optimizer": "lion"}, "got optimizer='lion'"),
        ({"parameters": "embeddings"}, "parameters"),
        ({"level": 1.0}, "got level=1.0"),
        ({"fillers": [""]}, "empty|nothing|0 tokens|1 tokens"),
    ],
)
def test_bad_input_is_refused(pair: Any, corpus: PrimingCorpus, changes: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeCheckError), match=message):  # types are checked first
        finetune_on_primes(pair[0], corpus, **{"learning_rate": 0.1, **QUICK, **changes})


def test_a_corpus_of_one_verb_is_refused(pair: Any, corpus: PrimingCorpus) -> None:
    single = replace(corpus, pairs=corpus.pairs.iloc[:1])
    with pytest.raises(ValueError, match="at least 2 are needed"):
        finetune_on_primes(pair[0], single, learning_rate=0.1, **QUICK)


def test_gradient_steps_are_error_driven() -> None:
    """Even in a model that in context does the same after every verb: its gradient knows how surprising a prime was."""
    small = speaker_corpus(targets_per_verb=2, primes_per_target=4, seed=1)
    model = load_organism("boost-medium", device="cpu")
    found = finetune_on_primes(model, small, learning_rate=0.03, **QUICK)
    assert found.share_diverged == 0
    tables = [inverse_frequency_effect(result, n_boot=200).estimates.query("scale == 'logit'").set_index("estimand")
              for result in (found.priming, measure_priming(model, small, **QUICK))]  # fmt: skip
    for form in ("PD", "DO"):
        tuned, context = (table.loc[f"slope_{form}"] for table in tables)
        assert tuned["high"] < -0.04  # falls with the verb's bias: the inverse frequency effect
        assert abs(context["estimate"]) < 0.01
    effect = found.priming.effects.set_index(["contrast", "scale"]).loc[("PD vs DO", "nats")]
    assert effect["low"] > 0.1
    # Shuffled over verbs, nothing is left of the slope.
    shuffled = found.priming.verb_table()
    slopes = []
    for seed in range(200):
        bias = np.random.default_rng(seed).permutation(shuffled["bias_logit"])
        slopes.append(np.polyfit(bias, shuffled["L_PD_adjusted"], 1)[0])
    assert abs(np.mean(slopes)) < 0.01 and np.quantile(slopes, 0.01) > tables[0].loc["slope_PD", "estimate"]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"steps": 0}, "whole number"), ({"steps": True}, "whole number"), ({"fillers": "abc"}, "a list of texts")],
)
def test_what_is_no_number_or_list_is_refused(options, words) -> None:
    corpus = speaker_corpus(targets_per_verb=1, verbs=["gave", "sold", "sent"])
    with pytest.raises((ValueError, TypeCheckError), match=words):
        finetune_on_primes(load_organism("delta-small"), corpus, learning_rate=0.01, **options)
