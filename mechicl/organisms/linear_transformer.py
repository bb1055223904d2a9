"""A transformer of linear self-attention alone, for in-context regression: no softmax, no MLP, no norm.

Tokens are e_i = (x_i, y_i), one a demonstration, and (x_q, 0) for the query, which comes last and is never attended to:

    e_j <- e_j + sum_heads (1 / n) sum_i <W_Q e_j, W_K e_i> W_O W_V e_i,    i over the n demonstrations
    yhat = w_0^T x_q - (last entry of e_q after all layers)

so an entry that begins as y_i and loses what a weight vector predicts ends as a residual, and the query's, which begins
at 0, ends as minus the prediction (2212.07677; 2306.00297). With start weights w_0 the last entry of the query begins
as -w_0^T x_q in place of 0. Given the demonstrations, yhat is linear in x_q where the query's token stays
(x_q, -w_0^T x_q); then `sensitivity` is the whole of what was learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mechicl.organisms.hooked_regressor import HookedRegressor


@dataclass(frozen=True)
class LinearConfig:
    """Sizes; `d_model` is dim + 1, and so are the heads unless `d_head` says otherwise."""

    dim: int
    n_layers: int = 1
    n_heads: int = 1
    d_head: int | None = None
    kind: str = "linear"

    def __post_init__(self) -> None:
        """Check the sizes."""
        for name in ("dim", "n_layers", "n_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}; expected 1 or more")
        if self.d_head is None:
            object.__setattr__(self, "d_head", self.dim + 1)

    @property
    def d_model(self) -> int:
        """One entry for each of x, and one for y."""
        return self.dim + 1


class LinearAttention(nn.Module):
    """Attention without softmax; weights are shaped and named as TransformerLens does, [head, d_model, d_head]."""

    def __init__(self, cfg: LinearConfig, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (cfg.n_heads, cfg.d_model, cfg.d_head or cfg.d_model)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.zeros(shape, dtype=dtype)) for _ in range(3))
        self.W_O = nn.Parameter(torch.zeros(shape[0], shape[2], shape[1], dtype=dtype))
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (
            HookPoint() for _ in range(4)
        )  # [batch, pos, head, d_head]
        self.hook_attn_scores = HookPoint()  # [batch, head, pos, pos], <q, k> of all tokens
        self.hook_pattern = HookPoint()  # the same, over n and 0 where the query would be attended to

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the layer adds to each token."""
        project = "batch pos d_model, head d_model d_head -> batch pos head d_head"
        q = self.hook_q(einsum(residual, self.W_Q, project))
        k = self.hook_k(einsum(residual, self.W_K, project))
        v = self.hook_v(einsum(residual, self.W_V, project))
        scores = self.hook_attn_scores(einsum(q, k, "batch q head d_head, batch k head d_head -> batch head q k"))
        n_demos = residual.shape[1] - 1
        seen = torch.full((n_demos + 1,), 1 / n_demos, dtype=residual.dtype, device=residual.device)
        seen[-1] = 0
        pattern = self.hook_pattern(scores * seen)
        z = self.hook_z(einsum(pattern, v, "batch head q k, batch k head d_head -> batch q head d_head"))
        return einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos d_model")


class LinearBlock(nn.Module):
    """One layer: attention, added to the residual stream."""

    def __init__(self, cfg: LinearConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.attn = LinearAttention(cfg, dtype)
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the layer."""
        residual = self.hook_resid_pre(residual)
        return self.hook_resid_post(residual + self.hook_attn_out(self.attn(residual)))


class LinearTransformer(HookedRegressor):
    """Layers of linear self-attention; all weights are 0 until set, trained, or made by hand.

    `start` is w_0. Hand-made ones: `mechicl.organisms.gradient_constructions`; trained ones: `load_regressor`.
    """

    start: Tensor

    def __init__(self, cfg: LinearConfig, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.cfg = cfg
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.blocks = nn.ModuleList([LinearBlock(cfg, dtype) for _ in range(cfg.n_layers)])
        self.register_buffer("start", torch.zeros(cfg.dim, dtype=dtype))
        self.setup()

    def embed(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Tokens (x_i, y_i), and (x_q, -w_0^T x_q) last."""
        inputs = torch.cat([x, query[:, None]], dim=1)
        labels = torch.cat([y, -(query @ self.start)[:, None]], dim=1)
        return self.hook_embed(torch.cat([inputs, labels[..., None]], dim=-1))

    def read(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """Minus the last entry of every token."""
        return -residual[..., -1]

    @torch.no_grad()
    def randomise(self, *, seed: int, spread: float) -> None:
        """Every weight from N(0, spread^2); torch's own random state stays as it is."""
        generator = torch.Generator().manual_seed(seed)
        for weight in self.parameters():
            weight.copy_(spread * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
