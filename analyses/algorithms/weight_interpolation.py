"""Are trained and hand-made weights of linear attention the same, up to what cannot be told? The way between them.

Only W_Q W_K^T and W_V W_O are identified, and of their sizes only the product: each layer of the trained model is
rescaled so that its W_Q W_K^T fits the hand-made one's by least squares, the factor going into W_V W_O. Then both
products are mixed, (1 - share) of the trained and share of the hand-made. If the two models lie in one valley, the loss
stays low all the way; a rise between them means that they compute in different ways.

    loss(share) = mean (y - yhat)^2 / 2        barrier = max over shares of loss(share) - max(loss(0), loss(1))

Controls: `unscaled`, the same without rescaling, and `random`, the way to random products of the hand-made ones' norms.
Source: arXiv:2212.07677 (loss at the mean of both).

Caveats:
- A barrier can also be there between two models that compute the same by weights that no rescaling joins; that there is
  none is the stronger finding.
- It needs a hand-made model of the same shape, so it is for linear attention of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from mechicl.analyses.algorithms.regressor_calls import facts_of
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.organisms.gradient_constructions import attentions
from mechicl.organisms.linear_transformer import LinearConfig, LinearTransformer
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.regression import Regressions

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
Products = list[tuple[Float[np.ndarray, "d_model d_model"], Float[np.ndarray, "d_model d_model"]]]


@dataclass(frozen=True)
class WeightInterpolation(Result):
    """The loss between two models.

    frame: one row a share of the hand-made weights: half_mse, low, high; unscaled, random: the controls' half_mse.
    barrier: the largest half_mse on the way minus the larger one of the ends, with its interval's ends; 0: no rise on
        the way.
    """

    frame: pd.DataFrame
    barrier: float
    barrier_low: float
    barrier_high: float
    level: float
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The way."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """The loss over the way, beside its controls; returns matplotlib Axes."""
        from mechicl.views.algorithms import plot_interpolation

        return plot_interpolation(self.frame, ax=ax)


def interpolate_weights(
    trained: Any,
    made: Any,
    contexts: Regressions,
    *,
    shares: Sequence[float] = SHARES,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> WeightInterpolation:
    """The loss of models between a trained and a hand-made one; see the head of this file.

    Raises ValueError unless both are linear transformers of one head, as many layers, the same dimension and start.
    """
    check_level(level)
    _check_pair(trained, made)
    if len(shares) < 2 or not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"got shares={list(shares)}; expected two or more, from 0 to 1")
    goal, own = _products(made), _products(trained)
    fitted = [_rescaled(mine, theirs) for mine, theirs in zip(own, goal, strict=True)]
    rng = np.random.default_rng(seed)
    noise = [tuple(_like(part, rng) for part in pair) for pair in goal]
    losses = {
        name: [_loss(_mixed(start, end, share), made, contexts) for share in shares]
        for name, start, end in (("half_mse", fitted, goal), ("unscaled", own, goal), ("random", fitted, noise))
    }
    above = np.stack(losses["half_mse"], axis=1)
    ends = max((0, len(shares) - 1), key=lambda at: float(above[:, at].mean()))
    top = int(np.argmax(above.mean(0)))
    together = np.column_stack([above, above[:, top] - above[:, ends]])
    found = ratio_intervals(
        together, np.ones_like(together), np.arange(len(above)), n_boot=n_boot, level=level, seed=seed
    )
    frame = {"share": [float(share) for share in shares]}
    frame |= {name: list(part[:-1]) for name, part in zip(("half_mse", "low", "high"), found, strict=True)}
    frame |= {name: [float(loss.mean()) for loss in losses[name]] for name in ("unscaled", "random")}
    barrier, low, high = (float(part[-1]) for part in found)
    return WeightInterpolation(
        frame=pd.DataFrame(frame),
        barrier=barrier,
        barrier_low=low,
        barrier_high=high,
        level=level,
        provenance=Provenance.of(
            facts_of(trained), seeds={"control and bootstrap": seed}, options={"n_contexts": len(contexts)}
        ),
    )


def _check_pair(trained: Any, made: Any) -> None:
    for model in (trained, made):
        if not isinstance(model, LinearTransformer) or model.cfg.n_heads != 1:
            raise ValueError(f"got a {type(model).__name__}; expected linear transformers with one head a layer")
    sizes = [(model.cfg.dim, model.cfg.n_layers) for model in (trained, made)]
    if sizes[0] != sizes[1] or not torch.equal(trained.start.double(), made.start.double()):
        raise ValueError(
            f"got models of (dimension, layers) {sizes[0]} and {sizes[1]}; expected the same, and the same start"
        )


def _products(model: LinearTransformer) -> Products:
    """W_Q W_K^T and W_V W_O of every layer."""
    found = []
    for attention in attentions(model):
        q, k, v, o = (
            weight[0].detach().double().cpu().numpy()
            for weight in (attention.W_Q, attention.W_K, attention.W_V, attention.W_O)
        )
        found.append((q @ k.T, v @ o))
    return found


def _rescaled(own: tuple[np.ndarray, np.ndarray], goal: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    factor = float((own[0] * goal[0]).sum() / (goal[0] ** 2).sum())
    if abs(factor) < 1e-6 * np.linalg.norm(own[0]) / np.linalg.norm(goal[0]):
        factor = float(np.linalg.norm(own[0]) / np.linalg.norm(goal[0])) or 1.0  # nothing in common: sizes alone
    return own[0] / factor, own[1] * factor


def _mixed(start: Any, end: Any, share: float) -> Products:
    return [
        ((1 - share) * a[0] + share * b[0], (1 - share) * a[1] + share * b[1]) for a, b in zip(start, end, strict=True)
    ]


def _like(matrix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    drawn = rng.standard_normal(matrix.shape)
    return np.asarray(drawn * np.linalg.norm(matrix) / np.linalg.norm(drawn))


def _loss(products: Products, like: LinearTransformer, contexts: Regressions) -> Float[np.ndarray, " batch"]:
    """(y - yhat)^2 / 2 of the model with these products, context by context."""
    model = LinearTransformer(LinearConfig(like.cfg.dim, n_layers=len(products)), dtype=torch.float64)
    with torch.no_grad():
        model.start.copy_(like.start)
        for attention, (scores, values) in zip(attentions(model), products, strict=True):
            attention.W_Q[0], attention.W_V[0] = torch.as_tensor(scores), torch.as_tensor(values)
            attention.W_K[0] = attention.W_O[0] = torch.eye(like.cfg.dim + 1)
    return np.asarray((model.predict(contexts.x, contexts.y, contexts.query) - contexts.target) ** 2 / 2)
