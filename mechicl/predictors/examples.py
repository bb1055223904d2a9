"""What every predictor is given: demonstrations and a query, checked once and in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

Examples = tuple[
    Float[np.ndarray, "*batch demo dim"], Float[np.ndarray, "*batch demo"], Float[np.ndarray, "*batch dim"]
]


Rates = float | Sequence[float]  # one for all steps, or one a step


def checked_examples(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> Examples:
    """Return x [*batch, demo, dim], y [*batch, demo] and query [*batch, dim] in float64.

    Raises ValueError for no demonstrations, shapes that do not go together, and numbers that are not finite.
    """
    x, y, query = (np.asarray(part, dtype=np.float64) for part in (x, y, query))
    check_shapes(x.shape, y.shape, query.shape)
    for name, part in (("x", x), ("y", y), ("query", query)):
        if not np.isfinite(part).all():
            raise ValueError(
                f"got {name} with numbers that are not finite (NaN or infinite); drop these contexts first"
            )
    return x, y, query


def checked_pairs(
    x: np.ndarray, y: np.ndarray
) -> tuple[Float[np.ndarray, "*batch demo dim"], Float[np.ndarray, "*batch demo"]]:
    """Return x and y alone as `checked_examples` does."""
    shape = np.shape(x)
    x, y, _ = checked_examples(x, y, np.zeros((*shape[:-2], *shape[-1:])))
    return x, y


def check_shapes(x: tuple[int, ...], y: tuple[int, ...], query: tuple[int, ...]) -> None:
    """Raise a ValueError unless the shapes are [*batch, demo, dim], [*batch, demo] and [*batch, dim]."""
    if len(x) < 2:
        raise ValueError(f"got x of shape {x}; expected [*batch, demo, dim]")
    *batch, n_demos, dim = x
    if n_demos == 0:
        raise ValueError("got no demonstrations; expected at least 1 (without any, all that is left is the guess 0)")
    if y != (*batch, n_demos):
        raise ValueError(f"got y of shape {y}, expected {(*batch, n_demos)}: one label for each x of shape {x}")
    if query != (*batch, dim):
        raise ValueError(
            f"got query of shape {query}, expected {(*batch, dim)}: one query a context, with the {dim} numbers of an x"
        )


def check_count(name: str, value: int, *, least: int = 0) -> None:
    """Raise a ValueError where a number of steps or neighbours is below the least that has a meaning."""
    if value < least:
        raise ValueError(f"got {name}={value}; expected {least} or more")


def each_step(name: str, value: Rates, steps: int) -> list[float]:
    """Return one value a step; a ValueError where their number is not that of the steps, or one is not finite."""
    values = [float(value)] * steps if np.ndim(value) == 0 else [float(one) for one in value]  # type: ignore
    if len(values) != steps:
        raise ValueError(f"got {len(values)} values of {name} for {steps} steps; give one for all, or one a step")
    if not np.isfinite(values).all():
        raise ValueError(f"got {name}={value}; expected a finite number")
    return values


def finite_weights(weights: Float[np.ndarray, "*batch dim"], what: str) -> Float[np.ndarray, "*batch dim"]:
    """Return the weights; a ValueError that says how many contexts have infinite ones, where any has."""
    bad: Bool[np.ndarray, "*batch"] = ~np.isfinite(weights).all(-1)
    if bad.any():
        raise ValueError(
            f"{what} diverged in {int(bad.sum())} of {bad.size} contexts: the weights left the range of numbers. "
            "Take a lower rate (gradient descent converges below 2 / largest eigenvalue of X^T X / n; see `diverges`) "
            "or fewer steps"
        )
    return weights


def at_query(
    query: Float[np.ndarray, "*batch dim"], weights: Float[np.ndarray, "*batch dim"]
) -> Float[np.ndarray, "*batch"]:
    """Return the prediction w^T x_q of each context."""
    return np.asarray((query * weights).sum(-1))
