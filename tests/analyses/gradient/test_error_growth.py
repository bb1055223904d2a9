"""Error-driven growth: found where it was planted or learned, with the right slope; not found where it is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from mechicl.analyses.gradient import error_growth as module
from mechicl.analyses.gradient.error_growth import ErrorDrivenResult, error_driven
from mechicl.analyses.gradient.update_sizes import measure_update_sizes
from mechicl.analyses.priming import PrimingResult
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import wrap
from mechicl.organisms import load_organism
from mechicl.organisms.planted_truth import Planted
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.speaker_pairs import speaker_corpus

QUICK: dict[str, Any] = {"n_boot": 200, "n_permutations": 400, "progress": False}
Run = Callable[[str, str], ErrorDrivenResult]


@pytest.fixture(scope="module")
def run(planted: Callable[..., Planted], primed: Callable[..., PrimingResult]) -> Run:
    made: dict[tuple[str, str], ErrorDrivenResult] = {}

    def get(kind: str, error: str) -> ErrorDrivenResult:
        if (kind, error) not in made:
            own = planted(kind)
            made[kind, error] = error_driven(own.model, own.corpus, error=error, primed=primed(kind), **QUICK)
        return made[kind, error]

    return get


@pytest.fixture(scope="module")
def speakers() -> PrimingCorpus:
    return speaker_corpus(targets_per_verb=1, seed=3)


def test_a_planted_error_has_its_strength_as_slope(run: Run, planted: Callable[..., Planted]) -> None:
    found = run("ife", "probability")  # k (s - p): for either form k times 1 - P(form)
    for forms in ("both", "PD", "DO"):
        np.testing.assert_allclose(found.slope(forms=forms)["estimate"], 1.3, atol=1e-4)
    np.testing.assert_allclose(found.slope()[["low", "high", "r"]].tolist(), [1.3, 1.3, 1], atol=1e-4)
    bias = planted("ife").bias
    for _, prime in found.primes.iterrows():
        p = bias[prime["verb"]] if prime["form"] == "PD" else 1 - bias[prime["verb"]]
        np.testing.assert_allclose([prime["error"], prime["error_surprisal"]], [1 - p, -np.log(p)], atol=1e-4)
        np.testing.assert_allclose(prime["icl"], 1.3 * (1 - p), atol=1e-4)
    assert found.evidence["icl"] == found.evidence["attention"] == "grows"
    assert found.verdict.startswith("error-driven growth found") and "1.300 [1.300, 1.300] nats" in found.verdict
    assert found.by_target and found.baseline == "neutral"


def test_surprisal_has_the_slope_of_least_squares_on_the_truth(run: Run) -> None:
    found = run("ife", "surprisal")
    own = found.rows.assign(cell=found.rows["target"] + found.rows["form"], y=1.3 * found.rows["error_probability"])
    exact = smf.ols("y ~ error + C(cell)", own).fit().params["error"]
    np.testing.assert_allclose(found.slope()["estimate"], exact, atol=1e-4)
    assert found.evidence["icl"] == "grows" and found.slope(model="with covariates")["estimate"] > 0.2


@pytest.mark.parametrize("error", ["probability", "surprisal"])
@pytest.mark.parametrize("kind", ["priming", "null"])
def test_where_nothing_follows_the_error_nothing_is_found(kind: str, error: str, run: Run) -> None:
    found = run(kind, error)
    assert set(found.evidence.values()) == {"none"}
    assert found.verdict.startswith(
        "no error-driven growth found: with the prime's prediction error the ICL effect does"
    )
    np.testing.assert_allclose(found.slope()["estimate"], 0, atol=1e-4)
    assert found.slope()["p"] > 0.05


def test_placebos_are_null(run: Run) -> None:
    found = run("ife", "surprisal")
    neutral = found.slope(model="after neutral primes")
    np.testing.assert_allclose(neutral["estimate"], 0, atol=1e-4)
    other = found.slope(model="another verb's error")
    assert other["low"] < 0 < other["high"] < found.slope()["low"] and abs(other["estimate"]) < other["se"]
    assert "after neutral primes" not in found.verdict


@pytest.mark.parametrize(("name", "grows"), [("delta-medium", True), ("boost-medium", False), ("static-medium", False)])
def test_trained_speakers(name: str, grows: bool, speakers: PrimingCorpus) -> None:
    model = load_organism(name)
    before = wrap(model).checksum()
    found = error_driven(model, speakers, error="probability", n_pairs=105, **QUICK)
    assert wrap(model).checksum() == before and not wrap(model).has_hooks()
    assert (found.evidence["icl"] == "grows") is grows
    if grows:  # a delta speaker moves by 1.5 (1 - P(form))
        np.testing.assert_allclose(found.slope()["estimate"], 1.5, atol=0.05)
        assert set(found.evidence.values()) == {"grows"}  # and so do all sizes
    else:
        assert abs(found.slope()["estimate"]) < 0.02 and found.verdict.startswith("no error-driven growth found")


def test_a_priming_that_is_given_is_not_measured_again(
    monkeypatch: pytest.MonkeyPatch, run: Run, planted: Callable[..., Planted], primed: Callable[..., PrimingResult]
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("scored twice")

    monkeypatch.setattr(module, "measure_priming", refuse)
    own, measured = planted("ife"), primed("ife")
    sizes = measure_update_sizes(own.model, own.corpus, n_pairs=44, progress=False)
    monkeypatch.setattr(module, "measure_update_sizes", refuse)
    more = sizes.with_kind("mlp", sizes.sizes["residual"] + 1, sizes.placebo["residual"])
    found = error_driven(own.model, own.corpus, primed=measured, sizes=more, error="probability", **QUICK)
    assert list(found.evidence) == ["icl", "residual", "attention", "mlp"] and len(found.rows) == 88
    np.testing.assert_allclose(found.slope("mlp")["estimate"], found.slope("residual")["estimate"])
    picked = measured.items.iloc[sizes.rows["row"]]
    np.testing.assert_allclose(found.rows["icl"][:44], picked["L_PD"] - picked["L_neutral"])
    np.testing.assert_allclose(found.rows["icl"][44:], picked["L_neutral"] - picked["L_DO"])
    with pytest.raises(ValueError, match="give one of them"):
        error_driven(own.model, own.corpus, primed=measured, sizes=sizes, n_pairs=9, **QUICK)
    mixed = replace(sizes, rows=sizes.rows.iloc[::-1].reset_index(drop=True))
    with pytest.raises(ValueError, match="other pairs than the corpus has, or out of order"):
        error_driven(own.model, own.corpus, sizes=mixed, **QUICK)


def test_fewer_pairs_are_whole_targets_and_agree(planted: Callable[..., Planted]) -> None:
    own = planted("ife")
    found = error_driven(own.model, own.corpus, n_pairs=33, error="probability", **QUICK)
    assert len(found.rows) == 66 and found.by_target and found.rows["target"].nunique() == 3
    np.testing.assert_allclose(found.slope()["estimate"], 1.3, atol=1e-4)


def test_without_neutral_primes_the_verdict_says_so(planted: Callable[..., Planted]) -> None:
    own = planted("ife")
    corpus = replace(own.corpus, sentences=own.corpus.sentences.assign(neutral=None), spans=own.corpus.spans[
        own.corpus.spans["form"] != "neutral"])  # fmt: skip
    found = error_driven(own.model, corpus, n_pairs=33, error="probability", **QUICK)
    assert found.baseline == "unprimed" and "measured from no prime at all" in found.verdict
    np.testing.assert_allclose(found.slope()["estimate"], 1.3, atol=1e-4)
    assert "after neutral primes" not in set(found.estimates["model"])


def test_targets_that_meet_one_prime_each_cannot_be_adjusted_for(planted: Callable[..., Planted]) -> None:
    own = planted("ife")
    frame = own.corpus.to_frame()
    turn, target = frame.groupby("target").cumcount(), pd.factorize(frame["target"])[0]
    once = own.corpus.where((turn == target % 11).to_numpy())
    found = error_driven(own.model, once, error="probability", **QUICK)
    assert not found.by_target and "not adjusted for targets" in found.verdict


def test_results_are_kept_and_drawn(run: Run, tmp_path: Any) -> None:
    found = run("ife", "surprisal")
    assert ErrorDrivenResult.load(found.save(tmp_path / "error")) == found
    assert len(found.by_layer) == 4 and found.to_frame().equals(found.estimates)
    axes = found.plot()
    assert "slope within forms" in axes.get_legend().get_texts()[-1].get_text()
    assert found.plot(outcome="attention").has_data()
    with pytest.raises(ValueError, match="no slope of 'mlp'"):
        found.slope("mlp")


def test_bad_input_is_refused(planted: Callable[..., Planted], primed: Callable[..., PrimingResult]) -> None:
    own = planted("ife")
    verbs = own.corpus.verbs
    one, two = (own.corpus.where(f"prime_verb in {list(verbs[:n])}") for n in (1, 2))
    for corpus in (one, two):
        with pytest.raises(ValueError, match="at least 3 are needed for a slope over verbs"):
            error_driven(own.model, corpus, **QUICK)
    with pytest.raises(ValueError, match="the priming is of other pairs"):
        error_driven(own.model, own.corpus.sample(50), primed=primed("ife"), **QUICK)
    with pytest.raises(ValueError, match="got error='bits'"):
        error_driven(own.model, own.corpus, error="bits", **QUICK)
    with pytest.raises(ValueError, match="the chosen pairs have fewer than 3 prime verbs"):
        error_driven(own.model, own.corpus, n_pairs=2, **QUICK)
    with pytest.raises(ValueError, match="got level"):
        error_driven(own.model, own.corpus, **{**QUICK, "level": 0.0})


def test_the_whole_surprisal_of_a_prime_is_its_score(planted: Callable[..., Planted]) -> None:
    own = planted("ife")
    rows = error_driven(own.model, own.corpus, n_pairs=33, **QUICK).rows
    prime = rows["prime"][0]
    texts = [own.corpus.text(prime, form).text for form in ("PD", "DO")]
    expected = np.mean([-s / n for s, n in zip(score(own.model, ["", ""], texts, progress=False), (6, 5), strict=True)])
    np.testing.assert_allclose(rows["surprisal"][0], expected, rtol=1e-5)
    assert set(rows.loc[rows["form"] == "PD", "length"]) == {6}
    verb = own.model.tokenizer(rows["verb"][0], add_special_tokens=False)["input_ids"][0]
    bos = own.model.tokenizer.bos_token_id
    frequency = score(own.model, [[bos]], [[verb]], prepend_bos=False, progress=False)[0]
    np.testing.assert_allclose(rows["frequency"][0], frequency, rtol=1e-5)
