"""Queries, keys, values and outputs of heads at the ends of texts, each text computed once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.head_sets import by_head, heads_apart
from mechicl.hooks.wrapper import Hook, WrappedModel

Text = tuple[int, ...]
_NODES = 2_048  # nodes of one pass: enough for efficient matrix products


def heads_after(
    wrapped: WrappedModel, texts: Sequence[Text], names: Sequence[str]
) -> dict[str, Float[Tensor, "text layer head_or_kv_head d_head"]]:
    """Activations "q", "k", "v" (before rotation) or "z" of every head at the last token of each text.

    A text that begins another is not run again. Keys and values are of key-value heads.
    """
    whole = sorted(_longest(texts), key=len)
    owner = {text[:stop]: i for i, text in enumerate(whole) for stop in range(1, len(text) + 1)}
    found = {}
    for name in names:
        heads = wrapped.n_kv_heads if name in ("k", "v") else wrapped.n_heads
        shape = (len(texts), wrapped.n_layers, heads, wrapped.d_head)
        found[name] = torch.empty(shape, dtype=wrapped.dtype, device=wrapped.device)
    size = max(1, _NODES // max(map(len, whole), default=1))
    for start in range(0, len(whole), size):
        part = range(start, min(start + size, len(whole)))
        slots = [(i, owner[text] - start, len(text) - 1) for i, text in enumerate(texts) if owner[text] in part]
        _run(wrapped, [whole[i] for i in part], torch.tensor(slots, device=wrapped.device), found)
    return found


def mean_heads_after(
    wrapped: WrappedModel, sources: Sequence[Sequence[Text]], names: Sequence[str]
) -> dict[str, Float[Tensor, "source layer head_or_kv_head d_head"]]:
    """The same, averaged over the texts of each source."""
    found = heads_after(wrapped, [text for source in sources for text in source], names)
    lengths = [len(source) for source in sources]
    if set(lengths) <= {1}:
        return found
    return {name: torch.stack([part.mean(0) for part in values.split(lengths)]) for name, values in found.items()}


def _run(wrapped: WrappedModel, texts: list[Text], slots: Tensor, found: dict[str, Tensor]) -> None:
    """Fill `found`; slots are (row of found, text, position). Padding is on the right, so harmless."""
    width = max(map(len, texts))
    tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=wrapped.device)
    slot, row, column = slots.T

    def keep(name: str, layer: int) -> Hook:
        def store(x: Tensor) -> None:
            apart = by_head(wrapped, x) if name == "z" else heads_apart(x, *found[name].shape[2:])
            found[name][slot, layer] = apart[row, column]

        return store

    with wrapped.hooked([(name, layer, keep(name, layer)) for name in found for layer in range(wrapped.n_layers)]):
        wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))  # no logits are wanted


def _longest(texts: Sequence[Text]) -> list[Text]:
    """The texts that begin no other one."""
    ordered = sorted(set(texts))
    following = [*ordered[1:], ()]
    return [one for one, other in zip(ordered, following, strict=True) if other[: len(one)] != one]
