"""Run only what a patch can change: later layers and affected nodes, the others' keys and values as they were.

`trace` runs rows without a patch and keeps what `resumed` needs: the residual stream of the affected nodes before every
layer, and the keys and values of the unaffected ones (after position and normalisation, as attention reads them). A
resumed run enters at a layer with that residual stream; the layers before it are passed through. Every module in
between is the model's own, so norms, gates, rotary or absolute positions and grouped queries need no code here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import DynamicCache

from mechicl.hooks.patch_rows import RowBatch
from mechicl.hooks.wrapper import Hook, WrappedModel, additive


@dataclass(frozen=True)
class Trace:
    """What a run without a patch leaves for the patched ones.

    log_probs: [reading], nats. resid: before each layer, [row affected d_model]. keys, values: layer -> [row kv_head
    kept d_head]; empty for models that keep no cache, whose resumed runs compute all nodes (`whole`). tuples: whether
    a block of this model returns a tuple.
    """

    log_probs: Float[Tensor, " reading"]
    resid: tuple[Float[Tensor, "row node d_model"], ...]
    keys: dict[int, Float[Tensor, "row kv_head kept d_head"]]
    values: dict[int, Float[Tensor, "row kv_head kept d_head"]]
    tuples: bool

    @property
    def whole(self) -> bool:
        """Do resumed runs compute the unaffected nodes too?"""
        return not self.keys


class _Recorder(DynamicCache):
    """A cache that keeps a copy of the first keys and values of each layer, and hands everything on."""

    def __init__(self, n_kept: int) -> None:
        super().__init__()
        self.n_kept = n_kept
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Called by attention with this pass' keys and values."""
        self.keys[layer_idx] = key_states[:, :, : self.n_kept].clone()
        self.values[layer_idx] = value_states[:, :, : self.n_kept].clone()
        return key_states, value_states

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """Nothing came before."""
        return 0


class _Kept(DynamicCache):
    """A cache that puts the kept keys and values, once for every copy of the batch, before a pass' own."""

    def __init__(self, trace: Trace, copies: int, n_kept: int) -> None:
        super().__init__()
        self.trace, self.copies, self.n_kept = trace, copies, n_kept

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Called by attention with this pass' keys and values."""
        before = (_copied(part[layer_idx], self.copies) for part in (self.trace.keys, self.trace.values))
        return tuple(torch.cat(pair, 2) for pair in zip(before, (key_states, value_states), strict=True))

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        """As many tokens as are kept came before."""
        return self.n_kept


def trace(wrapped: WrappedModel, batch: RowBatch, *, cached: bool = True) -> Trace:
    """Run a batch without a patch; `cached` False for models that take no cache."""
    resid: list[Tensor] = [torch.empty(0)] * wrapped.n_layers
    first = batch.n_kept if cached else 0
    recorder = _Recorder(batch.n_kept)
    tuples: list[bool] = []

    def keep(layer: int) -> Hook:
        def store(x: Tensor) -> None:
            resid[layer] = x[:, first:].clone()

        return store

    watch = wrapped.model.blocks[0].register_forward_hook(lambda _, __, out: tuples.append(isinstance(out, tuple)))
    try:
        with wrapped.hooked([("resid_pre", layer, keep(layer)) for layer in range(wrapped.n_layers)]):
            log_probs = wrapped.log_probs(
                batch.tokens,
                batch.read_row * batch.tokens.shape[1] + batch.read_column,
                batch.read_token,
                attention_mask=additive(batch.seen, wrapped.dtype),
                position_ids=batch.positions,
                **({"past_key_values": recorder} if cached else {}),
            )
    finally:
        watch.remove()
    if cached and len(recorder.keys) < wrapped.n_layers:
        raise RuntimeError("attention of this model does not go through the cache")
    return Trace(log_probs, tuple(resid), recorder.keys, recorder.values, tuples[0])


def resumed(
    wrapped: WrappedModel, batch: RowBatch, base: Trace, layer: int, copies: int, hooks: list[tuple[str, int, Hook]]
) -> Float[Tensor, "copy reading"]:
    """Log-probabilities of all readings in `copies` copies of the batch, from `layer` on, with `hooks` in place.

    Inside, row r of copy c is row c * rows + r, and columns count from the first affected node (from the first node,
    where `base.whole`). Readings of unaffected nodes are those of the run without a patch.
    """
    first = 0 if base.whole else batch.n_kept
    tokens = batch.tokens[:, first:]
    rows, width = tokens.shape
    changed = torch.nonzero(batch.read_column >= batch.n_kept)[:, 0]
    found = base.log_probs.repeat(copies, 1)
    if not len(changed):
        return found
    within = batch.read_row[changed] * width + batch.read_column[changed] - first
    offsets = torch.arange(copies, device=tokens.device)[:, None] * (rows * width)
    resid = base.resid[layer]

    def enter(_: Tensor) -> Tensor:
        return _copied(resid, copies)

    with _passed_through(wrapped, layer, base.tuples), wrapped.hooked([("resid_pre", layer, enter), *hooks]):
        log_probs = wrapped.log_probs(
            _copied(tokens, copies),
            (offsets + within).flatten(),
            batch.read_token[changed].repeat(copies),
            attention_mask=_copied(additive(batch.seen[:, first:], wrapped.dtype), copies),
            position_ids=_copied(batch.positions[:, first:], copies),
            **({} if base.whole else {"past_key_values": _Kept(base, copies, batch.n_kept)}),
        )
    found[:, changed] = log_probs.view(copies, -1)
    return found


@contextmanager
def _passed_through(wrapped: WrappedModel, n_layers: int, tuples: bool) -> Iterator[None]:
    """The first layers return what they receive; afterwards they are themselves again."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return (hidden,) if tuples else hidden

    blocks = [wrapped.model.blocks[layer] for layer in range(n_layers)]
    before: list[Callable[..., Any] | None] = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            # past the bridge's own setattr, which would set it on the module inside
            block.__dict__["forward"] = forward
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            block.__dict__.pop("forward", None)
            if own is not None:
                block.__dict__["forward"] = own


def _copied(x: Tensor, copies: int) -> Tensor:
    """The batch so many times, copy after copy."""
    return x[None].expand(copies, *x.shape).reshape(copies * x.shape[0], *x.shape[1:])
