"""Controls beside a localisation: each against what it must be where the truth is known."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechicl.analyses.heads.controls import control_table, with_head_kinds
from mechicl.analyses.heads.curves import curve_table
from mechicl.analyses.heads.effects import Sweeper
from mechicl.analyses.heads.selection import confirm_heads, select_heads
from mechicl.analyses.heads.unrelated import TEXTS, damage
from mechicl.analyses.priming import measure_priming
from mechicl.hooks.head_scores import attention_scores
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted_language import planted_corpus
from mechicl.tasks.prompts import RoleText, tokenize
from mechicl.untrained import shuffled_weights


def controls_of(parts: SimpleNamespace, random_sets: pd.DataFrame | None = None, untrained: bool = False) -> Any:
    """Heads, confirmation and controls, by control."""
    heads, chosen = select_heads(parts.sweeper, parts.question, parts.select, parts.confirm, 4)
    heads, found = confirm_heads(parts.sweeper, parts.question, parts.confirm, parts.select, heads, chosen)
    heads = with_head_kinds(parts.sweeper, parts.question, heads, (parts.select, parts.confirm))
    table = control_table(
        parts.sweeper, parts.question, heads, found, parts.confirm,
        pd.DataFrame(columns=["matched", "exact", "effect"]) if random_sets is None else random_sets,
        untrained=untrained, texts=None,
        curves=curve_table(parts.sweeper, parts.question, parts.confirm, parts.select, heads),
    )  # fmt: skip
    return heads, found, table.set_index("control")


@pytest.fixture(scope="module")
def ife(study):
    return controls_of(study("decoys", "ife", "mean"))


def test_what_kind_of_head(planted, ife) -> None:
    heads, _, _ = ife
    made = planted("decoys")
    table = heads.set_index(["layer", "head"])
    scores = attention_scores(made.model, period=25)
    np.testing.assert_array_equal(table["previous_token"], scores.previous_token.ravel())
    np.testing.assert_array_equal(table["induction"], scores.induction.ravel())
    carries = {head for role in ("ife", "decoy") for head in made.heads[role]}
    assert set(table.index[table["bias_p"] <= 0.05]) == carries
    assert set(table.index[table["carries_bias"]]) == set(made.heads["decoy"])


def test_one_head_that_does_all_is_wholly_faithful(ife) -> None:
    """Kept alone it gives the whole effect, and so does every larger set."""
    heads, _, table = ife
    assert table.loc["circuit performance ratio", "estimate"] == pytest.approx(1 - 1 / len(heads), abs=1e-3)
    assert table.loc["circuit-model distance", "estimate"] == pytest.approx(0, abs=1e-3)


def test_a_head_that_rests_carries_nothing(planted, ife) -> None:
    """The backup rests on BOS and holds the bias at e^-30, which nothing can read."""
    heads, _, _ = ife
    row = heads.set_index(["layer", "head"]).loc[planted("decoys").heads["backup"][0]]
    assert row["bias_r2"] == 0 and row["bias_p"] == 1


def test_the_outcome_moves_as_the_donor_verbs_bias_says(ife) -> None:
    """k per unit of bias; a head that writes no prediction error would give 0."""
    _, found, table = ife
    assert len(found.heads) == 1
    for name in ("verb interchange, L{}H{}".format(*found.heads[0]), "verb interchange, all confirmed heads"):
        np.testing.assert_allclose(table.loc[name, ["estimate", "low", "high"]].astype(float), 1.3, atol=1e-3)


def test_overlap_is_the_rank_correlation_over_heads(ife) -> None:
    heads, _, table = ife
    for kind in ("induction", "previous_token"):
        rank = np.corrcoef(heads["effect"].abs().rank(), heads[kind].rank())[0, 1]
        assert table.loc[f"overlap with {kind}", "estimate"] == pytest.approx(rank)


def test_unrelated_text_is_not_damaged(ife) -> None:
    """The planted model knows none of its words, so its heads do nothing there."""
    _, _, table = ife
    for control in ("damage on unrelated text", "damage by random heads"):
        np.testing.assert_allclose(table.loc[control, ["estimate", "low", "high"]].astype(float), 0, atol=1e-6)


def test_pairs_with_and_without_the_same_preposition(study) -> None:
    parts = study("decoys", "priming", "interchange", True)
    corpus = parts.sweeper.corpus
    shared = np.random.default_rng(0).integers(2, size=len(corpus)).astype(bool)
    corpus = replace(corpus, pairs=corpus.pairs.assign(shared_preposition=shared))
    split = SimpleNamespace(**{**vars(parts), "sweeper": replace(parts.sweeper, corpus=corpus, _items={})})
    _, found, table = controls_of(split)
    change = found.change[found.confirmed].sum(0)
    own = shared[parts.confirm.numbers]
    assert found.confirmed.any()
    for words, chosen in (("the same preposition", own), ("different prepositions", ~own)):
        row = table.loc[f"pairs with {words}"]
        assert row["estimate"] == pytest.approx(change[chosen].mean()) and row["low"] < row["estimate"] < row["high"]
    assert not any("preposition" in name for name in controls_of(parts)[2].index)


def test_random_sets_give_a_p(study) -> None:
    made_up = pd.DataFrame(
        [("confirmed", True, -2.0), *(("layer", True, e) for e in (0.1, -2.0, 2.5, 0.3)), ("norm", False, 0.0)],
        columns=["matched", "exact", "effect"],
    )
    _, _, table = controls_of(study("decoys", "priming", "interchange", True), made_up)
    row = table.loc["random sets (layer, exact)"]
    assert row["estimate"] == pytest.approx(0.225) and row["what"].endswith("p = 0.6000")  # (1 + 2) / (1 + 4)
    assert table.loc["random sets (norm, summed)", "what"].endswith("p = 0.5000")


@pytest.mark.parametrize(("effect", "ablation"), [("priming", "interchange"), ("ife", "mean")])
def test_the_untrained_model_is_measured_as_any_other(effect, ablation, study) -> None:
    """Patching's L of the shuffled copy is what scoring gives."""
    parts = study("decoys", effect, ablation, True)
    _, _, table = controls_of(parts, untrained=True)
    copied = shuffled_weights(parts.planted.model, seed=0)
    items = measure_priming(copied, parts.planted.corpus, n_boot=100, progress=False).items.iloc[parts.confirm.numbers]
    log_odds = {context: items[f"L_{context}"].to_numpy() for context in ("PD", "DO", "neutral")}
    wanted = parts.question.total(parts.question.outcome(log_odds), parts.confirm)
    assert table.loc["shuffled weights", "estimate"] == pytest.approx(float(wanted), rel=1e-3)


