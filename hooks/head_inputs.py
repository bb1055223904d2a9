"""Queries, keys and values of heads at the ends of texts, as `replacements.z_after` gives z."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.head_sets import heads_apart
from mechicl.hooks.patch_rows import Source
from mechicl.hooks.wrapper import Hook, WrappedModel

_NODES = 2_048  # nodes of one pass


def inputs_after(
    wrapped: WrappedModel, sources: Sequence[Source], names: Sequence[str]
) -> dict[str, Float[Tensor, "patched layer head_or_kv_head d_head"]]:
    """Activations "q", "k" or "v" of every head at the last token of texts, before rotation.

    sources: as `Interchange.source` gives them, each some texts' tokens; the mean over them is taken.
    """
    texts: list[tuple[int, ...]] = [text for source in sources for text in source]  # type: ignore[attr-defined]
    ordered = sorted(set(texts))
    following = [*ordered[1:], ()]
    whole = [one for one, other in zip(ordered, following, strict=True) if other[: len(one)] != one]
    owner = {text[:stop]: i for i, text in enumerate(whole) for stop in range(1, len(text) + 1)}
    found = {name: torch.empty(0) for name in names}
    for name in names:
        heads = wrapped.n_heads if name == "q" else wrapped.n_kv_heads
        shape = (len(texts), wrapped.n_layers, heads, wrapped.d_head)
        found[name] = torch.empty(shape, dtype=wrapped.dtype, device=wrapped.device)
    size = max(1, _NODES // max(map(len, whole), default=1))
    for start in range(0, len(whole), size):
        part = range(start, min(start + size, len(whole)))
        slots = [(i, owner[text] - start, len(text) - 1) for i, text in enumerate(texts) if owner[text] in part]
        _run(wrapped, [whole[i] for i in part], torch.tensor(slots, device=wrapped.device), found)
    lengths = [len(source) for source in sources]  # type: ignore[arg-type]
    return {name: torch.stack([p.mean(0) for p in values.split(lengths)]) for name, values in found.items()}


def _run(wrapped: WrappedModel, texts: list[tuple[int, ...]], slots: Tensor, found: dict[str, Tensor]) -> None:
    """Fill `found`; slots are (row of found, text, position). Padding is on the right, so harmless."""
    width = max(map(len, texts))
    tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=wrapped.device)
    slot, row, column = slots.T

    def keep(name: str, layer: int) -> Hook:
        def store(x: Tensor) -> None:
            found[name][slot, layer] = heads_apart(x, *found[name].shape[2:])[row, column]

        return store

    with wrapped.hooked([(name, layer, keep(name, layer)) for name in found for layer in range(wrapped.n_layers)]):
        wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))  # no logits are wanted
