"""What one layer does in a pass: it is watched at the last token, or carries an update, given or built on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechicl.hooks.mlps.mlp_parts import Edit, MLPParts, Place, edited
from mechicl.hooks.wrapper import WrappedModel

Text = tuple[int, ...]
_NODES = 2_048  # tokens of one pass: enough for efficient matrix products


@dataclass(frozen=True)
class LayerUpdate:
    """One layer's updates, one a row: dW = left right^T for each matrix that reads the input, and the rest.

    rest: db, d gain, or the left factor of dW_out, whose right factor is then `hidden`. cosine: of n_C and n_0.
    """

    left: tuple[Float[Tensor, "row d_mlp"], ...]
    right: Float[Tensor, "row d_model"]
    rest: Float[Tensor, "row d_model"]
    hidden: Float[Tensor, "row d_mlp"] | None
    cosine: Float[Tensor, " row"]

    def take(self, rows: Int[Tensor, " kept"]) -> LayerUpdate:
        """The updates of these rows, in this order; a row may come more than once."""
        hidden = None if self.hidden is None else self.hidden[rows]
        left = tuple(x[rows] for x in self.left)
        return LayerUpdate(left, self.right[rows], self.rest[rows], hidden, self.cosine[rows])

    def norms(self, part: MLPParts) -> dict[str, Float[Tensor, " row"]]:
        """Frobenius norms by name of the parameter: |left| |right| for a matrix of rank 1."""
        right, rest = self.right.norm(dim=-1), self.rest.norm(dim=-1)
        found = {name: left.norm(dim=-1) * right for name, left in zip(part.matrices, self.left, strict=True)}
        return found | {part.rest_name: rest if self.hidden is None else rest * self.hidden.norm(dim=-1)}


Updates = tuple[LayerUpdate, ...]  # one a layer


@dataclass(frozen=True)
class Ends:
    """What a run leaves at the last token of each row: the blocks' outputs, and the logits (none if not asked for)."""

    resid: Float[Tensor, "row layer d_model"]
    logits: Float[Tensor, "row d_vocab_or_0"]

    def take(self, rows: Int[Tensor, " kept"]) -> Ends:
        """These rows, in this order."""
        return Ends(self.resid[rows], self.logits[rows])


@dataclass(frozen=True)
class State:
    """A layer's activations at the last token of each row: input, products, hidden state, base, normalised output."""

    input: Float[Tensor, "row d_model"]
    products: tuple[Float[Tensor, "row d_mlp"], ...]
    hidden: Float[Tensor, "row d_mlp"]
    base: Float[Tensor, "row d_model"]
    unit: Float[Tensor, "row d_model"] | None


def matrix_update(part: MLPParts, goal: State, own: State) -> LayerUpdate:
    """The update of the matrices that turns the input `own.input` into the products of `goal`; the rest is still 0."""
    squared = own.input.square().sum(-1, keepdim=True)
    differs = (goal.input != own.input).any(-1, keepdim=True)
    _refuse(part, (squared == 0) & differs, "the MLP's input without the context is 0")
    right = own.input / squared.where(squared > 0, torch.ones_like(squared))
    # W n_C - W n_0: no weight is touched, and biases cancel.
    left = tuple(there - here for there, here in zip(goal.products, own.products, strict=True))
    cosine = torch.nn.functional.cosine_similarity(own.input, goal.input, dim=-1)
    return LayerUpdate(left, right, torch.zeros_like(goal.base), None, cosine)


def with_rest(part: MLPParts, update: LayerUpdate, goal: State, own: State) -> LayerUpdate:
    """The update completed by what the base lacks; `own` is the state with the matrices updated."""
    lacking = (goal.base - own.base) / part.scale
    if part.rest == "bias":
        return replace(update, rest=lacking)
    if part.rest == "weight":
        squared = own.hidden.square().sum(-1, keepdim=True)
        _refuse(part, (squared == 0) & (lacking != 0).any(-1, keepdim=True), "the MLP's hidden state is 0")
        return replace(update, rest=lacking, hidden=own.hidden / squared.where(squared > 0, torch.ones_like(squared)))
    if own.unit is None:
        raise ValueError(f"layer {part.layer}: the normalised output of the MLP was not seen; call find_mlps anew")
    _refuse(part, (own.unit == 0) & (lacking != 0), "the normalised output of the MLP has zeros")
    return replace(update, rest=lacking / own.unit.where(own.unit != 0, torch.ones_like(own.unit)))


class Watch:
    """Reads a layer's state at the last token of each row, and changes nothing."""

    def __init__(self, part: MLPParts) -> None:
        self.part = part
        self.seen: dict[str, Tensor] = {}

    def edits(self, last: Int[Tensor, " row"]) -> Iterator[tuple[Place, Edit]]:
        """What to do at each place of the layer."""
        for name, place in self.part.places.items():
            yield place, _keeping(self.seen, name, last)

    @property
    def state(self) -> State:
        """The state after a pass."""
        return _state(self.part, self.seen)


