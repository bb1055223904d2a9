"""Finds every layer's MLP and tries, on a few random tokens, that it works as its parts say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mechicl.hooks.mlps.mlp_parts import (
    Edit,
    MLPParts,
    Place,
    draft_parts,
    edited,
    model_name,
    norm_vectors,
    out_bias,
    unknown_block,
)
from mechicl.hooks.wrapper import WrappedModel

_LIMITS = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 0.02}  # relative; half precision rounds that much
_COARSE = 0.05
Record = dict[Any, Tensor]


def find_mlps(wrapped: WrappedModel) -> tuple[MLPParts, ...]:
    """The MLP of every layer, by structure and tried: three short forward passes.

    Raises `ValueError`, naming layer and block, for a layer without MLP, a mixture of experts, layers that share one
    MLP, and blocks in which the MLP does not act as `MLPParts` describes.
    """
    drafts = [draft_parts(wrapped, layer) for layer in range(wrapped.n_layers)]
    if len({draft.weight("W_out").data_ptr() for draft in drafts}) < len(drafts):
        raise ValueError(
            f"{model_name(wrapped)}: layers share one MLP, so none can have an update of its own; choose a model whose "
            "layers have weights of their own"
        )
    tokens = torch.randint(wrapped.d_vocab, (2, 4), generator=torch.Generator().manual_seed(0)).to(wrapped.device)
    records = _records(wrapped, tokens, drafts)
    found = [_checked(wrapped, draft, record) for draft, record in zip(drafts, records, strict=True)]
    return _with_scales(wrapped, tokens[:1], found)


def _records(wrapped: WrappedModel, tokens: Tensor, drafts: Sequence[MLPParts]) -> list[Record]:
    """Of each layer the activations of two rows, what every norm takes in, and under "swapped" hidden states
    where row 1 got the products of row 0."""
    records: list[Record] = [{} for _ in drafts]
    edits: list[tuple[Place, Edit]] = []
    swaps: list[tuple[Place, Edit]] = []
    for draft, record in zip(drafts, records, strict=True):

        def keep(key: Any, record: Record = record) -> Edit:
            return lambda x: record.__setitem__(key, x.detach().clone())

        edits += [(place, keep(name)) for name, place in draft.places.items()]
        norms = [module for module in wrapped.model.blocks[draft.layer].children() if norm_vectors(module)]
        edits += [(Place(norm, entering=True), keep(norm)) for norm in norms]
        swaps += [(draft.places[name], lambda x: x[:1].expand_as(x).clone()) for name in draft.matrices]
        swaps += [(draft.places["hidden"], keep("swapped"))]
    _forward(wrapped, tokens, edits)
    _forward(wrapped, tokens, swaps)
    for draft, record in zip(drafts, records, strict=True):
        if absent := [name for name in (*draft.places, "swapped") if name not in record]:
            raise unknown_block(wrapped, draft.layer, f"{', '.join(absent)} did not show in a forward pass")
    return records


def _checked(wrapped: WrappedModel, draft: MLPParts, seen: Record) -> MLPParts:
    """Try that the matrices do what they should; find the norm after the MLP, and what can carry the rest."""
    limit = _LIMITS.get(wrapped.dtype, _COARSE)
    for source, matrix, target in [("input", n, n) for n in draft.matrices] + [("hidden", "W_out", "raw")]:
        start, end = ((seen[name][0] - seen[name][1]).double() for name in (source, target))  # without biases
        # Rounding goes with the size of what was rounded: that of the rows, not that of their difference.
        if (start @ draft.weight(matrix).double() - end).norm() > limit * seen[target].double().norm():
            raise unknown_block(wrapped, draft.layer, f"{matrix} is not what lies between {source} and {target}")
    if not _close(seen["swapped"][0], seen["swapped"][1], limit):
        raise unknown_block(wrapped, draft.layer, f"hidden states hang on more than {' and '.join(draft.matrices)}")
    places = {name: place for name, place in draft.places.items() if name != "raw"}
    norm = next((m for m, x in seen.items() if isinstance(m, nn.Module) and _close(x, seen["raw"], 0.0)), None)
    if norm is not None:
        vectors = norm_vectors(norm)
        rest: Literal["bias", "gain"] = "bias" if "bias" in vectors else "gain"
        places |= {"contribution": Place(norm), "norm_input": Place(norm, entering=True)}
        draft = replace(draft, norm=norm, rest=rest, places=places)
        return _with_gain(wrapped, draft, vectors["gain"], seen[norm]) if rest == "gain" else draft
    places["contribution"] = draft.places["raw"]
    bias = out_bias(draft.mlp)
    if bias is not None:
        constant = seen["raw"].double() - seen["hidden"].double() @ draft.weight("W_out").double()
        if (constant - bias.double()).norm() > limit * seen["raw"].double().norm():
            raise unknown_block(wrapped, draft.layer, "b_out is not what is added after W_out")
    return replace(draft, rest="weight" if bias is None else "bias", places=places)


def _with_scales(wrapped: WrappedModel, tokens: Tensor, parts: Sequence[MLPParts]) -> tuple[MLPParts, ...]:
    """Try, one row a layer, what the block's output gains when a vector is added to the contribution."""
    added: dict[int, Tensor] = {}
    gained: dict[int, Tensor] = {}
    rounding: dict[int, float] = {}
    edits: list[tuple[Place, Edit]] = []
    for part in parts:

        def add(x: Tensor, layer: int = part.layer) -> Tensor:
            noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(layer)).to(x)
            added[layer] = noise * x[0].std().clamp(min=1e-3)
            x = x.clone()
            x[layer + 1] += added[layer]
            return x

        def keep(x: Tensor, layer: int = part.layer) -> None:
            gained[layer] = (x[layer + 1] - x[0]).double()
            rounding[layer] = 4 * torch.finfo(x.dtype).eps * float(x[0].double().norm())

        edits += [(part.places["contribution"], add), (part.places["out"], keep)]
    _forward(wrapped, tokens.expand(len(parts) + 1, -1), edits)
    found = []
    limit = 10 * _LIMITS.get(wrapped.dtype, _COARSE)  # a small change of a large stream loses digits
    for part in parts:
        noise, change = added[part.layer].double(), gained[part.layer]
        scale = float((change * noise).sum() / noise.square().sum())
        off = float((change - scale * noise).norm())
        if scale == 0 or off > limit * float(change.norm()) + rounding[part.layer]:
            raise unknown_block(wrapped, part.layer, "what it puts out is not simply added to the residual stream")
        found.append(replace(part, scale=1.0 if abs(scale - 1) < limit else scale))
    return tuple(found)


