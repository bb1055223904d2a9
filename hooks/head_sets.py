"""Sets of heads, checked; and activations with the heads apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.wrapper import WrappedModel

Head = tuple[int, int]  # layer, head


def checked_sets(wrapped: WrappedModel, sets: Sequence[Collection[Head]] | None) -> tuple[tuple[Head, ...], ...]:
    """Sets of heads in order, or every head alone; raises `ValueError` for heads that the model has not."""
    heads = [(layer, head) for layer in range(wrapped.n_layers) for head in range(wrapped.n_heads)]
    known = set(heads)
    for head in (head for chosen in sets or () for head in chosen):
        if head not in known:
            raise ValueError(
                f"the model has no head {head}; it has layers 0 to {wrapped.n_layers - 1} and heads 0 to "
                f"{wrapped.n_heads - 1} in each"
            )
    return tuple((head,) for head in heads) if sets is None else tuple(tuple(sorted(set(chosen))) for chosen in sets)


def heads_apart(x: Float[Tensor, "row pos *rest"], n_heads: int, d_head: int) -> Float[Tensor, "row pos head d_head"]:
    """Queries, keys, values or z with the heads on an axis of their own, whatever the model's hook gives."""
    if x.numel() != x.shape[0] * x.shape[1] * n_heads * d_head:
        raise ValueError(
            f"the heads of this model cannot be told apart: an activation has the shape {tuple(x.shape)}, expected "
            f"[batch, pos, {n_heads} heads, {d_head}]"
        )
    return x.reshape(*x.shape[:2], n_heads, d_head)


def by_head(wrapped: WrappedModel, z: Float[Tensor, "row pos *rest"]) -> Float[Tensor, "row pos head d_head"]:
    """z with its heads apart; raises `ValueError` where this model's attention has no such thing."""
    return heads_apart(z, wrapped.n_heads, wrapped.d_head)
