"""A trained model of a grid opened for hooks, together with the sequences that it reads.

Both kinds of opened model look alike from here, a TransformerBridge that reads tokens and a HookedRootModule that reads
vectors: activations are taken at the hook points of `mechicl.hooks.wrapper`, or put there, and predictions come out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.analyses.algorithms.regressor_calls import facts_of
from mechicl.analyses.components.held_out import HeldOut
from mechicl.hooks.head_sets import by_head
from mechicl.hooks.wrapper import Hook, WrappedModel, wrap
from mechicl.organisms.grid.opened import open_checkpoint
from mechicl.organisms.grid.settings import SETTINGS
from mechicl.organisms.grid.store import write_checkpoint

Place = tuple[str, int]  # a name of mechicl.hooks.wrapper.HOOK_NAMES, and a layer
STREAMS = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")


@dataclass(frozen=True, eq=False)
class HookedRun:
    """A model and the held-out sequences that it reads."""

    wrapped: WrappedModel
    held: HeldOut

    @classmethod
    def of(cls, model: Any, held: HeldOut) -> HookedRun:
        """For a model that `mechicl.organisms.grid.opened.open_checkpoint` gave."""
        return cls(_wrapped(model), held)

    @classmethod
    def of_weights(cls, weights: Mapping[str, Tensor], held: HeldOut) -> HookedRun:
        """For weights by name, as `read_checkpoint` gives them."""
        with TemporaryDirectory() as scratch:
            write_checkpoint(Path(scratch) / held.point.name, held.point, 0, weights)
            return cls.of(open_checkpoint(Path(scratch) / held.point.name), held)

    def facts(self) -> dict[str, Any]:
        """What a result records of the model, under its point's name."""
        own = self.wrapped.facts() if self.wrapped.tokenizer is not None else facts_of(self.wrapped.model)
        return own | {"model": self.held.point.name}

    def predictions(self, hooks: Sequence[tuple[str, int | None, Hook]] = ()) -> Float[np.ndarray, "batch pos label"]:
        """What the model predicts, with hooks on it: each a name of an activation, a layer, and what to put there."""
        with self.wrapped.evaluating(), self.wrapped.hooked(hooks):
            return self._read()

    def capture(self, places: Collection[Place]) -> dict[Place, Tensor]:
        """Activations of all sequences; heads of z on an axis of their own."""
        kept: dict[Place, Tensor] = {}

        def keeper(place: Place) -> Hook:
            def keep(activation: Tensor) -> None:
                own = by_head(self.wrapped, activation) if place[0] == "z" else activation
                kept[place] = own.detach().clone()

            return keep

        self.predictions([(*place, keeper(place)) for place in places])
        return kept

    def _read(self) -> Float[np.ndarray, "batch pos label"]:
        batch, model = self.held.batch, self.wrapped.model
        if self.held.point.setting == "classification":
            log_odds = model(*model.tensors(batch.x, batch.y, batch.query)).double()
            return torch.stack([-log_odds, log_odds], -1).sigmoid()[:, None].cpu().numpy()
        if self.held.point.setting == "linear_regression":
            means = model.after_each(*model.tensors(batch.x[:, :-1], batch.y[:, :-1], batch.x[:, -1]))
            return means.double()[..., None].cpu().numpy()
        tokens = torch.from_numpy(batch.tokens[:, :-1]).to(self.wrapped.device)
        every = torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1)
        outputs = self.wrapped.row_logits(tokens, every).double()
        return SETTINGS[self.held.point.setting].predictions(outputs[None])[0].cpu().numpy()


def replaced(
    wrapped: WrappedModel, place: Place, new: Tensor, *, head: int | None = None, where: str = "all"
) -> tuple[str, int, Hook]:
    """The hook that puts an activation of `capture` in the place of the model's own.

    head: of z and pattern, this head alone. where: at all positions, or at the last alone (of a pattern: the last
    query's attention).
    """
    name, layer = place

    def put(activation: Tensor) -> Tensor:
        apart = (by_head(wrapped, activation) if name == "z" else activation).clone()
        target, source = apart, new.to(apart.dtype)
        if head is not None:
            axis = 2 if name == "z" else 1
            target, source = target.select(axis, head), source.select(axis, head)
        if where == "last":
            at = -2 if name == "pattern" else 1
            target, source = target.select(at, target.shape[at] - 1), source.select(at, source.shape[at] - 1)
        target.copy_(source)
        return apart.view_as(activation)

    return name, layer, put


def _wrapped(model: Any) -> WrappedModel:
    """Models of vectors as well, which have no vocabulary and no tokenizer."""
    if hasattr(model, "tokenizer"):
        return wrap(model)
    cfg = model.cfg
    return WrappedModel(
        model=model, kind=type(model).__name__, n_layers=cfg.n_layers, n_heads=cfg.n_heads, n_kv_heads=cfg.n_heads,
        d_model=cfg.d_model, d_head=cfg.d_head, d_vocab=0, n_ctx=cfg.n_ctx, window=None, tokenizer=None,
    )  # fmt: skip
