"""Linear attention against a loop over tokens; its hook points; and that a call leaves the model as it was."""

import numpy as np
import pytest
import torch

from mechicl.organisms.linear_transformer import LinearConfig, LinearTransformer
from mechicl.tasks.regression import RegressionTask

POINTS = ["hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_attn_scores", "attn.hook_pattern",
          "attn.hook_z", "hook_attn_out", "hook_resid_post"]  # fmt: skip


def random_model(n_layers=2, n_heads=2, d_head=3, seed=0, dtype=torch.float64):
    model = LinearTransformer(LinearConfig(4, n_layers, n_heads, d_head), dtype=dtype)
    model.randomise(seed=seed, spread=0.3)
    return model


def contexts(n=7, n_demos=5, seed=0):
    c = RegressionTask(4, n_demos).sample(n, seed=seed)
    return c.x, c.y, c.query


def test_the_model_is_a_loop_over_tokens():
    """Layer by layer, head by head, token by token, in numpy."""
    model = random_model()
    x, y, query = contexts()
    weights = {name: value.detach().numpy() for name, value in model.named_parameters()}
    states = model.states(x, y, query)
    for b in range(len(y)):
        tokens = [np.append(x[b, i], y[b, i]) for i in range(5)] + [np.append(query[b], 0.0)]
        assert states[0, b] == pytest.approx(tokens[-1], abs=1e-12)
        for layer in range(2):
            w_q, w_k, w_v, w_o = (weights[f"blocks.{layer}.attn.W_{letter}"] for letter in "QKVO")
            added = [np.zeros(5) for _ in tokens]
            for head in range(2):
                for j, at in enumerate(tokens):
                    for seen in tokens[:-1]:
                        score = (at @ w_q[head]) @ (seen @ w_k[head])
                        added[j] += score / 5 * (seen @ w_v[head] @ w_o[head])
            tokens = [token + more for token, more in zip(tokens, added, strict=True)]
            assert states[layer + 1, b] == pytest.approx(tokens[-1], abs=1e-12)
        assert model.predict(x, y, query)[b] == pytest.approx(-tokens[-1][-1], abs=1e-12)


def test_start_weights_are_what_an_idle_model_predicts():
    model = LinearTransformer(LinearConfig(4), dtype=torch.float64)
    x, y, query = contexts()
    assert np.abs(model.predict(x, y, query)).max() == 0  # all weights 0
    model.start.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    assert model.predict(x, y, query) == pytest.approx(query @ [1.0, -2.0, 0.5, 3.0], abs=1e-12)


def test_every_activation_has_its_hook_point():
    model = random_model()
    inputs = model.tensors(*contexts())
    prediction, cache = model.run_with_cache(*inputs)
    assert set(cache) == {"hook_embed", *(f"blocks.{layer}.{point}" for layer in range(2) for point in POINTS)}
    for layer in range(2):
        part = {point: cache[f"blocks.{layer}.{point}"] for point in POINTS}
        assert torch.equal(part["hook_resid_post"], part["hook_resid_pre"] + part["hook_attn_out"])
        assert part["attn.hook_q"].shape == (7, 6, 2, 3)
        assert part["attn.hook_pattern"].shape == (7, 2, 6, 6)
        assert torch.equal(part["attn.hook_pattern"][..., :-1], part["attn.hook_attn_scores"][..., :-1] * (1 / 5))
        assert part["attn.hook_pattern"][..., -1].abs().max() == 0  # the query is never attended to
    assert torch.equal(prediction, -cache["blocks.1.hook_resid_post"][:, -1, -1])
    states = model.states(*contexts())
    assert states[2] == pytest.approx(cache["blocks.1.hook_resid_post"][:, -1].numpy(), abs=1e-12)


