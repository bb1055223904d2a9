"""Do a context and gradient steps on it do the same to the same items? Recall of answers, correlation of effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from jaxtyping import Bool, Float, Int

from mechicl.resampling import Interval, check_level, cluster_bootstrap

FEWEST = 8  # items for a correlation: with fewer, a partial one is mostly noise and its bootstrap degenerate


@dataclass(frozen=True)
class Recall:
    """Rec2FTP: of the queries that fine-tuning newly gets right, the share that ICL gets right too, from 0 to 1.

    chance: ICL's share among all other queries; chance_before: among those of them that zero shot got wrong as well,
    which is the stricter comparison. Each as (estimate, low, high), Wilson's interval; NaN where there is no such
    query. difference: estimate - chance with Newcombe's interval. The intervals take queries as independent.
    """

    estimate: tuple[float, float, float]
    chance: tuple[float, float, float]
    chance_before: tuple[float, float, float]
    difference: tuple[float, float, float]
    n: int
    n_others: int


@dataclass(frozen=True)
class Effects:
    """Effects on the same items: of the context (icl), and of gradient steps on it (tuned), in one unit.

    For labels: log-odds of the right one against the others, minus that of zero shot, nats. For priming: the shift of
    L = log P(first form) - log P(second form). baseline: the zero-shot value that both had subtracted.
    """

    icl: Float[np.ndarray, "item"]
    tuned: Float[np.ndarray, "item"]
    baseline: Float[np.ndarray, "item"]


def recall_of_tuned(
    icl_right: Bool[np.ndarray, "item"],
    zero_shot_right: Bool[np.ndarray, "item"],
    tuned_right: Bool[np.ndarray, "item"],
    *,
    level: float = 0.95,
) -> Recall:
    """Rec2FTP beside its chance level. Published: 86-89% for GPT models of 1.3 to 2.7 B (arXiv 2212.10559).

    A model that is mostly right in context has a high Rec2FTP whatever fine-tuning does: read the difference.
    """
    check_level(level)
    newly = tuned_right & ~zero_shot_right
    own = _share(icl_right[newly], level)
    others = _share(icl_right[~newly], level)
    before = _share(icl_right[~newly & ~zero_shot_right], level)
    return Recall(own, others, before, _newcombe(own, others), int(newly.sum()), int((~newly).sum()))


def effect_correlation(
    effects: Effects,
    *,
    adjusted: bool = True,
    groups: Sequence[Any] | np.ndarray | pd.Series | None = None,
    clusters: Sequence[Any] | np.ndarray | pd.Series | None = None,
    against: Effects | None = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Correlation over items of the context's effect with the gradient steps' effect, -1 to 1.

    adjusted: the partial correlation given the baseline. Both effects have the same baseline subtracted, so that
    without this two unrelated outcomes correlate by var(baseline) / (var(baseline) + var(outcome)); 0 is chance only
    with it. groups: correlation within groups (labels, verbs), their means taken out. clusters: resampled as wholes.
    against: effects of a control on the same items; the result is then the difference of the two correlations, both
    over the same resamples.

    Raises `ValueError` for fewer than 8 items or 2 clusters, numbers that are not finite, and effects without
    variation.
    """
    both = [effects] if against is None else [effects, against]
    n = len(effects.icl)
    for one in both:
        _check(one, n)
    codes, names = pd.factorize(np.arange(n) if clusters is None else np.asarray(clusters))
    moments = [_moments(one, adjusted, groups, codes, len(names)) for one in both]

    def statistic(chosen: Int[np.ndarray, "*boot cluster"]) -> Float[np.ndarray, "*boot"]:
        counts = _counts(chosen, len(names))
        found = [_partial(counts, *own) for own in moments]
        return found[0] if against is None else np.asarray(found[0] - found[1])

    return cluster_bootstrap(statistic, len(names), n_boot=n_boot, level=level, seed=seed)


def _moments(
    effects: Effects, adjusted: bool, groups: Any, codes: np.ndarray, n_clusters: int
) -> tuple[Float[np.ndarray, "cluster _ _"], int]:
    """Sums over each cluster of z z', z = (covariates, icl, tuned); and the number of covariates."""
    if groups is None:
        columns = [np.ones(len(codes))]
    else:
        own, names = pd.factorize(np.asarray(groups))
        columns = list(np.eye(len(names))[own].T)
    parts = [effects.baseline] * adjusted + [effects.icl, effects.tuned]
    columns += [(part - part.mean()) / (part.std() or 1.0) for part in parts]
    z = np.stack(columns, 1)
    sums = np.zeros((n_clusters, z.shape[1], z.shape[1]))
    np.add.at(sums, codes, z[:, :, None] * z[:, None])
    return sums, z.shape[1] - 2


def _counts(chosen: Int[np.ndarray, "*boot cluster"], n: int) -> Float[np.ndarray, "*boot _"]:
    """How often each cluster was drawn."""
    flat = chosen.reshape(-1, chosen.shape[-1])
    places = flat + n * np.arange(len(flat))[:, None]
    return np.bincount(places.ravel(), minlength=n * len(flat)).reshape(*chosen.shape[:-1], n).astype(float)


def _partial(
    counts: Float[np.ndarray, "*boot cluster"], moments: Float[np.ndarray, "cluster k k"], q: int
) -> Float[np.ndarray, "*boot"]:
    """Correlation of the last two of z with the first q taken out; NaN where either does not vary beyond them."""
    whole = np.einsum("...c,cij->...ij", counts, moments)
    a, b, c = whole[..., :q, :q], whole[..., :q, q:], whole[..., q:, q:]
    left = c - np.swapaxes(b, -1, -2) @ np.linalg.pinv(a, rcond=1e-10, hermitian=True) @ b
    variances = np.diagonal(left, axis1=-2, axis2=-1)
    varies = (variances > 1e-9 * np.diagonal(c, axis1=-2, axis2=-1)).all(-1)
    scale = np.sqrt(np.where(varies, variances.prod(-1), 1.0))
    return np.asarray(np.where(varies, np.clip(left[..., 0, 1] / scale, -1, 1), np.nan))


def _check(effects: Effects, n: int) -> None:
    parts = {"icl": effects.icl, "tuned": effects.tuned, "baseline": effects.baseline}
    if any(len(part) != n for part in parts.values()) or n < FEWEST:
        raise ValueError(
            f"got { {name: len(part) for name, part in parts.items()} } effects; expected at least "
            f"{FEWEST} items, as many in each"
        )
    for name, part in parts.items():
        if not np.isfinite(part).all():
            raise ValueError(f"`{name}` holds effects that are not finite; drop these items first")


def _share(right: Bool[np.ndarray, "item"], level: float) -> tuple[float, float, float]:
    if not len(right):
        return np.nan, np.nan, np.nan
    found = scipy.stats.binomtest(int(right.sum()), len(right)).proportion_ci(level, method="wilson")
    return float(right.mean()), float(found.low), float(found.high)


def _newcombe(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    """Difference of two independent shares from their Wilson intervals (Newcombe 1998, method 10)."""
    down = np.hypot(a[0] - a[1], b[2] - b[0])
    up = np.hypot(a[2] - a[0], b[0] - b[1])
    return a[0] - b[0], float(a[0] - b[0] - down), float(a[0] - b[0] + up)
