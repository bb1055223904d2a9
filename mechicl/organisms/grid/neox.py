"""A model of tokens as a GPT-NeoX of Hugging Face transformers, and as a folder that other programs open too.

The architecture is the same (blocks one after another: `use_parallel_residual=False`), only the layout of weights
differs: transformers has linear layers as [out, in], and keeps query, key and value of each head together,
[head, 3, d_head], where a stack has query, key and value one after another, each [head, d_head].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import nextafter
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from mechicl.organisms.grid.stack import NORM_EPS, ROTARY_BASE, StackConfig
from mechicl.organisms.hand_built import word_tokenizer

START, UNKNOWN = "<s>", "<unk>"
COLOURS = (
    "red", "blue", "green", "yellow", "orange", "purple", "pink", "brown",
    "black", "white", "grey", "cyan", "magenta", "olive", "navy", "teal",
)  # fmt: skip


def token_words(setting: str, dim: int) -> tuple[str, ...]:
    """A word for each token but the start: balls are colours, states are s0, s1, ..."""
    if setting == "balls_and_urns":
        return (*COLOURS, *(f"colour{i}" for i in range(len(COLOURS), dim)))[:dim]
    return tuple(f"s{i}" for i in range(dim))


def neox_config(cfg: StackConfig) -> Any:
    """The configuration of a `GPTNeoXForCausalLM`; a ValueError for a model that vectors go into."""
    from transformers import GPTNeoXConfig

    if cfg.vectors:
        raise ValueError("got a model that reads vectors; a GPT-NeoX reads tokens: open it with open_checkpoint")
    share = cfg.n_rotary / cfg.d_head
    while int(share * cfg.d_head) < cfg.n_rotary:  # transformers rounds down what may lie a bit below
        share = nextafter(share, 2.0)
    start = cfg.d_in - 1
    return GPTNeoXConfig(
        vocab_size=cfg.d_in,
        hidden_size=cfg.d_model,
        num_hidden_layers=cfg.n_layers,
        num_attention_heads=cfg.n_heads,
        intermediate_size=cfg.d_mlp,
        hidden_act="gelu",
        max_position_embeddings=cfg.n_ctx + 1,  # with a sequence's last token, which training asks for and never reads
        layer_norm_eps=NORM_EPS,
        use_parallel_residual=False,
        rope_parameters={"rope_type": "default", "rope_theta": ROTARY_BASE, "partial_rotary_factor": share},
        bos_token_id=start,
        eos_token_id=start,
        pad_token_id=start,
        architectures=["GPTNeoXForCausalLM"],
        dtype="float32",
    )


def neox_weights(weights: Mapping[str, Tensor], cfg: StackConfig) -> dict[str, Tensor]:
    """A model's weights by the names and in the layout of a `GPTNeoXForCausalLM`."""
    found = {
        "gpt_neox.embed_in.weight": weights["embed.W"],
        "gpt_neox.final_layer_norm.weight": weights["ln_final.w"],
        "gpt_neox.final_layer_norm.bias": weights["ln_final.b"],
        "lm_head.weight": weights["unembed.W"].T,
    }
    own = {
        "input_layernorm.weight": "ln1.w", "input_layernorm.bias": "ln1.b", "attention.dense.weight": "attn.W_O",
        "attention.dense.bias": "attn.b_O", "post_attention_layernorm.weight": "ln2.w",
        "post_attention_layernorm.bias": "ln2.b", "mlp.dense_h_to_4h.weight": "mlp.W_in",
        "mlp.dense_h_to_4h.bias": "mlp.b_in", "mlp.dense_4h_to_h.weight": "mlp.W_out",
        "mlp.dense_4h_to_h.bias": "mlp.b_out",
    }  # fmt: skip
    by_head = "... (three head d_head) -> (head three d_head) ..."
    for layer in range(cfg.n_layers):
        there, here = f"gpt_neox.layers.{layer}", f"blocks.{layer}"
        for name, ours in own.items():
            weight = weights[f"{here}.{ours}"]
            found[f"{there}.{name}"] = weight.T if weight.ndim == 2 else weight
        for name, ours in (("weight", "W_QKV"), ("bias", "b_QKV")):
            found[f"{there}.attention.query_key_value.{name}"] = rearrange(
                weights[f"{here}.attn.{ours}"], by_head, three=3, head=cfg.n_heads
            )
    return {name: weight.detach().contiguous() for name, weight in found.items()}


def write_neox(
    weights: Mapping[str, Tensor], cfg: StackConfig, folder: str | Path, *, words: Sequence[str] | None = None
) -> Path:
    """Write a model of tokens, with a tokenizer, as a folder for transformers and for `mechicl.load`.

    weights: as a checkpoint has them (`mechicl.organisms.grid.store.read_checkpoint`). words: one for each token but
    the last, which is the start token `<s>`; by default s0, s1, ... (`token_words`). Other words become
    `<unk>`, a token that the model has no row for, so that they are an error and not a wrong number.

    Errors (ValueError): a model that reads vectors, another number of words than tokens, words that are no words,
    a folder that holds files already.
    """
    from safetensors.torch import save_file

    config, folder = neox_config(cfg), Path(folder)
    words = token_words("", cfg.d_in - 1) if words is None else tuple(words)
    tokenizer = _tokenizer(words, cfg)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files already; choose a new folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    converted = {name: weight.to(torch.float32) for name, weight in neox_weights(weights, cfg).items()}
    save_file(converted, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(words: Sequence[str], cfg: StackConfig) -> Any:
    """A word a token, parted by spaces."""
    if len({*words, START, UNKNOWN}) != cfg.d_in + 1:
        raise ValueError(f"got the words {' '.join(words)}; expected {cfg.d_in - 1} different, not {START}, {UNKNOWN}")
    if odd := [word for word in words if not re.fullmatch(r"\w+", word)]:
        raise ValueError(f"got the word {odd[0]!r}; expected letters and digits alone, without spaces")
    return word_tokenizer((*words, START, UNKNOWN), bos=START, pad=START, unknown=UNKNOWN)
