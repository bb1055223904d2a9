"""Log-probabilities of token sequences, by prefix trees where the model allows it, else by padded batches.

Both ways give the numbers of one sequence at a time. Trees need a model that takes a mask and positions of the caller's
making; whether it does is not guessed from its name but tried on a few random tokens before the work begins.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechicl.hooks.prefix_tree import Continuation, PackedRow, pack
from mechicl.hooks.wrapper import WrappedModel, additive

# Receives the number of a continuation and the log-probabilities of its scored tokens.
Sink = Callable[[int, np.ndarray], None]

# Measured on two CPU cores: 128 to 192 are about as fast; longer rows lose to the part of attention that grows with the
# square of a row's length, shorter ones to prefixes that stand in several rows.
NODES_PER_ROW = 160

_TRIED: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()  # models without hooks that were tried before


def by_trees(wrapped: WrappedModel, continuations: Sequence[Continuation], budget: int, sink: Sink) -> None:
    """Score with every shared prefix computed once a row."""
    longest = max(len(c.tokens) for c in continuations) - 1
    # Some models refuse rows wider than their context window, whatever the positions are.
    nodes = max(longest, min(NODES_PER_ROW, wrapped.n_ctx, _nodes_within(wrapped, budget)))
    collect = _Collector(continuations, sink)
    for rows in _batches(pack(continuations, nodes), max(1, budget // wrapped.bytes_of_row(nodes))):
        width = max(len(row.tokens) for row in rows)
        tokens = _stacked(wrapped, [row.tokens for row in rows], width)
        positions = _stacked(wrapped, [row.depth for row in rows], width)
        seen = torch.as_tensor(np.stack([row.visible(width) for row in rows]), device=wrapped.device)
        mask = additive(seen, wrapped.dtype)
        collect.add(rows, _read(wrapped, rows, tokens, attention_mask=mask, position_ids=positions))


def by_padding(wrapped: WrappedModel, continuations: Sequence[Continuation], budget: int, sink: Sink) -> None:
    """Score each sequence in a row of its own, padded on the right, in batches of similar lengths."""
    order = sorted(range(len(continuations)), key=lambda i: -len(continuations[i].tokens))
    collect = _Collector(continuations, sink)
    start = 0
    while start < len(order):
        width = len(continuations[order[start]].tokens) - 1
        size = max(1, budget // wrapped.bytes_of_row(width))
        rows = [_single(item, continuations[item]) for item in order[start : start + size]]
        collect.add(rows, _read(wrapped, rows, _stacked(wrapped, [row.tokens for row in rows], width)))
        start += size


def check_causality_and_trees(wrapped: WrappedModel) -> bool:
    """Does the model take trees? Tried on two random sequences with a common prefix.

    Raises `ValueError` when the states of the prefix depend on what follows it: such a model is not causal, and a
    log-probability of a continuation means nothing. Non-finite logits are left to the caller, who can name the item.
    A model without hooks is tried once; hooks can be anything, so with them it is tried at every call.
    """
    if not wrapped.has_hooks() and wrapped.model in _TRIED:
        return _TRIED[wrapped.model]
    draw = np.random.default_rng(0).integers(0, wrapped.d_vocab, size=11)
    stem, one, other = draw[:5].tolist(), draw[5:8].tolist(), draw[8:].tolist()
    pair = [Continuation((*stem, *branch), 1) for branch in (one, other)]
    alone: dict[int, np.ndarray] = {}
    by_padding(wrapped, pair, 1 << 40, alone.__setitem__)
    single = np.concatenate([alone[0], alone[1]])
    exact = wrapped.dtype in (torch.float32, torch.float64)
    if not np.isfinite(single).all():
        return False
    if np.abs(alone[0][:4] - alone[1][:4]).max() > (1e-3 if exact else 0.5):
        raise ValueError(
            "the model is not causal: log-probabilities of a prefix change with what follows it. Pass a model that "
            "predicts the next token"
        )
    packed: dict[int, np.ndarray] = {}
    try:
        by_trees(wrapped, pair, 1 << 40, packed.__setitem__)
        gap = np.abs(single - np.concatenate([packed[0], packed[1]]))
        size = max(1.0, np.abs(single).max() / 10)  # rounding grows with the size of what is rounded
        agree = bool(gap.max() < 1e-4 * size if exact else gap.mean() < 0.1)
    except (TypeError, ValueError, RuntimeError, IndexError):
        agree = False  # the model refuses such a mask or such positions
    if not wrapped.has_hooks():
        _TRIED[wrapped.model] = agree
    return agree


def warn_without_trees(reason: str) -> None:
    """One line that says why scoring is slower than it could be."""
    warnings.warn(f"shared prefixes are computed again for every sequence: {reason}", stacklevel=4)


class _Collector:
    """Puts readings together and hands each continuation on when it is complete."""

    def __init__(self, continuations: Sequence[Continuation], sink: Sink) -> None:
        self.lengths = [len(c.tokens) - c.start for c in continuations]
        self.sink = sink

    def add(self, rows: Sequence[PackedRow], values: Float[np.ndarray, " reading"]) -> None:
        items = np.concatenate([row.read_item for row in rows])
        starts = np.flatnonzero(np.r_[True, items[1:] != items[:-1]])  # a continuation's readings are neighbours
        for item, part in zip(items[starts], np.split(values, starts[1:]), strict=True):
            if not np.isfinite(part).all():
                raise ValueError(
                    f"the model gave a log-probability that is not finite for item {item}; check its weights for NaN, "
                    "or load it with dtype='float32'"
                )
            self.sink(int(item), part)


def _read(
    wrapped: WrappedModel, rows: Sequence[PackedRow], tokens: Int[Tensor, "row node"], **options: Tensor
) -> Float[np.ndarray, " reading"]:
    """One forward pass; the log-probability of every reading of every row, unembedding each node that is read once."""
    node = np.concatenate([row.read_node + i * tokens.shape[1] for i, row in enumerate(rows)])
    token = np.concatenate([row.read_token for row in rows])
    read, wanted = (torch.as_tensor(values, device=wrapped.device) for values in (node, token))
    return wrapped.log_probs(tokens, read, wanted, **options).cpu().numpy()


def _single(item: int, continuation: Continuation) -> PackedRow:
    tokens = np.asarray(continuation.tokens, dtype=np.int64)
    depth, read = np.arange(len(tokens) - 1), np.arange(continuation.start, len(tokens))
    return PackedRow(tokens[:-1], depth, depth - 1, read - 1, tokens[read], np.full(len(read), item), read - read[0])


def _stacked(wrapped: WrappedModel, rows: Sequence[np.ndarray], width: int) -> Int[Tensor, "row node"]:
    padded = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
    return torch.as_tensor(padded, device=wrapped.device)


def _batches(rows: Iterator[PackedRow], size: int) -> Iterator[list[PackedRow]]:
    batch: list[PackedRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _nodes_within(wrapped: WrappedModel, budget: int) -> int:
    nodes = NODES_PER_ROW
    while nodes > 16 and wrapped.bytes_of_row(nodes) > budget:
        nodes //= 2
    return nodes
