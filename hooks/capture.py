"""Residual streams and attention patterns of prompts, reduced to the prompts' roles while the forward pass runs.

A full cache grows with layers x heads x positions squared. What an analysis reads is a role: the verb of the prime, the
label of a demonstration. So each activation is reduced to roles inside its hook and dropped; memory then grows with the
number of roles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.length_batches import batches_of_length
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.prompts import Prompt

_REDUCTIONS = ("mean", "max", "sum", "last", "full")


@dataclass(frozen=True)
class Capture:
    """Activations of a batch of prompts, by role.

    residuals: for each stream asked for ("resid_pre", "resid_mid", "resid_post"), an array [batch layer role d_model];
        with reduction "full" [batch layer pos d_model], NaN past a prompt's end.
    pattern: [batch layer head role role], the second last axis the attending (query) role, the last the attended (key)
        role; [batch layer head pos pos] with "full"; None if not asked for. With key reduction "sum" an entry is the
        share of attention that a role receives, between 0 and 1; a head that attends everywhere alike gives
        len(role) / (query position + 1).
    layers, roles: names of those axes.
    """

    residuals: dict[str, Float[Tensor, "batch layer role_or_pos d_model"]]
    pattern: Float[Tensor, "batch layer head query key"] | None
    layers: tuple[int, ...]
    roles: tuple[str, ...]

    def resid(self, role: str, stream: str = "resid_post") -> Float[Tensor, "batch layer d_model"]:
        """The residual stream at one role."""
        return self.residuals[stream][:, :, self._index(role)]

    def attention(self, query: str, key: str) -> Float[Tensor, "batch layer head"]:
        """How much each head attends from one role to another."""
        if self.pattern is None:
            raise ValueError("patterns were not captured; call capture_roles(..., patterns=True)")
        return self.pattern[..., self._index(query), self._index(key)]

    def _index(self, role: str) -> int:
        if role not in self.roles:
            raise ValueError(f"no role {role!r} was captured; there are {', '.join(self.roles)}")
        return self.roles.index(role)


def capture_roles(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    roles: Sequence[str] | None = None,
    streams: Sequence[str] = ("resid_post",),
    patterns: bool = True,
    layers: Sequence[int] | None = None,
    reduce: str = "mean",
    query_reduce: str = "mean",
    key_reduce: str = "sum",
    memory_budget: int = 1 << 30,
    progress: bool = False,
) -> Capture:
    """Run the prompts and keep, of each layer's residual streams and attention patterns, one entry a role.

    `reduce` combines the residual vectors of a role's tokens. For patterns, `key_reduce` first combines each query
    position's attention over the tokens of the attended role, then `query_reduce` combines the positions of the
    attending role. "last" takes a role's last token; "full" keeps all positions (set both pattern reductions to it).
    `roles` default to those that all prompts have. Equal to `run_with_cache` followed by the same reductions (1e-6).

    Raises `ValueError`, before any forward pass, for no prompts, unknown streams, layers or reductions, a role that a
    prompt lacks (named with the prompt's number) and prompts longer than the context window.
    """
    wrapped = wrap(model)
    chosen = _common_roles(prompts, roles)
    kept_layers = tuple(range(wrapped.n_layers)) if layers is None else tuple(layers)
    _check(wrapped, prompts, (reduce, query_reduce, key_reduce))
    for stream in streams:
        for layer in kept_layers:
            wrapped.point(stream, layer)
    full_width = max(len(prompt.tokens) for prompt in prompts)
    parts: dict[int, dict[str, Tensor]] = {}
    bar = tqdm(total=len(prompts), desc="capture", unit="prompt", disable=not progress)
    with wrapped.evaluating(), bar:
        for numbers in batches_of_length(wrapped, [len(prompt) for prompt in prompts], memory_budget):
            batch = [prompts[i] for i in numbers]
            keep = _Keeper(batch, chosen, full_width, reduce, query_reduce, key_reduce)
            keep.run(wrapped, streams, kept_layers, patterns)
            for row, i in enumerate(numbers):
                parts[i] = {
                    name: torch.stack([by_layer[layer][row] for layer in kept_layers])
                    for name, by_layer in keep.found.items()
                }
            bar.update(len(batch))
    whole = {name: torch.stack([parts[i][name] for i in range(len(prompts))]) for name in parts[0]}
    pattern = whole.pop("pattern", None)
    return Capture(residuals=whole, pattern=pattern, layers=kept_layers, roles=chosen)


class _Keeper:
    """The hooks of one batch: each reduces an activation and keeps the result on the CPU, by name and layer."""

    def __init__(
        self,
        batch: Sequence[Prompt],
        roles: Sequence[str],
        full_width: int,
        reduce: str,
        query_reduce: str,
        key_reduce: str,
    ) -> None:
        self.batch, self.full_width = batch, full_width
        self.width = max(len(prompt.tokens) for prompt in batch)
        spans = [[prompt.roles[role] for role in roles] for prompt in batch]
        lengths = [len(prompt.tokens) for prompt in batch]
        make = lambda how: _reducer(how, spans, lengths, self.width, full_width)  # noqa: E731
        self.reduce, self.over_queries, self.over_keys = make(reduce), make(query_reduce), make(key_reduce)
        self.found: dict[str, dict[int, Tensor]] = {}

    def run(self, wrapped: WrappedModel, streams: Sequence[str], layers: Sequence[int], patterns: bool) -> None:
        hooks = [(stream, layer, self._residual_hook(stream, layer)) for stream in streams for layer in layers]
        if patterns:
            hooks += [("pattern", layer, self._pattern_hook(layer)) for layer in layers]
        tokens = torch.zeros(len(self.batch), self.width, dtype=torch.long)
        for row, prompt in enumerate(self.batch):
            tokens[row, : len(prompt.tokens)] = torch.tensor(prompt.tokens)
        with wrapped.hooked(hooks):
            wrapped.logits(tokens.to(wrapped.device), torch.zeros(1, dtype=torch.long, device=wrapped.device))

    def _residual_hook(self, stream: str, layer: int) -> Callable[[Tensor], None]:
        def hook(activation: Tensor) -> None:
            self.found.setdefault(stream, {})[layer] = self.reduce(_float(activation)).cpu()

        return hook

    def _pattern_hook(self, layer: int) -> Callable[[Tensor], None]:
        def hook(pattern: Tensor) -> None:
            # [batch head query key]: put the axis to be reduced second, the rest behind it, and turn back afterwards.
            by_key = self.over_keys(_float(pattern).permute(0, 3, 1, 2))
            by_query = self.over_queries(by_key.permute(0, 3, 2, 1))
            self.found.setdefault("pattern", {})[layer] = by_query.permute(0, 2, 1, 3).contiguous().cpu()

        return hook


def _float(activation: Tensor) -> Tensor:
    return activation if activation.dtype in (torch.float32, torch.float64) else activation.float()


def _reducer(
    how: str, spans: list[list[tuple[int, int]]], lengths: list[int], width: int, full_width: int
) -> Callable[[Tensor], Tensor]:
    """A function from [batch pos ...] to [batch role ...] (or [batch full_width ...] for "full")."""
    if how == "full":

        def keep_all(x: Tensor) -> Tensor:
            wide = x.new_full((x.shape[0], full_width, *x.shape[2:]), float("nan"))
            for row, length in enumerate(lengths):
                wide[row, :length] = x[row, :length]
            return wide

        return keep_all
    if how == "max":

        def largest(x: Tensor) -> Tensor:
            return torch.stack([torch.stack([x[row, a:b].amax(0) for a, b in own]) for row, own in enumerate(spans)])

        return largest
    weight = torch.zeros(len(spans), len(spans[0]), width)
    for row, own in enumerate(spans):
        for role, (start, stop) in enumerate(own):
            if how == "last":
                weight[row, role, stop - 1] = 1
            else:
                weight[row, role, start:stop] = 1 / (stop - start) if how == "mean" else 1
    return lambda x: einsum(weight.to(x), x, "batch role pos, batch pos ... -> batch role ...")


def _common_roles(prompts: Sequence[Prompt], roles: Sequence[str] | None) -> tuple[str, ...]:
    if not prompts:
        raise ValueError("no prompts to capture; give at least one")
    if roles is None:
        shared = set(prompts[0].roles).intersection(*(prompt.roles for prompt in prompts))
        chosen = tuple(role for role in prompts[0].roles if role in shared)
        if not chosen:
            raise ValueError("the prompts have no role in common; name the roles that you want")
        return chosen
    for number, prompt in enumerate(prompts):
        if lacking := [role for role in roles if role not in prompt.roles]:
            raise ValueError(
                f"prompt {number} lacks the role {lacking[0]!r}; it has {', '.join(prompt.roles) or 'none'}. "
                "Name roles that all prompts have"
            )
    return tuple(roles)


def _check(wrapped: WrappedModel, prompts: Sequence[Prompt], reductions: Sequence[str]) -> None:
    for how in reductions:
        if how not in _REDUCTIONS:
            raise ValueError(f"unknown reduction {how!r}; use one of {', '.join(_REDUCTIONS)}")
    for number, prompt in enumerate(prompts):
        if len(prompt.tokens) > wrapped.n_ctx:
            raise ValueError(
                f"prompt {number} has {len(prompt.tokens)} tokens, but the model's context window holds "
                f"{wrapped.n_ctx}; shorten it"
            )
