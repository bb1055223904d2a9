"""Gradient steps on the weights themselves, put back bit for bit: any model, any optimiser of torch.

The plain way, one learner at a time. It is the oracle of `mechicl.hooks.steps.gradient_steps`, and what remains for
Adam (whose step is no sum of few outer products), for models of unknown parts, and for regularised losses of many
steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import DivergenceError, Learner, check_learners, mean_loss, scored_positions
from mechicl.hooks.steps.sites import Choice, chosen_parameters
from mechicl.hooks.wrapper import WrappedModel

OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
Penalty = Callable[[WrappedModel], Tensor]  # added to the loss of every step


def check_optimizer(optimizer: str) -> None:
    """Raises `ValueError` for an optimiser that is not known here."""
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"got optimizer={optimizer!r}, expected one of {', '.join(OPTIMIZERS)}")


class DenseSteps:
    """A model whose weights can be moved for one learner after another; use as a context.

    with DenseSteps(wrapped, "all") as steps:
        for learner in learners:
            losses = steps.learn(learner, learning_rate=1e-3)
            ...                                    # the model as this learner has it
            steps.restore()

    On leaving, weights, their `requires_grad` flags and their gradients are as before, whatever happened. One copy of
    the chosen weights is kept meanwhile.
    """

    def __init__(self, wrapped: WrappedModel, parameters: Choice = "all") -> None:
        self.wrapped = wrapped
        self.parameters = list(chosen_parameters(wrapped, parameters).values())

    def __enter__(self) -> DenseSteps:
        """Keep what has to be put back."""
        self.kept = [parameter.detach().clone() for parameter in self.parameters]
        self.flags = [(p, p.requires_grad, p.grad) for p in self.wrapped.model.parameters()]
        return self

    def __exit__(self, *_: object) -> None:
        """Put it back."""
        self.restore()
        for parameter, flag, gradient in self.flags:
            parameter.requires_grad_(flag)
            parameter.grad = gradient

    def restore(self) -> None:
        """The weights as they were."""
        with torch.no_grad():
            for parameter, before in zip(self.parameters, self.kept, strict=True):
                parameter.copy_(before)

    def learn(
        self, learner: Learner, *, learning_rate: float, optimizer: str = "sgd", penalty: Penalty | None = None
    ) -> Float[Tensor, " step"]:
        """One step a text, from the weights as they are; returns the loss before each, nats a token, penalty aside.

        Raises `ValueError` for an unknown optimiser, for what `check_learners` refuses, and where a loss is not finite.
        """
        check_optimizer(optimizer)
        check_learners(self.wrapped, [learner], learning_rate)
        chosen = {id(parameter) for parameter in self.parameters}
        for parameter, *_ in self.flags:
            parameter.requires_grad_(id(parameter) in chosen)
        moved = OPTIMIZERS[optimizer](self.parameters, lr=learning_rate)
        losses = []
        for step, text in enumerate(learner):
            with self.wrapped.evaluating(), torch.enable_grad():
                loss = text_loss(self.wrapped, [text])[0]
                if not loss.requires_grad:
                    raise ValueError(
                        "the loss does not depend on the chosen parameters; choose others, or leave inference mode"
                    )
                total = loss if penalty is None else loss + penalty(self.wrapped)
                gradients = torch.autograd.grad(total, self.parameters, allow_unused=True)
            finite = all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)
            if not (torch.isfinite(loss) and finite):
                raise DivergenceError(
                    f"the loss is not finite at step {step + 1}: gradient descent diverges with "
                    f"learning_rate={learning_rate}; choose a lower one"
                )
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                parameter.grad = gradient
            moved.step()
            losses.append(loss.detach())
        return torch.stack(losses)


def text_loss(wrapped: WrappedModel, texts: Sequence[Continuation]) -> Float[Tensor, " text"]:
    """Minus the mean log-probability of each text's scored tokens, nats; with gradients where they are enabled."""
    tokens, before, ids, real = scored_positions(texts, wrapped.device)
    return mean_loss(wrapped.row_logits(tokens, before), ids, real)


def filler_penalty(
    wrapped: WrappedModel, fillers: Sequence[Continuation], weight: float, *, squared: bool = False
) -> Penalty:
    """weight (L - L_before) of the mean loss L over filler texts, or weight (L - L_before)^2: hold to what was known.

    Source: Zhou, Frank & McCoy, arXiv 2406.18501, whose fine-tuning uses 30 filler sentences and a weight of 0.8. At
    the first step the squared form has no gradient.
    """
    if not fillers:
        raise ValueError("there are no filler texts; pass some, or no penalty")
    with wrapped.evaluating():
        known = text_loss(wrapped, fillers).mean()

    def penalty(model: WrappedModel) -> Tensor:
        change = text_loss(model, fillers).mean() - known
        return weight * (change**2 if squared else change)

    return penalty
