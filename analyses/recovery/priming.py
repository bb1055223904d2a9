"""Organisms of priming: planted heads that write a prediction error, a constant, or nothing (see `organisms.planted`).

    error-driven    strength (s - p_v) for the prime's form s and its verb's own probability p_v        delta rule
    boost           strength (s - 1/2)                                                              constant boost
    null            nothing                                                                                   none

Strengths are .3-3 nats (log-uniform), biases p_v .05-.95. Other heads write noise for the prime's verb and for its
first noun, of 0-.3 and 0-.1 times the strength (of the null: times a strength that is drawn and not used).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mechicl.analyses.recovery.organisms import Organism

READING = {"n_contexts": 200, "n_orders": 4}
N_VERBS = 22


def error_driven(rng: np.random.Generator) -> Organism:
    """The delta rule."""
    from mechicl.organisms.planted import planted_ife

    return _planted(planted_ife, rng, "delta rule", "gradient")


def constant_boost(rng: np.random.Generator) -> Organism:
    """The same movement whatever the verb."""
    from mechicl.organisms.planted import planted_priming

    return _planted(planted_priming, rng, "constant boost", "boost")


def no_priming(rng: np.random.Generator) -> Organism:
    """Noise alone."""
    from mechicl.organisms.planted import planted_null

    return _planted(planted_null, rng, "no priming", "baseline")


def _planted(make: Any, rng: np.random.Generator, account: str, family: str) -> Organism:
    strength = float(np.exp(rng.uniform(np.log(0.3), np.log(3.0))))
    noise, item_noise = float(rng.uniform(0, 0.3) * strength), float(rng.uniform(0, 0.1) * strength)
    biases, seed = tuple(rng.uniform(0.05, 0.95, N_VERBS).tolist()), int(rng.integers(2**31))
    told: dict[str, Any] = {"noise": noise, "item_noise": item_noise, "seed": seed}
    own = {} if family == "baseline" else {"strength": strength}
    planted = make(**told, **own, biases=biases)
    return Organism(planted.model, planted.corpus, account, family, {**own, **told}, READING)
