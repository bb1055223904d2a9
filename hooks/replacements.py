"""What is put in place of a head's output: a donor's activation, a mean over other items, or zero.

A replacement says for every patched position where its new activation comes from (`source`), and computes these for a
batch (`values`). Activations are z, each head's output before W_O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.patch_items import PatchItem, check_items
from mechicl.hooks.patch_rows import Source, Sources
from mechicl.hooks.text_ends import heads_after, mean_heads_after
from mechicl.hooks.wrapper import WrappedModel, wrap


@runtime_checkable
class Replacement(Sources, Protocol):
    """Where the new activations of patched positions come from, and what they are."""

    def values(self, wrapped: WrappedModel, sources: Sequence[Source]) -> Float[Tensor, "patched layer head d_head"]:
        """The activations of these sources."""

    def fingerprint(self) -> bytes:
        """What the values depend on beyond the sources and the model, for stored results."""


class Interchange:
    """Activations of the donors, at the same role.

    Where a role has as many tokens in the donor as in the prompt, token meets token; otherwise each of the prompt's
    tokens receives the mean over the donor's.
    """

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """The donor's tokens up to each position that is averaged."""
        if item.donors is None:
            raise ValueError("an item has no donors to take activations from; give them, or pass means")
        own, other = item.span(prompt, role), item.span(prompt, role, of_donor=True)
        chosen = [other[offset]] if len(own) == len(other) else list(other)
        return tuple(item.donors[prompt].tokens[: position + 1] for position in chosen)

    def values(self, wrapped: WrappedModel, sources: Sequence[Source]) -> Float[Tensor, "patched layer head d_head"]:
        """One forward pass over all donors, shared beginnings once."""
        return mean_heads_after(wrapped, sources, ["z"])["z"]  # type: ignore[arg-type]

    def fingerprint(self) -> bytes:
        """Nothing."""
        return b"interchange"


class Zero:
    """Zeros. A head that writes a constant is then missed more than its information: prefer means."""

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """The same everywhere."""
        return "zero"

    def values(self, wrapped: WrappedModel, sources: Sequence[Source]) -> Float[Tensor, "patched layer head d_head"]:
        """Zeros."""
        shape = (len(sources), wrapped.n_layers, wrapped.n_heads, wrapped.d_head)
        return torch.zeros(shape, dtype=wrapped.dtype, device=wrapped.device)

    def fingerprint(self) -> bytes:
        """Nothing."""
        return b"zero"


@dataclass(frozen=True)
class MeanActivations:
    """Mean z by label, branch, role and offset in the role, from items that `mean_activations` was given.

    keys: (label, branch, role, offset) of each mean; branch is the prompt's number where the item's prompts have
    parted, -1 before. means: [role layer head d_head], one of each key. A position whose key was never met receives
    the mean over all offsets of its role (offset -1).
    """

    keys: dict[tuple[str, int, str, int], int]
    means: Float[Tensor, "role layer head d_head"]

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """The key of a position; raises `ValueError` where no item had such a role."""
        label, branch, role, offset = _mean_key(item, prompt, position, role, offset)
        for key in ((label, branch, role, offset), (label, branch, role, -1)):
            if key in self.keys:
                return self.keys[key]
        raise ValueError(
            f"no mean was taken for the role {role!r} of items labelled {label!r}; give mean_activations such items"
        )

    def values(self, wrapped: WrappedModel, sources: Sequence[Source]) -> Float[Tensor, "patched layer head d_head"]:
        """Looked up."""
        return self.means[torch.as_tensor(sources, dtype=torch.long)].to(wrapped.device, wrapped.dtype)

    def fingerprint(self) -> bytes:
        """The means."""
        return b"means" + self.means.numpy().tobytes()


def mean_activations(
    model: object, items: Sequence[PatchItem], *, roles: Sequence[str], progress: bool = True
) -> MeanActivations:
    """Mean z of every head over items, by label, role and offset in the role: what a mean ablation puts in.

    Within a label (the form of the prime, say) and at the same place of the same part of the sentence, so that only
    what differs between items is taken out. Pass items of other verbs than those to be patched, so that no item's own
    activation is in its mean. Raises `ValueError` for what `patch_heads` refuses.
    """
    wrapped = wrap(model)
    check_items(wrapped, items, roles, donors=False)
    keys: dict[tuple[str, int, str, int], int] = {}
    sums: list[Tensor] = []
    counts: list[int] = []
    bar = tqdm(total=len(items), desc="means", unit="item", disable=not progress)
    with wrapped.evaluating():
        for chunk in _chunks(items, 16):
            met = list(_positions(chunk, roles))
            z = heads_after(wrapped, [prefix for _, prefix in met], ["z"])["z"].float().cpu()
            for (key, _), value in zip(met, z, strict=True):
                for each in (key, (*key[:3], -1)):
                    if each not in keys:
                        keys[each] = len(keys)
                        sums.append(torch.zeros_like(value))
                        counts.append(0)
                    sums[keys[each]] += value
                    counts[keys[each]] += 1
            bar.update(len(chunk))
    bar.close()
    return MeanActivations(keys, torch.stack(sums) / torch.tensor(counts)[:, None, None, None])


def _positions(
    items: Sequence[PatchItem], roles: Sequence[str]
) -> Iterable[tuple[tuple[str, int, str, int], tuple[int, ...]]]:
    """Key and beginning of the text of every position of the roles."""
    for item in items:
        met = set()
        for prompt in range(len(item.prompts)):
            for role in roles:
                for offset, position in enumerate(item.span(prompt, role)):
                    key = _mean_key(item, prompt, position, role, offset)
                    if key not in met:  # what the prompts share counts once
                        met.add(key)
                        yield key, item.prompts[prompt].tokens[: position + 1]


def _mean_key(item: PatchItem, prompt: int, position: int, role: str, offset: int) -> tuple[str, int, str, int]:
    """Where a position stands: the innermost part of the sentence that holds it, and its offset there."""
    if role != "last":
        spans = [(stop - start, name, start) for name, (start, stop) in item.prompts[prompt].roles.items()
                 if start <= position < stop and name != item.scored]  # fmt: skip
        _, role, start = min(spans)
        offset = position - start
    return item.label, (-1 if position < item.shared() else prompt), role, offset


def _chunks(items: Sequence[PatchItem], size: int) -> Iterable[Sequence[PatchItem]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))
