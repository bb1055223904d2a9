"""Random changes of weights as large as given ones: what does any change of this size do?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.steps.weight_updates import Change, Products, Rows, Vectors, WeightUpdates


def random_updates(updates: WeightUpdates, *, seed: int) -> WeightUpdates:
    """Changes in random directions, each of the Frobenius norm of the learner's own, matrix by matrix.

    A matrix gets as many outer products of Gaussian vectors as its own change has, so rank and norm are kept, and what
    the change says of the texts goes. Of an embedding the same rows are changed; a tied matrix has its two uses
    matched apart.
    """
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for name in sorted(updates.changes):
        own = updates.changes[name]
        groups = [[change for change in own if isinstance(change, kind)] for kind in (Products, Rows, Vectors)]
        changes[name] = [_random(_joined(group), generator) for group in groups if group]
    return replace(updates, changes=changes)


def change_norms(change: Change) -> Float[Tensor, " learner"]:
    """The Frobenius norm of each learner's change, without making the matrix."""
    if isinstance(change, Vectors):
        return change.shift.norm(dim=-1)
    right = change.right.double() @ change.right.double().mT  # [learner token token]
    if isinstance(change, Products):
        other = change.left.double() @ change.left.double().mT
    else:
        other = (change.ids[:, :, None] == change.ids[:, None]).double()
    return (right * other).sum((1, 2)).clamp(min=0).sqrt()


def _joined(group: Sequence[Change]) -> Change:
    """The sum of changes of one kind as a single one."""
    first = group[0]
    if isinstance(first, Vectors):
        return Vectors(torch.stack([change.shift for change in group if isinstance(change, Vectors)]).sum(0))
    right = torch.cat([change.right for change in group if isinstance(change, type(first))], 1)  # type: ignore[union-attr]
    if isinstance(first, Products):
        return Products(torch.cat([change.left for change in group if isinstance(change, Products)], 1), right)
    return Rows(torch.cat([change.ids for change in group if isinstance(change, Rows)], 1), right)


def _random(change: Change, generator: torch.Generator) -> Change:
    def like(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)

    if isinstance(change, Vectors):
        drawn: Change = Vectors(like(change.shift))
    elif isinstance(change, Rows):
        drawn = Rows(change.ids, like(change.right))
    else:
        drawn = Products(like(change.left), like(change.right))
    factor = change_norms(change) / change_norms(drawn).clamp(min=1e-30)
    if isinstance(drawn, Vectors):
        return Vectors(drawn.shift * factor[:, None].to(drawn.shift))
    return replace(drawn, right=drawn.right * factor[:, None, None].to(drawn.right))
