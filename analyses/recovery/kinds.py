"""The kinds of organisms in a recovery study, by name, and how each is grown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mechicl.analyses.recovery import organisms as regression
from mechicl.analyses.recovery import priming as priming
from mechicl.analyses.recovery import urns as urns
from mechicl.analyses.recovery.organisms import Organism, add_noise, draw_rng

MAKERS: dict[str, Callable[[np.random.Generator], Organism]] = {
    "regression: gradient descent": regression.descent_organism,
    "regression: GD++": regression.plus_organism,
    "regression: Gaussian kernel": regression.gaussian_organism,
    "regression: dot-product kernel": regression.product_organism,
    "regression: generalising": regression.generalising_organism,
    "regression: memorising": regression.memorising_organism,
    "regression: null": regression.null_organism,
    "urns: gradient descent": urns.descent_rule,
    "urns: recency kernel": urns.recency_rule,
    "priming: error-driven": priming.error_driven,
    "priming: constant boost": priming.constant_boost,
    "priming: null": priming.no_priming,
}
TRAINED = {"urns: memorising": "memorising", "urns: generalising": "generalising"}
KINDS: tuple[str, ...] = tuple(
    sorted([*MAKERS, *TRAINED], key=lambda kind: ("regression", "urns", "priming").index(kind.split(":")[0]))
)
NOISY = ("regression: gradient descent", "regression: Gaussian kernel")


def grow(kind: str, draw: int, *, seed: int = 0, runs: str | Path = "runs/recovery") -> Organism:
    """One organism of a kind in `KINDS`; the trained ones are read from `runs`, where they must be."""
    if kind in TRAINED:
        return urns.trained_organism(runs, TRAINED[kind], draw, seed=seed)
    if kind not in MAKERS:
        raise ValueError(f"got kind={kind!r}; expected one of {', '.join(KINDS)}")
    return MAKERS[kind](draw_rng(kind, draw, seed))


__all__ = ["KINDS", "MAKERS", "NOISY", "TRAINED", "add_noise", "grow"]
