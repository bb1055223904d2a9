"""How alike queries and demonstrations are in residual streams: logarithms of kernels, without their scale."""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

KINDS = ("rbf", "cosine", "dot")
_TINY = torch.finfo(torch.float64).tiny


def state_kernels(
    demos: Float[Tensor, "*batch demo d_model"], query: Float[Tensor, "*batch d_model"]
) -> Float[Tensor, "*batch kind demo"]:
    """rbf: -|x - x_i|^2 / 2; cosine: their cosine; dot: x . x_i / sqrt(d_model).

    In float64, and by differences: |x|^2 - 2 x . y + |y|^2 loses all digits where a few dimensions are huge.
    """
    demos, query = demos.double(), query.double()
    squared = ((demos - query[..., None, :]) ** 2).sum(-1)
    dot = einsum(demos, query, "... demo d_model, ... d_model -> ... demo")
    sizes = demos.norm(dim=-1) * query.norm(dim=-1)[..., None]
    cosine = dot / sizes.clamp(min=_TINY)
    return torch.stack([-squared / 2, cosine, dot / demos.shape[-1] ** 0.5], dim=-2)


def state_salience(
    demos: Float[Tensor, "batch demo d_model"],
    queries: Float[Tensor, "reference d_model"],
    other: Bool[Tensor, "batch demo reference"],
) -> Float[Tensor, "batch kind demo"]:
    """The kernels' mean over queries of other prompts: how like any query a demonstration is.

    other: which of the queries are neither the prompt's own nor the demonstration itself; at least one. In closed form,
    whatever their number: the mean of x . q is x . mean(q), that of |x - q|^2 is |x - mean(q)|^2 plus the queries'
    variance.
    """
    demos, queries = demos.double(), queries.double()
    share = other.double() / other.sum(-1, keepdim=True)
    mean = share @ queries
    variance = share @ (queries**2).sum(-1) - (mean**2).sum(-1)
    squared = ((demos - mean) ** 2).sum(-1) + variance
    unit_demos, unit_queries = (x / x.norm(dim=-1, keepdim=True).clamp(min=_TINY) for x in (demos, queries))
    cosine = (unit_demos * (share @ unit_queries)).sum(-1)
    return torch.stack([-squared / 2, cosine, (demos * mean).sum(-1) / demos.shape[-1] ** 0.5], dim=-2)
