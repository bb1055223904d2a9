"""The trained organisms: small enough, open as any model, adapt as their speakers do; and training can be stopped."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit

import mechicl
from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.priming import PrimingResult, measure_priming
from mechicl.organisms import ORGANISMS, load_organism, organism_card, organism_folder, train_organism
from mechicl.organisms.judging import bernoulli_kl, closeness, one_prime
from mechicl.organisms.recipes import RECIPES, Recipe, Size, find_recipe
from mechicl.organisms.resumable import CHECKPOINT
from mechicl.organisms.training import Training
from mechicl.tasks.mini_language import VERBS, mini_tokenizer
from mechicl.tasks.speaker_pairs import speaker_corpus
from mechicl.tasks.speakers import Speaker

TINY = Recipe("tiny", Speaker("delta"), Size(8, 2, 2), steps=12, batch=8, n_sentences=3, warmup=3)


PADDING = mini_tokenizer().pad_token_id


def estimate(result, estimand, scale="probability"):
    return result.estimates.set_index(["scale", "estimand"]).loc[(scale, estimand)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# ------------------------------------------------------------------------------------------- what is shipped


@pytest.mark.parametrize("name", ORGANISMS)
def test_every_organism_is_small_and_documented(name):
    folder, card = organism_folder(name), organism_card(name)
    assert (folder / "model.safetensors").stat().st_size < 3_000_000
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors"}
    assert card["name"] == name
    assert card["description"] == ORGANISMS[name]
    assert card["steps"] == RECIPES[name].steps
    assert card["recipe"]["speaker"]["learner"] == name.split("-")[0]
    assert sum(t.numel() for t in weights(folder).values()) == card["n_params"]


@pytest.mark.parametrize("name", ORGANISMS)
def test_the_card_tells_what_the_weights_do(name):
    """Measured anew on other documents, the closeness to the speakers is what the card says."""
    from transformers import LlamaForCausalLM

    model, speaker = LlamaForCausalLM.from_pretrained(organism_folder(name)).eval(), RECIPES[name].speaker
    card = organism_card(name)
    found = closeness(model, speaker, n_documents=1000, seed=(5, 5))
    assert found["kl"] == pytest.approx(card["closeness_by_sentence"]["kl"], rel=0.5, abs=1e-6)
    prime = one_prime(model, speaker)
    assert prime == pytest.approx(card["one_prime"], abs=0.002)


def test_an_organism_opens_with_its_tokenizer():
    model = load_organism("delta-small", device="cpu")
    tokens = torch.tensor([[0, *mini_tokenizer()("Anna gave Ben tea.", add_special_tokens=False)["input_ids"]]])
    assert tokens.shape == (1, 6)
    assert torch.equal(model.to_tokens("Anna gave Ben tea.", prepend_bos=True).cpu(), tokens)
    by_folder = mechicl.load(organism_folder("delta-small"), device="cpu")
    with torch.no_grad():
        assert torch.equal(model(tokens), by_folder(tokens))


@pytest.mark.parametrize(("name", "near"), [("delta-mediun", "delta-medium"), ("boost", "boost-medium")])
def test_an_unknown_name_is_answered_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"did you mean '{near}'"):
        load_organism(name)
    with pytest.raises(ValueError, match="there are delta-small"):
        find_recipe("zzz")


# ------------------------------------------------------------------------------------------- what they show


@pytest.fixture(scope="module")
def primed() -> dict[str, PrimingResult]:
    corpus = speaker_corpus(targets_per_verb=2, primes_per_target=10, seed=11)
    names = ["delta-medium", "boost-medium", "static-medium"]
    return {n: measure_priming(load_organism(n, device="cpu"), corpus, n_boot=500, progress=False) for n in names}


def test_the_inverse_frequency_effect_is_where_it_is_in_the_data(primed):
    """Delta speakers have it, their readers too, near the closed form; the others have none of a size that matters.

    Items are many and without noise, so that a slope of .001, all that training left, can differ from 0 beyond chance.
    Whole intervals lie inside a tenth of the delta speakers' slope, and the verdict calls such slopes negligible.
    """
    found = {name: inverse_frequency_effect(p, n_boot=2000, n_permutations=2000) for name, p in primed.items()}
    ideal = Speaker("delta").ideal_slopes().set_index(["scale", "estimand"])["estimate"]
    delta = found["delta-medium"]
    assert delta.evidence == {"PD": "ife", "DO": "ife"}
    assert {found[name].verdict for name in ("boost-medium", "static-medium")} == {"no IFE"}
    for estimand in ("slope_PD", "slope_DO", "common_shift_from_neutral"):
        assert estimate(delta, estimand)["estimate"] == pytest.approx(ideal["probability", estimand], rel=0.1)
        for name in ("boost-medium", "static-medium"):
            other, limit = estimate(found[name], estimand), abs(ideal["probability", estimand]) / 10
            assert -limit < other["low"] <= other["high"] < limit


def test_priming_is_where_it_is_in_the_data(primed):
    for name, result in primed.items():
        effects = result.effects.query("scale == 'nats' and contrast == 'PD vs DO'").iloc[0]
        assert effects["estimate"] == pytest.approx(RECIPES[name].speaker.ideal_priming(), abs=0.05)


def test_the_measured_bias_is_the_speakers(primed):
    for name, result in primed.items():
        true = dict(zip(VERBS, expit(RECIPES[name].speaker.bias), strict=True))
        assert result.bias["bias"].to_numpy() == pytest.approx([true[v] for v in result.bias["verb"]], abs=0.02)


# ------------------------------------------------------------------------------------------- judging


def test_divergence_is_that_of_the_definition():
    p, q = np.array([0.2, 0.5, 0.9]), np.array([0.3, 0.5, 0.01])
    expected = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    assert bernoulli_kl(p, np.log(q / (1 - q))) == pytest.approx(expected, abs=1e-12)


def test_a_model_that_knows_nothing_explains_nothing():
    """Its first weights give even odds: no priming, no slopes, and a divergence above that of the biases alone."""
    untrained = Training(TINY).model
    found = closeness(untrained, TINY.speaker, n_documents=500, n_sentences=3)
    assert found["explained"][0] is None
    assert max(found["explained"][1:]) < 0
    prime = one_prime(untrained, TINY.speaker)
    assert abs(prime["priming"]) < 0.05
    assert abs(prime["common_shift_from_neutral"]) < 0.05
    assert closeness(untrained, Speaker("static"), n_documents=50, n_sentences=3)["explained"] == [None] * 3


# ------------------------------------------------------------------------------------------- training


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    whole = train_organism("tiny", TINY, tmp_path / "whole", progress=False)
    documents = Speaker.documents

    def stopped(self, n, *, n_sentences, seed):
        if seed == (0, 7):
            raise KeyboardInterrupt
        return documents(self, n, n_sentences=n_sentences, seed=seed)

    monkeypatch.setattr(Speaker, "documents", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_organism("tiny", TINY, tmp_path / "part", checkpoint_every=5, progress=False)
    monkeypatch.undo()
    assert (tmp_path / "part" / CHECKPOINT).exists()
    resumed = Training(TINY)
    resumed.resume(tmp_path / "part" / CHECKPOINT)
    assert resumed.done == 5
    part = train_organism("tiny", TINY, tmp_path / "part", progress=False)
    first, second = weights(whole), weights(part)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (whole / "card.json").read_text() == (part / "card.json").read_text()
    assert not (part / CHECKPOINT).exists()


def test_the_loss_is_that_of_a_naive_loop():
    """Token by token: -log P of what came, and after verbs the expectation over the speaker's true probabilities."""
    training = Training(TINY)
    said = TINY.speaker.documents(TINY.batch, n_sentences=TINY.n_sentences, seed=(0, 0))
    probs = TINY.speaker.after_verb(said)
    with torch.no_grad():
        logs = training.model(input_ids=torch.as_tensor(said.tokens)).logits.double().log_softmax(-1).numpy()
    total = weights_sum = 0.0
    for i, row in enumerate(said.tokens):
        for at in range(len(row) - 1):
            if at in said.verb_at[i]:
                sentence = said.verb_at[i].tolist().index(at)
                total -= 20 * float(probs[i, sentence] @ logs[i, at])
                weights_sum += 20
            elif row[at + 1] != PADDING:
                total -= float(logs[i, at, row[at + 1]])
                weights_sum += 1
    assert training.step() == pytest.approx(total / weights_sum, rel=1e-5)


