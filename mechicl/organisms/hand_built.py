"""From weights that were written down to a network that TransformerLens runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float


def hand_built_model(
    name: str,
    weights: Mapping[str, Float[np.ndarray, "_ _"]],
    *,
    n_layers: int,
    n_heads: int,
    d_head: int,
    tokenizer: Any,
    dtype: str = "float32",
) -> Any:
    """A TransformerBridge in evaluation mode, attention only, without norms and biases.

    weights: "tok_embed" [vocab, d_model], "pos" [pos, d_model], "head" (the unembedding) [vocab, d_model] and, for each
    layer, "layers.0.attn.q" and k, v, o, each [out, in]. What is not named is 0.

    Raises ValueError for a dtype without enough digits, RuntimeError for weights that the library has no place for.
    """
    import torch
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    if dtype not in ("float32", "float64"):
        raise ValueError(f"got dtype={dtype!r}; expected 'float32' or 'float64'")
    config = TransformerBridgeConfig(
        d_model=weights["tok_embed"].shape[1],
        d_head=d_head,
        n_layers=n_layers,
        n_heads=n_heads,
        n_ctx=len(weights["pos"]),
        d_vocab=len(weights["tok_embed"]),
        attn_only=True,
        normalization_type=None,
        seed=0,  # the weights that it sets are all replaced; with a seed, torch's own random state stays as it is
    )
    bridge: Any = TransformerBridge  # which gets its ways of booting at import, unseen by type checkers
    model = bridge.boot_native(config, dtype=getattr(torch, dtype), model_name=name)
    model.tokenizer = tokenizer  # set here: booting wants one that was loaded from a folder
    parameters = {key.replace("._original_component", ""): p for key, p in model.named_parameters()}
    named = {f"{key}.weight": value for key, value in weights.items()}
    if not named.keys() <= parameters.keys():
        lacking = sorted(named.keys() - parameters.keys())
        raise RuntimeError(f"this version of transformer-lens has no weights {lacking}")
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(torch.as_tensor(named[key])) if key in named else parameter.zero_()
    return model.eval()


def word_tokenizer(vocabulary: tuple[str, ...], *, bos: str, pad: str, unknown: str) -> Any:
    """A fast tokenizer of transformers with one token a word; a token's id is its place in the vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=unknown))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token=bos,
        pad_token=pad,
        unk_token=unknown,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
