"""Many smooth functions of the log odds, known on a grid and evaluated in between, with their slopes.

A fit evaluates the same few thousand functions hundreds of times, each at log odds of its own. They are tabulated once
on an even grid; a quintic spline through the values gives slopes and curvatures there, and quintic Hermite polynomials
what lies between. For functions as smooth as a softplus the error on the grid step of .5 is below 1e-6 of their range.
Outside the grid a function is taken for constant: the weight is 0 or 1 there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import perm

import numpy as np
from jaxtyping import Float
from scipy.interpolate import make_interp_spline
from scipy.special import expit

STEP = 0.5


@dataclass(frozen=True)
class Curves:
    """Functions of the log odds: value, slope and curvature (last axis) at the nodes low, low + STEP, ..."""

    low: float
    nodes: Float[np.ndarray, "*batch weight 3"]

    @classmethod
    def through(cls, low: float, values: Float[np.ndarray, "*batch weight"]) -> Curves:
        """The functions with these values at the nodes."""
        slope, curvature = _derivatives(values.shape[-1])
        return cls(low, np.stack([values, values @ slope, values @ curvature], axis=-1))

    def at(
        self, log_odds: Float[np.ndarray, "*batch"]
    ) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
        """Each function's value and slope at its log odds."""
        n_nodes = self.nodes.shape[-2]
        place = ((log_odds - self.low) / STEP).ravel()
        inside = np.clip(place, 0, n_nodes - 1)
        left = np.minimum(inside.astype(int), n_nodes - 2)
        t = inside - left
        left += n_nodes * np.arange(len(left))
        nodes = self.nodes.reshape(-1, 3)
        value_5, *rest = (np.concatenate([nodes[left], nodes[left + 1]], axis=1) @ _TO_POWERS).T[::-1]
        value, slope = value_5, np.zeros_like(t)
        for coefficient in rest:
            slope = slope * t + value
            value = value * t + coefficient
        slope = np.where(inside == place, slope / STEP, 0.0)
        return value.reshape(log_odds.shape), slope.reshape(log_odds.shape)

    def pick(self, rows: np.ndarray) -> Curves:
        """Some of the functions, by an index into their first axis."""
        return Curves(self.low, self.nodes[rows])

    @property
    def range(self) -> tuple[float, float]:
        """The first and the last node."""
        return self.low, self.low + STEP * (self.nodes.shape[-2] - 1)


@dataclass(frozen=True)
class Parabolas:
    """Functions a + b w + c w^2 of the weight w = 1/(1 + exp(-log odds)): exact for squared distances."""

    coefficients: Float[np.ndarray, "*batch 3"]

    def at(
        self, log_odds: Float[np.ndarray, "*batch"]
    ) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
        """Each function's value and slope, with respect to the log odds."""
        weight, rest = expit(log_odds), expit(-log_odds)
        a, b, c = np.moveaxis(self.coefficients, -1, 0)
        return a + weight * (b + c * weight), (b + 2 * c * weight) * weight * rest

    def pick(self, rows: np.ndarray) -> Parabolas:
        """Some of the functions, by an index into their first axis."""
        return Parabolas(self.coefficients[rows])

    @property
    def range(self) -> tuple[float, float]:
        """Log odds beyond which the weight is 0 or 1."""
        return -30.0, 30.0


def lowest(
    curves: Curves | Parabolas, shape: tuple[int, ...]
) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Where each function is least and its value there, for functions that fall and then rise (by bisection)."""
    low, high = (np.full(shape, end) for end in curves.range)
    for _ in range(60):
        middle = (low + high) / 2
        rises = curves.at(middle)[1] > 0
        low, high = np.where(rises, low, middle), np.where(rises, middle, high)
    middle = (low + high) / 2
    return middle, curves.at(middle)[0]


@lru_cache(maxsize=8)
def _derivatives(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices that turn values at n nodes into slopes and curvatures of the spline through them."""
    grid = np.arange(n) * STEP
    spline = make_interp_spline(grid, np.eye(n), k=5)
    return spline(grid, 1).T, spline(grid, 2).T


def _to_powers() -> np.ndarray:
    """From value, slope and curvature at both ends of an interval to the coefficients of 1, t, ..., t^5 on it."""
    derivative = [[float(perm(power, order)) for power in range(6)] for order in range(3)]
    ends = [[factor * end ** max(power - order, 0) for power, factor in enumerate(derivative[order])]
            for end in (0.0, 1.0) for order in range(3)]  # fmt: skip
    units = np.tile(STEP ** np.arange(3), 2)
    return np.linalg.inv(np.array(ends)).T * units[:, None]


_TO_POWERS = _to_powers()
