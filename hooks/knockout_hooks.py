"""The hooks that knock attention out: they see a layer's values and pattern, and replace z by what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechicl.hooks.head_sets import Head, by_head, heads_apart
from mechicl.hooks.row_runs import RowRuns
from mechicl.hooks.wrapper import Hook


def cut_entries(runs: RowRuns) -> Bool[Tensor, "row query key"]:
    """Which entries are knocked out, for the columns of a patched run over all columns of the batch."""
    batch = runs.batch
    cut = np.zeros((runs.n_rows, batch.tokens.shape[1], batch.tokens.shape[1]), dtype=bool)
    for r, row in enumerate(batch.rows):
        column = np.arange(len(row.tokens))
        column[row.n_kept :] += batch.n_kept - row.n_kept
        for node, positions in zip(row.patched, row.sources, strict=True):
            above = int(node)
            while above >= 0:
                cut[r, column[node], column[above]] = row.depth[above] in positions  # type: ignore[operator]
                above = int(row.parent[above])
    return torch.as_tensor(cut[:, runs.first :], device=runs.wrapped.device)


def knocked_out(
    runs: RowRuns, cut: Bool[Tensor, "row query key"], sets: Sequence[Sequence[Head]], renormalise: bool
) -> list[tuple[str, int, Hook]]:
    """Hooks that knock out set number c in copy c."""
    hooks: list[tuple[str, int, Hook]] = []
    for layer in sorted({layer for own in sets for layer, _ in own}):
        pairs = [(copy, head) for copy, own in enumerate(sets) for at, head in own if at == layer]
        copy, head = torch.tensor(pairs, device=runs.wrapped.device).T
        hooks += _Layer(runs, cut, layer, len(sets), copy, head, renormalise).hooks()
    return hooks


@dataclass
class _Layer:
    """The hooks of one layer: two look, the third replaces z of head `head[i]` in copy `copy[i]`."""

    runs: RowRuns
    cut: Bool[Tensor, "row query key"]
    layer: int
    copies: int
    copy: Tensor
    head: Tensor
    renormalise: bool
    pattern: Tensor | None = None
    values: Tensor | None = None

    def hooks(self) -> list[tuple[str, int, Hook]]:
        """In the order in which attention meets them."""
        return [
            ("v", self.layer, self._see_v),
            ("pattern", self.layer, self._see_pattern),
            ("z", self.layer, self._replace),
        ]

    def _see_v(self, v: Tensor) -> None:
        self.values = v

    def _see_pattern(self, pattern: Tensor) -> None:
        self.pattern = pattern

    def _replace(self, z: Tensor) -> Tensor:
        pattern, values = self._chosen()
        kept = pattern.masked_fill(self.cut, 0)
        if self.renormalise:
            left = kept.sum(-1, keepdim=True)
            kept = kept * torch.where(left > 0, pattern.sum(-1, keepdim=True) / left, 0)
        apart = by_head(self.runs.wrapped, z).clone()
        by_copy = apart.unflatten(0, (self.copies, -1))
        own = by_copy[self.copy, :, :, self.head]
        gap = (pattern @ values - own).abs().max()
        if gap > (1e-3 if z.dtype in (torch.float32, torch.float64) else 0.05) * own.abs().max():
            raise ValueError(
                f"z of layer {self.layer} is not its attention pattern times its values (or a hook of yours changes "
                "it), so attention cannot be knocked out of it; patch its heads instead"
            )
        by_copy[self.copy, :, :, self.head] = (own + (kept - pattern) @ values).to(z.dtype)
        return apart.view_as(z)

    def _chosen(self) -> tuple[Float[Tensor, "chosen row query key"], Float[Tensor, "chosen row key d_head"]]:
        """Pattern and values of the heads that are knocked out, at least float32."""
        wrapped, pattern, values = self.runs.wrapped, self.pattern, self.values
        self.pattern = self.values = None
        if pattern is None or values is None or pattern.shape[-2:] != self.cut.shape[-2:]:
            raise ValueError("this model shows no attention pattern; load it with eager attention")
        exact = torch.float64 if pattern.dtype == torch.float64 else torch.float32
        by_kv = heads_apart(values, wrapped.n_kv_heads, wrapped.d_head)
        before = self.runs.kept_values(self.layer)
        if before is not None:
            by_kv = torch.cat([before.transpose(1, 2).repeat(self.copies, 1, 1, 1), by_kv], 1)
        group = wrapped.n_heads // wrapped.n_kv_heads
        of_copies = by_kv.unflatten(0, (self.copies, -1))[self.copy, :, :, self.head // group]
        return pattern.unflatten(0, (self.copies, -1))[self.copy, :, self.head].to(exact), of_copies.to(exact)
