"""Batches of items as rows, run once without a patch and then many copies at a time with hooks: what instruments share.

On models that take trees and a cache a patched run computes the affected nodes only, on those without a cache all
nodes, and on the rest every prompt has a row of its own. Instruments see one face: where the patched nodes stand in a
run, which item a row belongs to, and the metric of every item.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechicl.hooks.patch_items import Metric, PatchItem, checked_metric
from mechicl.hooks.patch_rows import ItemRow, Source, Sources, batch_rows, item_row
from mechicl.hooks.patch_sweep import pass_bytes
from mechicl.hooks.resume import Trace, resumed, trace
from mechicl.hooks.wrapper import Hook, WrappedModel

# Nodes of one pass: enough for the matrix products to be efficient.
_NODES = {"cpu": 2_048, "cuda": 32_768}


@dataclass(frozen=True)
class Rows:
    """The rows of item number `number`: one, or one a prompt where `way` is "hooks"."""

    number: int
    item: PatchItem
    rows: tuple[ItemRow, ...]
    way: str

    @cached_property
    def seen(self) -> int:
        """Columns that the widest row has."""
        return max(len(row.tokens) for row in self.rows)

    @cached_property
    def width(self) -> int:
        """Columns that a patched run computes."""
        kept = min(row.n_kept for row in self.rows) if self.way == "cached" else 0
        return max(1, self.seen - kept)

    def cost(self, wrapped: WrappedModel, graph: bool) -> int:
        """Bytes that one copy takes in a pass; with `graph`, if all that a backward pass needs is kept."""
        readings = sum(len(row.read_token) for row in self.rows)
        one = pass_bytes(wrapped, self.width, self.seen, readings)
        return len(self.rows) * (one + (_graph_bytes(wrapped, self.width, self.seen) if graph else 0))


class RowRuns:
    """One batch of items. `start` runs it without a patch; afterwards `again` runs copies of it with hooks.

    A patched run has `width` columns, the first of which is column `first` of the batch; row r of copy c of the batch
    is its row c * n_rows + r. copies: how many of them a pass may take.
    """

    def __init__(self, wrapped: WrappedModel, chosen: Sequence[Rows], copies: int) -> None:
        self.wrapped, self.copies = wrapped, copies
        self.numbers = tuple(own.number for own in chosen)
        self.items = tuple(own.item for own in chosen)
        self.way = chosen[0].way
        self.batch = batch_rows([row for own in chosen for row in own.rows], wrapped.device)
        self.first = self.batch.n_kept if self.way == "cached" else 0
        self.n_rows = len(self.batch.rows)
        self.width = self.batch.tokens.shape[1] - self.first
        owner = [i for i, own in enumerate(chosen) for _ in own.rows]
        self.item_of_row: Int[Tensor, " row"] = torch.tensor(owner, device=wrapped.device)
        self.patched_row = self.batch.patched_row
        self.patched_column = self.batch.patched_column + self.batch.n_kept - self.first
        self._lengths = [[length for row in own.rows for length in row.lengths] for own in chosen]
        self._base: Trace | None = None

    def start(self, hooks: Sequence[tuple[str, int | None, Hook]] = ()) -> Float[Tensor, " reading"]:
        """Log-probabilities without a patch: one copy, all columns of the batch. `hooks` may look but not touch."""
        with self.wrapped.hooked(hooks):
            if self.way == "hooks":
                return self._plain(1, [])[0]
            self._base = trace(self.wrapped, self.batch, cached=self.way == "cached")
        return self._base.log_probs

    def again(self, layer: int, copies: int, hooks: list[tuple[str, int, Hook]]) -> Float[Tensor, "copy reading"]:
        """Log-probabilities of `copies` copies with `hooks`, which stand at `layer` or later."""
        if self._base is None:
            return self._plain(copies, hooks)
        return resumed(self.wrapped, self.batch, self._base, layer, copies, hooks)

    def kept_values(self, layer: int) -> Float[Tensor, "row kv_head kept d_head"] | None:
        """Values of the nodes before column `first`, as attention reads them; None where there are none."""
        return self._base.values[layer] if self._base is not None and self.first else None

    def metrics(self, metric: Metric, log_probs: Float[Tensor, "copy reading"]) -> Float[Tensor, "copy item"]:
        """The metric of every item, checked; gradients pass through."""
        parts = log_probs.double().split([sum(lengths) for lengths in self._lengths], 1)
        found = [
            checked_metric(metric(tuple(part.split(lengths, -1))), len(part), number)
            for part, lengths, number in zip(parts, self._lengths, self.numbers, strict=True)
        ]
        return torch.stack(found, 1)

    def by_item(self, of_rows: Float[Tensor, "row *rest"]) -> Float[Tensor, "item *rest"]:
        """Sums over the rows of each item."""
        empty = of_rows.new_zeros((len(self.items), *of_rows.shape[1:]))
        return empty.index_add_(0, self.item_of_row, of_rows)

    def _plain(self, copies: int, hooks: list[tuple[str, int, Hook]]) -> Float[Tensor, "copy reading"]:
        """Rows as they are, no mask and no positions: each is one prompt, padded on the right."""
        batch = self.batch
        node = batch.read_row * batch.tokens.shape[1] + batch.read_column
        nodes = torch.arange(copies, device=node.device)[:, None] * batch.tokens.numel() + node
        with self.wrapped.hooked(hooks):
            tokens, read = batch.tokens.repeat(copies, 1), batch.read_token.repeat(copies)
            return self.wrapped.log_probs(tokens, nodes.flatten(), read).view(copies, -1)


def batches(
    wrapped: WrappedModel,
    items: Sequence[PatchItem],
    roles: Sequence[str],
    origin: Sources,
    way: str,
    *,
    budget: int,
    copies: int = 1,
    graph: bool = False,
) -> Iterator[RowRuns]:
    """All items, in batches of similar length in which `copies` copies fill a pass, if memory allows.

    way: "cached", "whole" or "hooks", as `way_to_patch` says. graph: will there be a backward pass? Raises `ValueError`
    where a single copy of a single item is over the budget (bytes).
    """
    rows = [Rows(i, item, _rows_of(item, roles, origin, way), way) for i, item in enumerate(items)]
    costs = [own.cost(wrapped, graph) for own in rows]
    if max(costs) > budget:
        worst = rows[costs.index(max(costs))]
        raise ValueError(
            f"memory_budget is {budget} bytes, but one item of {worst.seen} tokens takes about {max(costs)}; raise "
            "the budget"
        )
    limit = _NODES.get(wrapped.device.type, _NODES["cpu"])
    order = sorted(rows, key=lambda own: (own.width, own.seen, own.number))
    while order:
        size, spent = 1, costs[order[0].number]
        while size < len(order):
            nodes = sum(len(own.rows) for own in order[: size + 1]) * order[size].width
            spent += costs[order[size].number]
            if nodes * copies > limit or spent > budget:
                spent -= costs[order[size].number]
                break
            size += 1
        chosen, order = order[:size], order[size:]
        nodes = sum(len(own.rows) for own in chosen) * chosen[-1].width
        yield RowRuns(wrapped, chosen, max(1, min(copies, limit // nodes, budget // spent)))


@dataclass(frozen=True)
class _OnePrompt:
    """An item's sources for one of its prompts in a row of its own."""

    item: PatchItem
    prompt: int
    origin: Sources

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """As for the whole item, whose prompts may have parted before this position."""
        return self.origin.source(self.item, self.prompt, position, role, offset)


def _rows_of(item: PatchItem, roles: Sequence[str], origin: Sources, way: str) -> tuple[ItemRow, ...]:
    if way != "hooks":
        return (item_row(item, roles, origin),)
    found = []
    for p, prompt in enumerate(item.prompts):
        alone = PatchItem((prompt,), scored=item.scored)
        # no node counts as kept: a chain must stay in order, and padding must stand at its end
        found.append(replace(item_row(alone, roles, _OnePrompt(item, p, origin)), n_kept=0))
    return tuple(found)


def _graph_bytes(wrapped: WrappedModel, width: int, seen: int) -> int:
    """What a forward pass of a row keeps for the backward pass: the states and scores of every layer."""
    states = 16 * wrapped.d_model + 6 * (getattr(wrapped.model.cfg, "d_mlp", None) or 0)
    return 4 * wrapped.n_layers * width * (states + 3 * wrapped.n_heads * seen)
