"""Gradients of single demonstrations, kept as outer products, and steps on several of them at once.

A demonstration that many prompts show is read once. A step at a rate of 1 on several demonstrations is the sum of the
steps on each, so it is put together without another pass; see `mechicl.hooks.steps.weight_updates`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import low_rank_steps
from mechicl.hooks.steps.sites import Site
from mechicl.hooks.steps.weight_updates import Change, Products, Rows, Vectors, WeightUpdates
from mechicl.hooks.wrapper import WrappedModel

Changes = dict[str, list[Change]]  # of one learner


class DemoGradients:
    """Steps at a rate of 1 on single demonstrations; remembers as many as `memory` bytes hold."""

    def __init__(self, wrapped: WrappedModel, sites: Sequence[Site], memory: int) -> None:
        self.wrapped, self.sites, self.memory = wrapped, sites, memory
        self.known: OrderedDict[Continuation, Changes] = OrderedDict()
        self.n_runs = 0

    def size(self, texts: Sequence[Continuation]) -> int:
        """Bytes of the change that these demonstrations make."""
        return max(1, sum(_bytes(own) for own in self.read(texts).values()))

    def step(self, learners: Sequence[Sequence[Continuation]]) -> WeightUpdates:
        """One step on all demonstrations of each learner at once."""
        single = self.read([text for own in learners for text in own])
        changes = {
            name: [_together([[single[text][name][i] for text in own] for own in learners]) for i in range(len(parts))]
            for name, parts in single[learners[0][0]].items()
        }
        return WeightUpdates(len(learners), self.sites, changes)

    def squared_sizes(self, texts: Sequence[Continuation]) -> list[float]:
        """The squared length of each text's gradient, over the matrices of all linear layers."""
        single = self.read(texts)
        return [sum(_squared(one) for own in single[text].values() for one in own) for text in texts]

    def read(self, texts: Sequence[Continuation]) -> dict[Continuation, Changes]:
        """The change that each text makes alone."""
        wanted = list(dict.fromkeys(texts))
        found = {text: self.known[text] for text in wanted if text in self.known}
        new = sorted((text for text in wanted if text not in found), key=lambda text: -len(text.tokens))
        while new:
            n = self._at_once(len(new[0].tokens))
            part, new = new[:n], new[n:]
            updates = low_rank_steps(self.wrapped, [[text] for text in part], learning_rate=1.0, sites=self.sites)
            self.n_runs += len(part)
            for number, text in enumerate(part):
                found[text] = {name: [_trimmed(one, number) for one in own] for name, own in updates.changes.items()}
        for text in wanted:
            self.known[text] = found[text]
            self.known.move_to_end(text)
        held = sum(map(_bytes, self.known.values()))
        while len(self.known) > 1 and held > self.memory:
            held -= _bytes(self.known.popitem(last=False)[1])
        return found

    def _at_once(self, n_tokens: int) -> int:
        """How many texts a pass with its gradients may hold, by a cautious estimate of what a layer leaves behind."""
        layer = 12 * self.wrapped.d_model + 6 * (getattr(self.wrapped.model.cfg, "d_mlp", None) or 0)
        row = 4 * (3 * self.wrapped.d_vocab + 2 * n_tokens * self.wrapped.n_layers * layer)
        return max(1, self.memory // (2 * row))


def _trimmed(change: Change, number: int) -> Change:
    """One learner's, without terms that are 0: padding, and what no label depends on."""
    if isinstance(change, Vectors):
        return Vectors(change.shift[[number]])
    kept = (change.left if isinstance(change, Products) else change.right)[number].abs().amax(-1) > 0
    right = change.right[[number]][:, kept]
    if isinstance(change, Products):
        return Products(change.left[[number]][:, kept], right)
    return Rows(change.ids[[number]][:, kept], right)


def _together(parts: Sequence[Sequence[Change]]) -> Change:
    """From demonstrations of each learner to the learners' own changes, padded with terms that are 0."""

    def joined(name: str) -> Tensor:
        return pad_sequence([torch.cat([getattr(one, name)[0] for one in own]) for own in parts], batch_first=True)

    first = parts[0][0]
    if isinstance(first, Vectors):
        return Vectors(torch.stack([_shifts(own).sum(0) for own in parts]))
    if isinstance(first, Products):
        return Products(joined("left"), joined("right"))
    return Rows(joined("ids"), joined("right"))


def _shifts(parts: Sequence[Change]) -> Float[Tensor, "demo out"]:
    return torch.cat([one.shift for one in parts if isinstance(one, Vectors)])


def _squared(change: Change) -> float:
    """|dW|^2 of one learner's change of a matrix, without making the matrix."""
    if not isinstance(change, Products):
        return 0.0
    left, right = change.left[0].double(), change.right[0].double()
    return float(((left @ left.T) * (right @ right.T)).sum())


def _bytes(changes: Changes) -> int:
    tensors = [part for own in changes.values() for one in own for part in vars(one).values()]
    return sum(part.numel() * part.element_size() for part in tensors)
