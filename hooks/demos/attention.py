"""A head's attention to each demonstration, reduced inside the hook: [batch head pos pos] to [batch head demo]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.demos.spans import ELSEWHERE, DemoSpans

AGGREGATES = ("sum", "max", "label")


class DemoAttention:
    """The hooks on the patterns of one batch, and what they have seen.

    found: how the attention of a demonstration's tokens is taken together -> [batch layer head demo]: "sum" over all
    its tokens, "max" over them (as in arXiv 2305.12766), or "label": the sum over its label's tokens alone.
    elsewhere: attention to what belongs to no demonstration, in the order of `ELSEWHERE`; with "sum" it makes 1.
    """

    def __init__(self, spans: DemoSpans, n_layers: int, n_heads: int) -> None:
        shape = (len(spans.tokens), n_layers, n_heads)
        self.spans = spans
        # float64, or what a float64 model attends to with less than 1e-45 would become 0, and its logarithm infinite
        self.found = {how: torch.zeros(*shape, spans.n_demos, dtype=torch.float64) for how in AGGREGATES}
        self.elsewhere = torch.zeros(*shape, len(ELSEWHERE), dtype=torch.float64)
        self.seen: set[int] = set()

    def see(self, layer: int, pattern: Float[Tensor, "batch head query key"]) -> None:
        """Keep one layer's attention from the last token."""
        spans = self.spans
        rows = torch.arange(len(pattern), device=pattern.device)
        own = pattern[rows, :, spans.last]
        own = own if own.dtype in (torch.float32, torch.float64) else own.float()
        n_segments = spans.n_demos + len(ELSEWHERE)
        where = spans.segment[:, None].expand_as(own)

        def reduced(values: Tensor, how: str) -> Tensor:
            empty = values.new_zeros(*values.shape[:2], n_segments)
            return empty.scatter_reduce(2, where, values, how)

        total = reduced(own, "sum").cpu()
        self.found["sum"][:, layer], self.elsewhere[:, layer] = total.split([spans.n_demos, len(ELSEWHERE)], -1)
        self.found["max"][:, layer] = reduced(own, "amax")[..., : spans.n_demos].cpu()
        self.found["label"][:, layer] = reduced(own * spans.label[:, None], "sum")[..., : spans.n_demos].cpu()
        self.seen.add(layer)

    def check(self) -> None:
        """Refuse (ValueError) a model whose attention shows no pattern."""
        if len(self.seen) < self.elsewhere.shape[1]:
            raise ValueError("this model shows no attention pattern; load it with eager attention")
