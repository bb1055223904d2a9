"""Attention from the last token of prompts, averaged over prompts that are aligned by their parts.

Every prompt comes with a matrix [row pos] that says how its tokens are put together: into bins of a common length, into
kinds of parts. Hooks keep the last token's attention alone; its product with the matrix, which is made when it is
needed, is summed and the rest dropped. So memory does not grow with tokens squared, nor with prompts, but for one
number a prompt, layer and kept row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.length_batches import batches_of_length
from mechicl.hooks.wrapper import Hook, WrappedModel, wrap
from mechicl.tasks.prompts import Prompt


@dataclass(frozen=True)
class AttentionProfile:
    """Attention from the last token, put together by the rows of the prompts' matrices.

    mean: over prompts. kept: of the last rows, by prompt, averaged over the heads of a layer.
    """

    mean: Float[np.ndarray, "layer head row"]
    kept: Float[np.ndarray, "item layer kept"]


def attention_profile(
    model: Any,
    prompts: Sequence[Prompt],
    rows: Callable[[int], Float[np.ndarray, "row pos"]],
    *,
    n_kept: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = False,
) -> AttentionProfile:
    """Run the prompts and put the attention of their last tokens together: sum_j rows(i)[r, j] attention_j.

    rows: gives the matrix [row pos] of prompt number i; all have as many rows. n_kept: how many of the last rows are
    given by prompt. Sums are float64. Raises `ValueError`, before any forward pass, for no prompts, a first matrix of
    another size, and prompts longer than the context window; and for a model without attention patterns.
    """
    wrapped = wrap(model)
    n_rows = _check(wrapped, prompts, rows, n_kept)
    total = np.zeros((wrapped.n_layers, wrapped.n_heads, n_rows))
    kept = np.zeros((len(prompts), wrapped.n_layers, n_kept))
    bar = tqdm(total=len(prompts), desc="attention", unit="prompt", disable=not progress)
    with wrapped.evaluating(), bar:
        for items in batches_of_length(wrapped, [len(one) for one in prompts], memory_budget):
            attention = _from_last(wrapped, [prompts[i] for i in items])
            for slot, i in enumerate(items):
                put = rows(i)
                found = attention[slot, ..., : put.shape[1]].double().numpy() @ put.T
                total += found
                kept[i] = found[..., n_rows - n_kept :].mean(1)
            bar.update(len(items))
    return AttentionProfile(total / len(prompts), kept)


def _from_last(wrapped: WrappedModel, prompts: Sequence[Prompt]) -> Float[Tensor, "slot layer head key"]:
    """Attention from the last token of each prompt; padding stands on the right, where no query looks."""
    width, device = max(map(len, prompts)), wrapped.device
    tokens = torch.tensor([[*one.tokens, *[0] * (width - len(one))] for one in prompts], device=device)
    last = torch.tensor([len(one) - 1 for one in prompts], device=device)
    each = torch.arange(len(prompts), device=device)
    met: dict[int, Tensor] = {}

    def keeping(layer: int) -> Hook:
        return lambda pattern: met.__setitem__(layer, pattern[each, :, last].cpu())

    layers = range(wrapped.n_layers)
    with wrapped.hooked([("pattern", layer, keeping(layer)) for layer in layers]):
        wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=device))  # no logits are wanted
    if len(met) < len(layers):
        raise ValueError("this model shows no attention pattern; load it with eager attention")
    return torch.stack([met[layer] for layer in layers], 1)


def _check(wrapped: WrappedModel, prompts: Sequence[Prompt], rows: Callable[[int], np.ndarray], n_kept: int) -> int:
    """The number of rows."""
    if not prompts:
        raise ValueError("got no prompts; give at least one")
    for number, prompt in enumerate(prompts):
        if len(prompt) > wrapped.n_ctx:
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens, but the model's context window holds {wrapped.n_ctx}; use "
                "fewer demonstrations"
            )
    first = rows(0)
    if first.shape != (len(first), len(prompts[0])) or len(first) < max(1, n_kept):
        raise ValueError(
            f"the matrix of prompt 0 is {first.shape}; expected at least {max(1, n_kept)} rows over its "
            f"{len(prompts[0])} tokens"
        )
    return len(first)
