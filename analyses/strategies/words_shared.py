"""Names and counts that all sentences on the Bayesian account share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mechicl.wording import number

SETTINGS = {
    "balls_and_urns": "balls and urns",
    "markov_chains": "Markov chains",
    "linear_regression": "linear regression",
    "classification": "classification",
}
FAR = 0.5  # of d(M, G): farther from every mixture than that, d_rel says little


def setting_words(setting: str) -> str:
    """A setting as it stands in a sentence."""
    return SETTINGS.get(setting, setting.replace("_", " "))


def unit_of(fit: Any) -> str:
    """What losses and distances are measured in."""
    return "nats" if fit.distance == "kl" else "squared error"


def amount(value: float, fit: Any, digits: int = 3) -> str:
    """A difference of losses with its unit."""
    return f"{number(value, digits)} {'nats' if fit.distance == 'kl' else 'in squared error'}"


def far_share(fit: Any) -> float:
    """The share of cells past the threshold that are farther than `FAR` from every mixture; 1 where none is known."""
    residual = fit.residual[:, fit.kept]
    known = residual[np.isfinite(residual)]
    return float((known > FAR).mean()) if len(known) else 1.0


def counted(diversities: Iterable[float]) -> str:
    """Diversities in few words: "D = 64", "D = 16 and 64", "5 diversities from D = 4 to 64"."""
    known = sorted(float(diversity) for diversity in diversities)
    if len(known) <= 2:
        return f"D = {' and '.join(f'{diversity:g}' for diversity in known)}"
    return f"{len(known)} diversities from D = {known[0]:g} to {known[-1]:g}"
