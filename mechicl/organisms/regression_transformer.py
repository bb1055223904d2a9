"""A small decoder with softmax attention for in-context regression, after 2208.01066.

A context is the sequence x_1, y_1, x_2, y_2, ..., x_q. Inputs are tokens (x, 0), labels tokens (0, y), each read in by
one linear layer, with learned positions. Blocks are those of GPT-2: norm, causal attention, norm, MLP. At every x the
model predicts the y that follows, so that one sequence trains it on contexts of all lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformer_lens.hook_points import HookPoint

from mechicl.organisms.hooked_regressor import HookedRegressor


@dataclass(frozen=True)
class SoftmaxConfig:
    """Sizes; `n_demos` is the largest number of demonstrations, and so 2 n_demos + 1 the number of positions."""

    dim: int
    n_demos: int
    n_layers: int
    d_model: int = 32
    n_heads: int = 2
    d_mlp: int = 128
    kind: str = "softmax"

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("dim", "n_demos", "n_layers", "d_model", "n_heads", "d_mlp"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}; expected 1 or more")
        if self.d_model % self.n_heads:
            raise ValueError(f"got d_model={self.d_model} and n_heads={self.n_heads}; heads must share it evenly")

    @property
    def d_head(self) -> int:
        """The width of a head."""
        return self.d_model // self.n_heads

    @property
    def n_ctx(self) -> int:
        """The number of positions."""
        return 2 * self.n_demos + 1


class SoftmaxAttention(nn.Module):
    """Causal attention; weights are shaped and named as TransformerLens does, [head, d_model, d_head]."""

    def __init__(self, cfg: SoftmaxConfig, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (cfg.n_heads, cfg.d_model, cfg.d_head)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.zeros(shape, dtype=dtype)) for _ in range(3))
        self.b_Q, self.b_K, self.b_V = (nn.Parameter(torch.zeros(shape[0], shape[2], dtype=dtype)) for _ in range(3))
        self.W_O = nn.Parameter(torch.zeros(shape[0], shape[2], shape[1], dtype=dtype))
        self.b_O = nn.Parameter(torch.zeros(cfg.d_model, dtype=dtype))
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (
            HookPoint() for _ in range(4)
        )  # [batch, pos, head, d_head]
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()  # [batch, head, pos, pos]

    def forward(self, normed: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What attention adds to each token."""
        project = "batch pos d_model, head d_model d_head -> batch pos head d_head"
        q = self.hook_q(einsum(normed, self.W_Q, project) + self.b_Q)
        k = self.hook_k(einsum(normed, self.W_K, project) + self.b_K)
        v = self.hook_v(einsum(normed, self.W_V, project) + self.b_V)
        scores = einsum(q, k, "batch q head d_head, batch k head d_head -> batch head q k") / sqrt(q.shape[-1])
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = self.hook_attn_scores(scores.masked_fill(future, -torch.inf))
        pattern = self.hook_pattern(scores.softmax(-1))
        z = self.hook_z(einsum(pattern, v, "batch head q k, batch k head d_head -> batch q head d_head"))
        return einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos d_model") + self.b_O


class RegressionMLP(nn.Module):
    """GELU between two linear layers."""

    def __init__(self, cfg: SoftmaxConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.zeros(cfg.d_model, cfg.d_mlp, dtype=dtype))
        self.b_in = nn.Parameter(torch.zeros(cfg.d_mlp, dtype=dtype))
        self.W_out = nn.Parameter(torch.zeros(cfg.d_mlp, cfg.d_model, dtype=dtype))
        self.b_out = nn.Parameter(torch.zeros(cfg.d_model, dtype=dtype))
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()  # [batch, pos, d_mlp]

    def forward(self, normed: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP adds to each token."""
        return self.hook_post(gelu(self.hook_pre(normed @ self.W_in + self.b_in))) @ self.W_out + self.b_out


class SoftmaxBlock(nn.Module):
    """Attention, then an MLP, each behind a norm and added to the residual stream."""

    def __init__(self, cfg: SoftmaxConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.ln1, self.ln2 = (nn.LayerNorm(cfg.d_model, dtype=dtype) for _ in range(2))
        self.attn, self.mlp = SoftmaxAttention(cfg, dtype), RegressionMLP(cfg, dtype)
        self.hook_resid_pre, self.hook_resid_mid, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the layer."""
        residual = self.hook_resid_pre(residual)
        middle = self.hook_resid_mid(residual + self.hook_attn_out(self.attn(self.ln1(residual))))
        return self.hook_resid_post(middle + self.hook_mlp_out(self.mlp(self.ln2(middle))))


class RegressionTransformer(HookedRegressor):
    """The decoder; call `randomise` before training. Trained ones come from `load_regressor`."""

    def __init__(self, cfg: SoftmaxConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cfg = cfg
        self.W_E = nn.Parameter(torch.zeros(cfg.dim + 1, cfg.d_model, dtype=dtype))
        self.W_pos = nn.Parameter(torch.zeros(cfg.n_ctx, cfg.d_model, dtype=dtype))
        self.hook_embed = HookPoint()  # [batch, pos, d_model], with positions
        self.blocks = nn.ModuleList([SoftmaxBlock(cfg, dtype) for _ in range(cfg.n_layers)])
        self.ln_final = nn.LayerNorm(cfg.d_model, dtype=dtype)
        self.W_U = nn.Parameter(torch.zeros(cfg.d_model, dtype=dtype))
        self.b_U = nn.Parameter(torch.zeros((), dtype=dtype))
        self.setup()

    def embed(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Tokens x_1, y_1, ..., x_q with their positions; a ValueError for more demonstrations than there are."""
        batch, n_demos, dim = x.shape
        if n_demos > self.cfg.n_demos:
            raise ValueError(f"got {n_demos} demonstrations; this model has positions for {self.cfg.n_demos}")
        tokens = x.new_zeros(batch, 2 * n_demos + 1, dim + 1)
        tokens[:, 0:-1:2, :-1] = x
        tokens[:, 1::2, -1] = y
        tokens[:, -1, :-1] = query
        return self.hook_embed(tokens @ self.W_E + self.W_pos[: tokens.shape[1]])

    def read(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The prediction at every position; those at labels mean nothing."""
        return self.ln_final(residual) @ self.W_U + self.b_U

    def after_each(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos"]:
        """The predictions for every x and the query, each from the demonstrations before it: what training reads."""
        residual = self.embed(x, y, query)
        for block in self.blocks:
            residual = block(residual)
        return self.read(residual)[:, 0::2]

    @torch.no_grad()
    def randomise(self, *, seed: int) -> None:
        """Weights from N(0, 1 / fan-in), those that write to the residual stream smaller with depth; biases 0."""
        generator = torch.Generator().manual_seed(seed)
        for name, weight in self.named_parameters():
            kind = name.rpartition(".")[2]
            if not kind.startswith("W_"):
                continue
            fan_in = weight.shape[0] * weight.shape[1] if kind == "W_O" else weight.shape[-2] if weight.ndim > 1 else 1
            spread = {"W_pos": 0.1, "W_U": 1 / sqrt(self.cfg.d_model), "W_E": 1.0}.get(kind, 1 / sqrt(fan_in))
            if kind in ("W_O", "W_out"):
                spread /= sqrt(2 * self.cfg.n_layers)
            weight.copy_(spread * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
