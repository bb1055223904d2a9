"""The one gradient step that serves best on average, in closed form: rates and preconditioners."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mechicl.predictors.examples import check_count


def best_rate(dim: int, n: int, *, variance: float, fourth_moment: float) -> tuple[float, float]:
    """The rate at which one step of gradient descent has the least expected loss, and that loss.

    x has `dim` independent entries of mean 0, variance v and fourth moment m; w ~ N(0, I); no noise. With n
    demonstrations

        s = (m + (dim - 1) v^2) / n + (n - 1) / n v^2,    rate = v / s,    E (y - yhat)^2 = v dim (1 - v^2 / s)

    The loss lies below v dim, that of the guess 0. Half of it, as papers report it, is 0.20623 for dim = n = 10 and
    uniform inputs between -1/2 and 1/2. N(0, 1): rate = n / (n + dim + 1). Derived for 2212.07677's setting.

    >>> rate, loss = best_rate(10, 10, variance=1 / 12, fourth_moment=1 / 80)
    >>> round(rate / 10, 4), round(loss / 2, 5)
    (0.6061, 0.20623)
    """
    check_count("dim", dim, least=1)
    check_count("n", n, least=1)
    if not variance > 0 or not fourth_moment >= variance**2 * (1 - 1e-12):
        raise ValueError(
            f"got variance={variance} and fourth_moment={fourth_moment}; expected a variance above 0 and a fourth "
            "moment of at least its square"
        )
    second = (fourth_moment + (dim - 1) * variance**2) / n + (n - 1) / n * variance**2
    return variance / second, variance * dim * (1 - variance**2 / second)


def best_preconditioner(covariance: Float[np.ndarray, "dim dim"], n: int) -> Float[np.ndarray, "dim dim"]:
    """The matrix A with which one preconditioned step has the least expected loss, for x ~ N(0, covariance).

    A = U diag(1 / ((n + 1) / n l_i + tr / n)) U^T, with covariance = U diag(l) U^T and its trace tr; w ~ N(0, I), no
    noise. Source: 2306.00297, theorem 1.
    """
    check_count("n", n, least=1)
    covariance = np.asarray(covariance, dtype=np.float64)
    values, vectors = np.linalg.eigh(covariance)
    if not np.allclose(covariance, covariance.T) or values[-1] <= 0 or values[0] < -1e-12 * values[-1]:
        raise ValueError("got a covariance that is not symmetric with eigenvalues of at least 0 and one above 0")
    return np.asarray((vectors / ((n + 1) / n * values + values.sum() / n)) @ vectors.T)
