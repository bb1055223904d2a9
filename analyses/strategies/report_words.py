"""What a report says about the Bayesian account: the card, and what stands beside its tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mechicl.analyses.strategies.words import SETTINGS, judgement, unit_of
from mechicl.wording import number, percent

CARDS = {
    "predicts": ("yes", "Yes, also where it was not fitted"),
    "partly": ("none", "In part: the prediction is loose where it was not fitted"),
    "fails": ("none", "No: it fails where it was not fitted"),
    "untested": ("none", "Not tested: nothing was held out"),
    "far": ("none", "Cannot be told: the models are near neither strategy"),
}


def card(found: Any) -> tuple[str, str]:
    """The kind of answer ("yes", "none") and its few words: does the model of training predict strategies?"""
    return CARDS[judgement(found.fit)]


def title(found: Any) -> str:
    """What a page about one account is called."""
    return f"Memorising and generalising in training: {SETTINGS.get(found.setting, found.setting)}"


def subtitle(found: Any) -> str:
    """What it is about, and when it was measured."""
    n_seeds, n_steps, n_diversities = found.fit.d_rel.shape
    sizes = ", ".join(f"{name} {value}" for name, value in found.sizes.items())
    return (
        f"{n_seeds * n_diversities} transformers ({sizes}), {n_diversities} diversities, {_seeds(n_seeds)}, {n_steps} "
        f"checkpoints each. {found.provenance.created[:16].replace('T', ' ')} UTC."
    )


def paragraphs(found: Any) -> list[str]:
    """What stands below the section's first sentences."""
    return [text for text in (_strategies_sentence(found), _times_sentence(found.transitions)) if text]


def notes(found: Any) -> list[tuple[str, str]]:
    """What fit and transition times warn of, a caveat each."""
    parts = (("the fit", found.fit), ("the transition times", found.transitions))
    return [(f"Warnings of {name}", f"{'; '.join(part.warnings)}.") for name, part in parts if part.warnings]


def _strategies_sentence(found: Any) -> str:
    terms, unit = found.fit.terms, unit_of(found.fit)
    gain, bits = terms.advantage.mean(0), terms.bits_memorising.mean(0)
    first, last = (f"{terms.diversities[at]:g}" for at in (0, -1))
    words = (
        f"Memorising has the smaller loss on what is trained on, by {number(float(gain[0]), 3)} {unit} at D = {first} and "
        f"by {number(float(gain[-1]), 3)} at D = {last}, and the longer description, {bits[0]:,.0f} and {bits[-1]:,.0f} "
        f"bits against {terms.bits_generalising.mean():,.0f}: evidence speaks for it, the prior against it."
    )
    worse = terms.diversities[gain <= 0]
    if len(worse):
        named = ", ".join(f"{diversity:g}" for diversity in worse)
        words += f" Where it has no smaller loss (D = {named}) nothing ever speaks for it."
    share = float(np.mean(found.fit.kept))
    return f"{words} {percent(share)} of the checkpoints lie past the two-hypothesis threshold and are counted."


def _times_sentence(transitions: Any) -> str:
    if math.isnan(transitions.log_error):
        return ""
    factor, bias = math.exp(transitions.log_error), math.exp(transitions.log_ratio)
    return (
        f"Where a turn is seen and predicted, predicted times are off by a factor of {number(factor, 2)} (root mean "
        f"square of logarithms), and are {number(bias, 2)} times the observed ones on average."
    )


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"
