"""Contexts along the eigenvectors of X^T X, where every algorithm that descends is one curve over eigenvalues.

Gradient descent, GD++, Newton, ridge and least squares all give w = f(X^T X) X^T y, with a function f of their own: its
value at an eigenvalue is the share of X^T y that the algorithm takes along that eigenvector. Once contexts are
decomposed, an algorithm with other parameters costs no more than its curve, so that hundreds of rates can be tried:

    spectrum = decompose(x, y, query)
    spectrum.predict(descent_share(spectrum, rates=[5.0] * 8))

equals `gradient_descent(x, y, query, rate=5.0, steps=8)`. Shapes and units as of `mechicl.predictors.gradient`. Shares
are not checked: where an algorithm diverges they are huge or not finite. Derived here; for Newton see 2310.17086.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechicl.predictors.examples import checked_examples

NULL = 1e-12  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues (ascending) and eigenvectors of X^T X; X^T y and the query along these; n demonstrations."""

    values: Float[np.ndarray, "*batch dim"]
    vectors: Float[np.ndarray, "*batch dim dim"]
    moments: Float[np.ndarray, "*batch dim"]
    query: Float[np.ndarray, "*batch dim"]
    n_demos: int

    def predict(self, share: Float[np.ndarray, "*batch dim"]) -> Float[np.ndarray, "*batch"]:
        """The prediction of an algorithm for the query."""
        return np.asarray((share * self.moments * self.query).sum(-1))

    def weights(self, share: Float[np.ndarray, "*batch dim"]) -> Float[np.ndarray, "*batch dim"]:
        """The weights w of an algorithm."""
        return np.asarray((self.vectors @ (share * self.moments)[..., None])[..., 0])


def decompose(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
) -> Spectrum:
    """The spectrum of each context; errors (ValueError) as of the predictors."""
    x, y, query = checked_examples(x, y, query)
    transposed = np.swapaxes(x, -1, -2)
    values, vectors = np.linalg.eigh(transposed @ x)
    values = np.where(values < NULL * values[..., -1:], 0.0, values)
    along = np.swapaxes(vectors, -1, -2)
    moments = (along @ (transposed @ y[..., None]))[..., 0]
    return Spectrum(values, vectors, moments, (along @ query[..., None])[..., 0], x.shape[-2])


def descent_share(
    spectrum: Spectrum, *, rates: Sequence[float], gammas: Sequence[float] | None = None
) -> Float[np.ndarray, "*batch dim"]:
    """Gradient descent with a rate for each step; with gammas, one a step, GD++."""
    values = spectrum.values
    share = np.zeros_like(values)
    left, carried = np.ones_like(values), np.ones_like(values)  # of X^T y; of the length of an input
    with np.errstate(over="ignore", invalid="ignore"):
        for rate, gamma in zip(rates, gammas if gammas is not None else [0.0] * len(rates), strict=True):
            step = rate / spectrum.n_demos * carried**2 * left
            share += step
            left -= values * step
            if gamma:
                carried *= 1 - gamma * values * carried**2
    return share


def newton_share(spectrum: Spectrum, *, steps: int) -> Float[np.ndarray, "*batch dim"]:
    """Newton's iteration from X^T X / largest eigenvalue squared."""
    largest = spectrum.values[..., -1:]
    relative = np.divide(spectrum.values, largest, out=np.zeros_like(spectrum.values), where=largest > 0)
    inverse = relative.copy()  # times the largest eigenvalue
    for _ in range(steps):
        inverse = 2 * inverse - inverse**2 * relative
    return np.divide(inverse, largest, out=np.zeros_like(inverse), where=largest > 0)


def ridge_share(spectrum: Spectrum, *, penalty: float) -> Float[np.ndarray, "*batch dim"]:
    """Ridge regression; a penalty of 0 is least squares, with the shortest weights."""
    values = spectrum.values + penalty
    return np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
