"""Readings of priming: planted models in closed form, results that are handed in, and where nothing is to be found."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logit

from mechicl.accounts.contexts import Contexts
from mechicl.accounts.distances import account_distances, ceiling_distance, prediction_distance
from mechicl.accounts.fitting import fit_account
from mechicl.accounts.priming import priming_accounts
from mechicl.analyses.finetuning import finetune_on_primes
from mechicl.analyses.priming import measure_priming
from mechicl.analyses.rivals import priming_readings
from mechicl.analyses.rivals.priming_readings import read_priming
from mechicl.organisms.planted import planted_ife, planted_null, planted_priming
from mechicl.organisms.planted_language import planted_corpus
from mechicl.organisms.planted_truth import Planted
from mechicl.organisms.shipped import load_organism
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.speaker_pairs import speaker_corpus

WORDS: dict[str, Any] = {"n_verbs": 6, "n_persons": 8, "n_things": 6}
STRENGTH = 1.3
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # few verbs: BCa may be undefined


@pytest.fixture(scope="module")
def corpus() -> PrimingCorpus:
    return planted_corpus(**WORDS, targets_per_verb=1, primes_per_verb=3, design="factorial", seed=2)


@pytest.fixture(scope="module")
def made(corpus: PrimingCorpus) -> Callable[..., Planted]:
    @cache
    def make(kind: str, item_noise: float = 0.0) -> Planted:
        sizes: Any = {"corpus": corpus, "item_noise": item_noise, "seed": 3, **WORDS}
        if kind == "null":
            return planted_null(**sizes)
        return (planted_ife if kind == "ife" else planted_priming)(strength=STRENGTH, **sizes)

    return make


def distances(contexts: list[Contexts]) -> dict[str, tuple[float, dict[str, Any]]]:
    found = {}
    for account in priming_accounts(contexts[0].examples):
        fitted = fit_account(account, contexts)
        found[account.name] = (float(account_distances(account, contexts[0], fitted).mean()), fitted)
    return found


@pytest.mark.parametrize(
    ("kind", "account", "number"),
    [("ife", "delta rule", STRENGTH), ("priming", "constant boost", STRENGTH / 2), ("null", "no priming", None)],
)
def test_planted_models_follow_their_account_exactly(
    made: Callable[..., Planted], kind: str, account: str, number: float | None
) -> None:
    planted = made(kind)
    contexts = read_priming(planted.model, planted.corpus, gradient=False, progress=False)
    (one,) = contexts
    expected = np.concatenate([planted.expected_L(form) for form in planted.corpus.forms])
    np.testing.assert_allclose(one.model[:, 0], expit(expected), atol=1e-5)
    np.testing.assert_allclose(one.examples.base, np.tile(planted.expected_L("neutral"), 2), atol=1e-4)
    verbs = planted.corpus.to_frame()["prime_verb"]
    np.testing.assert_allclose(one.examples.bias, np.tile(logit(verbs.map(planted.bias)), 2), atol=1e-4)
    assert one.length == 1 and np.isnan(one.truth).all() and ceiling_distance(one).max() < 1e-9
    found = distances(contexts)
    distance, fitted = found.pop(account)
    assert distance < 1e-6
    if number is None:
        assert all(found[name][0] < 1e-6 for name in ("delta rule", "constant boost", "count-based adaptation"))
    else:
        assert list(fitted.values()) == [pytest.approx(number, abs=1e-3)]
        assert min(other for other, _ in found.values()) > 1e-3


def test_the_ceiling_is_what_nouns_of_primes_do(made: Callable[..., Planted]) -> None:
    """In a factorial corpus the answer after another prime is that of another pair."""
    planted = made("ife", 0.5)
    (one,) = read_priming(planted.model, planted.corpus, gradient=False, n_orders=3, progress=False)
    assert one.orders is not None and one.orders.shape == (3, *one.model.shape)
    np.testing.assert_allclose(one.orders[0], one.model, atol=1e-12)
    frame = planted.corpus.to_frame()[["prime_verb", "target"]]
    rows = {key: np.asarray(own) for key, own in frame.groupby(["prime_verb", "target"]).indices.items()}
    for i, (verb, target) in enumerate(frame.itertuples(index=False)):
        for form in (0, 1):
            offset = form * len(frame)
            mine = sorted(one.orders[:, offset + i, 0])
            np.testing.assert_allclose(mine, sorted(one.model[offset + rows[verb, target], 0]), atol=1e-5)
    # no account that knows verb, form and target comes nearer on average
    best = np.empty_like(one.model)
    for own in rows.values():
        for offset in (0, len(frame)):
            best[offset + own] = one.model[offset + own].mean(0)
    spread = prediction_distance(one.model, best).mean() * 3 / 2
    assert ceiling_distance(one).mean() == pytest.approx(spread, rel=1e-3) and spread > 1e-3


def test_results_at_hand_are_used_and_nothing_is_measured(
    made: Callable[..., Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = made("ife")
    part = planted.corpus.where((planted.corpus.pairs["prime"].str[-1] == "0").to_numpy())
    options: Any = {"n_boot": 100, "progress": False}
    primed = measure_priming(planted.model, part, **options)
    finetuned = finetune_on_primes(planted.model, part, learning_rate=0.01, **options)
    (fresh,) = read_priming(planted.model, part, learning_rate=0.01, progress=False)
    for name in ("measure_priming", "finetune_on_primes", "first_order_rate"):
        monkeypatch.delattr(priming_readings, name)
    (one,) = read_priming(planted.model, part, primed=primed, finetuned=finetuned, progress=False)
    assert one.orders is None  # one prime a verb here
    stepped = finetuned.priming.items
    step = [stepped[f"L_{form}"] - stepped["L_neutral"] for form in part.forms]
    np.testing.assert_allclose(one.examples.step, np.concatenate(step), atol=1e-9)
    for name in ("base", "form", "step", "bias", "verb"):
        np.testing.assert_allclose(getattr(fresh.examples, name), getattr(one.examples, name), atol=1e-4)
    np.testing.assert_allclose(fresh.model, one.model, atol=1e-5)
    (some,) = read_priming(planted.model, part, primed=primed, finetuned=finetuned, n_contexts=12, progress=False)
    assert len(some) == 24 and set(some.model[:, 0]) <= set(one.model[:, 0])
    with pytest.raises(ValueError, match="of another corpus"):
        read_priming(planted.model, planted.corpus, primed=primed, progress=False)
    with pytest.raises(ValueError, match="of another model"):
        read_priming(made("null").model, part, primed=primed, progress=False)


def test_without_neutral_primes_the_base_is_the_target_alone(made: Callable[..., Planted]) -> None:
    planted = made("priming")
    bare = replace(
        planted.corpus,
        sentences=planted.corpus.sentences.assign(neutral=None),
        spans=planted.corpus.spans[planted.corpus.spans["form"] != "neutral"],
    )
    (one,) = read_priming(planted.model, bare, gradient=False, n_orders=2, progress=False)
    np.testing.assert_allclose(one.examples.base, np.tile(planted.expected_L("unprimed"), 2), atol=1e-4)
    assert one.orders is not None and len(one.orders) == 2


def test_contexts_are_pairs_spread_over_verbs_and_clusters_are_verbs(made: Callable[..., Planted]) -> None:
    planted = made("ife")
    (one,) = read_priming(planted.model, planted.corpus, gradient=False, n_contexts=12, n_orders=1, progress=False)
    assert one.orders is None and len(one) == 24
    np.testing.assert_array_equal(np.bincount(one.cluster), 4)  # 6 verbs, 2 pairs each, both forms
    np.testing.assert_array_equal(one.examples.form, np.repeat([1, -1], 12))
    assert all(len(np.unique(one.examples.bias[one.cluster == verb])) == 1 for verb in range(6))


@pytest.mark.parametrize(("name", "account"), [("delta-small", "delta rule"), ("boost-medium", "constant boost")])
def test_a_trained_organism_is_nearest_to_what_it_was_trained_on(name: str, account: str) -> None:
    verbs = sorted(speaker_corpus(targets_per_verb=1).verbs)[::3]
    speakers = speaker_corpus(targets_per_verb=2, primes_per_target=4, verbs=verbs, seed=1)
    found = distances(read_priming(load_organism(name), speakers, learning_rate=0.01, progress=False))
    distance, fitted = found.pop(account)
    assert distance < 0.1 * min(other for other, _ in found.values())
    assert next(iter(fitted.values())) == pytest.approx(1.5 if account == "delta rule" else 0.75, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_contexts": 3}, "3 verb\\(s\\); expected 4"),
        ({"n_contexts": 0}, "n_contexts=0"),
        ({"n_orders": 0}, "n_orders=0"),
        ({"learning_rate": -1.0}, "rate"),
    ],
)
def test_what_cannot_be_read_is_refused(made: Callable[..., Planted], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_priming(made("null").model, made("null").corpus, progress=False, **options)
