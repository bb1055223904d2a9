"""Effects as linear functionals of item outcomes: what is localised in heads.

With outcomes o_s of every item in contexts s (log-odds L_s in nats, or shares y_s), a functional combines contexts,
u = sum_s c_s o_s, and then takes the mean of u over items, or the slope of u over the bias of the prime's verb. Being
linear in items, its change under any intervention is the same contraction of the items' changes.

    priming    o_PD - o_DO, mean                        above 0: primes are followed
    ife        o_neutral - (o_PD + o_DO) / 2, slope     above 0: an inverse frequency effect, from the neutral prime
    ife_PD     o_neutral - o_PD, slope                  the same after PD primes alone
    ife_DO     o_neutral - o_DO, slope                  the same after DO primes alone

Without neutral primes the IFE's functionals go without their first term: they are minus the paper's slopes then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit

SCALES = {"nats": "nats", "probability": "probability"}


@dataclass(frozen=True)
class Functional:
    """A linear functional of item outcomes: contexts -> coefficients, then the "mean" or the "slope" over bias."""

    name: str
    contexts: dict[str, float]
    over: str

    def __post_init__(self) -> None:
        """Refuse what is no functional."""
        if not self.contexts or self.over not in ("mean", "slope"):
            raise ValueError(
                f"got contexts={self.contexts}, over={self.over!r}; expected contexts, and 'mean' or 'slope'"
            )

    def combined(
        self, log_odds: Mapping[str, Float[np.ndarray, "*set item"]], scale: str
    ) -> Float[np.ndarray, "*set item"]:
        """u of every item, from L in each context."""
        outcome = expit if scale == "probability" else np.asarray
        return np.asarray(sum(c * outcome(log_odds[context]) for context, c in self.contexts.items()))

    def unit(self, scale: str) -> str:
        """In words."""
        return SCALES[scale] + (" per unit of bias" if self.over == "slope" else "")


def functional_of(effect: str | Functional, forms: tuple[str, str], *, neutral: bool) -> Functional:
    """The functional of a name; raises `ValueError` for one that is not known, and for contexts that are not there."""
    if isinstance(effect, Functional):
        there = [*forms, *(["neutral"] if neutral else []), "unprimed"]
        if absent := [context for context in effect.contexts if context not in there]:
            raise ValueError(f"got the contexts {absent}, which the corpus lacks; expected some of {', '.join(there)}")
        return effect
    first, second = forms
    base = {"neutral": 1.0} if neutral else {}
    known = {
        "priming": Functional("priming", {first: 1.0, second: -1.0}, "mean"),
        "ife": Functional("ife", {first: -0.5, second: -0.5, **base}, "slope"),
        f"ife_{first}": Functional(f"ife_{first}", {first: -1.0, **base}, "slope"),
        f"ife_{second}": Functional(f"ife_{second}", {second: -1.0, **base}, "slope"),
    }
    if effect not in known:
        raise ValueError(f"unknown effect {effect!r}; expected one of {', '.join(known)}, or a Functional")
    return known[effect]
