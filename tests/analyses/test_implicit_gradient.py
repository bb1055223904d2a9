"""The gradient account as a whole: on speakers who learn from errors and on speakers who do not; words and report."""

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.analyses.gradient.first_order import KEPT, first_order_rate
from mechicl.analyses.gradient.gradient_words import card, match_evidence, match_sentence
from mechicl.analyses.gradient.report import gradient_section
from mechicl.analyses.implicit_gradient import ImplicitGradient, measure_implicit_gradient
from mechicl.analyses.priming_texts import PrimingTexts
from mechicl.analyses.report import write_report
from mechicl.commands.gradient import gradient_as_json, gradient_as_text
from mechicl.hooks.scoring import as_continuations
from mechicl.hooks.steps.dense_steps import text_loss
from mechicl.hooks.steps.step_scoring import StepOptions
from mechicl.hooks.wrapper import wrap
from mechicl.organisms import load_organism
from mechicl.organisms.planted import planted_ife
from mechicl.organisms.planted_language import planted_corpus
from mechicl.results import load
from mechicl.tasks.speaker_pairs import speaker_corpus


@pytest.fixture(scope="module")
def corpus() -> Any:
    """Every second verb, and fewer targets than by default."""
    verbs = sorted(speaker_corpus(targets_per_verb=1).verbs)[::2]
    return speaker_corpus(targets_per_verb=2, verbs=verbs, seed=1)


@pytest.fixture(scope="module")
def measured(corpus) -> Any:
    """Of an organism, by name."""

    @cache
    def measure(name: str) -> ImplicitGradient:
        return measure_implicit_gradient(
            load_organism(name), corpus, n_boot=300, n_pairs=100, n_prompts=8, progress=False, seed=2
        )

    return measure


def test_a_learner_from_errors_goes_like_a_gradient_step(measured):
    found = measured("delta-medium")
    rows = found.match.matches.set_index(["form", "level"])
    for form in ("PD", "DO"):
        row = rows.loc[(form, "between verbs")]
        assert row["r"] > 0.9 and row["low"] > 0.7 and abs(row["chance"]) < 0.1 and row["p_holm"] < 0.05
    assert match_evidence(found.match) == {"PD": "agree", "DO": "agree"}
    assert found.errors.evidence["icl"] == "grows"
    assert card(found.match, found.errors)[0] == "yes"
    assert found.verdict.startswith("In context, verbs' effects follow those of gradient steps after PD primes (r ")


def test_a_learner_of_fixed_steps_does_not(measured):
    found = measured("boost-medium")
    assert match_evidence(found.match) == {"PD": "flat", "DO": "flat"}, "its effects do not vary between verbs"
    assert found.errors.evidence["icl"] == "none"
    assert card(found.match, found.errors) == ("none", "No sign of it")
    assert found.finetuned_ife.evidence != {"PD": "none", "DO": "none"}, "gradient steps themselves are error-driven"
    assert "IFE" in found.finetuned_ife.verdict and "hardly vary, so they cannot follow" in found.verdict


def test_what_is_compared_is_the_same_model_and_the_same_primes(measured, corpus):
    found = measured("delta-medium")
    assert found.priming.provenance.weights_sha256 == found.finetuned.provenance.weights_sha256
    assert len(found.match.items) == 2 * len(corpus) == 2 * len(found.finetuned.priming.items)
    assert found.finetuned.share_diverged == 0 and found.finetuned.learning_rate > 1e-3
    assert found.mlp is not None and found.mlp.verified and found.dual.n_items == 8


def test_the_report_tells_it_all_and_the_result_loads_again(measured, tmp_path):
    found = measured("delta-medium")
    section = gradient_section(found)
    page = write_report(tmp_path / "report", priming=found.priming, ife=found.ife, more=[section])
    text = page.read_text(encoding="utf-8")
    assert 'id="gradient"' in text and "Does learning in context go like a gradient step?" in text
    assert "Like a gradient step, on both counts" in text and "Identities are no evidence" in text
    frames = {path.stem for path in (tmp_path / "report" / "frames").glob("gradient_*.csv")}
    assert frames == set(section.frames) and "gradient_match" in frames
    assert {drawing.name for drawing in section.drawings} <= {p.stem for p in page.parent.glob("pictures/*.png")}
    assert load(tmp_path / "report" / "results" / "implicit_gradient") == found


