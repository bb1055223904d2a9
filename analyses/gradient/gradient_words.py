"""What came out of the gradient account, in words; the card of the report and the command line say the same."""

from __future__ import annotations

import pandas as pd

from mechicl.analyses.finetuning import FinetunedPriming
from mechicl.analyses.gradient.error_growth import ErrorDrivenResult
from mechicl.analyses.gradient.item_match import ItemMatch
from mechicl.analyses.inverse_frequency import IFEResult
from mechicl.analyses.verdict import NEGLIGIBLE
from mechicl.wording import number, p_value, with_interval

WORDS = {
    "agree": "follow",
    "opposed": "run against",
    "none": "are not shown to follow",
    "flat": "hardly vary, so they cannot follow",
}
NAMES = {
    "between verbs": "verbs' effects",
    "beyond verb and target": "effects of single pairs, verb and target taken out,",
}


def match_evidence(match: ItemMatch, level: str = "between verbs") -> dict[str, str]:
    """Form -> "agree", "opposed", "flat" or "none", at one of the match's levels.

    Agreement needs an interval above 0, a corrected p and an effect in context that varies by more than `NEGLIGIBLE`
    nats (standard deviation); "flat" where it varies less, whatever the correlation.
    """
    rows = match.matches[match.matches["level"] == level]
    return {str(row["form"]): _evidence(row, match.level) for _, row in rows.iterrows()}


def match_sentence(match: ItemMatch, level: str = "between verbs") -> str:
    """How far effects in context go along with those of gradient steps, at one of the match's levels."""
    said = [
        f"{WORDS[label]} those of gradient steps after {_row(match, form, level)}"
        for form, label in match_evidence(match, level).items()
    ]
    return f"in context, {NAMES.get(level, level)} " + " and ".join(said)


def steps_sentence(finetuned: FinetunedPriming, ife: IFEResult) -> str:
    """What gradient steps alone do, and whether they show the IFE."""
    forms = finetuned.priming.forms
    row = finetuned.priming.effects.query(f"contrast == '{forms[0]} vs {forms[1]}' and scale == 'nats'").iloc[0]
    often = "a gradient step" if finetuned.steps == 1 else f"{finetuned.steps} gradient steps"
    size = with_interval(row["estimate"], row["low"], row["high"])
    return (
        f"{often} ({finetuned.optimizer.upper()}, learning rate {finetuned.learning_rate:g}) on a prime "
        f"prime{'s' if finetuned.steps == 1 else ''} by {size} nats: {ife.verdict}"
    )


def gradient_sentences(
    finetuned: FinetunedPriming, finetuned_ife: IFEResult, match: ItemMatch, errors: ErrorDrivenResult
) -> tuple[str, str, str, str]:
    """Agreement with context by verb and by pair, growth with the error, and what the steps do by themselves."""
    by_verb, by_pair = match_sentence(match), match_sentence(match, "beyond verb and target")
    parts = (by_verb, by_pair, errors.verdict, steps_sentence(finetuned, finetuned_ife))
    first, second, third, fourth = (f"{part[:1].upper()}{part[1:]}." for part in parts)
    return first, second, third, fourth


def card(match: ItemMatch, errors: ErrorDrivenResult) -> tuple[str, str]:
    """The kind of answer ("yes", "none", "reversed") and its few words: does it go like a gradient step?"""
    found = match_evidence(match)
    agreeing = [form for form, label in found.items() if label == "agree"]
    grows = errors.evidence.get("icl") == "grows"
    if len(agreeing) == len(found) and grows:
        return "yes", "Like a gradient step, on both counts"
    if agreeing and grows:
        return "yes", f"Like a gradient step after {' and '.join(agreeing)} primes"
    if grows:
        return "none", "It grows with the error, but not as gradient steps do"
    if agreeing:
        return "none", f"Verbs agree after {' and '.join(agreeing)} primes, but not with their error"
    if errors.evidence.get("icl") == "shrinks":
        return "reversed", "It shrinks with the error"
    return "none", "No sign of it"


def _evidence(row: pd.Series, level: float) -> str:
    if row["context_sd"] < NEGLIGIBLE:
        return "flat"
    if not row["p_holm"] < 1 - level or row["low"] <= 0 <= row["high"]:
        return "none"
    return "agree" if row["r"] > 0 else "opposed"


def _row(match: ItemMatch, form: str, level: str) -> str:
    row = match.matches.query(f"form == '{form}' and level == '{level}'").iloc[0]
    r = with_interval(row["r"], row["low"], row["high"], 2)
    return f"{form} primes (r {r}, {p_value(row['p_holm'])}, sd {number(row['context_sd'])} nats)"
