"""Ridge regressions of many heads from sums of products alone, fitted on some blocks of rows and judged on others.

Rows are never kept: each block of rows (a fold) leaves n, sum x, sum y, X'X, X'Y and the sums of y^2. With the sums of
the training blocks, centred on their means,

    W = (X'X + penalty I)^-1 X'Y,   b = mean y - (mean x)' W       (the intercept is not penalised, as in scikit-learn)

and the squared error on a held-out block is exactly, from its own sums,

    sum (y - W'x - b)^2 = sum y^2 - 2 W'X'Y - 2 b sum y + W'X'X W + 2 b W' sum x + n b^2

so neither fitting nor judging sees a row again, and memory does not grow with rows. All in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Ridges:
    """Ridge weights and intercepts of each block, fitted on the blocks that train it; mean: of the training targets."""

    weights: Float[np.ndarray, "group block head dim target"]
    intercept: Float[np.ndarray, "group block head target"]
    mean: Float[np.ndarray, "group block target"]


class BlockGrams:
    """Sums of products by group (what is fitted apart, such as an offset), block of rows and head."""

    def __init__(self, n_groups: int, n_blocks: int, n_heads: int, dim: int, n_targets: int) -> None:
        """No rows yet."""
        by_head = (n_groups, n_blocks, n_heads)
        self.n = np.zeros((n_groups, n_blocks))
        self.y, self.yy = np.zeros((2, n_groups, n_blocks, n_targets))
        self.x, self.xx = np.zeros((*by_head, dim)), np.zeros((*by_head, dim, dim))
        self.xy = np.zeros((*by_head, dim, n_targets))

    def add(
        self, group: int, block: int, x: Float[np.ndarray, "row head dim"], y: Float[np.ndarray, "row target"]
    ) -> None:
        """Take in rows."""
        turned = np.ascontiguousarray(x.transpose(1, 2, 0))
        self.n[group, block] += len(x)
        self.y[group, block] += y.sum(0)
        self.yy[group, block] += (y**2).sum(0)
        self.x[group, block] += x.sum(0)
        self.xx[group, block] += turned @ turned.swapaxes(1, 2)
        self.xy[group, block] += turned @ y

    def fit(self, train: Bool[np.ndarray, "block block"], penalty: float) -> Ridges:
        """For each block b the ridge on the blocks c with train[b, c]; NaN where fewer than 2 rows train."""
        n, y, x, xx, xy = (_over_blocks(train, own) for own in (self.n, self.y, self.x, self.xx, self.xy))
        known = n >= 2
        count = np.where(known, n, np.nan)
        mean_y = y / count[..., None]
        mean_x = x / count[..., None, None]
        spread = xx - mean_x[..., None] * x[..., None, :]
        along = xy - mean_x[..., None] * y[:, :, None, None, :]
        spread = np.where(known[..., None, None, None], spread + penalty * np.eye(x.shape[-1]), np.eye(x.shape[-1]))
        weights = np.linalg.solve(spread, along)
        intercept = mean_y[:, :, None] - np.einsum("...d,...dt->...t", mean_x, weights)
        return Ridges(weights, intercept, mean_y)

    def held_out(
        self, fitted: Ridges
    ) -> tuple[Float[np.ndarray, "group block head target"], Float[np.ndarray, "group block target"]]:
        """Squared errors of each block under its own ridge, and around the mean of its training targets."""
        w, b = fitted.weights, fitted.intercept
        cross = np.einsum("...dt,...dt->...t", w, self.xy)
        square = np.einsum("...dt,...dt->...t", w, self.xx @ w)
        shift = np.einsum("...dt,...d->...t", w, self.x)
        n, y, yy = self.n[..., None, None], self.y[:, :, None], self.yy[:, :, None]
        errors = yy - 2 * cross - 2 * b * y + square + 2 * b * shift + n * b**2
        mean = fitted.mean
        return errors, self.yy - 2 * mean * self.y + self.n[..., None] * mean**2


def bytes_of_grams(n_groups: int, n_blocks: int, n_heads: int, dim: int, n_targets: int) -> int:
    """Memory of the sums and of the ridges fitted to them."""
    return 8 * n_groups * n_blocks * n_heads * dim * (dim + 2 * n_targets)


def _over_blocks(train: Bool[np.ndarray, "block block"], sums: Float[np.ndarray, "group block *rest"]) -> np.ndarray:
    return np.moveaxis(np.tensordot(train.astype(float), sums, axes=(1, 1)), 0, 1)
