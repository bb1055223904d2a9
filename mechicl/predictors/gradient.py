"""Gradient descent on the demonstrations of a context, and what it then predicts for the query.

A context is n demonstrations (x_i, y_i) and a query x_q; the model that learns is linear, starts at w = 0 and descends

    R(w) = (1 / 2n) sum_i (w^T x_i - y_i)^2

A prediction is w^T x_q, in units of y. Arrays are numpy; leading axes are contexts, all computed at once in float64.
Each predictor has a twin `..._weights` that takes (x, y) and returns w. Solvers that do not descend (`newton`, `ridge`,
`least_squares`) and `nearest_neighbours` are reachable from here too, so that one import has all algorithms to compare.

Errors (ValueError) of all: no demonstrations, shapes that do not go together, numbers that are not finite, parameters
without a meaning, and steps that diverge until numbers overflow. A rate at which descent grows but stays finite is a
legitimate thing to compare with, and is computed; `diverges` tells.

Sources: 2212.07677 (gradient descent and GD++ by linear attention), 2306.00297 (preconditioned steps).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from mechicl.predictors.best_steps import best_preconditioner, best_rate
from mechicl.predictors.closed_forms import (
    least_squares,
    least_squares_weights,
    newton,
    newton_weights,
    ridge,
    ridge_weights,
)
from mechicl.predictors.examples import (
    Rates,
    at_query,
    check_count,
    checked_examples,
    checked_pairs,
    each_step,
    finite_weights,
)
from mechicl.predictors.neighbours import nearest_neighbours

__all__ = [
    "best_preconditioner",
    "best_rate",
    "diverges",
    "gradient_descent",
    "gradient_descent_plus",
    "gradient_descent_plus_weights",
    "gradient_descent_weights",
    "least_squares",
    "least_squares_weights",
    "nearest_neighbours",
    "newton",
    "newton_weights",
    "preconditioned_gradient",
    "preconditioned_gradient_weights",
    "ridge",
    "ridge_weights",
]


def gradient_descent(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    rate: Rates,
    steps: int = 1,
) -> Float[np.ndarray, "*batch"]:
    """Prediction after some steps of gradient descent: w <- w + (rate / n) X^T (y - X w), from w = 0.

    With 0 steps the prediction is 0. The larger `steps`, the nearer to `least_squares`, if the rate does not diverge.

        rate, loss = best_rate(10, 10, variance=1 / 12, fourth_moment=1 / 80)
        gradient_descent(x, y, query, rate=rate)
    """
    x, y, query = checked_examples(x, y, query)
    return at_query(query, gradient_descent_weights(x, y, rate=rate, steps=steps))


def gradient_descent_weights(
    x: Float[np.ndarray, "*batch demo dim"], y: Float[np.ndarray, "*batch demo"], *, rate: Rates, steps: int = 1
) -> Float[np.ndarray, "*batch dim"]:
    """The weights w after some steps of gradient descent (`gradient_descent`)."""
    return gradient_descent_plus_weights(x, y, rate=rate, gamma=0.0, steps=steps)


def preconditioned_gradient(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    matrices: Sequence[Float[np.ndarray, "dim dim"]] | Float[np.ndarray, "_ dim dim"],
) -> Float[np.ndarray, "*batch"]:
    """Prediction after one step for each of the matrices A: w <- w + A (1 / n) X^T (y - X w), from w = 0.

    A = rate I is `gradient_descent`. Source: 2306.00297, where L layers of linear attention learn L such matrices.
    """
    x, y, query = checked_examples(x, y, query)
    return at_query(query, preconditioned_gradient_weights(x, y, matrices=matrices))


def preconditioned_gradient_weights(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    *,
    matrices: Sequence[Float[np.ndarray, "dim dim"]] | Float[np.ndarray, "_ dim dim"],
) -> Float[np.ndarray, "*batch dim"]:
    """The weights w after the steps of `preconditioned_gradient`."""
    x, y = checked_pairs(x, y)
    weights = np.zeros((*x.shape[:-2], x.shape[-1]))
    dim = x.shape[-1]
    for step, matrix in enumerate(matrices):
        if np.shape(matrix) != (dim, dim) or not np.isfinite(matrix).all():
            raise ValueError(
                f"got a preconditioner of shape {np.shape(matrix)} for step {step}; expected {(dim, dim)}, all finite"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            residual = y - (x @ weights[..., None])[..., 0]
            gradient = (residual[..., None, :] @ x)[..., 0, :] / x.shape[-2]
            weights = weights + gradient @ np.asarray(matrix, dtype=np.float64).T
    return finite_weights(weights, f"preconditioned descent over {len(matrices)} steps")


def gradient_descent_plus(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    rate: Rates,
    gamma: Rates,
    steps: int,
) -> Float[np.ndarray, "*batch"]:
    """Prediction of GD++: gradient descent whose inputs are made better conditioned on the way.

    After each step every x, the query's among them, becomes (I - gamma X^T X) x with the X of that step; what is left
    of y stays. gamma = 0 is `gradient_descent`; gamma has the unit of 1 / (n variance). Rate and gamma may be one
    number, or one a step. Source: 2212.07677, section 4, where trained linear attention of 2 and more layers does this.
    """
    x, y, query = checked_examples(x, y, query)
    return at_query(query, gradient_descent_plus_weights(x, y, rate=rate, gamma=gamma, steps=steps))


def gradient_descent_plus_weights(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    *,
    rate: Rates,
    gamma: Rates,
    steps: int,
) -> Float[np.ndarray, "*batch dim"]:
    """The weights w with which GD++ predicts, for inputs as they came: each step's w, carried back to these."""
    x, y = checked_pairs(x, y)
    weights = np.zeros((*x.shape[:-2], x.shape[-1]))
    check_count("steps", steps)
    rates, gammas = each_step("rate", rate, steps), each_step("gamma", gamma, steps)
    # x of now = carried @ x of the beginning; a polynomial in X^T X, so symmetric.
    carried = np.broadcast_to(np.eye(x.shape[-1]), (*x.shape[:-2], x.shape[-1], x.shape[-1]))
    with np.errstate(over="ignore", invalid="ignore"):
        for eta, gamma_now in zip(rates, gammas, strict=True):
            change = eta / x.shape[-2] * (y[..., None, :] @ x)[..., 0, :]
            weights = weights + (change[..., None, :] @ carried)[..., 0, :]
            y = y - (x @ change[..., None])[..., 0]
            if gamma_now:
                sharpened = np.eye(x.shape[-1]) - gamma_now * (np.swapaxes(x, -1, -2) @ x)
                x, carried = x @ sharpened, sharpened @ carried
    return finite_weights(weights, f"gradient descent over {steps} steps at rate {rate}")


def diverges(x: Float[np.ndarray, "*batch demo dim"], rate: float) -> Bool[np.ndarray, "*batch"]:
    """Does gradient descent on these inputs fail to converge at this rate? rate >= 2 / largest eigenvalue of X^T X / n.

    At the limit itself it swings for ever. True or False for each context; inputs that are all 0 never diverge.
    """
    x, _ = checked_pairs(x, np.zeros(np.shape(x)[:-1]))
    largest = np.linalg.norm(x, ord=2, axis=(-2, -1)) ** 2 / x.shape[-2]
    return np.asarray(rate * largest >= 2)
