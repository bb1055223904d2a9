"""Weights with dense changes added, for as long as a context lasts; and one learner whose changes are such."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from mechicl.hooks.steps.dense_steps import DenseSteps
from mechicl.hooks.steps.gradient_steps import Learner
from mechicl.hooks.steps.sites import Choice, chosen_parameters
from mechicl.hooks.wrapper import WrappedModel


@contextmanager
def moved_by(wrapped: WrappedModel, changes: Mapping[str, Tensor]) -> Iterator[None]:
    """Add changes of the weights' own shapes, by name; on leaving the weights are as before, bit for bit."""
    every: dict[str, Any] = dict(wrapped.model.named_parameters())
    if unknown := sorted(changes.keys() - every.keys()):
        raise ValueError(f"the model has no parameter {unknown[0]!r}; name those of model.named_parameters()")
    kept = {name: every[name].detach().clone() for name in changes}
    try:
        with torch.no_grad():
            for name, change in changes.items():
                every[name].add_(change)
        yield
    finally:
        with torch.no_grad():
            for name, before in kept.items():
                every[name].copy_(before)


@dataclass(frozen=True)
class DenseUpdate:
    """The changed weights of a single learner, whole: for models and optimisers without a shorter form."""

    wrapped: WrappedModel
    changes: Mapping[str, Tensor] = field(hash=False)
    n_learners: int = 1

    def taken(self, rows: Int[Tensor, " row"]) -> DenseUpdate:
        """Itself: all rows are of the one learner."""
        return self

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Run the model with the changes."""
        with moved_by(self.wrapped, self.changes):
            yield

    def random_like(self, seed: int) -> DenseUpdate:
        """Changes in random directions, each matrix' of the same Frobenius norm."""
        generator = torch.Generator().manual_seed(seed)
        drawn = {}
        for name, change in self.changes.items():
            noise = torch.randn(change.shape, generator=generator).to(change)
            drawn[name] = noise * (change.norm() / noise.norm())
        return DenseUpdate(self.wrapped, drawn)


def apart(wrapped: WrappedModel, names: Sequence[str]) -> list[str]:
    """The parameters of which none is part of another: a wrapped model may hold one weight whole and in pieces.

    A GPT-2 has queries, keys and values in one matrix, and as three that share its memory; a change of both would be
    added twice.
    """
    every: dict[str, Any] = dict(wrapped.model.named_parameters())
    storage = {name: every[name].untyped_storage() for name in names}
    is_whole = {name: every[name].nbytes == storage[name].nbytes() for name in names}
    wholes = {storage[name].data_ptr() for name in names if is_whole[name]}
    return [name for name in names if is_whole[name] or storage[name].data_ptr() not in wholes]


def dense_update(
    wrapped: WrappedModel,
    learner: Learner,
    *,
    learning_rate: float,
    parameters: Choice = "all",
    optimizer: str = "sgd",
) -> DenseUpdate:
    """What one learner's steps change, one step a text; takes twice the memory of the chosen weights."""
    with DenseSteps(wrapped, parameters) as steps:
        steps.learn(learner, learning_rate=learning_rate, optimizer=optimizer)
        chosen = chosen_parameters(wrapped, parameters)
        changes = {
            name: parameter.detach() - before
            for (name, parameter), before in zip(chosen.items(), steps.kept, strict=True)
        }
    return DenseUpdate(wrapped, {name: changes[name] for name in apart(wrapped, list(changes))})