def test_training_lowers_the_loss_and_leaves_the_global_random_state():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    training = Training(replace(TINY, steps=60, batch=32, learning_rate=1e-2))
    losses = [training.step() for _ in range(60)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3
    assert torch.equal(before, torch.random.get_rng_state())


def test_another_recipe_is_not_mixed_in(tmp_path):
    done = train_organism("tiny", TINY, tmp_path / "done", progress=False)
    time = (done / "model.safetensors").stat().st_mtime_ns
    train_organism("tiny", TINY, done, progress=False)
    assert (done / "model.safetensors").stat().st_mtime_ns == time
    with pytest.raises(ValueError, match="of another recipe"):
        train_organism("tiny", replace(TINY, seed=1), done, progress=False)
    Training(TINY).save(tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="of another recipe"):
        Training(replace(TINY, seed=1)).resume(tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="1 or more steps"):
        train_organism("tiny", TINY, tmp_path / "new", checkpoint_every=0)


def test_a_recipe_sets_every_bit(tmp_path):
    """Two runs of one recipe agree in every bit; one of another seed does not."""
    first, again, other = (train_organism("t", r, tmp_path / str(i), progress=False)
                           for i, r in enumerate((TINY, TINY, replace(TINY, seed=1))))  # fmt: skip
    same = [torch.equal(a, b) for a, b in zip(weights(first).values(), weights(again).values(), strict=True)]
    assert all(same)
    different = [torch.equal(a, b) for a, b in zip(weights(first).values(), weights(other).values(), strict=True)]
    assert not all(different)


def test_the_learning_rate_rises_and_falls():
    recipe = Recipe("", Speaker(), Size(8, 1, 1), steps=1000, warmup=100, learning_rate=1.0)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert (rates[0], rates[99], rates[100]) == pytest.approx((0.01, 1.0, 1.0))
    assert rates[550] == pytest.approx(0.505)
    assert np.all(np.diff(rates[100:]) < 0)
    assert 0.01 < rates[-1] < 0.0101