def _with_gain(wrapped: WrappedModel, draft: MLPParts, gain: Tensor, x: Tensor) -> MLPParts:
    """Try, at gains 0 and 1, by how much a norm's factor exceeds its parameter, and whether it centres; is it exact?"""
    norm = draft.norm
    if norm is None:
        raise unknown_block(wrapped, draft.layer, "no norm follows the MLP")
    name = next(name for name, vector in norm.named_parameters() if vector is gain)

    def at(value: float) -> Tensor:
        with torch.no_grad():
            found: Tensor = torch.func.functional_call(norm, {name: torch.full_like(gain, value)}, (x,))
        return found.double()

    zero, one = at(0.0), at(1.0)
    unit = one - zero
    exact = not (x.dtype == torch.float64 and torch.equal(one.float().double(), one))
    offset = float(round(float((zero * unit).sum() / unit.square().sum().clamp(min=1e-30))))
    limit = _LIMITS.get(wrapped.dtype, _COARSE) if exact else 1e-3
    for centred in (False, True):
        found = replace(draft, offset=offset, exact_norm=exact, centred=centred)
        if _close(found.normalised(x.double(), unit, torch.ones_like(gain).double()), unit, limit):
            return found
    raise unknown_block(wrapped, draft.layer, f"the norm after the MLP ({type(norm).__name__}) is no RMS or layer norm")


def _forward(wrapped: WrappedModel, tokens: Tensor, edits: Sequence[tuple[Place, Edit]]) -> None:
    with wrapped.evaluating(), edited(edits, len(tokens)):
        wrapped.logits(tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))  # no logits are wanted


def _close(x: Tensor, y: Tensor, limit: float) -> bool:
    return x.shape == y.shape and bool((x.double() - y.double()).norm() <= limit * y.double().norm())
