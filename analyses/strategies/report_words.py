"""What a report says about the Bayesian account: the card, and what stands beside its tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mechicl.analyses.strategies.report_cells import small_interval
from mechicl.analyses.strategies.words import judgement, parameter_sentence, transition_sentence
from mechicl.analyses.strategies.words_shared import amount, setting_words
from mechicl.analyses.strategies.words_transience import transience_sentence
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
    return f"Memorising and generalising in training: {setting_words(found.setting)}"


def subtitle(found: Any) -> str:
    """What it is about, and when it was measured."""
    n_seeds, n_steps, n_diversities = found.fit.d_rel.shape
    sizes = ", ".join(f"{name} {value}" for name, value in found.sizes.items())
    return (
        f"{n_seeds * n_diversities} transformers ({sizes}), {n_diversities} diversities, {_seeds(n_seeds)}, {n_steps} "
        f"checkpoints each. {found.provenance.created[:16].replace('T', ' ')} UTC."
    )


def paragraphs(found: Any) -> list[str]:
    """What stands below the section's first sentences: with these the account's verdict."""
    return [
        f"{parameter_sentence(found.fit)} {_strategies_sentence(found)}",
        f"{transition_sentence(found.transitions)} {_times_sentence(found.transitions)}".strip(),
        transience_sentence(found.fit, found.transience),
        _rivals_sentence(found),
    ]


def notes(found: Any) -> list[tuple[str, str]]:
    """What fit and transition times warn of, a caveat each."""
    parts = (("the fit", found.fit), ("the transition times", found.transitions))
    return [(f"Warnings of {name}", f"{'; '.join(part.warnings)}.") for name, part in parts if part.warnings]


def _strategies_sentence(found: Any) -> str:
    terms = found.fit.terms
    gain, bits = terms.advantage.mean(0), terms.bits_memorising.mean(0)
    first, last = (f"{terms.diversities[at]:g}" for at in (0, -1))
    words = (
        f"On the tasks trained on the loss of memorising is smaller, by {amount(float(gain[0]), found.fit)} at D = "
        f"{first} and by {number(float(gain[-1]), 3)} at D = {last}, and its description is longer, {bits[0]:,.0f} and "
        f"{bits[-1]:,.0f} bits against {terms.bits_generalising.mean():,.0f}: evidence speaks for it, the prior "
        "against it."
    )
    worse = terms.diversities[gain <= 0]
    if len(worse):
        named = ", ".join(f"{diversity:g}" for diversity in worse)
        words += f" Where its loss is no smaller (D = {named}) nothing ever speaks for it."
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


def _rivals_sentence(found: Any) -> str:
    words = []
    if found.three is not None:
        words.append(
            "From the first checkpoint on, a constant as a third strategy changes the distance by "
            f"{_last_excess(found.three, found.fit)}."
        )
    if found.context is not None:
        best = found.context.best
        chosen = f"strength {best:g} (of 1)" if best else "strength 0, which is none at all"
        words.append(
            f"Odds that go on changing within a sequence do best with {chosen}; a Bayesian within the sequence as well "
            f"(strength 1) changes the distance by {_last_excess(found.context, found.fit)}."
        )
    return " ".join(words)


def _last_excess(part: Any, fit: Any) -> str:
    """What the last row adds to the first, where nothing was fitted if there is such a place."""
    table = part.to_frame()
    cells = "held_out" if "held_out_excess" in table else "fitted"
    unit = "nats" if fit.distance == "kl" else "in squared error"
    where = "where nothing was fitted" if cells == "held_out" else "where it was fitted"
    return f"{small_interval(table.iloc[-1], f'{cells}_excess')} {unit} {where}"


def _seeds(n: int) -> str:
    return "one seed" if n == 1 else f"{n} seeds"
