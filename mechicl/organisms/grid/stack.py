"""Many small transformers of one shape, held and run as one: every weight has a leading axis of models.

A model is a decoder with the blocks of GPT-NeoX, one after another: norm, causal attention with rotary positions on a
share of the head's dimensions, norm, MLP with GELU. Tokens are read in by a table or, where they are vectors, by a
linear layer; a last norm and a linear layer read out. All weights of all models lie in one row of numbers, which is
what the optimiser moves. Source of the architecture: 2506.17859.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

ROTARY_BASE = 10_000.0
NORM_EPS = 1e-5


@dataclass(frozen=True)
class StackConfig:
    """Sizes of each model. d_in: the vocabulary, or the vectors that come in (`vectors`); d_out: what is read out.

    last_only: nothing but the last position is read, so that the last layer need not compute the others.
    """

    d_in: int
    d_out: int
    n_ctx: int
    vectors: bool = False
    last_only: bool = False
    n_layers: int = 1
    d_model: int = 64
    n_heads: int = 1
    d_mlp: int = 256
    rotary: float = 0.25

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("d_in", "d_out", "n_ctx", "n_layers", "d_model", "n_heads", "d_mlp"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}; expected 1 or more")
        if self.d_model % self.n_heads:
            raise ValueError(f"got d_model={self.d_model} and n_heads={self.n_heads}; heads must share it evenly")
        if not 0 <= self.rotary <= 1:
            raise ValueError(f"got rotary={self.rotary}; expected a share from 0 to 1")

    @property
    def d_head(self) -> int:
        """The width of a head."""
        return self.d_model // self.n_heads

    @property
    def n_rotary(self) -> int:
        """How many of a head's dimensions turn with the position, an even number."""
        return int(self.rotary * self.d_head) // 2 * 2

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight, by name; linear layers are [in, out]."""
        d, m = self.d_model, self.d_mlp
        found: dict[str, tuple[int, ...]] = {"embed.W": (self.d_in, d)}
        if self.vectors:
            found["embed.b"] = (d,)
        for layer in range(self.n_layers):
            block = {
                "ln1.w": (d,), "ln1.b": (d,), "attn.W_QKV": (d, 3 * d), "attn.b_QKV": (3 * d,),
                "attn.W_O": (d, d), "attn.b_O": (d,), "ln2.w": (d,), "ln2.b": (d,),
                "mlp.W_in": (d, m), "mlp.b_in": (m,), "mlp.W_out": (m, d), "mlp.b_out": (d,),
            }  # fmt: skip
            found |= {f"blocks.{layer}.{name}": shape for name, shape in block.items()}
        return found | {"ln_final.w": (d,), "ln_final.b": (d,), "unembed.W": (d, self.d_out)}


@dataclass(frozen=True)
class Part:
    """Models of a stack that run as one: their rows, and their weights [model, ...], each with its gradient."""

    rows: slice
    named: dict[str, Tensor]


class Stack:
    """Models side by side. `weights` and `gradient` hold all numbers in one row, `named` views of them [model, ...].

    On a GPU all models run as one part. On a CPU each is a part of its own: there the caches, not the number of calls,
    set the pace, and a model's numbers do not depend on the others in the stack, to the last bit.
    """

    def __init__(self, cfg: StackConfig, n_models: int, *, device: str | torch.device = "cpu") -> None:
        self.cfg, self.n_models, self.device = cfg, n_models, torch.device(device)
        total = n_models * sum(prod(shape) for shape in cfg.shapes.values())
        self.weights = torch.zeros(total, device=device)
        self.gradient = torch.zeros(total, device=device)
        self.named = views(self.weights, cfg.shapes, n_models)
        self.slots = views(self.gradient, cfg.shapes, n_models)
        size = 1 if self.device.type == "cpu" else n_models
        self.parts = [self._part(slice(start, start + size)) for start in range(0, n_models, size)]
        self.rotation = rotation(cfg, self.device)

    def _part(self, rows: slice) -> Part:
        named = {name: weight[rows].detach().requires_grad_() for name, weight in self.named.items()}
        for name, weight in named.items():
            weight.grad = self.slots[name][rows]  # so that backward adds into the one array
        return Part(rows, named)

    @torch.no_grad()
    def randomise(self, seeds: Sequence[int], *, spread: float) -> None:
        """First weights, each model's by its seed alone: N(0, spread^2), biases 0, norms 1."""
        for at, seed in enumerate(seeds):
            generator = torch.Generator().manual_seed(seed)
            for name, weight in self.named.items():
                kind = name.rpartition(".")[2]
                if kind.startswith("W"):
                    drawn = torch.randn(weight.shape[1:], generator=generator, dtype=torch.float64)
                    weight[at].copy_(spread * drawn)
                else:
                    weight[at].fill_(1.0 if kind == "w" else 0.0)

    def run(self, part: Part, inputs: Tensor) -> Float[Tensor, "model batch _ d_out"]:
        """What the models of a part say at every position of their own sequences."""
        return run(part.named, inputs, self.cfg, self.rotation)

    @torch.no_grad()
    def __call__(
        self, inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos d_in"]
    ) -> Float[Tensor, "model batch _ d_out"]:
        """What each model says at every position of its own sequences, without gradients."""
        return torch.cat([self.run(part, inputs[part.rows]) for part in self.parts])

    def model_weights(self, at: int) -> dict[str, Tensor]:
        """Copies of one model's weights, by name, without the axis of models."""
        return {name: weight[at].detach().clone() for name, weight in self.named.items()}

    @torch.no_grad()
    def set_model(self, at: int, weights: Mapping[str, Tensor]) -> None:
        """One model's weights, as `model_weights` gives them."""
        for name, weight in self.named.items():
            weight[at].copy_(weights[name])


