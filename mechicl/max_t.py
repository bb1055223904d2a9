"""Tests of many heads at once that bound the chance of any false positive, whatever the dependence between heads.

The heads of a model are measured on the same verbs, so their effects are dependent. One permutation serves all heads,
which keeps that dependence, and the largest |t| over heads in each permutation is what chance alone can bring.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mechicl.resampling import batches
from mechicl.stats import benjamini_hochberg

_TIES = 1 - 1e-10  # a permutation that gives the same value up to rounding is as extreme
_CONSTANT = 1e-12  # a spread below this share of a head's largest effect is rounding


@dataclass(frozen=True)
class HeadTests:
    """Two-sided tests of each head, and what holds for all of them together.

    t: Student's t of the slope or the mean, 0 for a head whose effects do not vary, infinite for a perfect fit.
    p: from the head's own permutation distribution. p_fwe: adjusted for all heads by the maximum of |t|: rejecting
    where p_fwe <= .05 has at most a 5% chance of any false positive. p_bh: p after Benjamini and Hochberg, which bounds
    the share of false positives. `exhaustive`: all `n_permutations` permutations were counted, none was drawn.
    """

    t: Float[np.ndarray, " head"]
    p: Float[np.ndarray, " head"]
    p_fwe: Float[np.ndarray, " head"]
    p_bh: Float[np.ndarray, " head"]
    n_permutations: int
    exhaustive: bool


def max_t_over_heads(
    verb_effects: Float[np.ndarray, "head verb"],
    x: Float[np.ndarray, " verb"] | None = None,
    *,
    n_permutations: int = 10_000,
    step_down: bool = False,
    seed: int = 0,
) -> HeadTests:
    """Test every head's effects on the verbs: their slope on x, or without x their mean.

    With x: t of the least-squares slope; null distribution by permuting x over verbs. Without: t of the mean; null
    distribution by flipping the signs of whole verbs (effects symmetric about 0). Each permutation is applied to all
    heads. With N permutations

        p(h)     = (1 + #{|t*_h| >= |t_h|}) / (1 + N)
        p_fwe(h) = (1 + #{max_k |t*_k| >= |t_h|}) / (1 + N)        single step; Westfall and Young 1993

    `step_down` takes the maximum only over heads k with |t_k| <= |t_h| and makes the result monotone in |t| (their
    step-down maxT): never larger, at the same error rate. Where N reaches all orders of x (N >= 10,000: up to 7 verbs)
    or all signs (13 verbs), these are counted instead of drawn and the p-values are exact shares.

    Range: 1 / (1 + N) to 1, and with V verbs no p below 2 / 2^V (means) or 1 / V! (slopes). p_bh of a lone head cannot
    fall below (number of heads) / (1 + N): for 1,000 heads draw 100,000. Heads whose effects are constant (with x) or
    all 0 (without) have t = 0 and p = 1.

    Raises ValueError for values that are not finite, fewer than 3 verbs (2 without x), x without variation, lengths
    that differ, no head.
    """
    _check(verb_effects, x, n_permutations)
    rows, direction = _unit_rows(verb_effects.astype(np.float64), x)
    n_verbs = len(direction)
    observed = rows @ direction
    total = math.factorial(n_verbs) if x is not None else 2**n_verbs
    exhaustive = total <= n_permutations
    tried = total if exhaustive else n_permutations
    if exhaustive:
        draws = _all_orders(direction) if x is not None else _all_signs(direction)
    else:
        draws = _drawn(direction, x is not None, tried, len(rows), seed)
    own, largest = _counts(rows, abs(observed), draws, step_down)
    add = 0 if exhaustive else 1  # the order observed is one of all orders, but not one of those drawn
    p = (add + own) / (add + tried)
    return HeadTests(
        t=_t_of(rows, direction, observed, dof=n_verbs - (1 if x is None else 2)),
        p=p,
        p_fwe=(add + largest) / (add + tried),
        p_bh=benjamini_hochberg(p),
        n_permutations=tried,
        exhaustive=exhaustive,
    )


def _unit_rows(
    effects: Float[np.ndarray, "head verb"], x: Float[np.ndarray, " verb"] | None
) -> tuple[Float[np.ndarray, "head verb"], Float[np.ndarray, " verb"]]:
    """Heads and regressor as vectors of length 1, so that r = row . regressor orders |t|: t = r sqrt(dof / (1 - r^2)).

    With x both are centred. Without x the regressor is constant. Neither permuting nor flipping changes a length.
    """
    size = abs(effects).max(1, keepdims=True)
    rows = effects if x is None else effects - effects.mean(1, keepdims=True)
    vary = abs(rows).max(1, keepdims=True) > _CONSTANT * size
    scaled = np.divide(rows, size, out=np.zeros_like(rows), where=vary)  # a length does not underflow for tiny effects
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    rows = np.divide(scaled, length, out=np.zeros_like(rows), where=vary)
    direction = np.ones(effects.shape[1]) if x is None else x - x.mean()
    return rows, direction / np.linalg.norm(direction)


def _counts(
    rows: Float[np.ndarray, "head verb"],
    observed: Float[np.ndarray, " head"],
    draws: Iterator[Float[np.ndarray, "boot verb"]],
    step_down: bool,
) -> tuple[Int[np.ndarray, " head"], Int[np.ndarray, " head"]]:
    """For each head in how many draws its own |r|, and in how many the largest |r| of its rivals, is as extreme."""
    order = np.argsort(observed, kind="stable")
    limits, sorted_rows = observed[order] * _TIES, rows[order].T
    own, largest = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    for draw in draws:
        scores = abs(draw @ sorted_rows)
        own += (scores >= limits).sum(0)
        if step_down:
            largest += (np.maximum.accumulate(scores, axis=1) >= limits).sum(0)
        else:
            # The number of maxima that reach each head's limit, which rise with the head's place.
            largest += len(scores) - np.searchsorted(np.sort(scores.max(1)), limits)
    if step_down:  # a head may not have a smaller p than one with a larger |t|
        largest = np.maximum.accumulate(largest[::-1])[::-1]
    back = np.argsort(order, kind="stable")
    return own[back], largest[back]


def _drawn(
    direction: Float[np.ndarray, " verb"], permute: bool, total: int, n_heads: int, seed: int
) -> Iterator[Float[np.ndarray, "boot verb"]]:
    """The regressor in random orders, or with random signs."""
    rng = np.random.default_rng(seed)
    for size in batches(total, max(n_heads, len(direction))):
        if permute:
            yield rng.permuted(np.broadcast_to(direction, (size, len(direction))), axis=1)
        else:
            yield direction * (rng.integers(2, size=(size, len(direction))) * 2.0 - 1.0)


def _all_orders(direction: Float[np.ndarray, " verb"]) -> Iterator[Float[np.ndarray, "boot verb"]]:
    orders = itertools.permutations(direction)
    while block := list(itertools.islice(orders, 1_000)):
        yield np.array(block)


def _all_signs(direction: Float[np.ndarray, " verb"]) -> Iterator[Float[np.ndarray, "boot verb"]]:
    signs = itertools.product((-1.0, 1.0), repeat=len(direction))
    while block := list(itertools.islice(signs, 1_000)):
        yield direction * np.array(block)


def _t_of(
    rows: Float[np.ndarray, "head verb"],
    direction: Float[np.ndarray, " verb"],
    r: Float[np.ndarray, " head"],
    dof: int,
) -> Float[np.ndarray, " head"]:
    # The residual by its own length, not as 1 - r^2, which has no digits left where the fit is good.
    residual = np.linalg.norm(rows - r[:, None] * direction, axis=1)
    residual[residual < _CONSTANT] = 0.0
    perfect = np.where(r == 0, 0.0, np.copysign(np.inf, r))
    return np.divide(r * math.sqrt(dof), residual, out=perfect, where=residual > 0)


def _check(effects: Float[np.ndarray, "head verb"], x: Float[np.ndarray, " verb"] | None, n_permutations: int) -> None:
    n_heads, n_verbs = effects.shape
    if n_heads == 0:
        raise ValueError("got no head, expected at least one row of verb effects")
    if x is not None and len(x) != n_verbs:
        raise ValueError(f"got effects on {n_verbs} verbs and x of {len(x)}; expected one x a verb")
    if n_verbs < (2 if x is None else 3):
        raise ValueError(f"got {n_verbs} verbs, expected at least 3 for a slope and 2 for a mean")
    if not np.isfinite(effects).all() or (x is not None and not np.isfinite(x).all()):
        raise ValueError("got numbers that are not finite (NaN or infinite); drop these verbs or heads first")
    if x is not None and np.ptp(x) == 0:
        raise ValueError(f"slope undefined: x is {x[0]} for all {n_verbs} verbs")
    if n_permutations < 1:
        raise ValueError(f"got n_permutations={n_permutations}, expected at least 1, better 10000")
