"""Weights of linear attention that carry out gradient descent on their context, exactly.

Every token is (x_j, y_j). With keys x_i, values -(rate) y_i in the last entry and scores x_i^T A x_j, one layer turns
y_j into y_j - x_j^T A (1 / n) sum_i x_i y_i. That is what a step w <- w + A (1 / n) X^T (y - X w) leaves of a label,
and the same happens to the query, whose entry begins at 0: after L layers it holds minus the prediction of L steps.
This is an identity: it holds up to rounding (1e-12 in float64) for any context, and nothing is trained.

Only the products W_Q W_K^T and W_V W_O matter: rescale before comparing weights. Sources: 2212.07677 (gradient descent,
GD++), 2306.00297 (preconditioned).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from mechicl.organisms.linear_transformer import LinearAttention, LinearConfig, LinearTransformer
from mechicl.predictors.examples import check_count, each_step


def descending_transformer(
    dim: int,
    *,
    rate: float,
    steps: int = 1,
    start: Float[np.ndarray, "dim"] | None = None,
    dtype: torch.dtype = torch.float64,
) -> LinearTransformer:
    """One layer a step of gradient descent; `predict` equals `gradient_descent(x, y, query, rate=rate, steps=steps)`.

    `start`: weights w_0 to descend from in place of 0. Then values are W_0 x_i - y_i, and `predict` equals
    w_0^T x_q + gradient_descent(x, y - x w_0, query, ...).
    """
    check_count("steps", steps, least=1)
    model = preconditioned_transformer([rate * np.eye(dim)] * steps, dtype=dtype)
    if start is not None:
        if np.shape(start) != (dim,):
            raise ValueError(f"got start of shape {np.shape(start)}; expected {(dim,)}")
        with torch.no_grad():
            model.start.copy_(torch.as_tensor(start))
            for attention in attentions(model):
                attention.W_V[0, :-1, -1] = model.start
    return model


def preconditioned_transformer(
    matrices: Sequence[Float[np.ndarray, "dim dim"]] | Float[np.ndarray, "_ dim dim"],
    *,
    dtype: torch.dtype = torch.float64,
) -> LinearTransformer:
    """One layer a matrix A; `predict` equals `preconditioned_gradient(x, y, query, matrices=matrices)`."""
    check_count("the number of matrices", len(matrices), least=1)
    dim = len(matrices[0])
    for matrix in matrices:
        if np.shape(matrix) != (dim, dim):
            raise ValueError(
                f"got a preconditioner of shape {np.shape(matrix)}; expected {(dim, dim)} as the first has"
            )
    return _with_layers([(np.asarray(matrix), np.append(np.zeros(dim), -1.0)) for matrix in matrices], dtype)


def plus_transformer(
    dim: int,
    n_demos: int,
    *,
    rate: float | Sequence[float],
    gamma: float | Sequence[float],
    steps: int,
    dtype: torch.dtype = torch.float64,
) -> LinearTransformer:
    """GD++: values also hold -gamma n x_i, so that every x_j becomes (I - gamma X^T X) x_j on the way.

    `predict` equals `gradient_descent_plus` of the same parameters for contexts of `n_demos` demonstrations; with n
    demonstrations the layers, which divide by n, act with gamma n_demos / n.
    """
    check_count("steps", steps, least=1)
    check_count("n_demos", n_demos, least=1)
    rates, gammas = each_step("rate", rate, steps), each_step("gamma", gamma, steps)
    # Scores carry no rate here: values of x and of y are scaled apart.
    values = [np.append(np.full(dim, -gamma_now * n_demos), -eta) for eta, gamma_now in zip(rates, gammas, strict=True)]
    return _with_layers([(np.eye(dim), scale) for scale in values], dtype)


def attentions(model: LinearTransformer) -> list[LinearAttention]:
    """The attention of every layer, whose weights are the whole model."""
    return [module for module in model.modules() if isinstance(module, LinearAttention)]


def _with_layers(
    layers: Sequence[tuple[Float[np.ndarray, "dim dim"], Float[np.ndarray, "d_model"]]], dtype: torch.dtype
) -> LinearTransformer:
    """One layer for each A and the diagonal of W_V: queries are A^T x, keys x, and what is read is written as it is."""
    dim = len(layers[0][0])
    model = LinearTransformer(LinearConfig(dim, n_layers=len(layers)), dtype=dtype)
    with torch.no_grad():
        for attention, (matrix, values) in zip(attentions(model), layers, strict=True):
            attention.W_Q[0, :dim, :dim] = torch.as_tensor(matrix)
            attention.W_K[0, :dim, :dim] = torch.eye(dim)
            attention.W_V[0] = torch.diag(torch.as_tensor(values))
            attention.W_O[0] = torch.eye(dim + 1)
    return model
