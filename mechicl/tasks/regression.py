"""In-context linear regression: every context has a linear law of its own, seen through a few demonstrations.

    y_i = w^T x_i + noise,    w ~ N(0, weight_scale^2 I) anew for each context

The task on which transformers were first found to learn in context by a known algorithm (2208.01066, 2212.07677).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

INPUTS = ("uniform", "normal")


@dataclass(frozen=True)
class Regressions:
    """Contexts: demonstrations (x, y), a query, its label without noise (`target`), and the true weights."""

    x: Float[np.ndarray, "batch demo dim"]
    y: Float[np.ndarray, "batch demo"]
    query: Float[np.ndarray, "batch dim"]
    target: Float[np.ndarray, "batch"]
    weights: Float[np.ndarray, "batch dim"]

    def __len__(self) -> int:
        """The number of contexts."""
        return len(self.target)


@dataclass(frozen=True)
class RegressionTask:
    """What contexts are drawn from.

    `inputs`: "uniform" between -scale and scale, or "normal" with standard deviation `scale`, every entry of x for
    itself. `covariance`, for normal inputs only: that of x, in place of scale^2 I; kept as nested tuples. `noise`: the
    standard deviation of what is added to the demonstrations' labels. `weight_scale`: the teacher's.

    Errors (ValueError): sizes below 1, scales and noise out of range, a covariance of the wrong shape or not positive.

        task = RegressionTask(dim=10, n_demos=10, scale=0.5)
        contexts = task.sample(1000, seed=0)
        gradient_descent(contexts.x, contexts.y, contexts.query, rate=6.06)
    """

    dim: int
    n_demos: int
    inputs: str = "uniform"
    scale: float = 1.0
    noise: float = 0.0
    covariance: Any = None
    weight_scale: float = 1.0

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("dim", "n_demos"):
            if getattr(self, name) < 1:
                raise ValueError(f"got {name}={getattr(self, name)}; expected 1 or more")
        if self.inputs not in INPUTS:
            raise ValueError(f"got inputs={self.inputs!r}; expected one of {', '.join(INPUTS)}")
        for name, least in (("scale", "above 0"), ("noise", "0 or more"), ("weight_scale", "0 or more")):
            value = getattr(self, name)
            if not 0 <= value < np.inf or (name == "scale" and value == 0):
                raise ValueError(f"got {name}={value}; expected a finite number, {least}")
        if self.covariance is not None:
            object.__setattr__(self, "covariance", _checked_covariance(self.covariance, self.dim, self.inputs))

    @property
    def input_covariance(self) -> Float[np.ndarray, "dim dim"]:
        """The covariance of x."""
        if self.covariance is not None:
            return np.array(self.covariance)
        return np.eye(self.dim) * self.scale**2 / (3 if self.inputs == "uniform" else 1)

    @property
    def moments(self) -> tuple[float, float]:
        """Variance and fourth moment of every entry of x, as `mechicl.predictors.gradient.best_rate` takes them.

        A ValueError with a covariance, where entries differ or hang together.
        """
        if self.covariance is not None:
            raise ValueError("with a covariance the entries of x are not alike; use best_preconditioner")
        return (
            (self.scale**2 / 3, self.scale**4 / 5) if self.inputs == "uniform" else (self.scale**2, 3 * self.scale**4)
        )

    def sample(self, n_contexts: int, *, seed: int | Sequence[int]) -> Regressions:
        """Fresh contexts, a pure function of the seed, in float64.

        Inputs, weights and noise have generators of their own: tasks that differ in scales or noise alone draw the same
        contexts otherwise.
        """
        if n_contexts < 1:
            raise ValueError(f"got n_contexts={n_contexts}; expected 1 or more")
        for_inputs, for_weights, for_noise = np.random.default_rng(seed).spawn(3)
        shape = (n_contexts, self.n_demos + 1, self.dim)
        if self.inputs == "uniform":
            inputs = self.scale * for_inputs.uniform(-1, 1, shape)
        elif self.covariance is None:
            inputs = self.scale * for_inputs.standard_normal(shape)
        else:
            inputs = for_inputs.standard_normal(shape) @ np.linalg.cholesky(np.array(self.covariance)).T
        weights = self.weight_scale * for_weights.standard_normal((n_contexts, self.dim))
        labels = (inputs @ weights[..., None])[..., 0]
        y = labels[:, :-1] + self.noise * for_noise.standard_normal((n_contexts, self.n_demos))
        return Regressions(inputs[:, :-1].copy(), y, inputs[:, -1].copy(), labels[:, -1].copy(), weights)


def _checked_covariance(covariance: Any, dim: int, inputs: str) -> tuple[tuple[float, ...], ...]:
    """Nested tuples, so that tasks can be compared, hashed and written down."""
    if inputs != "normal":
        raise ValueError(f"got a covariance with {inputs} inputs; it is for inputs='normal'")
    matrix = np.array(covariance, dtype=np.float64)
    if matrix.shape != (dim, dim) or not np.isfinite(matrix).all():
        raise ValueError(f"got a covariance of shape {matrix.shape}; expected {(dim, dim)}, all finite")
    if not np.allclose(matrix, matrix.T) or np.linalg.eigvalsh(matrix)[0] <= 0:
        raise ValueError("got a covariance that is not symmetric with all eigenvalues above 0")
    return tuple(tuple(row) for row in matrix.tolist())
