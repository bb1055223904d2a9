"""Log-probabilities under many learners' weights in one batch: each row of it is read by one learner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.log_probs import NODES_PER_ROW
from mechicl.hooks.prefix_tree import Continuation, PackedRow, pack
from mechicl.hooks.steps.weight_updates import WeightUpdates
from mechicl.hooks.wrapper import WrappedModel, additive


def updated_log_probs(
    wrapped: WrappedModel,
    updates: WeightUpdates,
    targets: Sequence[Sequence[Continuation]],
    *,
    trees: bool,
    memory_budget: int = 1 << 30,
) -> list[Float[np.ndarray, " _"]]:
    """Summed log-probability, nats, of every target of each learner under that learner's weights.

    `trees`: whether the model takes prefix trees; without, every target has a row of its own.
    """
    if len(targets) != updates.n_learners:
        raise ValueError(f"got targets for {len(targets)} learners, but updates of {updates.n_learners}")
    found = [np.zeros(len(own)) for own in targets]
    with wrapped.evaluating():
        for learners, rows in _batches(wrapped, targets, trees, memory_budget):
            values = _read(wrapped, updates.taken(torch.tensor(learners, device=wrapped.device)), rows)
            for learner, row, part in zip(learners, rows, values, strict=True):
                np.add.at(found[learner], row.read_item, part)
    return found


def _batches(
    wrapped: WrappedModel, targets: Sequence[Sequence[Continuation]], trees: bool, budget: int
) -> Iterator[tuple[list[int], list[PackedRow]]]:
    """Rows of similar width with the learner of each."""
    width = max(min(NODES_PER_ROW, wrapped.n_ctx), max(len(c.tokens) for own in targets for c in own) - 1)
    rows = [
        (learner, row)
        for learner, own in enumerate(targets)
        if own
        for row in (pack(own, width) if trees else _each(own))
    ]
    rows.sort(key=lambda pair: -len(pair[1].tokens))
    start = 0
    while start < len(rows):
        size = max(1, budget // wrapped.bytes_of_row(len(rows[start][1].tokens)))
        part = rows[start : start + size]
        yield [learner for learner, _ in part], [row for _, row in part]
        start += size


def _each(targets: Sequence[Continuation]) -> Iterator[PackedRow]:
    for item, target in enumerate(targets):
        (row,) = pack([target], len(target.tokens))
        row.read_item[:] = item
        yield row


def _read(wrapped: WrappedModel, updates: WeightUpdates, rows: Sequence[PackedRow]) -> list[Float[np.ndarray, " _"]]:
    """Log-probabilities of every reading of every row, one forward pass."""
    width = max(len(row.tokens) for row in rows)

    def stacked(parts: Sequence[np.ndarray], size: int) -> Tensor:
        return torch.as_tensor(np.stack([np.pad(part, (0, size - len(part))) for part in parts]), device=wrapped.device)

    options = {}
    if any((row.parent != np.arange(len(row.parent)) - 1).any() for row in rows):
        seen = torch.as_tensor(np.stack([row.visible(width) for row in rows]), device=wrapped.device)
        options = {
            "attention_mask": additive(seen, wrapped.dtype),
            "position_ids": stacked([row.depth for row in rows], width),
        }
    # A node that is read more than once (where two targets part) is unembedded once.
    nodes, places = zip(*(np.unique(row.read_node, return_inverse=True) for row in rows), strict=True)
    size = max(map(len, nodes))
    with updates.applied():
        logits = wrapped.row_logits(stacked([row.tokens for row in rows], width), stacked(nodes, size), **options)
    found = []
    for row, place, own in zip(rows, places, logits, strict=True):
        own = own if own.dtype == torch.float64 else own.float()
        at, token = (torch.as_tensor(values, device=own.device) for values in (place, row.read_token))
        values = own[at, token] - own.logsumexp(-1)[at]
        found.append(values.cpu().numpy().astype(np.float64))
    return found
