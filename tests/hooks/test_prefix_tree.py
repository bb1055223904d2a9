"""Packing: every reading must see exactly its own sequence, and every distinct prefix must stand once."""

import numpy as np
import pytest

from mechicl.hooks.prefix_tree import Continuation, pack


def random_continuations(seed: int, n: int) -> list[Continuation]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        tokens = tuple(int(t) for t in rng.integers(0, 3, size=rng.integers(2, 9)))
        found.append(Continuation(tokens, int(rng.integers(1, len(tokens)))))
    return found


@pytest.mark.parametrize("nodes_per_row", [1, 10, 10_000])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_reading_sees_its_own_sequence_and_nothing_else(seed: int, nodes_per_row: int) -> None:
    continuations = random_continuations(seed, 60)
    read = set()
    for row in pack(continuations, nodes_per_row):
        seen = row.visible(len(row.tokens) + 3)
        assert np.array_equal(seen[-3:, :-3], np.zeros((3, len(row.tokens))))  # padding sees no node
        for node, token, item, offset in zip(
            row.read_node, row.read_token, row.read_item, row.read_offset, strict=True
        ):
            continuation = continuations[item]
            position = continuation.start + offset
            ancestors = np.flatnonzero(seen[node])
            assert tuple(row.tokens[ancestors]) == continuation.tokens[:position]
            assert tuple(row.depth[ancestors]) == tuple(range(position))
            assert token == continuation.tokens[position]
            read.add((int(item), int(offset)))
    assert read == {(i, k) for i, c in enumerate(continuations) for k in range(len(c.tokens) - c.start)}


def test_one_row_holds_every_distinct_proper_prefix_once() -> None:
    continuations = random_continuations(2, 80)
    (row,) = pack(continuations, 10_000)
    prefixes = {c.tokens[:n] for c in continuations for n in range(1, len(c.tokens))}
    assert len(row.tokens) == len(prefixes)


def test_rows_keep_to_their_size_unless_one_sequence_is_longer() -> None:
    continuations = random_continuations(3, 80)
    for row in pack(continuations, 12):
        assert len(row.tokens) <= 12
    assert [len(row.tokens) for row in pack([Continuation(tuple(range(9)), 1)], 4)] == [8]


def test_nothing_gives_no_rows() -> None:
    assert list(pack([], 10)) == []
