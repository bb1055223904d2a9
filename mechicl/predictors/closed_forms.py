"""Least squares on the demonstrations of a context, exact, penalised, and by Newton's iteration.

Shapes, units and errors as of `mechicl.predictors.gradient`; each predictor has a twin `..._weights`.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechicl.predictors.examples import at_query, check_count, checked_examples, checked_pairs
from mechicl.predictors.spectral import NULL, decompose, newton_share


def least_squares(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
) -> Float[np.ndarray, "*batch"]:
    """Prediction of ordinary least squares; with fewer demonstrations than dimensions, of the shortest such w."""
    x, y, query = checked_examples(x, y, query)
    return at_query(query, least_squares_weights(x, y))


def least_squares_weights(
    x: Float[np.ndarray, "*batch demo dim"], y: Float[np.ndarray, "*batch demo"]
) -> Float[np.ndarray, "*batch dim"]:
    """The shortest w that minimises sum_i (y_i - w^T x_i)^2: the pseudoinverse of X times y."""
    x, y = checked_pairs(x, y)
    return np.asarray((np.linalg.pinv(x, rcond=NULL) @ y[..., None])[..., 0])


def ridge(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    penalty: float,
) -> Float[np.ndarray, "*batch"]:
    """Prediction of ridge regression: w = (X^T X + penalty I)^-1 X^T y. A penalty of 0 is `least_squares`.

    With w ~ N(0, t^2 I) and label noise of standard deviation s, penalty = s^2 / t^2 is the Bayes-optimal predictor.
    """
    x, y, query = checked_examples(x, y, query)
    return at_query(query, ridge_weights(x, y, penalty=penalty))


def ridge_weights(
    x: Float[np.ndarray, "*batch demo dim"], y: Float[np.ndarray, "*batch demo"], *, penalty: float
) -> Float[np.ndarray, "*batch dim"]:
    """The w that minimises sum_i (y_i - w^T x_i)^2 + penalty ||w||^2."""
    if not 0 <= penalty < np.inf:
        raise ValueError(f"got penalty={penalty}; expected a finite number of at least 0")
    if penalty == 0:
        return least_squares_weights(x, y)
    x, y = checked_pairs(x, y)
    transposed = np.swapaxes(x, -1, -2)
    gram = transposed @ x + penalty * np.eye(x.shape[-1])
    return np.asarray(np.linalg.solve(gram, transposed @ y[..., None])[..., 0])


def newton(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    steps: int,
) -> Float[np.ndarray, "*batch"]:
    """Prediction after some steps of Newton's iteration for the inverse of S = X^T X: w = M X^T y with

        M_0 = S / l^2,    M <- 2 M - M S M,    l the largest eigenvalue of S

    Along an eigenvector of eigenvalue e, w has the share 1 - (1 - (e / l)^2)^(2^steps) of least squares: k steps do
    what gradient descent does in about 2^k. Source: 2310.17086.
    """
    x, y, query = checked_examples(x, y, query)
    return at_query(query, newton_weights(x, y, steps=steps))


def newton_weights(
    x: Float[np.ndarray, "*batch demo dim"], y: Float[np.ndarray, "*batch demo"], *, steps: int
) -> Float[np.ndarray, "*batch dim"]:
    """The weights w of `newton`.

    M is a polynomial in S: the iteration runs on eigenvalues, where rounding in directions without data cannot double
    at every step, as it does with matrices.
    """
    check_count("steps", steps)
    x, y = checked_pairs(x, y)
    spectrum = decompose(x, y, np.zeros((*x.shape[:-2], x.shape[-1])))
    return spectrum.weights(newton_share(spectrum, steps=steps))
