"""What a report says about accounts side by side: card, sentences, tables, pictures, method and caveats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from mechicl.analyses.pages.content import option_words
from mechicl.analyses.pages.section import Section
from mechicl.analyses.rivals.report_drawings import account_drawings, shares_drawing
from mechicl.analyses.rivals.report_method import CAVEATS, SOURCES, method
from mechicl.analyses.rivals.report_words import accounts_slug, capital, card, task_words, titled
from mechicl.wording import number, with_interval

if TYPE_CHECKING:
    from mechicl.analyses.accounts import AccountTable

FRAMES = {
    "shares": "one row an account: share of the model, distance, fitted numbers",
    "lengths": "the shares at every length of context",
    "pairs": "paired differences between accounts",
    "apart": "how far accounts are from each other on these contexts",
    "truth": "errors of the model and of each account against the right answers",
    "mechanisms": "measures inside the model beside the accounts",
}
FAMILY_NAMES = {
    "gradient": "gradient",
    "kernel": "kernel",
    "bayes": "Bayes",
    "boost": "boost",
    "baseline": "baseline",
}


def accounts_section(found: AccountTable, *, shares: bool = True) -> Section:
    """The section of `mechicl.analyses.pages.sections`; ``shares``: with the table and picture of all shares, which a
    page may show above instead."""
    slug = accounts_slug(found)
    tables = [shares_table(found)] if shares else []
    tables.append(claims_table(found))
    tables += [table for table in (truth_table(found), mechanisms_table(found)) if table["rows"]]
    drawings = account_drawings(found, slug)
    return Section(
        slug=slug,
        question=f"Which account explains {task_words(found)}?",
        kind="none" if found.named is None else "yes",
        verdict=card(found),
        brief=found.verdict,
        sentence=found.verdict,
        paragraphs=[" ".join(found.sentences.values()), _room_words(found)],
        tables=tables,
        drawings=[shares_drawing(found, slug), *drawings] if shares else drawings,
        method=method(found),
        caveats=CAVEATS,
        frames={f"{slug}_{name}": (frame, FRAMES[name]) for name, frame in _frames(found).items() if len(frame)},
        results={slug: found},
        provenance=[(f"Accounts, {found.kind}", option_words(found.provenance.seeds | found.provenance.options))],
        sources=SOURCES.get(found.kind, ()),
    )


def shares_table(found: AccountTable) -> dict[str, Any]:
    """Every account's share with its interval, nearest first."""
    rows = [
        [
            str(row["account"]),
            FAMILY_NAMES.get(str(row["family"]), str(row["family"])),
            with_interval(row["share"], row["low"], row["high"], 2),
            _behind(row),
            with_interval(row["distance"], row["distance_low"], row["distance_high"], _digits(found)),
            str(int(row["n_free"])),
        ]
        for _, row in found.frame.iterrows()
    ]
    unit = "squared" if found.is_mean else "nats"
    caption = (
        f"{titled(found)}: how much of what the model's answers owe to their context each account "
        f"explains, with {found.level:.0%} intervals over {found.n_clusters} units of contexts that chose none of its "
        f"numbers ({found.n_judged} predictions). 0: no nearer to the model than “{found.anchor}”; 1: as near as an "
        f"account can be. Behind: paired difference to the nearest. Distance: from the model's predictions ({unit}). "
        "Free: numbers that were fitted."
    )
    heads = ["Account", "Family", "Share", "Behind", "Distance", "Free"]
    return {"caption": caption, "heads": heads, "rows": rows}


def claims_table(found: AccountTable) -> dict[str, Any]:
    """What each account says, and the numbers that were fitted."""
    rows = [
        [str(row["account"]), str(row["parameters"]) or "none", str(row["words"])] for _, row in found.frame.iterrows()
    ]
    caption = f"{capital(found.kind)}: what each account claims, and its fitted numbers."
    return {"caption": caption, "heads": ["Account", "Fitted", "Claim"], "rows": rows, "words": True}


def truth_table(found: AccountTable) -> dict[str, Any]:
    """Errors against the right answers; no rows where these are unknown."""
    rows = [
        [
            "The model" if row["account"] == "model" else str(row["account"]),
            with_interval(row["error"], row["low"], row["high"], _digits(found)),
        ]
        for _, row in found.truth.iterrows()
    ]
    unit = "squared" if found.is_mean else "nats"
    caption = f"{capital(found.kind)}: error against the right answers ({unit}), of the model and of each account."
    return {"caption": caption, "heads": ["Who", "Error"], "rows": rows}


def mechanisms_table(found: AccountTable) -> dict[str, Any]:
    """What was found inside the model, beside the accounts."""
    rows = [
        [
            str(row["account"]),
            str(row["measure"]),
            with_interval(row["estimate"], row["low"], row["high"], 2),
            number(float(row["control"]), 2),
            str(row["note"]),
        ]
        for _, row in found.mechanisms.iterrows()
    ]
    caption = (
        f"{capital(found.kind)}: what other analyses found inside the model, beside the account that it bears on. "
        "Control: the same measure where nothing should be; n/a where there is none."
    )
    return {
        "caption": caption,
        "heads": ["Account", "Measure", "Estimate", "Control", "Note"],
        "rows": rows,
        "words": True,
    }


def _behind(row: Any) -> str:
    if row["behind"] == 0 and row["behind_high"] == 0:
        return "nearest"
    return with_interval(row["behind"], row["behind_low"], row["behind_high"], 2)


def _digits(found: AccountTable) -> int:
    """Decimals that show the room in two digits or more."""
    room = abs(found.room)
    return 3 if not room or not math.isfinite(room) else min(max(2 - math.floor(math.log10(room)), 2), 7)


def _room_words(found: AccountTable) -> str:
    digits = _digits(found)
    unit = "" if found.is_mean else " nats"
    room = with_interval(found.room, found.room_low, found.room_high, digits)
    ceiling = with_interval(found.ceiling, found.ceiling_low, found.ceiling_high, digits)
    return (
        f"From “{found.anchor}” to the ceiling there are {room}{unit} a prediction; the ceiling itself is at "
        f"{ceiling}{unit}. Fitted on {found.n_fitted} predictions, judged on {found.n_judged} others."
    )


def _frames(found: AccountTable) -> dict[str, pd.DataFrame]:
    return {
        "shares": found.frame,
        "lengths": found.by_length,
        "pairs": found.pairs,
        "apart": found.apart,
        "truth": found.truth,
        "mechanisms": found.mechanisms,
    }
