"""The part of a first step that all learners share: the gradient of the filler texts' loss, taken once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechicl.hooks.steps.dense_steps import filler_penalty
from mechicl.hooks.steps.sites import chosen_parameters
from mechicl.hooks.wrapper import WrappedModel

if TYPE_CHECKING:
    from mechicl.hooks.steps.step_scoring import StepOptions


class SharedStep:
    """Weights moved by a step that is the same for all; `out` gives a context in which they are the model's own."""

    def __init__(self, parameters: dict[str, Tensor], moved: dict[str, Tensor]) -> None:
        self.parameters, self.moved = parameters, moved
        self.kept = {name: parameters[name].detach().clone() for name in moved}

    def set(self, values: dict[str, Tensor]) -> None:
        """Copy these values into the weights."""
        with torch.no_grad():
            for name, value in values.items():
                self.parameters[name].copy_(value)

    @contextmanager
    def out(self) -> Iterator[None]:
        """The model's own weights."""
        self.set(self.kept)
        try:
            yield
        finally:
            self.set(self.moved)


@contextmanager
def shared_step(wrapped: WrappedModel, options: StepOptions) -> Iterator[SharedStep]:
    """Move the weights by one step on the fillers' loss, if there are any; put back bit for bit on leaving."""
    parameters: dict[str, Tensor] = dict(chosen_parameters(wrapped, options.parameters))
    moved: dict[str, Tensor] = {}
    if options.fillers and not options.filler_squared:  # squared, the penalty has no gradient at the first step
        penalty = filler_penalty(wrapped, options.fillers, options.filler_weight)
        flags = {name: parameter.requires_grad for name, parameter in parameters.items()}
        try:
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            with wrapped.evaluating(), torch.enable_grad():
                found = torch.autograd.grad(penalty(wrapped), list(parameters.values()), allow_unused=True)
        finally:
            for name, parameter in parameters.items():
                parameter.requires_grad_(flags[name])
        gradients = {name: g for name, g in zip(parameters, found, strict=True) if g is not None}
        moved = {name: parameters[name].detach() - options.learning_rate * g for name, g in gradients.items()}
    shared = SharedStep(parameters, moved)
    try:
        shared.set(moved)
        yield shared
    finally:
        shared.set(shared.kept)
