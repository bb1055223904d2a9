"""Patching as everybody does it: one plain forward pass a set of heads, with hooks on z.

The oracle of the fast way, and what remains for models that do not take it. Nothing here knows trees, caches or layers
that are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mechicl.hooks.head_sets import Head, by_head
from mechicl.hooks.patch_rows import Source
from mechicl.hooks.patch_sweep import Plan
from mechicl.hooks.wrapper import Hook, WrappedModel


def loop_log_probs(wrapped: WrappedModel, plan: Plan, number: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities of an item's readings with each set patched, [set reading], and with none, [reading]."""
    item = plan.items[number]
    width = max(len(prompt) for prompt in item.prompts)
    padded = [[*prompt.tokens, *[0] * (width - len(prompt))] for prompt in item.prompts]
    tokens = torch.tensor(padded, device=wrapped.device)
    reads = [
        (p * width + position - 1, prompt.tokens[position])
        for p, prompt in enumerate(item.prompts)
        for position in range(*prompt.roles[item.scored])
    ]
    node, token = torch.tensor(reads, device=wrapped.device).T
    places: list[tuple[int, int]] = []
    sources: list[Source] = []
    for p in range(len(item.prompts)):
        met = {}
        for role in plan.roles:
            for offset, position in enumerate(item.span(p, role)):
                met[position] = plan.replacement.source(item, p, position, role, offset)
        places += [(p, position) for position in met]
        sources += met.values()
    new = plan.replacement.values(wrapped, sources)
    row, column = torch.tensor(places, device=wrapped.device).T

    def hooks(chosen: Sequence[Head]) -> list[tuple[str, int, Hook]]:
        def put(layer: int, head: int) -> Hook:
            def hook(z: Tensor) -> Tensor:
                apart = by_head(wrapped, z).clone()
                apart[row, column, head] = new[:, layer, head].to(z.dtype)
                return apart.view_as(z)

            return hook

        return [("z", layer, put(layer, head)) for layer, head in chosen]

    runs = []
    for chosen in ((), *plan.sets):
        with wrapped.hooked(hooks(chosen)):
            runs.append(wrapped.log_probs(tokens, node, token).cpu())
    return (torch.stack(runs[1:]) if plan.sets else torch.empty(0, len(reads))), runs[0]
