"""What an MLP is made of: its matrices, biases, the norm after it, and the places where they read and write.

A block is taken as  out = base + scale * contribution,  contribution = [norm](hidden W_out + b_out), and hidden a
function of n W_in alone (or of n W_gate and n W_up), n being the MLP's input. `find_mlps` tries each of these on a few
random tokens and refuses by name what fails: nothing is guessed from a model's name. Parallel blocks, residual
multipliers, fused gates and norms after the MLP all have this form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mechicl.hooks.wrapper import WrappedModel

Edit = Callable[[Tensor], Tensor | None]  # receives an activation; what it returns, if anything, replaces it


@dataclass(frozen=True)
class Place:
    """An activation: what a module takes in (`entering`) or what it puts out."""

    module: nn.Module
    entering: bool = False


@dataclass(frozen=True)
class MLPParts:
    """One layer's MLP. `matrices` are those that read its input, `rest` is what can carry the change of the base.

    rest: "bias" (b_out, or the bias of the norm after the MLP), "gain" (that norm's, of which offset + parameter is the
    factor) or "weight" (W_out). scale: what the block's output gains by one unit of the contribution. Of the norm after
    the MLP: exact_norm, does it compute in the model's own dtype (some compute in float32 whatever the dtype), and
    centred, does it take off the mean. places: "input", one for each matrix (its product), "hidden", "contribution",
    "out" (of the block), and "norm_input" where there is that norm.
    """

    layer: int
    mlp: nn.Module
    norm: nn.Module | None
    matrices: tuple[str, ...]
    rest: Literal["bias", "gain", "weight"]
    offset: float
    scale: float
    exact_norm: bool
    centred: bool
    places: dict[str, Place]

    @property
    def rest_name(self) -> str:
        """The parameter that carries the rest, for tables: b_out, b_norm, gain or W_out."""
        return {"bias": "b_norm" if self.norm is not None else "b_out", "gain": "gain", "weight": "W_out"}[self.rest]

    def weight(self, name: str) -> Float[Tensor, "d_in d_out"]:
        """A matrix as a view into the model's own memory: W_in, W_gate, W_up or W_out."""
        found: Tensor = getattr(self.mlp, {"W_up": "W_in"}.get(name, name))
        return found.detach()

    def rest_parameter(self) -> Float[Tensor, "*shape"]:
        """The parameter that carries the rest, as a view into the model's own memory."""
        if self.rest == "weight":
            return self.weight("W_out")
        found = norm_vectors(self.norm).get(self.rest) if self.norm is not None else out_bias(self.mlp)
        if found is None:
            raise ValueError(f"layer {self.layer} has lost its {self.rest_name}; call find_mlps anew")
        return found.detach()

    def gain(self) -> Float[Tensor, " d_model"]:
        """The factor of the norm after the MLP, where `rest` is "gain"."""
        return self.offset + self.rest_parameter()

    def size(self, name: str) -> float:
        """The Frobenius norm of a parameter that updates change, by its name; of a gain, that of the whole factor."""
        whole = self.gain() if name == "gain" else self.weight(name) if name.startswith("W") else self.rest_parameter()
        return float(whole.double().norm())

    def normalised(
        self, x: Float[Tensor, "*batch d_model"], out: Float[Tensor, "*batch d_model"], gain: Float[Tensor, " d_model"]
    ) -> Float[Tensor, "*batch d_model"]:
        """What the norm after the MLP makes of x before its gain, of which it made `out` with it.

        u = s x with one s a token, by least squares from out = s gain x: division by the gain would fail where that is
        0, as it is in places in trained models.
        """
        x = x - x.mean(-1, keepdim=True) if self.centred else x
        stretched = gain * x
        squared = stretched.square().sum(-1, keepdim=True)
        return x * ((out * stretched).sum(-1, keepdim=True) / squared.where(squared > 0, torch.ones_like(squared)))


@contextmanager
def edited(edits: Sequence[tuple[Place, Edit]], rows: int) -> Iterator[None]:
    """Run a batch of `rows` rows with functions that see, and may replace, activations [row pos d]; then they go."""
    with ExitStack() as stack:
        for place, edit in edits:
            if place.entering:
                stack.callback(place.module.register_forward_pre_hook(_on_entering(edit, rows)).remove)
            else:
                stack.callback(place.module.register_forward_hook(_on_leaving(edit, rows)).remove)
        yield


