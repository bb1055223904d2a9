"""Updates of MLPs put into the model's own weights, which come back bit for bit: proof by a run without any hook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import torch
from torch import Tensor

from mechicl.hooks.mlps.mlp_parts import Edit, MLPParts, Place
from mechicl.hooks.mlps.mlp_patches import (
    Ends,
    LayerUpdate,
    State,
    Text,
    Updates,
    Watch,
    matrix_update,
    run_rows,
    wide,
    with_rest,
)
from mechicl.hooks.mlps.mlp_updates import states_of
from mechicl.hooks.wrapper import WrappedModel

Kept = list[tuple[Tensor, Tensor]]  # parameters and what they were


@contextmanager
def updated_weights(parts: Sequence[MLPParts], updates: Updates, row: int = 0) -> Iterator[None]:
    """The model itself with one row's updates added to its weights; on leaving, every bit is as it was."""
    with _restoring() as kept:
        for part, own in zip(parts, updates, strict=True):
            _add_matrices(part, own, row, kept)
            _add_rest(part, own, row, kept)
        yield


@contextmanager
def context_in_weights(
    wrapped: WrappedModel, parts: Sequence[MLPParts], context: Text, query: Text
) -> Iterator[tuple[Updates, Ends]]:
    """The model itself, its weights changed layer by layer until the context is in them; yields updates and goal.

    Each layer's update is built on what the layers below, changed and rounded as they are, really put out: one pass a
    layer, as far as that layer. Adding updates that hooks built (`updated_weights`) comes to the same up to rounding,
    but behind norms that can grow without bound: a gain changed by 10^5 stretches what other tokens have there, layer
    after layer. Memory: one more copy of the MLPs' weights. On leaving, every bit is as it was.
    """
    goals, reached = states_of(wrapped, parts, [context], logits=True)
    built: list[LayerUpdate] = []
    with _restoring() as kept:
        for part, goal in zip(parts, goals, strict=True):
            builder = _Builder(part, goal, kept)
            with suppress(_Built):
                run_rows(wrapped, [part], [query], [builder], logits=False)
            built.append(with_rest(part, builder.update, goal, builder.state))
            _add_rest(part, built[-1], 0, kept)
        yield tuple(built), reached


class _Built(Exception):
    """The pass has come to the end of the layer that is being built; what lies above need not run."""


class _Builder(Watch):
    """Changes a layer's matrices once its input is known, before they read it, and watches what comes of it."""

    def __init__(self, part: MLPParts, goal: State, kept: Kept) -> None:
        super().__init__(part)
        self.goal, self.kept = goal, kept

    def edits(self, last: Tensor) -> Iterator[tuple[Place, Edit]]:
        yield from super().edits(last)
        yield self.part.places["input"], self._change
        yield self.part.places["out"], self._stop

    def _change(self, x: Tensor) -> None:
        n = self.seen["input"]
        before = [torch.einsum("rd,dm->rm", n, wide(self.part.weight(name))) for name in self.part.matrices]
        after = [
            torch.einsum("rd,dm->rm", self.goal.input, wide(self.part.weight(name))) for name in self.part.matrices
        ]
        own = State(n, tuple(before), self.goal.hidden, self.goal.base, None)
        self.update = matrix_update(self.part, replace(self.goal, products=tuple(after)), own)
        _add_matrices(self.part, self.update, 0, self.kept)

    def _stop(self, x: Tensor) -> None:
        raise _Built


@contextmanager
def _restoring() -> Iterator[Kept]:
    kept: Kept = []
    try:
        yield kept
    finally:
        with torch.no_grad():
            for parameter, before in reversed(kept):
                parameter.copy_(before)


def _add_matrices(part: MLPParts, update: LayerUpdate, row: int, kept: Kept) -> None:
    for name, left in zip(part.matrices, update.left, strict=True):
        _add(part.weight(name), torch.outer(update.right[row], left[row]), kept)


def _add_rest(part: MLPParts, update: LayerUpdate, row: int, kept: Kept) -> None:
    rest = update.rest[row]
    _add(part.rest_parameter(), rest if update.hidden is None else torch.outer(update.hidden[row], rest), kept)


def _add(parameter: Tensor, change: Tensor, kept: Kept) -> None:
    with torch.no_grad():
        kept.append((parameter, parameter.clone()))
        parameter.copy_((parameter.to(change.dtype) + change).to(parameter.dtype))
