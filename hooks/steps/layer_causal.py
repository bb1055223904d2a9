"""Layer-causal gradient descent: every attention layer learns by itself, without news from the layers above it.

In a forward pass layer l cannot know what later layers will do, but back-propagation tells it. Layer-causal descent
keeps to the order of the forward pass. The loss is a sum over layers of

    loss_l = -mean over the label's tokens of log softmax(unembed(norm(a_l)))[token]

with a_l what attention of layer l adds to the residual stream before that token, and the input of each layer held
constant (no gradient flows into lower layers). Only W_Q, W_K and W_V move. It resembled ICL more than plain gradient
descent did (SimAOU .17 against .10, SimAM .34 against .27). Source: Deutch et al., arXiv 2311.07772.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import Learner, check_learners, mean_loss, scored_positions
from mechicl.hooks.steps.sites import weight_sites
from mechicl.hooks.steps.weight_updates import Change, Products, Tape, WeightUpdates, tapped
from mechicl.hooks.wrapper import Hook, WrappedModel


def layer_causal_steps(wrapped: WrappedModel, learners: Sequence[Learner], *, learning_rate: float) -> WeightUpdates:
    """One step a text on W_Q, W_K and W_V of all layers, each layer by its own loss; many learners at once.

    `losses` of the result are sums over layers, nats. Raises `ValueError` for what `check_learners` refuses, for
    attention whose projections are no linear layers, and where a loss or a gradient is not finite.
    """
    check_learners(wrapped, learners, learning_rate)
    chosen = _projections(wrapped)
    found = WeightUpdates(len(learners), weight_sites(wrapped, lambda name: name in chosen))
    with wrapped.evaluating():
        for step in range(len(learners[0])):
            tape = Tape(len(learners))
            with torch.enable_grad():
                losses = layer_losses(wrapped, [learner[step] for learner in learners], found, tape).sum(0)
                outputs = [out for *_, out in tape.met]
                gradients = torch.autograd.grad(losses.sum(), outputs, allow_unused=True)
            changes: dict[str, list[Change]] = {}
            for (site, given, _), gradient in zip(tape.met, gradients, strict=True):
                if site.weight and gradient is not None:
                    left = (-learning_rate * gradient).reshape(len(learners), -1, gradient.shape[-1])
                    _check_finite(losses, left, step, learning_rate)
                    changes[site.weight] = [Products(left, given.reshape(len(learners), -1, given.shape[-1]))]
            found = found.plus(changes, losses.detach())
    return found


def layer_losses(
    wrapped: WrappedModel, texts: Sequence[Continuation], updates: WeightUpdates, tape: Tape | None = None
) -> Float[Tensor, "layer learner"]:
    """The loss of every layer, nats a token, under the learners' weights so far; with gradients where enabled."""
    tokens, before, ids, real = scored_positions(texts, wrapped.device)
    rows = torch.arange(len(texts), device=wrapped.device)[:, None]
    added: list[Tensor] = []

    def cut(stream: Tensor) -> Tensor:
        return stream.detach().requires_grad_(torch.is_grad_enabled())

    def keep(output: Tensor) -> None:
        added.append(output[rows, before])

    hooks: list[tuple[str, int, Hook]] = []
    for layer in range(wrapped.n_layers):
        hooks += [("resid_pre", layer, cut), ("attn_out", layer, keep)]
    with tapped(updates.sites, updates.changes, tape), wrapped.hooked(hooks):
        wrapped.row_logits(tokens, before[:, :1])
    model = wrapped.model
    # Layers one after another: the logits of all of them at once would be layers times as large.
    return torch.stack([mean_loss(model.unembed(model.ln_final(output)), ids, real) for output in added])


def _projections(wrapped: WrappedModel) -> set[str]:
    """Names of the matrices of queries, keys and values."""
    try:
        parts = [getattr(block.attn, name) for block in wrapped.model.blocks for name in ("q", "k", "v")]
    except AttributeError as error:
        raise ValueError(
            "this model's queries, keys and values come from no layers of their own; layer-causal steps need a "
            "TransformerBridge (TransformerLens 4)"
        ) from error
    ids = {id(parameter) for part in parts for parameter in part.parameters() if parameter.ndim == 2}
    return {name for name, parameter in wrapped.model.named_parameters() if id(parameter) in ids}


def _check_finite(losses: Tensor, left: Tensor, step: int, rate: float) -> None:
    finite = torch.isfinite(losses) & torch.isfinite(left).flatten(1).all(1)
    if not finite.all():
        learner = int((~finite).nonzero()[0])
        raise ValueError(
            f"the loss of learner {learner} is not finite at step {step + 1}: gradient descent diverges with "
            f"learning_rate={rate}; choose a lower one"
        )
