"""A small decoder for in-context classification, after 2506.17859.

A context is the sequence (c_1, y_1), (c_2, y_2), ..., (x, -1): one token a pair, the item's d numbers and one for the
label, which is -1 at the query. Blocks are those of GPT-NeoX, norm, causal attention with rotary positions on a part of
the head's dimensions, norm, MLP. The last position gives the log-odds of label 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from scipy.special import expit
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mechicl.organisms.hooked_regressor import HookedRegressor
from mechicl.organisms.regression_transformer import SoftmaxAttention, SoftmaxBlock, SoftmaxConfig

QUERY_LABEL = -1.0
ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class ClassifierConfig(SoftmaxConfig):
    """Sizes; `n_demos` is the largest number of pairs. rotary: the share of a head's dimensions that positions turn."""

    n_layers: int = 1
    d_model: int = 64
    n_heads: int = 1
    d_mlp: int = 256
    kind: str = "classifier"
    rotary: float = 0.25

    def __post_init__(self) -> None:
        """Check the sizes."""
        super().__post_init__()
        if not 0 <= self.rotary <= 1:
            raise ValueError(f"got rotary={self.rotary}; expected a share from 0 to 1")

    @property
    def n_ctx(self) -> int:
        """The number of positions: a pair is one token."""
        return self.n_demos + 1

    @property
    def n_rotary(self) -> int:
        """How many of a head's dimensions turn, an even number."""
        return int(self.rotary * self.d_head) // 2 * 2


class RotaryAttention(SoftmaxAttention):
    """Causal attention whose queries and keys turn with their positions; hook_q and hook_k are before the turn."""

    def __init__(self, cfg: ClassifierConfig, dtype: torch.dtype) -> None:
        super().__init__(cfg, dtype)
        self.n_rotary = cfg.n_rotary
        self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()  # [batch, pos, head, d_head]

    def forward(self, normed: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What attention adds to each token."""
        project = "batch pos d_model, head d_model d_head -> batch pos head d_head"
        q = self.hook_rot_q(self.turned(self.hook_q(einsum(normed, self.W_Q, project) + self.b_Q)))
        k = self.hook_rot_k(self.turned(self.hook_k(einsum(normed, self.W_K, project) + self.b_K)))
        v = self.hook_v(einsum(normed, self.W_V, project) + self.b_V)
        scores = einsum(q, k, "batch q head d_head, batch k head d_head -> batch head q k") / sqrt(q.shape[-1])
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        pattern = self.hook_pattern(self.hook_attn_scores(scores.masked_fill(future, -torch.inf)).softmax(-1))
        z = self.hook_z(einsum(pattern, v, "batch head q k, batch k head d_head -> batch q head d_head"))
        return einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos d_model") + self.b_O

    def turned(self, x: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos head d_head"]:
        """Pairs (i, i + n_rotary/2) of the first n_rotary dimensions, turned by position / base^(2i/n_rotary)."""
        half = self.n_rotary // 2
        speed = ROTARY_BASE ** (-torch.arange(half, device=x.device, dtype=x.dtype) / max(half, 1))
        angle = torch.arange(x.shape[1], device=x.device, dtype=x.dtype)[:, None, None] * speed
        first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([first * cos - second * sin, first * sin + second * cos, rest], dim=-1)


class ClassificationTransformer(HookedRegressor):
    """The decoder; its prediction is the log-odds of label 1. Trained ones come from `load_classifier`.

    model.probabilities(x, y, query)                                   numpy in, numpy out: [batch, label]
    _, cache = model.run_with_cache(*model.tensors(x, y, query))
    cache["blocks.0.attn.hook_pattern"][:, 0, -1, :-1]                 attention from the query to each pair
    """

    def __init__(self, cfg: ClassifierConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cfg = cfg
        self.W_E = nn.Parameter(torch.zeros(cfg.dim + 1, cfg.d_model, dtype=dtype))
        self.b_E = nn.Parameter(torch.zeros(cfg.d_model, dtype=dtype))
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.blocks = nn.ModuleList([SoftmaxBlock(cfg, dtype) for _ in range(cfg.n_layers)])
        for block in self.blocks:
            block.attn = RotaryAttention(cfg, dtype)
        self.ln_final = nn.LayerNorm(cfg.d_model, dtype=dtype)
        self.W_U = nn.Parameter(torch.zeros(cfg.d_model, dtype=dtype))
        self.b_U = nn.Parameter(torch.zeros((), dtype=dtype))
        self.setup()

    def embed(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """One token a pair and one for the query; a ValueError for more pairs than the model was made for."""
        if x.shape[1] > self.cfg.n_demos:
            raise ValueError(f"got {x.shape[1]} pairs; this model was made for {self.cfg.n_demos}")
        items = torch.cat([x, query[:, None]], dim=1)
        labels = torch.cat([y, y.new_full((len(y), 1), QUERY_LABEL)], dim=1)
        return self.hook_embed(torch.cat([items, labels[..., None]], dim=-1) @ self.W_E + self.b_E)

    def read(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The log-odds of label 1, nats; at positions other than the last they mean nothing."""
        return self.ln_final(residual) @ self.W_U + self.b_U

    def probabilities(
        self,
        x: Float[np.ndarray, "batch demo dim"],
        y: Int[np.ndarray, "batch demo"],
        query: Float[np.ndarray, "batch dim"],
    ) -> Float[np.ndarray, "batch label"]:
        """The probability of each label, in float64."""
        log_odds = self.predict(x, y.astype(np.float64), query)
        return np.column_stack([expit(-log_odds), expit(log_odds)])

    def query_attention(
        self,
        x: Float[np.ndarray, "batch demo dim"],
        y: Int[np.ndarray, "batch demo"],
        query: Float[np.ndarray, "batch dim"],
        *,
        layer: int = 0,
    ) -> Float[np.ndarray, "batch head demo"]:
        """The attention from the query to each pair; what is missing to 1 goes to the query itself."""
        name = f"blocks.{layer}.attn.hook_pattern"
        with torch.no_grad():
            _, cache = self.run_with_cache(*self.tensors(x, y.astype(np.float64), query), names_filter=name)
        return cache[name][:, :, -1, :-1].double().cpu().numpy()

    @torch.no_grad()
    def randomise(self, *, seed: int) -> None:
        """Weights from N(0, 1 / fan-in), those that write to the residual stream smaller with depth; biases 0, norms 1.

        With the .02 of the paper as the standard deviation the same losses take several times as many steps.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            kind = name.rpartition(".")[2]
            if not kind.startswith("W_"):
                continue
            heads = weight.shape[0] if kind == "W_O" else 1
            fan_in = heads * weight.shape[-2] if weight.ndim > 1 else self.cfg.d_model
            depth = 2 * self.cfg.n_layers if kind in ("W_O", "W_out") else 1
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / sqrt(fan_in * depth))
