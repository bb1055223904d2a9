"""Two halves of a corpus with other verbs and other targets in each: one to select heads on, one to confirm them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Int

from mechicl.analyses.heads.effects import Rows

MIN_VERBS = 3  # in each half: a slope over two verbs has no error


def split_rows(
    frame: pd.DataFrame,
    usable: Int[np.ndarray, " item"],
    bias: pd.Series,
    n_items: int,
    seed: int,
    *,
    fewest: int = MIN_VERBS,
) -> tuple[Rows, Rows]:
    """Rows for selection and for confirmation, about `n_items` each, with no prime verb and no target in common.

    Verbs are paired by bias and parted at random within pairs, so that both halves span the same range. Targets are
    parted at random. Within a half, whole targets are taken (with all of their primes there), so that verbs meet the
    same targets as far as the design allows.

    Raises `ValueError` where a half would have fewer than `fewest` prime verbs.
    """
    rng = np.random.default_rng(seed)
    part = frame.iloc[usable]
    ordered = bias.reindex(part["prime_verb"].unique()).sort_values(kind="stable").index.to_numpy()
    first: set[str] = set()
    for start in range(0, len(ordered), 2):
        pair = ordered[start : start + 2]
        first.add(pair[rng.integers(len(pair))])
    targets = rng.permutation(part["target"].unique())
    halves = (targets[: len(targets) // 2], targets[len(targets) // 2 :])
    found = []
    for own, half in zip((True, False), halves, strict=True):
        verbs = {verb for verb in ordered if (verb in first) == own}
        eligible = usable[part["prime_verb"].isin(verbs).to_numpy() & part["target"].isin(set(half)).to_numpy()]
        rows = Rows.of(frame, _by_target(frame, eligible, half, n_items))
        if len(np.unique(rows.prime_verb)) < fewest:
            raise ValueError(
                f"half of the corpus has {len(np.unique(rows.prime_verb))} prime verbs, expected at least {fewest}: "
                "heads are selected on one half and confirmed on the other, where with fewer verbs no p can be small. "
                "Give a corpus with more verbs"
            )
        found.append(rows)
    return found[0], found[1]


def _by_target(
    frame: pd.DataFrame, eligible: Int[np.ndarray, " item"], order: np.ndarray, n_items: int
) -> Int[np.ndarray, " _"]:
    """All rows of one target after another until there are enough; verbs that met few come first among equals."""
    by_target = pd.Series(eligible).groupby(frame["target"].to_numpy()[eligible]).agg(list)
    verb = frame["prime_verb"].to_numpy()
    met: dict[str, int] = dict.fromkeys(np.unique(verb[eligible]), 0)
    waiting = [by_target[target] for target in order if target in by_target.index]
    chosen: list[int] = []
    while waiting and len(chosen) < n_items:
        # the target whose primes' verbs were met least so far, per prime
        need = [np.mean([met[verb[row]] for row in rows]) - 1e-3 * len(rows) for rows in waiting]
        rows = waiting.pop(int(np.argmin(need)))
        for row in rows:
            met[verb[row]] += 1
        chosen += rows
    return np.array(sorted(chosen))
