"""What accounts of in-context regression read: the pairs of a context, its query, and the law of their making."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from mechicl.predictors import pooled_regression
from mechicl.predictors.examples import checked_examples
from mechicl.predictors.neighbours import nearest_neighbours
from mechicl.predictors.spectral import Spectrum, decompose, ridge_share


@dataclass(frozen=True, eq=False)
class RegressionExamples:
    """Contexts of one length, and what a Bayesian knows of their making.

    pool: the laws that a memorising predictor knows, None where there are none. noise_variance: of what is added to
    labels; weight_variance: of every entry of a law.

    Errors (ValueError): no demonstrations, shapes that do not go together, numbers that are not finite, variances below
    0, and of 0 for weights.
    """

    x: Float[np.ndarray, "batch demo dim"]
    y: Float[np.ndarray, "batch demo"]
    query: Float[np.ndarray, "batch dim"]
    pool: Float[np.ndarray, "_ dim"] | None
    noise_variance: float
    weight_variance: float

    def __post_init__(self) -> None:
        """Check what predictors would refuse one by one."""
        checked_examples(self.x, self.y, self.query)
        if not (0 <= self.noise_variance < np.inf and 0 < self.weight_variance < np.inf):
            raise ValueError(
                f"got noise_variance={self.noise_variance} and weight_variance={self.weight_variance}; expected finite "
                "numbers, 0 or more and above 0"
            )

    def __len__(self) -> int:
        """The number of contexts."""
        return len(self.y)

    def take(self, rows: Int[np.ndarray, " _"]) -> RegressionExamples:
        """Some of the contexts."""
        return replace(self, x=self.x[rows], y=self.y[rows], query=self.query[rows])

    @cached_property
    def spectrum(self) -> Spectrum:
        """The contexts along their eigenvectors: a descent with other numbers costs no more than its curve."""
        return decompose(self.x, self.y, self.query)

    @cached_property
    def label_scale(self) -> Float[np.ndarray, " batch"]:
        """The standard deviation of the query's label, for who has seen no demonstration."""
        return np.sqrt(self.weight_variance * (self.query**2).sum(-1) + self.noise_variance)

    @cached_property
    def nearest(self) -> Float[np.ndarray, "batch label"]:
        """The label of the demonstration nearest to the query."""
        return nearest_neighbours(self.x, self.y, self.query, k=1)[:, None]

    @cached_property
    def generalising(self) -> Float[np.ndarray, "batch label"]:
        """The posterior mean of who knows the prior of laws alone."""
        penalty = self.noise_variance / self.weight_variance
        return self.spectrum.predict(ridge_share(self.spectrum, penalty=penalty))[:, None]

    @cached_property
    def memorising(self) -> Float[np.ndarray, "batch label"]:
        """The posterior mean of who knows the pool."""
        if self.pool is None:
            raise ValueError("these examples have no pool of laws to be known by heart")
        x = np.concatenate([self.x, self.query[:, None]], axis=1)
        y = np.column_stack([self.y, np.zeros(len(self))])  # the query's label is never read
        found = pooled_regression.memorising(x, y, self.pool, noise_variance=self.noise_variance)
        return found[:, -1:]
