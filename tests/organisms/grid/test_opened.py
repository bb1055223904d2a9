"""Models of a grid open as TransformerLens models that say what the stack says, at every position."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import logit

import mechicl
from mechicl.hooks.capture import capture_roles
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.grid.neox import neox_config, token_words, write_neox
from mechicl.organisms.grid.opened import checkpoint_steps, open_checkpoint
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.settings import SETTINGS
from mechicl.organisms.grid.stack import Stack, run
from mechicl.organisms.grid.store import write_checkpoint
from mechicl.organisms.grid.vector_model import vector_model
from mechicl.tasks.prompts import Prompt

SIZES = {"context": 12, "dim": 5, "d_mlp": 24, "n_layers": 2, "d_model": 32, "n_heads": 2, "steps": 9, "batch": 4}
TOKENS, VECTORS = ("balls_and_urns", "markov_chains"), ("linear_regression", "classification")


@cache
def point(setting, **own):
    return GridPoint(setting, 6, **(SIZES | own))


@cache
def weights(setting, seed=0, **own):
    """All weights random, norms and biases too, and large enough that every part matters."""
    stack = Stack(point(setting, **own).config, 1)
    stack.weights.copy_(0.4 * torch.randn(stack.weights.shape, generator=torch.Generator().manual_seed(seed)))
    return stack.model_weights(0)


@cache
def batch(setting, n=6, **own):
    return point(setting, **own).task.sample(n, step=(7, 0))


def outputs(setting, seed=0, dtype=torch.float32, **own):
    """What the stack says at every position, [batch pos d_out]; in float64 with angles of float64."""
    cfg = replace(point(setting, **own).config, last_only=False)
    half = cfg.n_rotary // 2
    angle = torch.arange(cfg.n_ctx)[:, None].double() * 10_000.0 ** (-torch.arange(half).double() / max(half, 1))
    named = {name: weight[None].to(dtype) for name, weight in weights(setting, seed, **own).items()}
    inputs, _ = SETTINGS[setting].encode(batch(setting, **own))
    inputs = inputs.to(dtype) if cfg.vectors else inputs
    return run(named, inputs[None], cfg, (angle.cos().to(dtype), angle.sin().to(dtype)))[0]


def asked(setting, **own):
    """The same contexts, as the opened models take them."""
    found = batch(setting, **own)
    if setting in TOKENS:
        return (torch.from_numpy(found.tokens)[:, :-1],)
    x, y = found.x.astype(np.float32), found.y.astype(np.float32)  # as training rounds them
    if setting == "classification":
        return x, y, found.query.astype(np.float32)
    return x[:, :-1], y[:, :-1], x[:, -1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run with every setting: weights after 1 step and, others, after 9."""
    place = tmp_path_factory.mktemp("run")
    for setting in SETTINGS:
        for step, seed in ((1, 1), (9, 0)):
            write_checkpoint(place / point(setting).name, point(setting), step, weights(setting, seed))
    return place


def opened(folder, setting, *args, **options):
    return open_checkpoint(folder / point(setting).name, *args, **options)


def everywhere(model, setting):
    """What an opened model says at every position, read off its cache for models of vectors."""
    if setting in TOKENS:
        return model.run_with_cache(*asked(setting))[0]
    last = f"blocks.{SIZES['n_layers'] - 1}.hook_resid_post"
    return model.read(model.run_with_cache(*model.tensors(*asked(setting)))[1][last])


def reference(setting, **options):
    """The stack's outputs, for classification as log-odds of label 1."""
    found = outputs(setting, **options)
    return {"classification": lambda: found[..., 1] - found[..., 0], "linear_regression": lambda: found[..., 0]}.get(
        setting, lambda: found
    )()


@pytest.mark.parametrize("setting", SETTINGS)
@torch.no_grad()
def test_outputs_are_those_of_the_stack_at_every_position(folder, setting):
    found, expected = everywhere(opened(folder, setting), setting), reference(setting)
    assert expected.std() > 0.3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    first = everywhere(opened(folder, setting, 1), setting)  # other weights: the comparison can tell
    torch.testing.assert_close(first, reference(setting, seed=1), atol=1e-5, rtol=0)
    assert (first - expected).abs().max() > 0.3


@pytest.mark.parametrize("setting", SETTINGS)
@torch.no_grad()
def test_float64_has_more_digits(folder, setting):
    """Tokens keep the angles of transformers, which are float32."""
    found = everywhere(opened(folder, setting, dtype="float64"), setting)
    assert found.dtype == torch.float64
    tolerance = 1e-6 if setting in TOKENS else 1e-12
    torch.testing.assert_close(found, reference(setting, dtype=torch.float64), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    "shape", [{"n_heads": 4, "d_model": 56}, {"n_heads": 8}, {"n_layers": 3, "n_heads": 1}], ids=["14", "none", "3"]
)
@pytest.mark.parametrize("setting", ["markov_chains", "linear_regression"])
@torch.no_grad()
def test_other_shapes_turn_as_many_dimensions(setting, shape, tmp_path):
    """Heads of 14 dimensions turn 2 of 3.5, heads of 4 none."""
    where = point(setting, **shape)
    write_checkpoint(tmp_path / where.name, where, 9, weights(setting, **shape))
    model = open_checkpoint(tmp_path / where.name)
    expected = reference(setting, **shape)
    if setting in TOKENS:
        found = model(*asked(setting, **shape))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    else:
        np.testing.assert_allclose(model.predict(*asked(setting, **shape)), expected[:, -1].double(), atol=1e-5)


