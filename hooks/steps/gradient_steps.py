"""Explicit gradient steps of many learners at once: each reads its own texts, each has its own weights afterwards.

A learner is a sequence of texts, one step of stochastic gradient descent a text, from the model's weights on:

    W <- W - rate * grad of  -1/n sum over the n scored tokens of log P(token | tokens before it)

The steps' changes are kept as outer products (`mechicl.hooks.steps.weight_updates`), and gradients are taken with
respect to layers' outputs only; so no weight is copied, changed or given a gradient, and a batch holds many learners.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.sites import Choice, Site, weight_sites
from mechicl.hooks.steps.weight_updates import Change, Products, Rows, Tape, Vectors, WeightUpdates, tapped
from mechicl.hooks.wrapper import WrappedModel

Learner = Sequence[Continuation]  # its texts, in the order in which it reads them


class DivergenceError(ValueError):
    """A loss or a gradient is not finite: the learning rate is too high."""


def low_rank_steps(
    wrapped: WrappedModel,
    learners: Sequence[Learner],
    *,
    learning_rate: float,
    parameters: Choice = "all",
    sites: Sequence[Site] | None = None,
) -> WeightUpdates:
    """The change of the weights of every learner; learners have equally many texts.

    Raises `ValueError` where a learner has no text or another number of them, for texts without a scored token, and
    where a loss or its gradient is not finite: the learning rate is too high. For the model's sake see
    `mechicl.hooks.steps.step_support`, which tries whether this way is exact.
    """
    check_learners(wrapped, learners, learning_rate)
    found = WeightUpdates(len(learners), weight_sites(wrapped, parameters) if sites is None else sites)
    with wrapped.evaluating():
        for step in range(len(learners[0])):
            texts = [learner[step] for learner in learners]
            loss, changes = _one_step(wrapped, found, texts, learning_rate)
            _check_finite(loss, changes, step, learning_rate)
            found = found.plus(changes, loss)
    return found


def check_rate(learning_rate: float) -> None:
    """Raises `ValueError` for a rate that is no positive number."""
    if not learning_rate > 0 or learning_rate == float("inf"):
        raise ValueError(f"got learning_rate={learning_rate}, expected a number above 0, such as 1e-3")


def check_learners(wrapped: WrappedModel, learners: Sequence[Learner], learning_rate: float) -> None:
    """Raises `ValueError` for what no step can be taken on."""
    if not learners:
        raise ValueError("there are no learners; pass at least one sequence of texts")
    check_rate(learning_rate)
    lengths = sorted({len(learner) for learner in learners})
    if len(lengths) > 1 or lengths[0] == 0:
        raise ValueError(
            f"learners read {lengths} texts; each must read at least one, and all equally many (one step a text)"
        )
    for number, learner in enumerate(learners):
        for text in learner:
            if not 1 <= text.start < len(text.tokens):
                raise ValueError(
                    f"learner {number} has a text of {len(text.tokens)} tokens scored from number {text.start} on; "
                    "pass a text that is not empty, with BOS or another token before what is scored"
                )
            if len(text.tokens) > wrapped.n_ctx:
                raise ValueError(
                    f"learner {number} has a text of {len(text.tokens)} tokens, but the model's context window holds "
                    f"{wrapped.n_ctx}; shorten it"
                )
            if not all(0 <= token < wrapped.d_vocab for token in text.tokens):
                raise ValueError(
                    f"learner {number} holds token ids outside 0 to {wrapped.d_vocab - 1}; is it another tokenizer's?"
                )


def scored_positions(texts: Sequence[Continuation], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts as a batch padded on the right: tokens [row pos]; of the scored tokens, padded too, the position before
    each, its id and whether it is one, all [row scored]. The last token is only predicted, so it is no position.
    """
    width = max(len(text.tokens) for text in texts) - 1
    scored = max(len(text.tokens) - text.start for text in texts)

    def padded(values: Sequence[int], size: int) -> list[int]:
        return [*values, *[0] * (size - len(values))]

    tokens = [padded(text.tokens[:-1], width) for text in texts]
    before = [padded(range(text.start - 1, len(text.tokens) - 1), scored) for text in texts]
    ids = [padded(text.tokens[text.start :], scored) for text in texts]
    real = [padded([1] * (len(text.tokens) - text.start), scored) for text in texts]
    found = [torch.tensor(values, device=device) for values in (tokens, before, ids, real)]
    return found[0], found[1], found[2], found[3].bool()


def mean_loss(
    logits: Float[Tensor, "learner scored d_vocab"],
    ids: Int[Tensor, "learner scored"],
    real: Bool[Tensor, "learner scored"],
) -> Float[Tensor, " learner"]:
    """Minus the mean log-probability of a text's scored tokens, in nats; float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten(), reduction="none").view_as(ids)
    return (losses * real).sum(1) / real.sum(1)


def _one_step(
    wrapped: WrappedModel, so_far: WeightUpdates, texts: Sequence[Continuation], rate: float
) -> tuple[Tensor, dict[str, list[Change]]]:
    """Losses before the step, [learner], and the changes that it makes."""
    tokens, before, ids, real = scored_positions(texts, wrapped.device)
    tape = Tape(len(texts))
    with torch.enable_grad(), tapped(so_far.sites, so_far.changes, tape):
        losses = mean_loss(wrapped.row_logits(tokens, before), ids, real)
        gradients = torch.autograd.grad(losses.sum(), [out for *_, out in tape.met], allow_unused=True)
    changes: dict[str, list[Change]] = {}
    for (site, given, _), gradient in zip(tape.met, gradients, strict=True):
        if gradient is not None:
            for name, change in _changes(site, given, -rate * gradient, len(texts)):
                changes.setdefault(name, []).append(change)
    return losses.detach(), changes


def _changes(site: Site, given: Tensor, left: Tensor, n: int) -> list[tuple[str, Change]]:
    """What minus the rate times the gradient at a site's output makes of its weight and bias."""
    found: list[tuple[str, Change]] = []
    if site.kind == "embedding":
        if site.weight:
            ids, padding = given.expand(n, -1), getattr(site.module, "padding_idx", None)
            right = site.scale * left.expand(n, -1, -1)
            if padding is not None:  # torch gives this row no gradient, also where its token stands in a text
                right = right.masked_fill((ids == padding)[..., None], 0.0)
            found.append((site.weight, Rows(ids, right)))
        return found
    wide = left.reshape(n, -1, left.shape[-1])
    if site.weight:
        flat = given.reshape(n, -1, given.shape[-1])
        found.append((site.weight, Vectors((flat * wide).sum(1)) if site.kind == "norm" else Products(wide, flat)))
    if site.bias:
        found.append((site.bias, Vectors(wide.sum(1))))
    return found


def _check_finite(loss: Tensor, changes: dict[str, list[Change]], step: int, rate: float) -> None:
    finite = torch.isfinite(loss)
    for found in changes.values():
        for change in found:
            moved = change.shift if isinstance(change, Vectors) else change.right
            moved = change.left if isinstance(change, Products) else moved
            # A sum is finite only where all its terms are, and is found sooner; half precision would overflow.
            total = moved.flatten(1).sum(1, dtype=torch.promote_types(moved.dtype, torch.float32))
            finite &= torch.isfinite(total)
    if not finite.all():
        learner = int((~finite).nonzero()[0])
        raise DivergenceError(
            f"the loss of learner {learner} is not finite at step {step + 1}: gradient descent diverges with "
            f"learning_rate={rate}; choose a lower one"
        )
