"""What heads write at a role: z of every head and item, averaged over the role's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.patch_items import PatchItem, check_items
from mechicl.hooks.text_ends import heads_after
from mechicl.hooks.wrapper import wrap


def head_outputs(
    model: Any, items: Sequence[PatchItem], *, roles: Sequence[str], progress: bool = False
) -> Float[Tensor, "item layer head d_head"]:
    """z of every head, averaged over the tokens of the roles that all prompts of an item share (float32, CPU).

    After the prompts part their tokens differ, and so would what is averaged. Raises `ValueError` for roles that lie
    wholly after that point, and for what `patch_heads` refuses.
    """
    wrapped = wrap(model)
    check_items(wrapped, items, roles, donors=False)
    found = []
    bar = tqdm(total=len(items), desc="head outputs", unit="item", disable=not progress)
    with wrapped.evaluating(), bar:
        for start in range(0, len(items), 32):
            chunk = items[start : start + 32]
            prefixes = [_shared_beginnings(item, roles) for item in chunk]
            z = heads_after(wrapped, [prefix for part in prefixes for prefix in part], ["z"])["z"].float().cpu()
            found += [part.mean(0) for part in z.split([len(part) for part in prefixes])]
            bar.update(len(chunk))
    return torch.stack(found)


def _shared_beginnings(item: PatchItem, roles: Sequence[str]) -> list[tuple[int, ...]]:
    """The beginning of the text up to each token of the roles that lies before the prompts part."""
    positions = sorted({p for role in roles for p in item.span(0, role) if p < item.shared()})
    if not positions:
        raise ValueError(f"the roles {', '.join(roles)} lie after the point where the item's prompts part")
    return [item.prompts[0].tokens[: position + 1] for position in positions]
