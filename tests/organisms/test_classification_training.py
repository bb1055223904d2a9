"""The classifiers' network against a naive one, its hook points, and training that can be stopped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import erf

from mechicl.organisms import classification_training
from mechicl.organisms.classification_recipes import CLASSIFIER_RECIPES
from mechicl.organisms.classification_training import ClassifierTraining, train_classifier
from mechicl.organisms.classification_transformer import ClassificationTransformer, ClassifierConfig
from mechicl.organisms.classifiers import (
    new_classifier,
    open_classifier,
)
from mechicl.organisms.resumable import CHECKPOINT
from mechicl.tasks.classification import ClassificationTask

TINY = replace(
    CLASSIFIER_RECIPES["classifier-memory"],
    task=ClassificationTask(dim=3, n_pairs=4, diversity=5),
    steps=12, batch=8, warmup=3, d_model=16, n_heads=2, d_mlp=8, rotary=0.5,
)  # fmt: skip
POINTS = ["hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_rot_q", "attn.hook_rot_k",
          "attn.hook_attn_scores", "attn.hook_pattern", "attn.hook_z", "hook_attn_out", "hook_resid_mid",
          "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out", "hook_resid_post"]  # fmt: skip


def tiny(dtype=torch.float64):
    model = ClassificationTransformer(ClassifierConfig(3, 4, d_model=16, n_heads=2, d_mlp=8, rotary=0.5), dtype=dtype)
    model.randomise(seed=1)
    return model.eval()


# ------------------------------------------------------------------------------------------- the network


def normed(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


def by_hand(model, x, y, query):
    """One context through the network in numpy, heads, positions and turned pairs one at a time."""
    w = {name: value.numpy(force=True) for name, value in model.named_parameters()}
    tokens = np.column_stack([np.vstack([x, query]), np.append(y, -1.0)])
    residual = tokens @ w["W_E"] + w["b_E"]
    now = normed(residual)
    added = np.zeros_like(residual)
    n, d_head = len(tokens), model.cfg.d_head
    for head in range(model.cfg.n_heads):
        q, k, v = (now @ w[f"blocks.0.attn.W_{letter}"][head] for letter in "QKV")
        for part in (q, k):
            for position in range(n):
                for i in range(2):  # half of 8 dimensions turn, in 2 pairs
                    turn = np.exp(1j * position * 10_000.0 ** (-i / 2))
                    turned = (part[position, i] + 1j * part[position, i + 2]) * turn
                    part[position, i], part[position, i + 2] = turned.real, turned.imag
        for i in range(n):
            scores = np.exp(q[i] @ k[: i + 1].T / np.sqrt(d_head))
            added[i] += scores / scores.sum() @ v[: i + 1] @ w["blocks.0.attn.W_O"][head]
    residual = residual + added
    hidden = normed(residual) @ w["blocks.0.mlp.W_in"]
    residual = residual + (hidden * (1 + erf(hidden / np.sqrt(2))) / 2) @ w["blocks.0.mlp.W_out"]
    return normed(residual[-1]) @ w["W_U"]


def test_the_network_is_that_of_a_naive_loop():
    model, c = tiny(), TINY.task.sample(6, step=0)
    found = model.predict(c.x, c.y.astype(float), c.query)
    expected = [by_hand(model, *context) for context in zip(c.x, c.y, c.query, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    p = model.probabilities(c.x, c.y, c.query)
    np.testing.assert_allclose(np.log(p[:, 1] / p[:, 0]), found, atol=1e-12)
    assert p.sum(-1) == pytest.approx(1.0)


def test_every_activation_has_a_hook_point_and_attention_sums_to_one():
    model, c = tiny(torch.float32), TINY.task.sample(6, step=1)
    _, found = model.run_with_cache(*model.tensors(c.x, c.y.astype(float), c.query))
    assert {"hook_embed", *(f"blocks.0.{point}" for point in POINTS)} <= set(found)
    pattern = found["blocks.0.attn.hook_pattern"]
    assert pattern.shape == (6, 2, 5, 5)
    assert pattern.sum(-1).numpy() == pytest.approx(1.0, abs=1e-6)
    assert not pattern.triu(1).any()
    read = model.query_attention(c.x, c.y, c.query)
    assert read.shape == (6, 2, 4)
    np.testing.assert_allclose(read, pattern[:, :, -1, :-1])
    assert (read.sum(-1) < 1).all()


def test_a_patched_pattern_changes_the_prediction_and_leaves_no_trace():
    model, c = tiny(), TINY.task.sample(4, step=2)
    context = model.tensors(c.x, c.y.astype(float), c.query)
    plain = model(*context)
    name = "blocks.0.attn.hook_pattern"
    assert torch.equal(model.run_with_hooks(*context, fwd_hooks=[(name, lambda p, hook: p)]), plain)
    patched = model.run_with_hooks(*context, fwd_hooks=[(name, lambda p, hook: torch.ones_like(p) / 5)])
    assert (patched - plain).abs().min() > 1e-6
    assert torch.equal(model(*context), plain)


def test_without_rotary_the_order_of_pairs_does_not_matter():
    c = TINY.task.sample(5, step=3)
    turned, still = tiny(), ClassificationTransformer(ClassifierConfig(3, 4, rotary=0.0), dtype=torch.float64)
    still.randomise(seed=1)
    for model, same in ((still, True), (turned, False)):
        ways = [model.probabilities(c.x[:, order], c.y[:, order], c.query) for order in ([0, 1, 2, 3], [3, 1, 0, 2])]
        assert np.allclose(*ways, atol=1e-12) == same


def test_what_cannot_be_run_is_refused():
    with pytest.raises(ValueError, match="this model was made for 4"):
        tiny().probabilities(np.zeros((1, 5, 3)), np.zeros((1, 5), dtype=int), np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"rotary=1\.5"):
        ClassifierConfig(3, 4, rotary=1.5)
    with pytest.raises(ValueError, match="heads must share it evenly"):
        ClassifierConfig(3, 4, n_heads=5)


# ------------------------------------------------------------------------------------------- training


@pytest.fixture
def small_judging(monkeypatch):
    """Cards of these tests are not judged."""
    monkeypatch.setattr(classification_training, "judge", lambda *a, **k: {"accuracy": {}})


@pytest.mark.usefixtures("small_judging")
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    state = torch.random.get_rng_state()
    whole = train_classifier("tiny", TINY, tmp_path / "whole", progress=False)
    assert torch.equal(state, torch.random.get_rng_state())
    sample = ClassificationTask.sample

    def stopped(self, n_contexts, *, step):
        if step == 7:
            raise KeyboardInterrupt
        return sample(self, n_contexts, step=step)

    monkeypatch.setattr(ClassificationTask, "sample", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_classifier("tiny", TINY, tmp_path / "part", checkpoint_every=5, progress=False)
    monkeypatch.setattr(ClassificationTask, "sample", sample)
    resumed = ClassifierTraining(TINY)
    resumed.resume(tmp_path / "part" / CHECKPOINT)
    assert resumed.done == 5
    part = train_classifier("tiny", TINY, tmp_path / "part", progress=False)
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, part))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert (whole / "card.json").read_text() == (part / "card.json").read_text()
    assert not (part / CHECKPOINT).exists()
    assert not torch.equal(first["W_E"], new_classifier(TINY).state_dict()["W_E"])
    with pytest.raises(ValueError, match="of another recipe"):
        train_classifier("tiny", replace(TINY, seed=1), part, progress=False)
    opened = open_classifier(part, dtype="float64")
    assert opened.dtype == torch.float64
    assert torch.equal(opened.state_dict()["W_E"], first["W_E"].double())
    (part / "config.json").write_text(json.dumps({"kind": "softmax"}))
    with pytest.raises(ValueError, match=r"'softmax' in .*; expected 'classifier'"):
        open_classifier(part)
    with pytest.raises(ValueError, match="holds no classifier"):
        open_classifier(tmp_path)


def test_the_loss_is_the_cross_entropy_and_falls():
    recipe = replace(TINY, steps=150, batch=32, learning_rate=1e-2)
    training = ClassifierTraining(recipe)
    c = recipe.task.sample(32, step=0)
    p = training.model.probabilities(c.x, c.y, c.query)
    assert training.step() == pytest.approx(-np.log(p[np.arange(32), c.target]).mean(), rel=1e-5)
    losses = [training.step() for _ in range(149)]
    assert np.mean(losses[-30:]) < 0.8 * np.mean(losses[:10])
