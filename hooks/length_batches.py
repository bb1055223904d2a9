"""Texts of similar length together, as many at once as memory allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mechicl.hooks.wrapper import WrappedModel


def batches_of_length(wrapped: WrappedModel, lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of texts, longest first, so that what does not fit shows at once; `budget` in bytes bounds a batch."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, budget // wrapped.bytes_of_row(lengths[order[start]]))
        yield order[start : start + size]
        start += size
