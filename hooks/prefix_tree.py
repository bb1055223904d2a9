"""Pack many token sequences into rows in which every shared prefix stands once.

Sequences that begin alike form a tree: a prime over its targets, a target up to the word where its two forms part. A
row holds the nodes of such a tree side by side; each node sees its ancestors and itself, and its position is its depth.
One forward pass over the row, with that mask and those positions, gives every sequence the logits that it would have
had alone. The last token of a sequence is only predicted, never read, so it is no node.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Continuation:
    """What is scored: the tokens of `tokens` from number `start` on, each given all before it."""

    tokens: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class PackedRow:
    """One row of nodes and what is read off it.

    tokens: [node]; depth: [node], the position of each; parent: [node], -1 at a root. A reading is the log-probability
    of token `read_token` after node `read_node`; it is scored token number `read_offset` of continuation `read_item`.
    """

    tokens: Int[np.ndarray, " node"]
    depth: Int[np.ndarray, " node"]
    parent: Int[np.ndarray, " node"]
    read_node: Int[np.ndarray, " reading"]
    read_token: Int[np.ndarray, " reading"]
    read_item: Int[np.ndarray, " reading"]
    read_offset: Int[np.ndarray, " reading"]

    def visible(self, size: int) -> Bool[np.ndarray, "size size"]:
        """Which node sees which: its ancestors and itself. Nodes past the row's end (padding) see themselves alone."""
        seen = np.eye(size, dtype=bool)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                seen[node] |= seen[parent]  # parents come before their children
        return seen


class _RowBuilder:
    """The row being filled; `path` is the chain of nodes of the sequence added last."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.depth: list[int] = []
        self.parent: list[int] = []
        self.path: list[int] = []
        self.readings: list[tuple[int, int, int, int]] = []

    def add(self, item: int, continuation: Continuation, shared: int) -> None:
        del self.path[shared:]
        for depth in range(shared, len(continuation.tokens) - 1):
            self.parent.append(self.path[-1] if self.path else -1)
            self.path.append(len(self.tokens))
            self.tokens.append(continuation.tokens[depth])
            self.depth.append(depth)
        for position in range(continuation.start, len(continuation.tokens)):
            self.readings.append(
                (self.path[position - 1], continuation.tokens[position], item, position - continuation.start)
            )

    def row(self) -> PackedRow:
        readings = np.asarray(self.readings, dtype=np.int64).reshape(-1, 4)
        nodes = (np.asarray(values, dtype=np.int64) for values in (self.tokens, self.depth, self.parent))
        return PackedRow(*nodes, *readings.T)


def pack(continuations: Sequence[Continuation], nodes_per_row: int) -> Iterator[PackedRow]:
    """Rows of at most `nodes_per_row` nodes that hold everything (a longer sequence gets a row of its own).

    In lexicographic order the neighbour before shares the longest prefix, so one pass builds the trees; a row that is
    full ends there, and the next begins with a copy of the prefix it needs.
    """
    row = _RowBuilder()
    before: tuple[int, ...] = ()  # the tokens read by the sequence added last
    for item in sorted(range(len(continuations)), key=lambda i: continuations[i].tokens):
        continuation = continuations[item]
        read = continuation.tokens[:-1]
        shared = _common_prefix(before, read)
        if row.tokens and len(row.tokens) + len(read) - shared > nodes_per_row:
            yield row.row()
            row, shared = _RowBuilder(), 0
        row.add(item, continuation, shared)
        before = read
    if row.tokens:
        yield row.row()


def _common_prefix(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
