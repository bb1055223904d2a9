"""A localisation in words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mechicl.analyses.heads.question import Question
from mechicl.wording import number, percent, with_interval

_NAMED = 6  # heads named in the sentence


def head_verdict(question: Question, gate: pd.DataFrame, heads: pd.DataFrame) -> str:
    """What was found, with the numbers that it rests on."""
    name = _title(question.functional.name)
    row = gate.iloc[0]
    unit = question.functional.unit(question.scale)
    size = f"{with_interval(row['estimate'], row['low'], row['high'])} {unit}"
    if not row["passed"]:
        why = "an interval that includes 0" if row["low"] <= 0 <= row["high"] else "which is negligible"
        return f"Nothing to localise: {name} is {size}, {why}."
    confirmed = heads[heads["confirmed"]]
    if confirmed.empty:
        return (
            f"No head was confirmed as driving {name} ({size}): of {len(heads)} heads, none of the "
            f"{int(heads['candidate'].sum())} strongest held on the other half of the items."
        )
    confirmed = confirmed.loc[confirmed["confirm_effect"].abs().sort_values(ascending=False).index]
    # Replacing a head that drives the effect takes some of it away.
    drives = np.sign(confirmed["confirm_effect"]) == -np.sign(row["estimate"])
    count = int(drives.sum())
    verb = "drives" if count == 1 else "drive"
    text = f"{count or 'None'} of {len(heads)} heads {verb} {name} ({size})" + _named(confirmed[drives], ": ") + "."
    if count < len(confirmed):
        verb = "works" if len(confirmed) - count == 1 else "work"
        text += f" {len(confirmed) - count} {verb} against it{_named(confirmed[~drives], ': ')}."
    idle = heads[heads["carries_bias"]]
    if len(idle) and question.functional.over == "slope":
        carry = "heads carry" if len(idle) > 1 else "head carries"
        text += (
            f" {len(idle)} other {carry} the verb's bias without being confirmed as "
            f"cause{'s' if len(idle) > 1 else ''}: {', '.join(idle['name'].head(_NAMED))}"
            f"{' ...' if len(idle) > _NAMED else ''}."
        )
    return text


def _named(heads: pd.DataFrame, before: str) -> str:
    """The first of the heads with their effects."""
    if heads.empty:
        return ""
    words = [
        f"{head['name']} ({number(head['confirm_effect'])}, {percent(head['confirm_share'])} of what all heads do)"
        for _, head in heads.head(_NAMED).iterrows()
    ]
    return before + ", ".join(words) + (f" and {len(heads) - _NAMED} more" if len(heads) > _NAMED else "")


def _title(name: str) -> str:
    """The effect as it reads in a sentence."""
    if name == "ife":
        return "the inverse frequency effect"
    if name.startswith("ife_"):
        return f"the inverse frequency effect on {name.removeprefix('ife_')} primes"
    return name
