"""What is put in place of a head's output: a donor's activation, a mean over other items, or zero.

A replacement says for every patched position where its new activation comes from (`source`), and computes these for a
batch (`values`). Activations are z, each head's output before W_O.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.patch_items import PatchItem, check_items
from mechicl.hooks.patch_rows import Source
from mechicl.hooks.wrapper import Hook, WrappedModel, wrap

_NODES = 2_048  # nodes of one pass: enough for the matrix products to be efficient, few enough for the caches


@runtime_checkable
class Replacement(Protocol):
    """Where the new activations of patched positions come from."""

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """The source for token number `offset` of a role; equal sources give equal activations."""

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
        prefixes: list[tuple[int, ...]] = [prefix for source in sources for prefix in source]  # type: ignore[attr-defined]
        found = z_after(wrapped, prefixes)
        parts = found.split([len(source) for source in sources])  # type: ignore[arg-type]
        return torch.stack([part.mean(0) for part in parts])

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
            z = z_after(wrapped, [prefix for _, prefix in met]).float().cpu()
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


def z_after(wrapped: WrappedModel, prefixes: Sequence[tuple[int, ...]]) -> Float[Tensor, "patched layer head d_head"]:
    """z of every head at the last token of each of these beginnings of texts; what begins another is not run again."""
    place = {prefix: i for i, prefix in enumerate(dict.fromkeys(prefixes))}
    shape = (len(place), wrapped.n_layers, wrapped.n_heads, wrapped.d_head)
    found = torch.empty(shape, dtype=wrapped.dtype, device=wrapped.device)
    longest = sorted(_longest(prefixes), key=len)
    wanted: dict[tuple[int, ...], list[tuple[int, int]]] = {tokens: [] for tokens in longest}
    owner = {tokens[:stop]: tokens for tokens in longest for stop in range(1, len(tokens) + 1)}
    for prefix, slot in place.items():
        wanted[owner[prefix]].append((slot, len(prefix) - 1))
    size = max(1, _NODES // len(longest[-1]))
    for start in range(0, len(longest), size):
        texts = longest[start : start + size]
        width = len(texts[-1])
        tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=wrapped.device)
        slots = [(slot, row, column) for row, text in enumerate(texts) for slot, column in wanted[text]]
        _run_for_z(wrapped, tokens, found, torch.tensor(slots, device=wrapped.device))
    return found[torch.tensor([place[prefix] for prefix in prefixes], device=wrapped.device)]


def _run_for_z(wrapped: WrappedModel, tokens: Tensor, found: Tensor, slots: Int[Tensor, "n 3"]) -> None:
    """Put z into `found`: slots are (row of found, row of tokens, position). Padding is on the right, so harmless."""
    slot, row, column = slots.T

    def keep(layer: int) -> Hook:
        def store(z: Tensor) -> None:
            found[slot, layer] = by_head(wrapped, z)[row, column]

        return store

    with wrapped.hooked([("z", layer, keep(layer)) for layer in range(wrapped.n_layers)]):
        # no logits are wanted; those of one position cost nothing
        wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))


def by_head(wrapped: WrappedModel, z: Tensor) -> Float[Tensor, "batch pos head d_head"]:
    """z with its heads apart; raises `ValueError` where this model's attention has no such thing."""
    if z.shape[-1] == wrapped.d_head and z.ndim == 4 and z.shape[-2] == wrapped.n_heads:
        return z
    if z.ndim == 3 and z.shape[-1] == wrapped.n_heads * wrapped.d_head:
        return z.unflatten(-1, (wrapped.n_heads, wrapped.d_head))
    raise ValueError(
        f"the heads of this model cannot be told apart: z has the shape {tuple(z.shape)}, expected [batch, pos, "
        f"{wrapped.n_heads} heads, {wrapped.d_head}]"
    )


def _longest(prefixes: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The prefixes that begin no other one."""
    ordered = sorted(set(prefixes))
    following = [*ordered[1:], ()]
    return [one for one, other in zip(ordered, following, strict=True) if other[: len(one)] != one]


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