def run(
    named: Mapping[str, Tensor],
    inputs: Int[Tensor, "model batch pos"] | Float[Tensor, "model batch pos d_in"],
    cfg: StackConfig,
    turns: tuple[Tensor, Tensor],
) -> Float[Tensor, "model batch _ d_out"]:
    """One forward pass of all models; positions are all, or the last alone, as the configuration says."""
    n_models, batch, n_pos = inputs.shape[:3]
    if cfg.vectors:
        x = torch.baddbmm(named["embed.b"][:, None], inputs.reshape(n_models, -1, cfg.d_in), named["embed.W"])
    else:
        offset = torch.arange(n_models, device=inputs.device)[:, None] * cfg.d_in
        table = named["embed.W"].reshape(-1, cfg.d_model)
        x = torch.nn.functional.embedding(inputs.reshape(n_models, -1) + offset, table)
    turns = (turns[0][:n_pos], turns[1][:n_pos])
    for layer in range(cfg.n_layers):
        part = {name: named[f"blocks.{layer}.{name}"] for name in BLOCK}
        x = x.view(n_models, batch, n_pos, cfg.d_model)
        read = x[:, :, -1:] if cfg.last_only and layer == cfg.n_layers - 1 else x
        x = read.reshape(n_models, -1, cfg.d_model) + attend(x, read, part, cfg, turns)
        hidden = gelu(_normed_linear(x, part["ln2.w"], part["ln2.b"], part["mlp.W_in"], part["mlp.b_in"]))
        x = x + torch.baddbmm(part["mlp.b_out"][:, None], hidden, part["mlp.W_out"])
    out = _normed_linear(x, named["ln_final.w"], named["ln_final.b"], named["unembed.W"], None)
    return out.view(n_models, batch, -1, cfg.d_out)


BLOCK = (
    "ln1.w", "ln1.b", "attn.W_QKV", "attn.b_QKV", "attn.W_O", "attn.b_O",
    "ln2.w", "ln2.b", "mlp.W_in", "mlp.b_in", "mlp.W_out", "mlp.b_out",
)  # fmt: skip


def attend(
    x: Float[Tensor, "model batch pos d_model"],
    read: Float[Tensor, "model batch _ d_model"],
    part: Mapping[str, Tensor],
    cfg: StackConfig,
    turns: tuple[Tensor, Tensor],
) -> Float[Tensor, "model _ d_model"]:
    """What attention adds to the tokens that are read: all of them, or the last alone."""
    (n_models, batch, n_pos), d = x.shape[:3], cfg.d_model
    every = read.shape[2] == n_pos
    norm, weight, bias = (part["ln1.w"], part["ln1.b"]), part["attn.W_QKV"], part["attn.b_QKV"]
    flat, at = x.reshape(n_models, -1, d), 0 if every else d
    made = _normed_linear(flat, *norm, weight[..., at:], bias[..., at:]).view(
        n_models * batch, n_pos, -1, cfg.n_heads, cfg.d_head
    )
    *q, k, v = (one.transpose(1, 2) for one in made.unbind(2))  # [model * batch, head, pos, d_head]
    if not every:
        alone = _normed_linear(read.reshape(n_models, -1, d), *norm, weight[..., :d], bias[..., :d])
        q = [alone.view(n_models * batch, 1, cfg.n_heads, cfg.d_head).transpose(1, 2)]
    z = scaled_dot_product_attention(
        turned(q[0], (turns[0][-q[0].shape[2] :], turns[1][-q[0].shape[2] :])), turned(k, turns), v, is_causal=every
    )
    return torch.baddbmm(part["attn.b_O"][:, None], z.transpose(1, 2).reshape(n_models, -1, d), part["attn.W_O"])


def turned(x: Float[Tensor, "*batch pos d_head"], turns: tuple[Tensor, Tensor]) -> Float[Tensor, "*batch pos d_head"]:
    """The first dimensions turned by the position in pairs (i, i + n_rotary/2), the rest as they are."""
    cos, sin = turns
    half = cos.shape[-1]
    first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)


def rotation(cfg: StackConfig, device: torch.device) -> tuple[Float[Tensor, "pos _"], Float[Tensor, "pos _"]]:
    """Cosine and sine of position / base^(2i / n_rotary)."""
    half = cfg.n_rotary // 2
    speed = ROTARY_BASE ** (-torch.arange(half, dtype=torch.float64) / max(half, 1))
    angle = torch.arange(cfg.n_ctx, dtype=torch.float64)[:, None] * speed
    return angle.cos().float().to(device), angle.sin().float().to(device)


def views(flat: Float[Tensor, " _"], shapes: Mapping[str, tuple[int, ...]], n_models: int) -> dict[str, Tensor]:
    """Each weight of all models, [model, *shape], as a view of the one row of numbers."""
    start, found = 0, {}
    for name, shape in shapes.items():
        size = n_models * prod(shape)
        found[name] = flat[start : start + size].view(n_models, *shape)
        start += size
    return found


def _normed_linear(
    x: Float[Tensor, "model _ d_model"], w: Tensor, b: Tensor, linear: Tensor, bias: Tensor | None
) -> Float[Tensor, "model _ out"]:
    """A linear layer behind a norm, whose gain and bias are moved into the layer: one pass less over the tokens."""
    added = b[:, None] @ linear if bias is None else torch.baddbmm(bias[:, None], b[:, None], linear)
    return torch.baddbmm(added, layer_norm(x, x.shape[-1:], eps=NORM_EPS), w[:, :, None] * linear)
