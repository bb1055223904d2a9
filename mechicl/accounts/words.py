"""A judgement of accounts in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mechicl.wording import MINUS, with_interval

if TYPE_CHECKING:
    from mechicl.accounts.judgement import Judgement

FAMILIES = {
    "gradient": "Gradient steps",
    "kernel": "Kernel regression",
    "bayes": "Bayesian strategies",
    "boost": "A constant boost",
    "baseline": "Baselines",
}
DIGITS = 2
NAMED = 0.5  # an account whose share may be lower is not named
ENOUGH = 10  # clusters to judge by; with fewer none is named


def family_sentence(judged: Judgement, family: str) -> str:
    """How much of the model the nearest account of a family explains, beside the best baseline."""
    row: Any = judged.leading(family)
    if row is None:
        raise ValueError(f"got family={family!r}; expected one of {', '.join(judged.families)}")
    if not judged.has_room:
        return f"{FAMILIES[family]}: there is nothing to explain on these contexts."
    share = f"explains {share_of(row)} of what the answers owe to their context"
    first = f"{FAMILIES[family]}: “{row['account']}”{_fitted(row)} {share}"
    baseline: Any = judged.leading("baseline")
    if family == "baseline" or baseline is None:
        return f"{first}."
    more, low, high = judged.difference(str(row["account"]), str(baseline["account"]))
    than = f"the nearest baseline, “{baseline['account']}”"
    if low > 0:
        return f"{first}, {with_interval(more, low, high, DIGITS)} more than {than}."
    if high < 0:
        return f"{first}, {with_interval(-more, -high, -low, DIGITS)} less than {than}."
    return f"{first}, not told apart from {than} (difference {with_interval(more, low, high, DIGITS)})."


def verdict_of(judged: Judgement) -> str:
    """Which account is nearest, what cannot be told apart from it, and when none may be named."""
    if not judged.has_room:
        room = f"{judged.room:.2g} [{judged.room_low:.2g}, {judged.room_high:.2g}]".replace("-", MINUS)
        return (
            f"Nothing to explain: “{judged.anchor}” is as near to the model's answers as an account that ignores order "
            f"can be (room {room}{_unit(judged)})."
        )
    words = [_nearest(judged)]
    if judged.tied:
        words.append(f"Not told apart from it: {', '.join(judged.tied)}.")
    others = judged.frame[~judged.frame["tied"]]
    if len(others):
        after: Any = others.iloc[0]
        words.append(f"Next: “{after['account']}”, {share_of(after)}.")
    return " ".join(words)


def _nearest(judged: Judgement) -> str:
    best: Any = judged.row(judged.best)
    name = f"“{best['account']}”{_fitted(best)}"
    if judged.named is not None:
        return f"{FAMILIES[best['family']]}: {name} is nearest to the model, with a share of {share_of(best)}."
    if best["family"] == "baseline":
        return f"No account beats the baselines: {name} is as near as any, with a share of {share_of(best)}."
    why = "does not beat every baseline" if best["low"] > NAMED else "may be below a half"
    if judged.n_clusters < ENOUGH:
        why = f"rests on {judged.n_clusters} clusters of contexts, too few to name one ({ENOUGH})"
    where = "the nearest" if best["behind"] == 0 else "the simplest of those nearest"
    return f"No account is named: {where}, {name}, has a share of {share_of(best)}, which {why}."


def share_of(row: Any) -> str:
    """A share with its interval."""
    return with_interval(float(row["share"]), float(row["low"]), float(row["high"]), DIGITS)


def _fitted(row: Any) -> str:
    return f" ({row['parameters']})" if row["parameters"] else ""


def _unit(judged: Judgement) -> str:
    return "" if judged.is_mean else " nats"


__all__ = ["FAMILIES", "family_sentence", "share_of", "verdict_of"]
