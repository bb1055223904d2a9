"""What kind of head is it? Attention on repeated random tokens: induction, previous token, duplicate token.

On BOS and a random sequence of period T, read twice, for query positions q in the second reading:

    induction        mean attention from q to q - T + 1, the token after the last occurrence of this one
    duplicate_token  mean attention from q to q - T, the last occurrence itself
    previous_token   mean attention from q to q - 1 (over all of the sequence)

Each between 0 and 1; a head that attends everywhere alike has about 1 / q. Olsson et al., arXiv 2209.11895.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.wrapper import Hook, wrap


@dataclass(frozen=True)
class HeadScores:
    """Mean attention of every head to three places, 0 to 1."""

    induction: Float[np.ndarray, "layer head"]
    duplicate_token: Float[np.ndarray, "layer head"]
    previous_token: Float[np.ndarray, "layer head"]


def attention_scores(
    model: Any, *, period: int = 25, n_sequences: int = 8, prepend_bos: bool = True, seed: int = 0
) -> HeadScores:
    """Scores of every head on random sequences; raises `ValueError` where two periods do not fit into the context."""
    wrapped = wrap(model)
    start = int(prepend_bos)
    if start + 2 * period > wrapped.n_ctx:
        raise ValueError(
            f"two periods of {period} tokens do not fit into the context window of {wrapped.n_ctx}; pass a shorter one"
        )
    draw = np.random.default_rng(seed).integers(0, wrapped.d_vocab, size=(n_sequences, period))
    tokens = torch.as_tensor(np.tile(draw, 2), device=wrapped.device)
    if prepend_bos:
        tokens = torch.cat([torch.full_like(tokens[:, :1], wrapped.bos_token_id), tokens], dim=1)
    found = torch.zeros(3, wrapped.n_layers, wrapped.n_heads, dtype=torch.float64)

    def reduce(layer: int) -> Hook:
        def hook(pattern: Tensor) -> None:
            for place, back in enumerate((period - 1, period)):
                found[place, layer] = _mean_diagonal(pattern, back, start + period)
            found[2, layer] = _mean_diagonal(pattern, 1, start + 1)

        return hook

    hooks = [("pattern", layer, reduce(layer)) for layer in range(wrapped.n_layers)]
    with wrapped.evaluating(), wrapped.hooked(hooks):
        wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))
    return HeadScores(*found.numpy())


def _mean_diagonal(pattern: Float[Tensor, "batch head query key"], back: int, start: int) -> Float[Tensor, " head"]:
    """Mean attention from q to q - back, over queries from `start` on."""
    diagonal = pattern.diagonal(offset=-back, dim1=-2, dim2=-1)  # entry i: query i + back
    return diagonal[..., start - back :].double().mean(dim=(0, -1)).cpu()
