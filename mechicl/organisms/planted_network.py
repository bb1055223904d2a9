"""From a circuit's numbers to a network that TransformerLens runs."""

from __future__ import annotations

from typing import Any

from mechicl.organisms.planted_circuit import N_CTX, Circuit, Weights


def build_model(circuit: Circuit, name: str, dtype: str) -> Any:
    """The circuit as a TransformerBridge in evaluation mode, with its tokenizer."""
    import torch
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    # positions and their squares need a fine number format
    if dtype not in ("float32", "float64"):
        raise ValueError(f"got dtype={dtype!r}; expected 'float32' or 'float64'")
    config = TransformerBridgeConfig(
        d_model=circuit.features.size,
        d_head=circuit.d_head,
        n_layers=circuit.n_layers,
        n_heads=circuit.n_heads,
        n_ctx=N_CTX,
        d_vocab=len(circuit.language.vocabulary),
        attn_only=True,
        normalization_type=None,
        seed=0,  # the weights that it sets are all replaced; with a seed, torch's own random state stays as it is
    )
    bridge: Any = TransformerBridge  # which gets its ways of booting at import, unseen by type checkers
    model = bridge.boot_native(config, dtype=getattr(torch, dtype), model_name=name)
    model.tokenizer = circuit.language.tokenizer()  # set here: booting wants one that was loaded from a folder
    parameters = {key.replace("._original_component", ""): p for key, p in model.named_parameters()}
    weights = _named_weights(circuit)
    if not weights.keys() <= parameters.keys():
        raise RuntimeError(
            f"this version of transformer-lens has no weights {sorted(weights.keys() - parameters.keys())}"
        )
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(torch.as_tensor(weights[key])) if key in weights else parameter.zero_()
    return model.eval()


def _named_weights(circuit: Circuit) -> dict[str, Weights]:
    """Name of a parameter -> its value; linear layers hold [out, in]. Biases are not named: they are 0."""
    named = {
        "tok_embed.weight": circuit.embedding(),
        "pos.weight": circuit.positions(),
        "head.weight": circuit.unembedding(),
    }
    for layer in range(circuit.n_layers):
        for letter, w in circuit.attention(layer).items():
            rows = w if letter == "O" else w.transpose(0, 2, 1)
            flat = rows.reshape(-1, circuit.features.size)  # [head d_head, d_model]
            named[f"layers.{layer}.attn.{letter.lower()}.weight"] = flat.T if letter == "O" else flat
    return named
