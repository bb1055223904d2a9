"""The table of a comparison: every measure and control with its interval, and differences paired over prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mechicl.analyses.resemblance.readings import Readings
from mechicl.resampling import Interval, cluster_bootstrap, cluster_sums
from mechicl.update_similarity import Effects, Similarity, effect_correlation, recall_of_tuned, sim_am, sim_aou

Row = tuple[str, str, str, float, float, float, float, float, float, int]
COLUMNS = ["measure", "layer", "control", "estimate", "low", "high", "difference", "diff_low", "diff_high", "n"]
NONE = "none"  # the control of rows that are the measure itself
_NAN3 = (np.nan, np.nan, np.nan)
_FEWEST = 5  # queries that fine-tuning newly gets right, for an interval of a difference in Rec2FTP


@dataclass(frozen=True)
class Measured:
    """What one condition gives, item by item: values of a measure by layer, effects in nats, and right answers."""

    values: Mapping[str, Float[np.ndarray, "item layer"]]
    effects: Effects | None = None
    right: Bool[np.ndarray, "answer item"] | None = None  # in context, zero shot, after the steps


@dataclass(frozen=True)
class Design:
    """How intervals are made: what is resampled together, groups for correlations within them, and options."""

    clusters: np.ndarray
    groups: np.ndarray | None
    n_boot: int
    level: float
    seed: int

    def similarity(self, values: Float[np.ndarray, "item layer"]) -> Similarity:
        """Means over items with intervals."""
        return Similarity.of(values, clusters=self.clusters, n_boot=self.n_boot, level=self.level, seed=self.seed)


def measure(icl: Readings, zero_shot: Readings, tuned: Readings, tau: np.ndarray | None) -> Measured:
    """All measures of one condition; NaN for prompts whose learner diverged."""
    known = tuned.finite & icl.finite & zero_shot.finite
    values: dict[str, np.ndarray] = {}
    shape = icl.output.shape[:2]

    def spread(found: Callable[[], Similarity]) -> np.ndarray:
        whole = np.full(shape, np.nan)
        if known.any():
            whole[known] = found().values
        return whole

    outputs = [r.output[known] for r in (icl, zero_shot, tuned)]
    values["SimAOU"] = spread(lambda: sim_aou(*outputs, n_boot=100))
    if icl.own is not None and zero_shot.own is not None and tuned.own is not None:
        own = [[x for x, k in zip(r, known, strict=True) if k] for r in (icl.own, zero_shot.own, tuned.own)]
        values["SimAM"] = spread(lambda: sim_am(*own, n_boot=100))
    if tau is not None:
        values["Kendall"] = tau
    base = zero_shot.log_odds
    effects = Effects(icl.log_odds - base, np.where(known, tuned.log_odds - base, np.nan), base)
    return Measured(values, effects, np.stack([icl.right, zero_shot.right, tuned.right]))


def table_rows(own: Measured, controls: Mapping[str, Measured], design: Design) -> Iterator[Row]:
    """Rows in the order of the measures: the measure itself first, then each control."""
    for name, values in own.values.items():
        yield from _similarity_rows(name, NONE, design.similarity(values), None)
        for control, other in controls.items():
            if name in other.values:
                gap = design.similarity(values - other.values[name])
                yield from _similarity_rows(name, control, design.similarity(other.values[name]), gap)
    yield from _recall_rows(own, controls, design)
    yield from _correlation_rows("effect correlation", own, controls, design, None)
    if design.groups is not None:
        yield from _correlation_rows("effect correlation within labels", own, controls, design, design.groups)


def _similarity_rows(name: str, control: str, found: Similarity, gap: Similarity | None) -> Iterator[Row]:
    counts = np.isfinite(found.values).sum(0)
    n = int(np.isfinite(found.values).any(1).sum())
    yield (name, "all", control, *found.overall, *(gap.overall if gap is not None else _NAN3), n)
    for layer in range(found.values.shape[1]):
        own = tuple(float(x[layer]) for x in (found.estimate, found.low, found.high))
        off = _NAN3 if gap is None else tuple(float(x[layer]) for x in (gap.estimate, gap.low, gap.high))
        yield (name, str(layer), control, own[0], own[1], own[2], off[0], off[1], off[2], int(counts[layer]))


def _recall_rows(own: Measured, controls: Mapping[str, Measured], design: Design) -> Iterator[Row]:
    if own.right is None:
        return
    found = recall_of_tuned(*own.right, level=design.level)
    yield ("Rec2FTP", "all", NONE, *found.estimate, *_NAN3, found.n)
    yield ("Rec2FTP", "all", "other queries", *found.chance, *found.difference, found.n_others)
    for control, other in controls.items():
        if other.right is not None:
            again = recall_of_tuned(*other.right, level=design.level)
            gap = _recall_gap(own.right, other.right, design)
            yield ("Rec2FTP", "all", control, *again.estimate, *gap, again.n)


def _correlation_rows(
    name: str, own: Measured, controls: Mapping[str, Measured], design: Design, groups: np.ndarray | None
) -> Iterator[Row]:
    if own.effects is None:
        return
    yield (name, "all", NONE, *_correlation(own.effects, None, design, groups), *_NAN3, _known(own.effects).sum())
    for control, other in controls.items():
        if other.effects is not None:
            alone = _correlation(other.effects, None, design, groups)
            gap = _correlation(own.effects, other.effects, design, groups)
            yield (name, "all", control, *alone, *gap, int(_known(other.effects).sum()))


def _known(effects: Effects) -> Bool[np.ndarray, "item"]:
    return np.isfinite(effects.icl) & np.isfinite(effects.tuned)


def _correlation(
    effects: Effects, against: Effects | None, design: Design, groups: np.ndarray | None
) -> tuple[float, float, float]:
    known = _known(effects) & (True if against is None else _known(against))

    def kept(one: Effects) -> Effects:
        return Effects(one.icl[known], one.tuned[known], one.baseline[known])

    return _or_nan(
        lambda: effect_correlation(
            kept(effects),
            against=None if against is None else kept(against),
            groups=None if groups is None else groups[known],
            clusters=design.clusters[known],
            n_boot=design.n_boot,
            level=design.level,
            seed=design.seed,
        )
    )


def _recall_gap(own: np.ndarray, other: np.ndarray, design: Design) -> tuple[float, float, float]:
    """Difference of two Rec2FTP over the same resampled prompts; NaN where either rests on fewer than 5 queries."""
    parts = []
    for icl, zero_shot, tuned in (own, other):
        newly = tuned & ~zero_shot
        parts += [cluster_sums(x.astype(float), design.clusters)[0] for x in (newly & icl, newly)]
    if min(parts[1].sum(), parts[3].sum()) < _FEWEST:
        return _NAN3

    def statistic(chosen: np.ndarray) -> np.ndarray:
        a, b, c, d = (part[chosen].sum(-1) for part in parts)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(a / b - c / d)

    return _or_nan(
        lambda: cluster_bootstrap(statistic, len(parts[0]), n_boot=design.n_boot, level=design.level, seed=design.seed)
    )


def _or_nan(found: Callable[[], Interval]) -> tuple[float, float, float]:
    """NaN where too few prompts have what is compared."""
    try:
        interval = found()
    except ValueError:
        return _NAN3
    return interval.estimate, interval.low, interval.high
