"""Many patches of many items by resumed forward passes: one trace a batch of items, then all sets of heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.head_sets import Head, by_head
from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.patch_rows import ItemRow, RowBatch, batch_rows, item_row, similar_rows
from mechicl.hooks.replacements import Replacement
from mechicl.hooks.resume import Trace, resumed, trace
from mechicl.hooks.wrapper import Hook, WrappedModel

# Receives an item's number and the log-probabilities of its readings: patched [set reading] and not [reading].
Finish = Callable[[int, Tensor, Tensor], None]

# Nodes of one pass. On two CPU cores the matrix products are as fast from about 1,500 on.
_NODES = {"cpu": 2_048, "cuda": 32_768}


@dataclass(frozen=True)
class Plan:
    """What is to be patched: every set of heads in every item, at the roles, within a memory budget in bytes."""

    items: tuple[PatchItem, ...]
    roles: tuple[str, ...]
    replacement: Replacement
    sets: tuple[tuple[Head, ...], ...]
    budget: int


def sweep(wrapped: WrappedModel, plan: Plan, todo: Sequence[int], finish: Finish, *, cached: bool) -> None:
    """Patch all sets in the items numbered `todo`; items finish batch by batch, short ones first."""
    rows = [item_row(plan.items[number], plan.roles, plan.replacement) for number in todo]
    by_layer = _by_first_layer(plan.sets)
    busiest = max((len(numbers) for numbers in by_layer.values()), default=1)
    for chosen in _batches(wrapped, rows, plan.budget, busiest):
        batch = batch_rows([rows[i] for i in chosen], wrapped.device)
        base = trace(wrapped, batch, cached=cached)
        new = plan.replacement.values(wrapped, batch.sources)
        patched = base.log_probs.repeat(len(plan.sets), 1)
        copies = _copies(wrapped, batch, plan.budget)
        for layer, numbers in by_layer.items():
            for start in range(0, len(numbers), copies):
                part = numbers[start : start + copies]
                hooks = put_in(wrapped, batch, base, new, [plan.sets[number] for number in part])
                patched[part] = resumed(wrapped, batch, base, layer, len(part), hooks)
        parts = zip(patched.cpu().split(batch.splits, 1), base.log_probs.cpu().split(batch.splits), strict=True)
        for i, (ours, unpatched) in zip(chosen, parts, strict=True):
            finish(todo[i], ours, unpatched)


def put_in(
    wrapped: WrappedModel,
    batch: RowBatch,
    base: Trace,
    new: Float[Tensor, "patched layer head d_head"],
    sets: Sequence[Sequence[Head]],
) -> list[tuple[str, int, Hook]]:
    """Hooks that put `new` in place of z: in copy c of the batch for the heads of set number c."""
    row = batch.patched_row
    column = batch.patched_column + (batch.n_kept if base.whole else 0)
    n_rows = len(batch.rows)

    def replace(layer: int, copies: Tensor, heads: Tensor) -> Hook:
        def hook(z: Tensor) -> Tensor:
            apart = by_head(wrapped, z).clone()
            where = copies[:, None] * n_rows + row
            apart[where, column, heads[:, None]] = new[:, layer, heads].transpose(0, 1).to(z.dtype)
            return apart.view_as(z)

        return hook

    hooks: list[tuple[str, int, Hook]] = []
    for layer in sorted({layer for chosen in sets for layer, _ in chosen}):
        pairs = [(copy, head) for copy, chosen in enumerate(sets) for own, head in chosen if own == layer]
        copies, heads = torch.tensor(pairs, device=wrapped.device).T
        hooks.append(("z", layer, replace(layer, copies, heads)))
    return hooks


def _by_first_layer(sets: Sequence[Sequence[Head]]) -> dict[int, list[int]]:
    """First patched layer -> numbers of the sets that begin there; a set without heads changes nothing."""
    found: dict[int, list[int]] = {}
    for number, chosen in enumerate(sets):
        if chosen:
            found.setdefault(min(layer for layer, _ in chosen), []).append(number)
    return dict(sorted(found.items()))


def _batches(wrapped: WrappedModel, rows: list[ItemRow], budget: int, busiest: int) -> list[list[int]]:
    """Batches of rows such that all sets of a layer fill about one pass."""
    widest = max(len(row.tokens) for row in rows)
    one = pass_bytes(wrapped, widest, widest, max(len(row.read_token) for row in rows))
    if one > budget:
        raise ValueError(
            f"memory_budget is {budget} bytes, but one item of {widest} tokens takes about {one}; raise the budget"
        )
    affected = max(1, max(len(row.tokens) - row.n_kept for row in rows))
    nodes = _NODES.get(wrapped.device.type, _NODES["cpu"])
    return list(similar_rows(rows, min(max(1, nodes // (affected * busiest)), budget // one)))


def _copies(wrapped: WrappedModel, batch: RowBatch, budget: int) -> int:
    """How many copies of a batch one pass takes."""
    affected = max(1, batch.n_affected)
    one = len(batch.rows) * pass_bytes(wrapped, affected, batch.tokens.shape[1], max(batch.splits))
    nodes = _NODES.get(wrapped.device.type, _NODES["cpu"])
    return max(1, min(nodes // (len(batch.rows) * affected), budget // one))


def pass_bytes(wrapped: WrappedModel, width: int, seen: int, readings: int) -> int:
    """A cautious estimate of the peak memory of one row of `width` nodes that look at `seen` in a pass."""
    states = 10 * wrapped.d_model + 4 * (getattr(wrapped.model.cfg, "d_mlp", None) or 0)
    scores = 4 * wrapped.n_heads * seen
    keys = 4 * wrapped.n_heads * wrapped.d_head * seen
    return 4 * (width * (states + scores) + keys + 2 * readings * wrapped.d_vocab)
