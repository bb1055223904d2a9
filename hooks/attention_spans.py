"""The forward passes behind `attention_parts`: every head's attention from one token, summed over spans of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.head_sets import by_head, heads_apart
from mechicl.hooks.wrapper import Hook, WrappedModel


class SpanReader:
    """The hooks of the passes, and the arrays that they fill."""

    def __init__(
        self, wrapped: WrappedModel, texts: list[tuple[int, ...]], spans: list[np.ndarray], streams: tuple[str, ...]
    ) -> None:
        self.wrapped, self.texts, self.spans = wrapped, texts, spans
        exact = torch.float64 if wrapped.dtype == torch.float64 else torch.float32
        self.dtype, kind = exact, np.float64 if exact == torch.float64 else np.float32
        heads = (len(texts), wrapped.n_layers, wrapped.n_heads, len(spans[0]))
        self.mass, self.output = np.zeros(heads, kind), np.zeros((*heads, wrapped.d_head), kind)
        self.residuals = {name: np.zeros((*heads[:2], wrapped.d_model), kind) for name in streams}

    def batches(self, budget: int) -> Iterator[list[int]]:
        """Numbers of items whose texts are of similar length; equal texts together, to be run once."""
        order = sorted(range(len(self.texts)), key=lambda i: (len(self.texts[i]), self.texts[i]))
        batch: list[int] = []
        for i in order:
            rows = len({self.texts[j] for j in (*batch, i)})
            if batch and (rows * self.wrapped.bytes_of_row(len(self.texts[i])) > budget or len(batch) >= 256):
                yield batch
                batch = []
            batch.append(i)
        yield batch

    def read(self, items: list[int]) -> None:
        """Run the texts of these items and keep what their queries take in."""
        wrapped, texts = self.wrapped, list(dict.fromkeys(self.texts[i] for i in items))
        width = max(map(len, texts))
        tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=wrapped.device)
        row = torch.tensor([texts.index(self.texts[i]) for i in items], device=wrapped.device)
        at = torch.tensor([len(self.texts[i]) - 1 for i in items], device=wrapped.device)
        held = torch.zeros(len(items), len(self.spans[0]), width, dtype=self.dtype)
        for slot, i in enumerate(items):
            held[slot, :, : self.spans[i].shape[1]] = torch.from_numpy(self.spans[i])
        hooks: list[tuple[str, int | None, Hook]] = []
        for layer in range(wrapped.n_layers):
            one = _Layer(self, items, layer, row, at, held.to(wrapped.device))
            hooks += [("v", layer, one.see_v), ("pattern", layer, one.see_pattern), ("z", layer, one.see_z)]
            hooks += [(stream, layer, one.keeper(stream)) for stream in self.residuals]
        with wrapped.hooked(hooks):
            wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))  # no logits are wanted


@dataclass
class _Layer:
    """One layer's hooks; attention meets them in the order v, pattern, z."""

    reader: SpanReader
    items: list[int]
    layer: int
    row: Tensor
    at: Tensor
    held: Float[Tensor, "slot span key"]
    values: Tensor | None = None
    pattern: Tensor | None = None

    def see_v(self, v: Tensor) -> None:
        self.values = v

    def see_pattern(self, pattern: Tensor) -> None:
        self.pattern = pattern[self.row, :, self.at].to(self.reader.dtype)

    def see_z(self, z: Tensor) -> None:
        wrapped, pattern, values = self.reader.wrapped, self.pattern, self.values
        self.pattern = self.values = None
        if pattern is None or values is None or pattern.shape[-1] != self.held.shape[-1]:
            raise ValueError("this model shows no attention pattern; load it with eager attention")
        by_kv = heads_apart(values, wrapped.n_kv_heads, wrapped.d_head)[self.row].to(self.reader.dtype)
        own = by_kv.repeat_interleave(wrapped.n_heads // wrapped.n_kv_heads, dim=2)
        attended = einsum(pattern, self.held, "slot head key, slot span key -> slot head span key")
        given = by_head(wrapped, z)[self.row, self.at].to(self.reader.dtype)
        whole = einsum(pattern, own, "slot head key, slot key head d_head -> slot head d_head")
        close = 1e-3 if z.dtype in (torch.float32, torch.float64) else 0.05
        if (whole - given).abs().max() > close * given.abs().max():
            raise ValueError(
                f"z of layer {self.layer} is not its attention pattern times its values (or a hook of yours changes "
                "it), so it cannot be split by where it comes from"
            )
        output = einsum(attended, own, "slot head span key, slot key head d_head -> slot head span d_head")
        self.reader.mass[self.items, self.layer] = attended.sum(-1).cpu().numpy()
        self.reader.output[self.items, self.layer] = output.cpu().numpy()

    def keeper(self, stream: str) -> Hook:
        def keep(x: Tensor) -> None:
            kept = x[self.row, self.at].to(self.reader.dtype).cpu().numpy()
            self.reader.residuals[stream][self.items, self.layer] = kept

        return keep