def test_without_a_confirmed_head_only_what_speaks_of_all_heads_is_left(study) -> None:
    _, found, table = controls_of(study("decoys", "ife", "zero"))
    areas = {"circuit performance ratio", "circuit-model distance"}
    assert not found.heads and all(name.startswith("overlap with") for name in set(table.index) - areas)


def test_damage_equals_a_plain_run_with_means_in_place(tiny_model: Callable[..., Any]) -> None:
    """Mean z by offset over the other half of the texts, put in by hand, text by text."""
    model = tiny_model("gpt2", n_ctx=128)
    wrapped, heads = wrap(model), [(0, 1), (1, 2)]
    texts = [text[:20] for text in TEXTS[:4]]
    corpus = planted_corpus(n_verbs=2, n_persons=4, n_things=2)  # unused
    sweeper = Sweeper(wrapped, corpus, ("target",), "mean", True, 1 << 30, False, None)
    (_, unit, found, low, high, _), _ = damage(sweeper, heads, texts, seed=0)
    prompts = [tokenize(RoleText(text, {}), model.tokenizer, prepend_bos=True).tokens for text in texts]
    z = []
    for tokens in prompts:
        _, cache = model.run_with_cache(torch.tensor([tokens]))
        z.append([cache[f"blocks.{layer}.attn.hook_z"][0].reshape(len(tokens), 4, 8)[1:] for layer in range(2)])
    changes = []
    for number, tokens in enumerate(prompts):
        others = (2, 3) if number < 2 else (0, 1)

        def put(layer: int, head: int, own: int = len(tokens) - 1, others: Any = others) -> Any:
            def hook(value: torch.Tensor) -> torch.Tensor:
                known = torch.cat([z[o][layer][:, head] for o in others]).mean(0)  # where no other text is as long
                for offset in range(own):
                    met = [z[o][layer][offset, head] for o in others if offset < len(z[o][layer])]
                    value.view(1, -1, 4, 8)[0, offset + 1, head] = torch.stack(met).mean(0) if met else known
                return value

            return hook

        def log_prob(hooks: Any, tokens: Any = tokens) -> float:
            with torch.no_grad(), wrapped.hooked(hooks):
                logits = model(torch.tensor([tokens]))[0].log_softmax(-1)
            return float(logits[:-1].gather(-1, torch.tensor(tokens[1:])[:, None]).mean())

        changes.append(log_prob([("z", layer, put(layer, head)) for layer, head in heads]) - log_prob([]))
    assert unit == "nats a token" and found == pytest.approx(np.mean(changes), abs=1e-5)
    assert high - low == pytest.approx(4 * np.std(changes, ddof=1) / 2, abs=1e-5) and abs(found) > 1e-3