def draft_parts(wrapped: WrappedModel, layer: int) -> MLPParts:
    """A layer's parts by structure, before any was tried; "raw" is what W_out and its bias put out.

    Raises `ValueError`, naming layer and block, for a layer without MLP, a mixture of experts, or no known access.
    """
    block = wrapped.model.blocks[layer]
    mlp = getattr(block, "mlp", None)
    where = f"{model_name(wrapped)}, layer {layer}"
    if not isinstance(mlp, nn.Module) or not list(mlp.parameters()):
        raise ValueError(f"{where}: the block has no MLP, so a context has no MLP update there; choose another model")
    if any(part.ndim == 3 for part in mlp.parameters()) or any("experts" in name for name, _ in mlp.named_modules()):
        raise ValueError(
            f"{where}: {type(mlp).__name__} is a mixture of experts, in which the token decides what weights act; "
            "choose a model with dense MLPs"
        )
    gated = isinstance(getattr(mlp, "W_gate", None), Tensor)
    matrices = ("W_gate", "W_up") if gated else ("W_in",)
    products = dict(zip(matrices, ("mlp.hook_pre", "mlp.hook_pre_linear"), strict=False))
    entry = "mlp.hook_in" if gated else "mlp.in.hook_in"  # where the MLP is no module, as in OPT, only this holds n
    points = {"input": entry, "raw": "mlp.out.hook_out", "hidden": "mlp.hook_post", "out": "hook_resid_post"}
    found = {
        name: wrapped.model.hook_dict.get(f"blocks.{layer}.{point}") for name, point in (points | products).items()
    }
    places = {name: Place(point) for name, point in found.items() if point is not None}
    places.setdefault("input", Place(mlp, entering=True))  # HookedTransformer has no hook points there
    places.setdefault("raw", Place(mlp))
    missing = [name for name in found if name not in places]
    missing += [name for name in ("W_in", "W_out") if not isinstance(getattr(mlp, name, None), Tensor)]
    if missing:
        raise unknown_block(wrapped, layer, f"it gives no access to {', '.join(missing)}")
    return MLPParts(layer, mlp, None, matrices, "weight", 0.0, 1.0, True, False, places)


def norm_vectors(module: nn.Module) -> dict[str, Tensor]:
    """Gain and, where there is one, bias of a norm; empty for what is none."""
    if "norm" not in type(module).__name__.lower():
        return {}
    named = {name.rsplit(".", 1)[-1]: vector for name, vector in module.named_parameters() if vector.ndim == 1}
    found = {"gain": named.get("weight", named.get("w")), "bias": named.get("bias", named.get("b"))}
    return {name: vector for name, vector in found.items() if vector is not None}


def out_bias(mlp: nn.Module) -> Tensor | None:
    """What is added after W_out, if anything."""
    out = getattr(mlp, "out", None)
    found = getattr(out, "bias", None) if isinstance(out, nn.Module) else getattr(mlp, "b_out", None)
    return found if isinstance(found, Tensor) else None


def unknown_block(wrapped: WrappedModel, layer: int, reason: str) -> ValueError:
    """The error for a block of which the identity cannot be shown."""
    block = wrapped.model.blocks[layer]
    kinds = f"{type(block).__name__} with {type(block.mlp).__name__}"
    return ValueError(f"{model_name(wrapped)}, layer {layer}: a block of an unknown kind ({kinds}): {reason}")


def model_name(wrapped: WrappedModel) -> str:
    """The name for messages."""
    cfg = wrapped.model.cfg
    return str(getattr(cfg, "model_name", None) or getattr(cfg, "architecture", None) or wrapped.kind)


def _on_entering(edit: Edit, rows: int) -> Callable[..., Any]:
    def call(module: nn.Module, arguments: tuple[Any, ...]) -> Any:
        changed = _by_row(edit, arguments[0], rows)
        return None if changed is None else (changed, *arguments[1:])

    return call


def _on_leaving(edit: Edit, rows: int) -> Callable[..., Any]:
    return lambda module, arguments, output: _by_row(edit, output, rows)


def _by_row(edit: Edit, x: Tensor, rows: int) -> Tensor | None:
    """Some models (OPT) run their MLP over rows and positions as one axis."""
    if x.ndim != 2:
        return edit(x)
    changed = edit(x.unflatten(0, (rows, -1)))
    return None if changed is None else changed.flatten(0, 1)