class Patch:
    """Carries one layer's update in a run: a given one, or one that it builds on the way to reach the state `goal`."""

    def __init__(self, part: MLPParts, *, given: LayerUpdate | None = None, goal: State | None = None) -> None:
        self.part, self.given, self.goal = part, given, goal
        self.seen: dict[str, Tensor] = {}
        self._built: LayerUpdate | None = None

    def edits(self, last: Int[Tensor, " row"]) -> Iterator[tuple[Place, Edit]]:
        """What to do at each place of the layer. All products are seen before any of them is used."""
        self.last = last
        number = {name: i for i, name in enumerate(self.part.matrices)}
        for name, place in self.part.places.items():
            if name in number:
                yield place, partial(self._product, i=number[name])
            elif name == "out":
                yield place, self._leave
            else:
                yield place, _keeping(self.seen, name)

    @property
    def update(self) -> LayerUpdate:
        """The update that was given or, after a pass, built."""
        update = self.given if self.goal is None else self._built
        if update is None:
            raise ValueError(f"layer {self.part.layer}: no update was given, and none built yet; run a pass first")
        return update

    def _product(self, x: Tensor, i: int) -> Tensor:
        self.seen[self.part.matrices[i]] = wide(x)
        if self.goal is not None:
            # One matrix at a time: the others' products may not have been computed yet.
            own = at_last(wide(x), self.last)
            here = State(at_last(self.seen["input"], self.last), (own,), own, self.goal.base, None)
            step = matrix_update(self.part, replace(self.goal, products=(self.goal.products[i],)), here)
            self._built = step if i == 0 else replace(self.update, left=(*self.update.left, *step.left))
        share = torch.einsum("rpd,rd->rp", self.seen["input"], self.update.right)[..., None]
        return (wide(x) + share * self.update.left[i][:, None]).to(x.dtype)

    def _leave(self, x: Tensor) -> Tensor:
        part, out = self.part, wide(x)
        if self.goal is not None:
            seen = {name: at_last(y, self.last) for name, y in {**self.seen, "out": out}.items()}
            self._built = with_rest(part, self.update, self.goal, _state(part, seen))
        change = self.update.rest[:, None]
        if self.update.hidden is not None:
            change = change * torch.einsum("rpd,rd->rp", self.seen["hidden"], self.update.hidden)[..., None]
        elif part.rest == "gain":
            change = change * part.normalised(self.seen["norm_input"], self.seen["contribution"], wide(part.gain()))
        return (out + part.scale * change).to(x.dtype)


def run_rows(
    wrapped: WrappedModel,
    parts: Sequence[MLPParts],
    texts: Sequence[Text],
    actors: Sequence[Patch | Watch],
    *,
    logits: bool,
) -> Ends:
    """One pass over padded rows; padding is on the right, so harmless."""
    width = max(map(len, texts))
    tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=wrapped.device)
    last = torch.tensor([len(text) - 1 for text in texts], device=wrapped.device)
    outs: dict[Any, Tensor] = {}
    edits = [edit for actor in actors for edit in actor.edits(last)]
    edits += [(part.places["out"], _keeping(outs, part.layer, last)) for part in parts]  # last, so that changes show
    keep = torch.arange(len(texts), device=wrapped.device) * width + last
    with wrapped.evaluating(), edited(edits, len(texts)):
        found = wide(wrapped.logits(tokens, keep if logits else keep[:1]))
    resid = torch.stack([outs[part.layer] for part in parts], 1)
    return Ends(resid, found if logits else found.new_zeros((len(texts), 0)))


def chunks(texts: Sequence[Text]) -> list[slice]:
    """Consecutive rows that fill a pass."""
    found: list[slice] = []
    start = 0
    while start < len(texts):
        stop, width = start + 1, len(texts[start])
        while stop < len(texts) and max(width, len(texts[stop])) * (stop + 1 - start) <= _NODES:
            width = max(width, len(texts[stop]))
            stop += 1
        found.append(slice(start, stop))
        start = stop
    return found


def wide(x: Tensor) -> Tensor:
    """In float32 at least: updates of half-precision models are computed there."""
    return x if x.dtype == torch.float64 else x.float()


def at_last(x: Float[Tensor, "row pos d"], last: Int[Tensor, " row"]) -> Float[Tensor, "row d"]:
    """The states at each row's last token."""
    return x[torch.arange(len(x), device=x.device), last]


def _keeping(seen: dict[Any, Tensor], name: Any, last: Tensor | None = None) -> Edit:
    def keep(x: Tensor) -> None:
        seen[name] = wide(x if last is None else at_last(x, last))

    return keep


def _state(part: MLPParts, seen: dict[str, Tensor]) -> State:
    unit = None
    if part.rest == "gain":
        unit = part.normalised(seen["norm_input"], seen["contribution"], wide(part.gain()))
    base = seen["out"] - part.scale * seen["contribution"]
    return State(seen["input"], tuple(seen[name] for name in part.matrices), seen["hidden"], base, unit)


def _refuse(part: MLPParts, where: Tensor, what: str) -> None:
    if where.any():
        rows = where.flatten(1).any(-1).nonzero().flatten().tolist()
        raise ValueError(
            f"layer {part.layer}: {what} (row {rows[0]} of the batch), so the update is undefined there; leave that "
            "query out"
        )
