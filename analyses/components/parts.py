"""The parts of a small transformer, weight by weight; transformers made of two; and donors that serve as controls.

    embedding     embed.W, embed.b                           QK circuit    queries and keys of W_QKV, b_QKV
    OV circuit    values of W_QKV, b_QKV; W_O, b_O            MLP in        W_in, b_in
    MLP out       W_out, b_out                               norms         all gains and biases of norms
    unembedding   unembed.W

Every weight is in one part, so a transformer that takes all parts from a donor is the donor.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from mechicl.organisms.grid.stack import StackConfig

PARTS = ("embedding", "QK circuit", "OV circuit", "MLP in", "MLP out", "norms", "unembedding")
_ENDS = {"W_O": "OV circuit", "b_O": "OV circuit", "W_in": "MLP in", "b_in": "MLP in", "W_out": "MLP out",
         "b_out": "MLP out"}  # fmt: skip
Weights = Mapping[str, Tensor]


def weight_parts(cfg: StackConfig, *, by_layer: bool = False) -> tuple[tuple[str, ...], dict[str, Int[Tensor, "..."]]]:
    """The names of the parts, and for every weight the number of its part.

    by_layer: what lies in a block is told apart by layer ("QK circuit 0", "norms 0"; the last norm is "norms").
    """
    names: list[str] = [] if by_layer else [*PARTS]
    numbers = {}
    for name, shape in cfg.shapes.items():
        *block, kind = name.split(".")
        suffix = f" {block[1]}" if by_layer and block[0] == "blocks" else ""
        own = {"embed": "embedding", "unembed": "unembedding"}.get(block[0]) or _ENDS.get(kind, "norms")
        wanted = ["QK circuit", "OV circuit"] if kind.endswith("QKV") else [own]
        for part in (f"{part}{suffix}" for part in wanted):
            if part not in names:
                names.append(part)
        number = torch.full(shape, names.index(wanted[-1] + suffix))
        if kind.endswith("QKV"):  # q | k | v
            number[..., : 2 * cfg.d_model] = names.index("QK circuit" + suffix)
        numbers[name] = number
    return tuple(names), numbers


def hybrid(host: Weights, donor: Weights, numbers: Weights, chosen: Collection[int]) -> dict[str, Tensor]:
    """The host's weights, but those of the chosen parts from the donor."""
    taken = torch.tensor(sorted(chosen), dtype=torch.long)
    return {name: torch.where(torch.isin(numbers[name], taken), donor[name], host[name]) for name in numbers}


def in_another_basis(weights: Weights, cfg: StackConfig, *, seed: int = 0) -> dict[str, Tensor]:
    """A transformer that says the same, its residual stream and its MLPs' neurons in another order.

    As a donor it shows what its parts are worth to a host that does not share its basis, as two models that were
    trained apart do not.
    """
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randperm(cfg.d_model, generator=generator)
    neurons = [torch.randperm(cfg.d_mlp, generator=generator) for _ in range(cfg.n_layers)]
    found = {}
    for name, weight in weights.items():
        *block, kind = name.split(".")
        layer = int(block[1]) if block[0] == "blocks" else 0
        if kind in ("W_QKV", "W_in") or name == "unembed.W":  # [stream, ...]
            weight = weight[stream]
        elif kind not in ("b_QKV", "b_in"):  # [..., stream]
            weight = weight[..., stream]
        if kind in ("W_in", "b_in"):
            weight = weight[..., neurons[layer]]
        elif kind == "W_out":
            weight = weight[neurons[layer]]
        found[name] = weight.clone()
    return found


def shuffled_change(host: Weights, donor: Weights, numbers: Weights, *, seed: int = 0) -> dict[str, Tensor]:
    """The host plus the donor's differences, shuffled in each array and part: as large a change, of no meaning."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in host.items():
        change = donor[name] - weight
        for number in numbers[name].unique():
            own = numbers[name] == number
            change[own] = change[own][torch.randperm(int(own.sum()), generator=generator)]
        found[name] = weight + change
    return found
