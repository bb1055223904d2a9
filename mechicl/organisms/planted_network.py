"""From a circuit's numbers to a network that TransformerLens runs."""

from __future__ import annotations

from typing import Any

from mechicl.organisms.hand_built import hand_built_model
from mechicl.organisms.planted_circuit import Circuit, Weights


def build_model(circuit: Circuit, name: str, dtype: str) -> Any:
    """The circuit as a TransformerBridge in evaluation mode, with its tokenizer."""
    return hand_built_model(
        name,
        _named_weights(circuit),
        n_layers=circuit.n_layers,
        n_heads=circuit.n_heads,
        d_head=circuit.d_head,
        tokenizer=circuit.language.tokenizer(),
        dtype=dtype,  # positions and their squares need a fine number format
    )


def _named_weights(circuit: Circuit) -> dict[str, Weights]:
    """Name of a parameter -> its value; linear layers hold [out, in]. Biases are not named: they are 0."""
    named = {"tok_embed": circuit.embedding(), "pos": circuit.positions(), "head": circuit.unembedding()}
    for layer in range(circuit.n_layers):
        for letter, w in circuit.attention(layer).items():
            rows = w if letter == "O" else w.transpose(0, 2, 1)
            flat = rows.reshape(-1, circuit.features.size)  # [head d_head, d_model]
            named[f"layers.{layer}.attn.{letter.lower()}"] = flat.T if letter == "O" else flat
    return named
