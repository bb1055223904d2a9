"""Faithfulness: how much of a measure a set of heads carries by itself, and the area under that curve.

With m the measure, N the whole model, C_k the share k of its heads that is kept while the others are ablated, and
"empty" the model with all heads ablated,

    f(k) = (m(C_k) - m(empty)) / (m(N) - m(empty))        no unit; 0 where nothing is left, 1 as in the whole model
    CPR  = integral of f(k) dk                            circuit performance ratio: large where few heads carry it
    CMD  = integral of |1 - f(k)| dk                      circuit-model distance: 0 where every set acts as the model

f may leave [0, 1]: above 1 where the heads that were dropped work against the measure. Source: MIB, arXiv 2504.13151.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.integrate import trapezoid

from mechicl.resampling import check_level

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # the grid of MIB


@dataclass(frozen=True)
class Area:
    """An area under a curve, with the quantiles of its draws; low and high are NaN where none were given."""

    estimate: float
    low: float
    high: float


def kept_counts(n_heads: int, shares: tuple[float, ...] = SHARES) -> Int[np.ndarray, " set"]:
    """How many heads to keep for each share, without repetition and never none: rounded, at least 1.

    The true shares are kept_counts(n_heads) / n_heads. Raises ValueError for no heads, and shares outside (0, 1].
    """
    if n_heads < 1 or not shares or not all(0 < share <= 1 for share in shares):
        raise ValueError(f"got {n_heads} heads and the shares {shares}; expected at least 1, and shares in (0, 1]")
    return np.unique(np.maximum(1, np.rint(np.array(shares) * n_heads).astype(np.int64)))


def faithfulness(
    kept: Float[np.ndarray, "*boot set"],
    empty: float | Float[np.ndarray, "*boot"],
    whole: float | Float[np.ndarray, "*boot"],
) -> Float[np.ndarray, "*boot set"]:
    """f of each set: (m(C) - m(empty)) / (m(N) - m(empty)), for one sample or for bootstrap draws of all three.

    Raises ValueError where m(N) equals m(empty), since nothing is there to be carried, and for values that are not
    finite.
    """
    low, high = np.asarray(empty, dtype=np.float64)[..., None], np.asarray(whole, dtype=np.float64)[..., None]
    if not (np.isfinite(kept).all() and np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError("got measures that are not finite (NaN or infinite); faithfulness needs all of them")
    span = high - low
    if (abs(span) <= 1e-12 * np.maximum(abs(low), abs(high))).any():
        raise ValueError(
            "faithfulness is undefined: the whole model and the model with all heads ablated have the same measure, "
            f"{float(high.flat[0])}; choose a measure that the heads carry"
        )
    return np.asarray((kept - low) / span)


def circuit_performance_ratio(
    share: Float[np.ndarray, " set"],
    f: Float[np.ndarray, " set"],
    *,
    draws: Float[np.ndarray, "boot set"] | None = None,
    level: float = 0.95,
) -> Area:
    """CPR: the trapezoid integral of f over the share of heads kept.

    Range: no bounds; the last share less the first (.999 on MIB's grid) where f = 1 throughout, half of it for f = k,
    as when heads are kept at random and each carries the same. `draws`: f of bootstrap draws; the interval is the range
    of the middle `level` of their areas.

    Raises ValueError for fewer than 2 shares, shares that do not rise within [0, 1], values that are not finite.
    """
    return _area(share, f, draws, level)


def circuit_model_distance(
    share: Float[np.ndarray, " set"],
    f: Float[np.ndarray, " set"],
    *,
    draws: Float[np.ndarray, "boot set"] | None = None,
    level: float = 0.95,
) -> Area:
    """CMD: the trapezoid integral of |1 - f| over the share of heads kept; 0 is best, there is no upper bound.

    |1 - f| is taken at the shares and joined by lines, as in MIB. Draws make it look worse than it is, never better: it
    cannot fall below 0. Other arguments and errors as in `circuit_performance_ratio`.
    """
    return _area(share, abs(1 - f), None if draws is None else abs(1 - draws), level)


def _area(
    share: Float[np.ndarray, " set"],
    height: Float[np.ndarray, " set"],
    draws: Float[np.ndarray, "boot set"] | None,
    level: float,
) -> Area:
    check_level(level)
    if len(share) < 2 or not (np.diff(share) > 0).all() or share[0] < 0 or share[-1] > 1:
        raise ValueError(f"got the shares {share.tolist()}, expected at least 2, rising, within 0 to 1")
    if not np.isfinite(height).all() or (draws is not None and not np.isfinite(draws).all()):
        raise ValueError("got faithfulness that is not finite (NaN or infinite); an area needs all of it")
    low = high = float("nan")
    if draws is not None:
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = (float(value) for value in np.quantile(trapezoid(draws, share), tails))
    return Area(float(trapezoid(height, share)), low, high)
