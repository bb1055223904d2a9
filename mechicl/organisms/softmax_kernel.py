"""One layer of softmax attention that is kernel regression, exactly: its weights are written down, nothing is trained.

Every token is (x_i, |x_i|^2, 1, y_i, 0), the query's (x_q, |x_q|^2, 1, 0, 0), last and never attended to. One head has

    query (a x_q, -b),    key (x_i, |x_i|^2),    score a x_q . x_i - b |x_i|^2,    value y_i, written to the last entry

    Gaussian       a = 1/h^2, b = 1/(2 h^2)     the score is -|x_q - x_i|^2 / (2 h^2) up to a constant of the query
    dot product    a = 1/temperature, b = 0     the score is x_q . x_i / temperature

so the last entry of the query is `nadaraya_watson` of the same kernel: the average of the demonstrations' labels,
weighted by likeness to the query. This is an identity, up to rounding (1e-10 in float64), for any context. |x|^2 stands
in the tokens, as an MLP below might have put it there: attention alone takes no squares. Source: 2305.12766.
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
class KernelConfig:
    """Sizes: entries for x, |x|^2, 1, the label and the prediction; keys hold x and |x|^2."""

    dim: int
    n_layers: int = 1
    n_heads: int = 1
    kind: str = "kernel"

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.dim < 1:
            raise ValueError(f"got dim={self.dim}; expected 1 or more")

    @property
    def d_model(self) -> int:
        """The width of a token."""
        return self.dim + 4

    @property
    def d_head(self) -> int:
        """The width of the head."""
        return self.dim + 1


class KernelAttention(nn.Module):
    """Softmax attention to the demonstrations, without biases and without a scale of the scores."""

    def __init__(self, cfg: KernelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        shape = (cfg.n_heads, cfg.d_model, cfg.d_head)
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.zeros(shape, dtype=dtype)) for _ in range(3))
        self.W_O = nn.Parameter(torch.zeros(shape[0], shape[2], shape[1], dtype=dtype))
        self.hook_q, self.hook_k, self.hook_v, self.hook_z = (
            HookPoint() for _ in range(4)
        )  # [batch, pos, head, d_head]
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()  # [batch, head, pos, pos]

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the layer adds to each token."""
        project = "batch pos d_model, head d_model d_head -> batch pos head d_head"
        q = self.hook_q(einsum(residual, self.W_Q, project))
        k = self.hook_k(einsum(residual, self.W_K, project))
        v = self.hook_v(einsum(residual, self.W_V, project))
        scores = einsum(q, k, "batch q head d_head, batch k head d_head -> batch head q k")
        query = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
        query[-1] = True
        scores = self.hook_attn_scores(scores.masked_fill(query, -torch.inf))
        pattern = self.hook_pattern(scores.softmax(-1))
        z = self.hook_z(einsum(pattern, v, "batch head q k, batch k head d_head -> batch q head d_head"))
        return einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos d_model")


class KernelBlock(nn.Module):
    """The layer: attention, added to the residual stream."""

    def __init__(self, cfg: KernelConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.attn = KernelAttention(cfg, dtype)
        self.hook_resid_pre, self.hook_attn_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after the layer."""
        residual = self.hook_resid_pre(residual)
        return self.hook_resid_post(residual + self.hook_attn_out(self.attn(residual)))


class KernelRegressor(HookedRegressor):
    """The model; all weights are 0, and every prediction too, until `kernel_regressor` sets them."""

    def __init__(self, cfg: KernelConfig, *, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.cfg = cfg
        self.hook_embed = HookPoint()  # [batch, pos, d_model]
        self.blocks = nn.ModuleList([KernelBlock(cfg, dtype)])
        self.setup()

    def embed(
        self, x: Float[Tensor, "batch demo dim"], y: Float[Tensor, "batch demo"], query: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Tokens (x_i, |x_i|^2, 1, y_i, 0), and (x_q, |x_q|^2, 1, 0, 0) last."""
        inputs = torch.cat([x, query[:, None]], dim=1)
        labels = torch.cat([y, y.new_zeros(len(y), 1)], dim=1)[..., None]
        squares = inputs.square().sum(-1, keepdim=True)
        return self.hook_embed(
            torch.cat([inputs, squares, torch.ones_like(squares), labels, torch.zeros_like(labels)], dim=-1)
        )

    def read(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos"]:
        """The last entry of every token."""
        return residual[..., -1]


def kernel_regressor(
    dim: int,
    *,
    bandwidth: float | None = None,
    temperature: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> KernelRegressor:
    """The model with the weights of a Gaussian kernel (`bandwidth`, in the unit of x) or a dot product (`temperature`).

    `predict` equals `nadaraya_watson` of `rbf_log_kernel`, or `dot_log_kernel`, with the same number.

    Raises ValueError unless one of the two is given, a finite number above 0.

        model = kernel_regressor(5, bandwidth=0.8)
        model.predict(contexts.x, contexts.y, contexts.query)
    """
    if (bandwidth is None) == (temperature is None):
        raise ValueError(f"got bandwidth={bandwidth} and temperature={temperature}; give one of the two")
    number = float(temperature if bandwidth is None else bandwidth)  # type: ignore[arg-type]
    if not 0 < number < float("inf"):
        raise ValueError(f"got bandwidth={bandwidth}, temperature={temperature}; expected a finite number above 0")
    scale = number if bandwidth is None else number**2
    model = KernelRegressor(KernelConfig(dim), dtype=dtype)
    attention: KernelAttention = model.blocks[0].attn  # type: ignore[assignment]
    square, one, label, out = range(dim, dim + 4)
    with torch.no_grad():
        attention.W_Q[0, :dim, :dim] = torch.eye(dim, dtype=dtype) / scale
        attention.W_Q[0, one, dim] = 0.0 if bandwidth is None else -0.5 / scale
        attention.W_K[0, :dim, :dim] = torch.eye(dim, dtype=dtype)
        attention.W_K[0, square, dim] = 1.0
        attention.W_V[0, label, 0] = 1.0
        attention.W_O[0, 0, out] = 1.0
    return model.eval()