@torch.no_grad()
def test_predictions_of_vector_models_are_the_settings_own(folder):
    model, point_batch = opened(folder, "classification"), batch("classification")
    expected = SETTINGS["classification"].predictions(outputs("classification")[None])[0, :, 0].numpy()
    found = model.probabilities(point_batch.x, point_batch.y, point_batch.query)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(model.predict(*asked("classification")), logit(found[:, 1]), atol=1e-5)
    regressor = opened(folder, "linear_regression")
    expected = SETTINGS["linear_regression"].predictions(outputs("linear_regression")[None])[0, ..., 0]
    after = regressor.after_each(*regressor.tensors(*asked("linear_regression")))
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("setting", VECTORS)
def test_vector_models_have_the_hook_points_of_the_others(folder, setting):
    model = opened(folder, setting)
    given = model.tensors(*asked(setting))
    prediction, cache = model.run_with_cache(*given)
    pattern = cache["blocks.1.attn.hook_pattern"]
    torch.testing.assert_close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
    assert pattern.shape[1] == SIZES["n_heads"] and (pattern.triu(1) == 0).all()
    without = model.run_with_hooks(*given, fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: 0 * z)])
    assert (without - prediction).abs().max() > 0.1
    n_demos = given[0].shape[1]
    more = [torch.cat([part, part], 1) for part in given[:2]]
    with pytest.raises(ValueError, match=f"this model was made for {n_demos}"):
        model(*more, given[2])


@pytest.mark.parametrize("setting", TOKENS)
@torch.no_grad()
def test_the_hooks_of_mechicl_work_on_models_of_tokens(folder, setting):
    """Scores are the stack's log-probabilities, states and attention those of a full cache."""
    model = opened(folder, setting)
    wrapped, tokens = wrap(model), batch(setting).tokens
    assert (wrapped.n_layers, wrapped.n_heads, wrapped.d_vocab) == (2, 2, 6)
    assert wrapped.bos_token_id == 5 and wrapped.facts()["model"] == point(setting).name
    log_probs = outputs(setting).log_softmax(-1).double().numpy()
    expected = np.take_along_axis(log_probs, tokens[:, 1:, None], -1)[..., 0]
    found = score(model, [[]] * 6, [row[1:].tolist() for row in tokens], per_token=True, progress=False)
    np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)
    kept = capture_roles(model, [Prompt(tuple(row.tolist()), {"last": (12, 13), "early": (1, 4)}) for row in tokens])
    cache = model.run_with_cache(torch.from_numpy(tokens))[1]
    states, pattern = cache["blocks.1.hook_resid_post"], cache["blocks.1.attn.hook_pattern"]
    torch.testing.assert_close(kept.resid("last")[:, 1], states[:, 12], atol=1e-5, rtol=0)
    torch.testing.assert_close(kept.attention("last", "early")[:, 1], pattern[:, :, 12, 1:4].sum(-1), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_written_folder_opens_elsewhere(tmp_path):
    """Plain transformers and `mechicl.load` say the same; words are colours, and others are refused."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    setting, words = "balls_and_urns", token_words("balls_and_urns", 5)
    made = write_neox(weights(setting), point(setting).config, tmp_path / "urns", words=words)
    plain = AutoModelForCausalLM.from_pretrained(made)(*asked(setting)).logits
    torch.testing.assert_close(plain, outputs(setting), atol=1e-5, rtol=0)
    model = mechicl.load(made, device="cpu")
    torch.testing.assert_close(model(*asked(setting)), outputs(setting), atol=1e-5, rtol=0)
    tokenizer = AutoTokenizer.from_pretrained(made)
    text = " ".join(words)
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == [0, 1, 2, 3, 4]
    assert tokenizer.bos_token_id == 5
    assert score(model, [""], [text], progress=False) < 0
    with pytest.raises(ValueError, match="token ids outside 0 to 5"):
        score(model, [""], ["red violet"], progress=False)


def test_many_colours_and_states_have_words():
    assert len(set(token_words("balls_and_urns", 40))) == 40
    assert token_words("markov_chains", 3) == ("s0", "s1", "s2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: write_neox(weights("balls_and_urns"), point("classification").config, f), "reads vectors"),
        (lambda f: write_neox(weights("balls_and_urns"), point("balls_and_urns").config, f, words=["a"]), "expected 5"),
        (
            lambda f: write_neox(
                weights("balls_and_urns"), point("balls_and_urns").config, f, words=["a", "b", "c", "d", "e f"]
            ),
            "letters and digits",
        ),
        (lambda f: write_neox(weights("balls_and_urns"), point("balls_and_urns").config, f.parent), "files already"),
        (lambda f: vector_model(weights("balls_and_urns"), point("balls_and_urns").config), "reads tokens"),
        (lambda f: open_checkpoint(f.parent), "holds no model of a grid"),
        (lambda f: opened(f.parent, "balls_and_urns", 8), "no checkpoint after 8 steps; the nearest is after 9"),
        (lambda f: opened(f.parent, "balls_and_urns", dtype="bfloat16"), "expected 'float32' or 'float64'"),
    ],
    ids=["vectors", "words", "odd word", "used folder", "tokens", "no model", "no step", "dtype"],
)
def test_what_cannot_be_opened_is_refused(folder, change, message):
    with pytest.raises(ValueError, match=message):
        change(folder / "new")


def test_a_torn_checkpoint_is_refused(tmp_path):
    where = point("balls_and_urns")
    write_checkpoint(tmp_path / where.name, where, 9, weights("balls_and_urns"))
    file = tmp_path / where.name / "step-000009.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match="torn or was changed"):
        open_checkpoint(tmp_path / where.name)


def test_steps_are_told_in_order(folder):
    assert checkpoint_steps(folder / point("classification").name) == [1, 9]


def test_a_window_has_room_for_a_whole_sequence():
    """The last token is scored though training never read it."""
    assert neox_config(point("balls_and_urns").config).max_position_embeddings == 13
