"""How a report names accounts and their tasks, and what it says of a family over several tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechicl.accounts.words import FAMILIES

if TYPE_CHECKING:
    from mechicl.analyses.accounts import AccountTable


def accounts_slug(found: AccountTable) -> str:
    """The name of a table's section, pictures and files: one a kind of task."""
    return f"accounts_{re.sub(r'[^a-z]', '_', found.kind.lower())}"


def task_words(found: AccountTable) -> str:
    """What is explained, as a question names it."""
    known = {"priming": "what one prime does", "few-shot": f"its answers in the task “{found.task}”"}
    return known.get(found.kind, f"its answers in {found.kind}")


def titled(found: AccountTable) -> str:
    """Kind and task, as captions begin."""
    named = found.task.lower().startswith(found.kind.lower())
    return capital(found.task if named else f"{found.kind}, {found.task}")


def card(found: AccountTable) -> str:
    """The answer in a few words."""
    if not found.has_room:
        return "There is nothing to explain"
    if found.named is not None:
        return f"{FAMILIES[str(found.family)]}: “{found.named}”"
    return "No account beats the baselines" if found.row(found.best)["family"] == "baseline" else "None is named"


def family_words(tables: Sequence[AccountTable], families: Sequence[str]) -> str:
    """One sentence a task: how much its nearest account of these families explains; "" where no task has one."""
    words = []
    for found in tables:
        where = "After one prime" if found.kind == "priming" else f"In {found.task}"
        own = [found.sentences[family] for family in families if family in found.sentences]
        said = [without_numbers(one).partition(": ")[2] for one in own]
        if said:
            words.append(f"{where}: {' '.join(map(capital, dict.fromkeys(said)))}")
    return " ".join(words)


def without_numbers(sentence: str) -> str:
    """The same without the fitted numbers, which stand in brackets after an account's name: tables have them."""
    return re.sub(r"” \((?!difference )(?:[^()]|\([^()]*\))*\)", "”", sentence)


def capital(text: str) -> str:
    """The same with a capital letter first."""
    return text[:1].upper() + text[1:]