def test_hooks_change_what_comes_after_and_go_again():
    model = random_model()
    x, y, query = contexts()
    inputs = model.tensors(x, y, query)
    before = model.predict(x, y, query)
    silent = model.run_with_hooks(
        *inputs, fwd_hooks=[(f"blocks.{n}.hook_attn_out", lambda value, hook: 0 * value) for n in range(2)]
    )
    assert silent.abs().max() == 0
    scores = model.run_with_hooks(
        *inputs, fwd_hooks=[("blocks.0.attn.hook_attn_scores", lambda value, hook: 2 * value)]
    )
    assert (scores - torch.as_tensor(before)).abs().max() > 1e-3
    assert np.array_equal(model.predict(x, y, query), before)
    assert not any(point.fwd_hooks for point in model.hook_points())


def test_demonstrations_do_not_see_the_query_and_have_no_order():
    model = random_model()
    x, y, query = contexts()
    _, one = model.run_with_cache(*model.tensors(x, y, query))
    _, other = model.run_with_cache(*model.tensors(x, y, 3 * query))
    last = "blocks.1.hook_resid_post"
    assert torch.equal(one[last][:, :-1], other[last][:, :-1])
    assert not torch.allclose(one[last][:, -1], other[last][:, -1])
    assert model.predict(x[:, ::-1], y[:, ::-1], query) == pytest.approx(model.predict(x, y, query), abs=1e-12)


def test_sensitivity_is_the_slope_and_the_whole_of_a_linear_prediction():
    model = random_model()
    x, y, query = contexts()
    slopes = model.sensitivity(x, y, query)
    for i, axis in enumerate(np.eye(4)):
        rise = model.predict(x, y, query + 1e-3 * axis) - model.predict(x, y, query - 1e-3 * axis)
        assert slopes[:, i] == pytest.approx(rise / 2e-3, abs=1e-9)
    assert (slopes * query).sum(-1) == pytest.approx(model.predict(x, y, query), abs=1e-12)


def test_contexts_come_in_any_number_and_arrangement(monkeypatch):
    model = random_model()
    x, y, query = contexts(n=12)
    whole, states, slopes = (f(x, y, query) for f in (model.predict, model.states, model.sensitivity))
    grid = model.predict(x.reshape(3, 4, 5, 4), y.reshape(3, 4, 5), query.reshape(3, 4, 4))
    assert np.array_equal(grid.ravel(), whole)
    assert float(model.predict(x[0], y[0], query[0])) == pytest.approx(whole[0], abs=1e-12)
    monkeypatch.setattr("mechicl.organisms.hooked_regressor.CHUNK", 5)
    for method, expected in ((model.predict, whole), (model.states, states), (model.sensitivity, slopes)):
        assert method(x, y, query) == pytest.approx(expected, abs=1e-12)
        assert method(x[:0], y[:0], query[:0]).size == 0
    assert model.states(x[:0], y[:0], query[:0]).shape == (3, 0, 5)
    assert whole.dtype == np.float64
    single = random_model(dtype=torch.float32)
    assert single.predict(x, y, query) == pytest.approx(whole, abs=1e-5)


def test_a_call_leaves_the_model_and_the_random_state_as_they_were():
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    model = random_model().train()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for method in (model.predict, model.states, model.sensitivity):
        method(*contexts())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training
    assert torch.is_grad_enabled()
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize(
    ("shape", "message"),
    [((3, 0, 4), "no demonstrations"), ((3, 5, 6), "got inputs of dimension 6; this model reads 4")],
)
def test_contexts_that_do_not_fit_are_refused(shape, message):
    x, y, query = np.ones(shape), np.ones(shape[:2]), np.ones((shape[0], shape[2]))
    model = random_model()
    for method in (model.predict, model.states, model.sensitivity):
        with pytest.raises(ValueError, match=message):
            method(x, y, query)


@pytest.mark.parametrize("options", [{"dim": 0}, {"n_layers": 0}, {"n_heads": -1}])
def test_sizes_without_a_meaning_are_refused(options):
    with pytest.raises(ValueError, match=f"got {next(iter(options))}="):
        LinearConfig(**{"dim": 2} | options)