def test_the_section_says_what_a_null_model_shows(measured):
    section = gradient_section(measured("boost-medium"))
    assert section.kind == "none" and section.verdict == "No sign of it"
    assert "hardly vary" in section.brief and section.paragraphs[0].startswith("No error-driven growth found")


def test_text_and_json_hold_the_numbers(measured, tmp_path):
    found = measured("delta-medium")
    text = gradient_as_text(found)
    assert found.verdict in text and "MLP updates in delta-medium" in text and found.mlp.caveat in text
    assert len([line for line in text.splitlines() if "between verbs" in line]) == 2
    content = json.loads(gradient_as_json(found, tmp_path))
    assert content["learning_rate"] == found.finetuned.learning_rate and content["mlp_verified"] is True
    assert content["match"][3]["r"] == found.match.matches["r"][3] and "provenance" in content


def test_words_follow_the_numbers(measured):
    match = measured("delta-medium").match
    rows = match.matches.copy()
    between = rows["level"] == "between verbs"

    def changed(**columns: Any) -> dict[str, str]:
        return match_evidence(
            replace(match, matches=rows.assign(**{c: rows[c].where(~between, v) for c, v in columns.items()}))
        )

    assert changed(p_holm=0.2) == {"PD": "none", "DO": "none"}
    assert changed(low=-0.1) == {"PD": "none", "DO": "none"}
    assert changed(context_sd=0.004) == {"PD": "flat", "DO": "flat"}
    assert changed(r=-0.9, low=-0.95, high=-0.8) == {"PD": "opposed", "DO": "opposed"}
    assert "are not shown to follow" in match_sentence(match, "beyond verb and target")


def test_a_model_without_mlps_has_no_mlp_updates():
    words = {"n_verbs": 8, "n_persons": 6, "n_things": 6}
    corpus = planted_corpus(**words, seed=2)
    made = planted_ife(corpus=corpus, strength=1.3, seed=3, **words)
    with pytest.warns(UserWarning, match="MLP updates are left out"):
        found = measure_implicit_gradient(
            made.model, corpus, learning_rate=1e-3, n_boot=100, n_pairs=40, n_prompts=6, progress=False
        )
    assert found.mlp is None and found.errors.evidence["icl"] == "grows"
    assert "mlp" not in {name.removeprefix("gradient_")[:3] for name in gradient_section(found).frames}


class TestLearningRate:
    def test_it_is_the_longest_step_that_keeps_its_promise(self, corpus):
        rate, table = first_order_rate(load_organism("delta-medium"), corpus)
        good = table[table["share"] >= KEPT]
        assert rate == good["learning_rate"].max() and table["share"].iloc[-1] < KEPT
        assert np.allclose(table["promised"] / table["learning_rate"], table["promised"][0] / table["learning_rate"][0])
        assert table["share"][0] == pytest.approx(1, abs=0.01), "short steps do what the gradient says"

    def test_the_promise_is_the_squared_gradient(self, corpus):
        """First order: a step of rate e lowers the loss by e |g|^2, with g from plain autograd."""
        model = wrap(load_organism("delta-medium", dtype="float64"))
        _, table = first_order_rate(model, corpus, n_texts=1, grid=(1e-5, 1e-4, 1e-3))
        primes = list(dict.fromkeys(a.prime for a in PrimingTexts(corpus).asked if a.prime is not None))
        chosen = primes[np.random.default_rng(0).choice(len(primes), 1, replace=False)[0]]
        loss = text_loss(model, as_continuations(model, "", [chosen], True))[0]
        squared = sum(g.pow(2).sum().item() for g in torch.autograd.grad(loss, list(model.model.parameters())))
        assert table["promised"][0] / 1e-5 == pytest.approx(squared, rel=1e-3)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"options": StepOptions(learning_rate=1.0, optimizer="adam")}, "'sgd' only"),
            ({"grid": (1e-3, 1e-2)}, "at least 3 rates"),
            ({"grid": (1e-2, 1e-3, 1e-4)}, "ascending"),
            ({"grid": (30.0, 100.0, 300.0)}, "begin the grid lower"),
        ],
    )
    def test_what_cannot_be_chosen_is_refused(self, corpus, options, words):
        with pytest.raises(ValueError, match=words):
            first_order_rate(load_organism("delta-small"), corpus, **options)
