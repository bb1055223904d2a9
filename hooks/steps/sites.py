"""Where a model's weights act: the places at which a change of a weight can be added without touching the weight.

A linear layer, an embedding and the gain of a norm are all linear in their weight. So a change dW of it may be added
to the layer's output instead, another one for every row of a batch. Layers are found by what they are and not by an
architecture's names; whether the places found are all there are is tried by `mechicl.hooks.steps.step_support`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mechicl.hooks.wrapper import WrappedModel

Choice = Literal["all", "key_value", "attention", "mlp"] | Callable[[str], bool]


@dataclass(frozen=True)
class Site:
    """A module that holds a weight and nothing else of interest.

    kind: "linear" (output = input W), "embedding" (output = scale W[ids]) or "norm" (output = input_normed (offset +
    W)). weight, bias: names of the parameters, None where there is none or it stays as it is. `outer` is the module
    whose forward is called: TransformerLens wraps norms and may compute them itself.
    """

    kind: str
    module: nn.Module
    outer: nn.Module
    weight: str | None
    bias: str | None
    scale: float = 1.0
    offset: float = 0.0


def weight_sites(wrapped: WrappedModel, parameters: Choice = "all") -> list[Site]:
    """The sites of the chosen parameters, and of all embeddings (from which gradients start).

    Raises `ValueError` for a module that holds chosen parameters in another way.
    """
    chosen = chosen_parameters(wrapped, parameters)
    names = {id(parameter): name for name, parameter in chosen.items()}
    outer = {
        id(inner): module
        for module in wrapped.model.modules()
        if isinstance(inner := module._modules.get("_original_component"), nn.Module)
    }
    found = []
    for module in dict.fromkeys(wrapped.model.modules()):
        own = {key: parameter for key, parameter in module._parameters.items() if parameter is not None}
        selected = {key: names[id(parameter)] for key, parameter in own.items() if id(parameter) in names}
        if not selected and not (own and isinstance(module, nn.Embedding)):
            continue
        kind = _kind(module, own)
        site = Site(kind, module, outer.get(id(module), module), selected.get("weight"), selected.get("bias"))
        if kind == "embedding":
            site = Site(kind, module, site.outer, site.weight, None, scale=_embedding_scale(module))
        elif kind == "norm":
            site = Site(kind, module, site.outer, site.weight, site.bias, offset=_norm_offset(module))
        found.append(site)
    return found


def chosen_parameters(wrapped: WrappedModel, parameters: Choice) -> dict[str, nn.Parameter]:
    """Parameters by name (one name each, where weights are tied): all, those of keys and values, or as a function says.

    Raises `ValueError` where the choice is empty or unknown.
    """
    every = dict(wrapped.model.named_parameters())
    if parameters == "all":
        return every
    if callable(parameters):
        found = {name: parameter for name, parameter in every.items() if parameters(name)}
    elif parameters in ("key_value", "attention", "mlp"):
        ids = {id(p) for block in wrapped.model.blocks for part in _parts(block, parameters) for p in part.parameters()}
        found = {name: parameter for name, parameter in every.items() if id(parameter) in ids}
    else:
        raise ValueError(
            f"got parameters={parameters!r}; expected 'all', 'key_value', 'attention', 'mlp' or a function of the name"
        )
    if not found:
        raise ValueError(f"no parameter of this model is chosen by parameters={parameters!r}; there are {list(every)}")
    return found


def swapped_parameters(module: nn.Module, weight: float, bias: float) -> Callable[[], None]:
    """Put constants in place of a module's weight and bias; returns what puts them back."""
    before = dict(module._parameters)

    def constant(old: Tensor | None, value: float) -> Tensor | None:
        return None if old is None else torch.full_like(old, value, requires_grad=False)

    held: dict[str, Any] = module._parameters  # written past nn.Module, which wants parameters only
    held["weight"] = constant(before["weight"], weight)
    if "bias" in before:
        held["bias"] = constant(before["bias"], bias)
    return lambda: held.update(before)


def _parts(block: Any, parameters: str) -> list[nn.Module]:
    if parameters == "mlp":
        return [block.mlp] if hasattr(block, "mlp") else []
    return [block.attn.k, block.attn.v] if parameters == "key_value" else [block.attn]


def _kind(module: nn.Module, own: dict[str, nn.Parameter]) -> str:
    if isinstance(module, nn.Embedding):
        return "embedding"
    if own.keys() <= {"weight", "bias"} and "weight" in own:
        if isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and own["weight"].ndim == 2):
            return "linear"
        if "Norm" in type(module).__name__ and own["weight"].ndim == 1:
            return "norm"
    shapes = {key: tuple(parameter.shape) for key, parameter in own.items()}
    raise ValueError(f"a {type(module).__name__} with {shapes} is no linear layer, embedding or norm")


def _embedding_scale(module: nn.Module) -> float:
    """What an embedding multiplies its rows with (Gemma): as the module says, or tried on one row."""
    if (known := getattr(module, "embed_scale", None)) is not None:
        return float(known)
    weight = module._parameters["weight"]
    if weight is None or not weight.numel():
        raise ValueError("an embedding without rows")
    with torch.no_grad():
        row = int(weight.abs().sum(1).argmax())
        column = int(weight[row].abs().argmax())
        out = module(torch.tensor([[row]], device=weight.device))
        return float(out[0, 0, column]) / float(weight[row, column])


def _norm_offset(module: nn.Module) -> float:
    """1 where a norm's gain is 1 + weight (Gemma), 0 where it is the weight, tried with a weight of 0."""
    weight = module._parameters["weight"]
    if weight is None:
        raise ValueError("a norm without a gain")
    back = swapped_parameters(module, 0.0, 0.0)
    try:
        with torch.no_grad():
            probe = torch.linspace(-1, 1, len(weight), dtype=weight.dtype, device=weight.device)
            return 1.0 if bool(module(probe[None, None]).abs().max() > 0) else 0.0
    finally:
        back()
