"""The softmax regressor against torch's own transformer layers; its hook points; and that it is causal."""

import numpy as np
import pytest
import torch
from torch import nn

from mechicl.organisms.regression_transformer import RegressionTransformer, SoftmaxConfig
from mechicl.tasks.regression import RegressionTask

POINTS = ["hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_attn_scores", "attn.hook_pattern",
          "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_pre", "mlp.hook_post", "hook_mlp_out",
          "hook_resid_post"]  # fmt: skip


def random_model(n_layers=2):
    """Every parameter random, biases and norms too, so that each has a part in what comes out."""
    model = RegressionTransformer(SoftmaxConfig(3, 6, n_layers, d_model=8, n_heads=2, d_mlp=12), dtype=torch.float64)
    model.randomise(seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return model.eval()


def contexts(n=7, n_demos=6):
    c = RegressionTask(3, n_demos, inputs="normal").sample(n, seed=0)
    return c.x, c.y, c.query


def reference(model: RegressionTransformer) -> list[nn.TransformerEncoderLayer]:
    """The same layers as torch has them, with norms first."""
    layers = []
    for block in model.blocks:
        attention, mlp = block.attn, block.mlp
        layer = nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True).double().eval()
        qkv = [getattr(attention, f"W_{letter}").permute(0, 2, 1).reshape(8, 8) for letter in "QKV"]
        with torch.no_grad():
            layer.self_attn.in_proj_weight.copy_(torch.cat(qkv))
            layer.self_attn.in_proj_bias.copy_(torch.cat([getattr(attention, f"b_{n}").flatten() for n in "QKV"]))
            layer.self_attn.out_proj.weight.copy_(attention.W_O.reshape(8, 8).T)
            layer.self_attn.out_proj.bias.copy_(attention.b_O)
            layer.linear1.weight.copy_(mlp.W_in.T)
            layer.linear1.bias.copy_(mlp.b_in)
            layer.linear2.weight.copy_(mlp.W_out.T)
            layer.linear2.bias.copy_(mlp.b_out)
        layer.norm1.load_state_dict(block.ln1.state_dict())
        layer.norm2.load_state_dict(block.ln2.state_dict())
        layers.append(layer)
    return layers


def test_the_model_is_torchs_layers_on_interleaved_tokens():
    model = random_model()
    x, y, query = contexts()
    tokens = []
    for i in range(6):
        tokens += [np.column_stack([x[:, i], np.zeros(7)]), np.column_stack([np.zeros((7, 3)), y[:, i]])]
    tokens.append(np.column_stack([query, np.zeros(7)]))
    residual = torch.as_tensor(np.stack(tokens, axis=1)) @ model.W_E + model.W_pos
    mask = nn.Transformer.generate_square_subsequent_mask(13, dtype=torch.float64)
    states = model.states(x, y, query)
    with torch.no_grad():
        assert states[0] == pytest.approx(residual[:, -1].numpy(), abs=1e-12)
        for i, layer in enumerate(reference(model)):
            residual = layer(residual, src_mask=mask, is_causal=True)
            assert states[i + 1] == pytest.approx(residual[:, -1].numpy(), abs=1e-10)
        expected = model.ln_final(residual)[:, -1] @ model.W_U + model.b_U
    assert model.predict(x, y, query) == pytest.approx(expected.numpy(), abs=1e-10)


def test_every_activation_has_its_hook_point():
    model = random_model()
    prediction, cache = model.run_with_cache(*model.tensors(*contexts()))
    assert set(cache) == {"hook_embed", *(f"blocks.{layer}.{point}" for layer in range(2) for point in POINTS)}
    for layer in range(2):
        part = {point: cache[f"blocks.{layer}.{point}"] for point in POINTS}
        assert torch.equal(part["hook_resid_mid"], part["hook_resid_pre"] + part["hook_attn_out"])
        assert torch.equal(part["hook_resid_post"], part["hook_resid_mid"] + part["hook_mlp_out"])
        assert part["attn.hook_pattern"].sum(-1) == pytest.approx(np.ones((7, 2, 13)), abs=1e-12)
        assert part["attn.hook_pattern"].triu(1).abs().max() == 0
    read = model.read(cache["blocks.1.hook_resid_post"])[:, -1]
    assert torch.equal(prediction, read)
    changed = model.run_with_hooks(
        *model.tensors(*contexts()), fwd_hooks=[("blocks.1.mlp.hook_post", lambda value, hook: 0 * value)]
    )
    assert not torch.allclose(changed, prediction)


def test_one_sequence_holds_the_predictions_after_every_number_of_demonstrations():
    model = random_model()
    x, y, query = contexts()
    with torch.no_grad():
        together = model.after_each(*model.tensors(x, y, query)).numpy()
    assert together.shape == (7, 7)
    for n_demos in range(1, 7):
        alone = model.predict(x[:, :n_demos], y[:, :n_demos], x[:, n_demos] if n_demos < 6 else query)
        assert together[:, n_demos] == pytest.approx(alone, abs=1e-12)
    with torch.no_grad():
        other = model.after_each(*model.tensors(x, -y, query)).numpy()
    assert np.array_equal(together[:, 0], other[:, 0])  # nothing seen yet
    assert np.abs(together[:, 1:] - other[:, 1:]).min() > 0


def test_sensitivity_is_the_slope():
    model = random_model()
    x, y, query = contexts()
    slopes = model.sensitivity(x, y, query)
    for i, axis in enumerate(np.eye(3)):
        rise = model.predict(x, y, query + 1e-5 * axis) - model.predict(x, y, query - 1e-5 * axis)
        assert slopes[:, i] == pytest.approx(rise / 2e-5, abs=1e-6)


def test_contexts_that_do_not_fit_are_refused():
    model = random_model()
    long = RegressionTask(3, 7).sample(2, seed=0)
    with pytest.raises(ValueError, match="got 7 demonstrations; this model has positions for 6"):
        model.predict(long.x, long.y, long.query)
    with pytest.raises(ValueError, match="no demonstrations"):
        model.predict(np.zeros((2, 0, 3)), np.zeros((2, 0)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="of dimension 2; this model reads 3"):
        model.states(np.zeros((2, 4, 2)), np.zeros((2, 4)), np.zeros((2, 2)))


@pytest.mark.parametrize("options", [{"dim": 0}, {"n_demos": 0}, {"n_layers": 0}, {"d_model": 9}])
def test_sizes_without_a_meaning_are_refused(options):
    with pytest.raises(ValueError, match=f"got {next(iter(options))}="):
        SoftmaxConfig(**{"dim": 2, "n_demos": 4, "n_layers": 1, "d_model": 8} | options)
