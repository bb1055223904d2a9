"""MLPs are found by structure in many architectures, tried, and refused by name where they do not fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mechicl.hooks.mlps.mlp_parts import Place, edited
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted import planted_ife
from mechicl.organisms.planted_language import planted_corpus

KINDS = {
    "gpt2": (("W_in",), "b_out", 0.0),
    "gpt_neox": (("W_in",), "b_out", 0.0),
    "native": (("W_in",), "b_out", 0.0),
    "llama": (("W_gate", "W_up"), "W_out", 0.0),
    "qwen2": (("W_gate", "W_up"), "W_out", 0.0),
    "gemma3_text": (("W_gate", "W_up"), "gain", 1.0),
}
HALF = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
OTHERS: dict[str, dict[str, Any]] = {
    "granite": {**HALF, "num_key_value_heads": 2, "residual_multiplier": 0.3, "max_position_embeddings": 64},
    "mixtral": {**HALF, "num_key_value_heads": 2, "num_local_experts": 4, "max_position_embeddings": 64},
    "opt": {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "olmo2": {**HALF, "num_key_value_heads": 2, "max_position_embeddings": 64},
    "phi3": {**HALF, "num_key_value_heads": 2, "max_position_embeddings": 64},
}  # fmt: skip


@pytest.fixture(scope="module")
def other_model(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Tiny random models of further architectures."""

    def make(architecture: str) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        import mechicl

        config = AutoConfig.for_model(
            architecture, vocab_size=len(tiny_tokenizer), initializer_range=0.2, bos_token_id=0, eos_token_id=0,
            pad_token_id=1, **OTHERS[architecture],
        )  # fmt: skip
        torch.manual_seed(0)
        folder: Path = tmp_path_factory.mktemp(architecture)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tiny_tokenizer.save_pretrained(folder)
        return mechicl.load(folder, device="cpu")

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_finds_the_mlps_of_an_architecture(tiny_model, kind):
    wrapped = wrap(tiny_model(kind))
    parts = find_mlps(wrapped)
    assert [part.layer for part in parts] == list(range(wrapped.n_layers))
    for part in parts:
        assert (part.matrices, part.rest_name, part.offset) == KINDS[kind]
        assert part.scale == 1 and (part.norm is not None) == (kind == "gemma3_text")
        d_mlp = part.weight("W_out").shape[0]
        assert all(part.weight(name).shape == (wrapped.d_model, d_mlp) for name in part.matrices)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["hooked", "native"])
def test_finds_the_mlps_of_both_kinds_of_model(tiny_model, kind):
    assert {part.rest_name for part in find_mlps(wrap(tiny_model(kind)))} == {"b_out"}


@pytest.mark.parametrize(
    ("architecture", "rest", "scale"),
    [("granite", "W_out", 0.3), ("opt", "b_out", 1), ("bloom", "b_out", 1), ("olmo2", "gain", 1), ("phi3", "W_out", 1)],
)
def test_multipliers_flat_positions_inner_residuals_late_norms_and_fused_gates(other_model, architecture, rest, scale):
    for part in find_mlps(wrap(other_model(architecture))):
        assert part.rest_name == rest
        assert part.scale == pytest.approx(scale, rel=1e-4)


def test_weights_are_the_models_own_memory(tiny_model):
    model = tiny_model("gpt2")
    part = find_mlps(wrap(model))[1]
    own = model.original_model.transformer.h[1].mlp
    module = own if hasattr(own, "c_fc") else own._original_component
    with torch.no_grad():
        part.weight("W_in")[3, 5] = 7.0
        part.rest_parameter()[2] = -7.0
    assert module.c_fc.original_component.weight[3, 5] == 7.0
    assert module.c_proj.original_component.bias[2] == -7.0


def test_the_normalised_output_is_known_where_the_gain_is_zero(tiny_model):
    part = find_mlps(wrap(tiny_model("gemma3_text")))[0]
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    gain = torch.linspace(-1, 2, 32, dtype=torch.float64)
    gain[5:9] = 0
    torch.testing.assert_close(part.normalised(x, unit * gain, gain), unit, rtol=1e-12, atol=0)


def test_refuses_a_model_without_mlps_by_name():
    words = {"n_verbs": 6, "n_persons": 4, "n_things": 3}
    model = planted_ife(corpus=planted_corpus(**words, seed=2), seed=3, strength=1.0, **words).model
    model.cfg.model_name = "heads-only"
    with pytest.raises(ValueError, match=r"heads-only, layer 0: the block has no MLP"):
        find_mlps(wrap(model))


def test_refuses_a_mixture_of_experts_by_name(other_model):
    with pytest.raises(ValueError, match="MoEBridge is a mixture of experts"):
        find_mlps(wrap(other_model("mixtral")))


def test_refuses_hidden_states_that_hang_on_more_than_the_matrices(tiny_model):
    model, seen = tiny_model("llama"), {}
    mlp = model.blocks[1].mlp
    keep = mlp.hook_in.register_forward_hook(lambda m, a, x: seen.__setitem__("n", x))
    mix = mlp.out.hook_in.register_forward_hook(lambda m, a, h: h + seen["n"][..., :1])
    try:
        with pytest.raises(
            ValueError, match=r"layer 1: a block of an unknown kind .* hang on more than W_gate and W_up"
        ):
            find_mlps(wrap(model))
    finally:
        keep.remove(), mix.remove()
    assert len(find_mlps(wrap(model))) == 3


def test_refuses_a_matrix_that_is_not_what_the_model_multiplies_by(tiny_model):
    model = tiny_model("llama")
    handle = model.blocks[0].mlp.gate.hook_out.register_forward_hook(lambda m, a, x: x**2)
    with pytest.raises(ValueError, match="W_gate is not what lies between input and W_gate"):
        find_mlps(wrap(model))
    handle.remove()


def test_refuses_a_contribution_that_is_not_added(tiny_model):
    model = tiny_model("gpt2")
    handle = model.blocks[0].hook_out.register_forward_hook(lambda m, a, x: x.tanh())
    with pytest.raises(ValueError, match=r"layer 0: .* not simply added to the residual stream"):
        find_mlps(wrap(model))
    handle.remove()


def test_refuses_layers_that_share_one_mlp(tiny_model):
    model = tiny_model("native")
    model.blocks[1].mlp.out.weight.data = model.blocks[0].mlp.out.weight.data
    with pytest.raises(ValueError, match="layers share one MLP"):
        find_mlps(wrap(model))


def test_leaves_the_model_as_it_was(tiny_model):
    wrapped = wrap(tiny_model("gemma3_text"))
    wrapped.model.train()
    before = wrapped.checksum()
    find_mlps(wrapped)
    assert wrapped.checksum() == before and not wrapped.has_hooks()
    assert all(module.training for module in wrapped.model.blocks.modules())
    assert all(not m._forward_hooks for name, m in wrapped.model.hook_dict.items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in wrapped.model.parameters())


def test_edits_go_also_after_an_error():
    module = torch.nn.Linear(2, 2)

    def fail(x: torch.Tensor) -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), edited([(Place(module), fail), (Place(module, True), fail)], 1):
        module(torch.zeros(1, 1, 2))
    assert not module._forward_hooks and not module._forward_pre_hooks
