"""Linear attention as a weight update: dW = sum_i (W_V x_i)(W_K x_i)^T, from its factors.

Without a softmax, what a head takes from its demonstrations is dW q: their values and keys make a matrix of rank at
most their number, by which the query is multiplied. The identity is exact there, for any weights, learned or not. For
softmax attention the same dW is the "relaxed linear" form of arXiv:2212.10559, section 3: a description, whose size
and rank can be compared, and not what the head computes (that is `attention_dual`).

Caveats:
- For softmax attention this is no part of the computation: compare sizes and ranks between contexts, not with answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.hooks.context_masks import Demos, demo_masks, query_positions
from mechicl.hooks.text_ends import heads_after
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.prompts import Prompt


@dataclass(frozen=True)
class LinearUpdate:
    """dW = values^T keys of one context or many, never made unless asked for (`matrix`).

    values: W_V x_i, keys: W_K x_i (one a demonstration or a token, times a step size if there is one).
    """

    values: Float[np.ndarray, "*batch demo d_out"]
    keys: Float[np.ndarray, "*batch demo d_in"]

    def __post_init__(self) -> None:
        """Refuse an empty context."""
        if self.values.shape[-2] == 0:
            raise ValueError("the context is empty: dW has no terms; give at least one demonstration")

    def apply(self, query: Float[np.ndarray, "*batch d_in"]) -> Float[np.ndarray, "*batch d_out"]:
        """dW q: what linear attention writes for a query."""
        return ((self.keys @ query[..., None]) * self.values).sum(-2)

    def matrix(self) -> Float[np.ndarray, "*batch d_out d_in"]:
        """DW itself."""
        return np.swapaxes(self.values, -1, -2) @ self.keys

    def norm(self) -> Float[np.ndarray, "*batch"]:
        """Frobenius norm: ||dW||^2 = sum_ij <v_i, v_j> <k_i, k_j>."""
        gram = [x @ np.swapaxes(x, -1, -2) for x in (self.values, self.keys)]
        return np.sqrt(np.maximum((gram[0] * gram[1]).sum((-1, -2)), 0))

    def singular_values(self) -> Float[np.ndarray, "*batch rank"]:
        """Largest first, at most as many as demonstrations and dimensions: those of R_v R_k^T, from QR of the factors.

        The other singular values of dW are 0.
        """
        left, right = (np.linalg.qr(np.swapaxes(x, -1, -2), mode="r") for x in (self.values, self.keys))
        return np.linalg.svd(left @ np.swapaxes(right, -1, -2), compute_uv=False)

    def singular_vectors(self) -> tuple[Float[np.ndarray, "*batch d_out rank"], Float[np.ndarray, "*batch d_in rank"]]:
        """Directions that dW writes (left) and reads (right), a column for each of `singular_values`, in their order.

        dW = left diag(singular values) right^T. A pair's common sign is arbitrary, and so are vectors of value 0.
        """
        (q_v, r_v), (q_k, r_k) = (np.linalg.qr(np.swapaxes(x, -1, -2)) for x in (self.values, self.keys))
        left, _, right = np.linalg.svd(r_v @ np.swapaxes(r_k, -1, -2), full_matrices=False)
        return q_v @ left, q_k @ np.swapaxes(right, -1, -2)

    def rank(self, tolerance: float = 1e-10) -> Int[np.ndarray, "*batch"]:
        """How many singular values are above `tolerance` times the largest."""
        found = self.singular_values()
        return np.asarray((found > tolerance * found[..., :1]).sum(-1))


def effective_rank(singular_values: Float[np.ndarray, "*batch rank"]) -> Float[np.ndarray, "*batch"]:
    """(sum s^2)^2 / sum s^4: from 1 (one direction) to the number of singular values (all alike); NaN for zero."""
    squares = singular_values**2
    top = squares.sum(-1) ** 2
    below = (squares**2).sum(-1)
    return np.divide(top, below, out=np.full_like(top, np.nan), where=below > 0)


def relaxed_updates(
    model: Any, prompts: Sequence[Prompt], *, demos: Demos, query: str = "last", top: int = 4
) -> pd.DataFrame:
    """The relaxed linear dW of every layer and key-value head, over the context's tokens, averaged over the prompts.

    One row a layer and kv_head: norm, effective_rank, rank (mean number of singular values above 1e-6 of the largest),
    n_tokens, and s1 to s<top>, the largest singular values as shares of the norm. Where positions are rotated into
    keys, these are the keys before rotation. Errors as of `attention_parts`.
    """
    wrapped = wrap(model)
    masks = demo_masks(prompts, query_positions(wrapped, prompts, query), demos, "demos")
    sums: np.ndarray | None = None
    tokens = 0
    for prompt, mask in zip(prompts, masks, strict=True):
        texts = [prompt.tokens[: j + 1] for j in np.flatnonzero(mask.any(0))]
        with wrapped.evaluating():
            found = heads_after(wrapped, texts, ["k", "v"])
        v, k = (found[name].double().permute(1, 2, 0, 3).cpu().numpy() for name in "vk")
        update = LinearUpdate(v, k)
        s, norm = update.singular_values(), update.norm()
        spectrum = np.zeros((*norm.shape, top))
        spectrum[..., : s.shape[-1]] = (s / np.maximum(norm, np.finfo(float).tiny)[..., None])[..., :top]
        own = np.stack([norm, effective_rank(s), update.rank(1e-6), *np.moveaxis(spectrum, -1, 0)])
        sums = own if sums is None else sums + own
        tokens += len(texts)
    if sums is None:
        raise ValueError("got no prompts; give at least one")
    names = ["norm", "effective_rank", "rank", *(f"s{i + 1}" for i in range(top))]
    layers, heads = sums.shape[1:]
    frame = pd.DataFrame({name: (own / len(prompts)).ravel() for name, own in zip(names, sums, strict=True)})
    where = {"layer": np.repeat(np.arange(layers), heads), "kv_head": np.tile(np.arange(heads), layers)}
    return pd.DataFrame(where).join(frame).assign(n_tokens=tokens / len(prompts))
