"""Keys and values at chosen tokens, handed on while the forward pass runs, so that nothing need be kept.

Keys are taken as the attention layer projects them, before any rotation by position and before a norm of keys (Gemma 3,
Qwen 3): a rotated key tells its position as well, and a linear probe would have to undo a rotation that differs from
token to token. In models with absolute positions the residual stream, and so the key, knows the position anyway. Under
grouped-query attention there are `n_kv_heads` of them, each read by several query heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.head_sets import heads_apart
from mechicl.hooks.length_batches import batches_of_length
from mechicl.hooks.wrapper import Hook, WrappedModel, wrap

SOURCES = ("key", "value")

# Receives numbers of places, the source ("key" or "value"), the layer, and the vectors of all key-value heads there.
Visit = Callable[[Int[Tensor, " place"], str, int, Float[Tensor, "place head d_head"]], None]


def visit_key_values(
    model: Any,
    texts: Sequence[tuple[int, ...]],
    places: Sequence[tuple[int, int]],
    visit: Visit,
    *,
    layers: Sequence[int] | None = None,
    sources: Sequence[str] = SOURCES,
    memory_budget: int = 1 << 30,
    progress: bool = False,
) -> None:
    """Run the texts and hand keys and values of the places, (text, position), to `visit`, in float64.

    Every place is visited once for each layer and source, many at a time, in no order that may be relied on. `layers`
    default to all. Raises `ValueError`, before any forward pass, for no places, places outside their text, texts longer
    than the context window, and unknown sources.
    """
    wrapped = wrap(model)
    chosen = tuple(range(wrapped.n_layers)) if layers is None else tuple(layers)
    _check(wrapped, texts, places, sources)
    by_text: dict[int, list[int]] = {}
    for number, (text, _) in enumerate(places):
        by_text.setdefault(text, []).append(number)
    bar = tqdm(total=len(by_text), desc="keys and values", unit="text", disable=not progress)
    with wrapped.evaluating(), bar:
        read = list(by_text)
        for numbers in batches_of_length(wrapped, [len(texts[text]) for text in read], memory_budget):
            batch = [read[i] for i in numbers]
            width = max(len(texts[text]) for text in batch)
            tokens = torch.tensor([[*texts[text], *[0] * (width - len(texts[text]))] for text in batch])
            slots = [(number, row, places[number][1]) for row, text in enumerate(batch) for number in by_text[text]]
            hooks: list[tuple[str, int | None, Hook]] = [
                (source[0], layer, _hand_on(wrapped, torch.tensor(slots), visit, source, layer))
                for layer in chosen
                for source in sources
            ]
            with wrapped.hooked(hooks):
                wrapped.logits(tokens.to(wrapped.device), torch.zeros(1, dtype=torch.long, device=wrapped.device))
            bar.update(len(batch))


def _hand_on(wrapped: WrappedModel, slots: Int[Tensor, "place 3"], visit: Visit, source: str, layer: int) -> Hook:
    number, row, position = slots.T

    def hook(x: Tensor) -> None:
        apart = heads_apart(x, wrapped.n_kv_heads, wrapped.d_head)
        visit(number, source, layer, apart[row.to(x.device), position.to(x.device)].double().cpu())

    return hook


def _check(
    wrapped: WrappedModel,
    texts: Sequence[tuple[int, ...]],
    places: Sequence[tuple[int, int]],
    sources: Sequence[str],
) -> None:
    if not places:
        raise ValueError("got no places to read keys and values at; give at least one (text, position)")
    if unknown := [source for source in sources if source not in SOURCES]:
        raise ValueError(f"got the source {unknown[0]!r}; expected {' or '.join(SOURCES)}")
    for text, position in places:
        if not 0 <= text < len(texts) or not 0 <= position < len(texts[text]):
            raise ValueError(f"got the place {(text, position)}; expected a token of one of the {len(texts)} texts")
        if len(texts[text]) > wrapped.n_ctx:
            raise ValueError(
                f"text {text} has {len(texts[text])} tokens, but the model's context window holds {wrapped.n_ctx}; use "
                "fewer demonstrations"
            )
