"""Items as rows of nodes, divided into those that a patch can change and those that it cannot.

The prompts of an item form a tree (see `prefix_tree`). Nodes that are patched, and all that look back on one, are
**affected**; everything else keeps its values, so a patched run need not compute it again: it takes keys and values of
the unaffected nodes from the run without a patch. A row holds the unaffected nodes first, then the affected ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechicl.hooks.patch_items import PatchItem

Source = Hashable  # where a patched node's new activation comes from


@runtime_checkable
class Sources(Protocol):
    """Says where the new activation of a position comes from; equal sources give equal activations."""

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """The source for token number `offset` of a role, which stands at `position` of the prompt."""


@dataclass(frozen=True)
class ItemRow:
    """One item's nodes. Arrays over nodes; `n_kept` of them, the first ones, are unaffected.

    patched: numbers of the patched nodes; sources: theirs, in the same order. A reading is the log-probability of
    `read_token` after node `read_node`; readings are ordered by prompt, then by token; `lengths` counts each prompt's.
    """

    tokens: Int[np.ndarray, " node"]
    depth: Int[np.ndarray, " node"]
    parent: Int[np.ndarray, " node"]
    n_kept: int
    patched: Int[np.ndarray, " patched"]
    sources: tuple[Source, ...]
    read_node: Int[np.ndarray, " reading"]
    read_token: Int[np.ndarray, " reading"]
    lengths: tuple[int, ...]


def item_row(item: PatchItem, roles: Sequence[str], origin: Sources | None) -> ItemRow:
    """The row of an item whose `roles` are patched from `origin`; with None nothing is, and all nodes are unaffected.

    Two prompts share a node while their tokens and their patches agree. The last token of a prompt is never read.
    """
    numbers: dict[tuple[int, int, Source], int] = {}  # (parent, token, source) -> node
    depth, reads, lengths = [], [], []
    for p, prompt in enumerate(item.prompts):
        patches = {} if origin is None else _patches(item, p, roles, origin)
        start, stop = prompt.roles[item.scored]
        node = -1
        for position, token in enumerate(prompt.tokens[: stop - 1]):
            key = (node, token, patches.get(position))
            if key not in numbers:
                numbers[key] = len(numbers)
                depth.append(position)
            node = numbers[key]
            if start <= position + 1 < stop:
                reads.append((node, prompt.tokens[position + 1]))
        lengths.append(stop - start)
    parent = np.array([key[0] for key in numbers])
    sources = [key[2] for key in numbers]
    affected = np.zeros(len(parent), dtype=bool)
    for node, above in enumerate(parent):
        affected[node] = sources[node] is not None or (above >= 0 and affected[above])
    order = np.argsort(affected, kind="stable")  # parents stay before their children
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return ItemRow(
        tokens=np.array([key[1] for key in numbers])[order],
        depth=np.array(depth)[order],
        parent=np.where(parent < 0, -1, rank[parent])[order],
        n_kept=int((~affected).sum()),
        patched=np.array([rank[n] for n, s in enumerate(sources) if s is not None], dtype=np.int64),
        sources=tuple(s for s in sources if s is not None),
        read_node=rank[[node for node, _ in reads]],
        read_token=np.array([token for _, token in reads]),
        lengths=tuple(lengths),
    )


def _patches(item: PatchItem, prompt: int, roles: Sequence[str], origin: Sources) -> dict[int, Source]:
    found = {}
    for role in roles:
        for offset, position in enumerate(item.span(prompt, role)):
            found[position] = origin.source(item, prompt, position, role, offset)
    return found


@dataclass(frozen=True)
class RowBatch:
    """Rows side by side, padded: columns 0 to n_kept - 1 hold unaffected nodes, the rest affected ones.

    tokens, positions: [row node]. seen: [row node node], which node looks at which; padding sees itself alone.
    patched_row, patched_column: where the patched nodes stand, column counted from n_kept; sources: theirs.
    read_row, read_column, read_token: all readings of all rows; `splits` gives the number of them of each row.
    """

    rows: tuple[ItemRow, ...]
    tokens: Int[Tensor, "row node"]
    positions: Int[Tensor, "row node"]
    seen: Bool[Tensor, "row node node"]
    n_kept: int
    patched_row: Int[Tensor, " patched"]
    patched_column: Int[Tensor, " patched"]
    sources: tuple[Source, ...]
    read_row: Int[Tensor, " reading"]
    read_column: Int[Tensor, " reading"]
    read_token: Int[Tensor, " reading"]
    splits: tuple[int, ...]

    @property
    def n_affected(self) -> int:
        """Columns of affected nodes, padding included."""
        return self.tokens.shape[1] - self.n_kept


def batch_rows(rows: Sequence[ItemRow], device: torch.device) -> RowBatch:
    """Pad rows to one width, unaffected and affected nodes each to their own."""
    kept = max(row.n_kept for row in rows)
    width = kept + max(len(row.tokens) - row.n_kept for row in rows)
    tokens, positions = np.zeros((2, len(rows), width), dtype=np.int64)
    seen = np.tile(np.eye(width, dtype=bool), (len(rows), 1, 1))
    patched, reads = [], []
    for r, row in enumerate(rows):
        # an affected node's column is moved right by the padding of the unaffected ones
        column = np.arange(len(row.tokens)) + np.where(np.arange(len(row.tokens)) < row.n_kept, 0, kept - row.n_kept)
        tokens[r, column], positions[r, column] = row.tokens, row.depth
        for node, parent in enumerate(row.parent):
            if parent >= 0:
                seen[r, column[node]] |= seen[r, column[parent]]
        patched += [(r, column[node] - kept) for node in row.patched]
        reads += [(r, column[n], t) for n, t in zip(row.read_node, row.read_token, strict=True)]

    def tensor(values: object) -> Tensor:
        return torch.as_tensor(np.asarray(values), device=device)

    patched_row, patched_column = np.array(patched, dtype=np.int64).reshape(-1, 2).T.copy()
    read_row, read_column, read_token = np.array(reads, dtype=np.int64).reshape(-1, 3).T.copy()
    return RowBatch(
        rows=tuple(rows), tokens=tensor(tokens), positions=tensor(positions), seen=tensor(seen), n_kept=kept,
        patched_row=tensor(patched_row), patched_column=tensor(patched_column),
        sources=tuple(source for row in rows for source in row.sources),
        read_row=tensor(read_row), read_column=tensor(read_column), read_token=tensor(read_token),
        splits=tuple(len(row.read_token) for row in rows),
    )  # fmt: skip


def similar_rows(rows: Sequence[ItemRow], size: int) -> Iterator[list[int]]:
    """Numbers of rows in batches of at most `size`, rows of about equal width together."""
    order = sorted(range(len(rows)), key=lambda i: (len(rows[i].tokens) - rows[i].n_kept, rows[i].n_kept, i))
    yield from (order[start : start + size] for start in range(0, len(order), size))
