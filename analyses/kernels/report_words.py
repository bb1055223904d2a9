"""What a report says about the kernel account: the card, and what stands beside its tables."""

from __future__ import annotations

from typing import Any

from mechicl.analyses.kernels.words import causality_sentences, phenomena_sentence
from mechicl.wording import number, percent, with_interval


def card(found: Any) -> tuple[str, str]:
    """The kind of answer ("yes", "none") and its few words: does it answer by a kernel regression?

    Three counts: one head's votes give the model's answers, more often than labels weighed by place; attention of some
    head follows a kernel; and a kernel's weights give answers back that permuted ones and nuisances alone do not (where
    this was measured).
    """
    accuracy = found.regression.accuracy
    if not accuracy["low"] > accuracy["chance"]:
        return "none", "Nothing to explain: it is not above chance"
    votes, kernel, causal = _votes(found), bool(found.regression.heads["follows_kernel"].any()), _causal(found)
    if votes and kernel and causal is not False:
        return "yes", "Like a kernel regression, " + ("on both counts" if causal is None else "on all three counts")
    if not votes and not kernel:
        return "none", "No sign of it"
    if not votes:
        return "none", "Heads follow kernels, but their votes are not its answers"
    if not kernel:
        return "none", "Votes agree with its answers, but no head follows a kernel"
    return "none", "Votes and kernels agree, but answers do not follow the kernels"


def paragraphs(found: Any) -> list[str]:
    """What stands below the section's first sentence."""
    words = [kinds_sentence(found.regression)]
    if found.causality is not None:
        words.append(" ".join(causality_sentences(found.causality)))
    if found.attention is not None:
        rows = found.attention.frame.query("layer == 'all'").set_index("kind")
        shares = [
            f"{percent(rows.loc[kind, 'share'])} on {name} (chance {percent(rows.loc[kind, 'chance'])})"
            for kind, name in (("label", "their labels"), ("text", "their texts"), ("start", "the start"))
            if kind in rows.index
        ]
        words.append(f"Over all layers and heads the last token's attention rests {', '.join(shares)}.")
    if found.phenomena is not None:
        words.append(phenomena_sentence(found.phenomena))
        known = found.phenomena.correlations.dropna(subset=["correlation"])
        said = [
            f"{row['predictor']} {with_interval(row['correlation'], row['low'], row['high'], 2)}"
            for _, row in known.iterrows()
        ]
        if said:
            words[-1] += f" Correlation of an account's accuracy with the model's over conditions: {'; '.join(said)}."
    return words


def notes(found: Any) -> list[tuple[str, str]]:
    """What could not be measured and why, a caveat a part."""
    parts = {
        "heads": found.regression,
        "replaced attention": found.causality,
        "experiments": found.phenomena,
        "keys and values": found.probes,
    }
    return [
        (f"Notes on {name}", f"{'; '.join(part.notes)}.")
        for name, part in parts.items()
        if part is not None and part.notes
    ]


def kinds_sentence(regression: Any) -> str:
    """How many heads follow what."""
    counts = regression.heads["kind"].value_counts()
    said = [f"{counts[kind]} {words}" for kind, words in _KINDS.items() if kind in counts]
    share = number(float(regression.heads["demos"].mean()), 2)
    return (
        f"By what their attention to demonstrations follows most ({percent(0.1)} of its variance or more): "
        f"{', '.join(said)}. Heads pay demonstrations {share} of their attention on average."
    )


_KINDS = {
    "kernel": "heads a kernel",
    "recency": "what came last",
    "primacy": "what came first",
    "label": "the label",
    "length": "lengths",
    "overlap": "words in common",
    "other": "none of these",
    "constant": "attend to all alike",
}


def _votes(found: Any) -> bool:
    best = found.regression.rebuilt.set_index("name").loc["best head"]
    return bool(best["gain_low"] > 0 and best["low"] > best["chance"] and best["p"] <= 1 - found.regression.level)


def _causal(found: Any) -> bool | None:
    """Whether kernel weights give back more than permuted ones, and than those of nuisances where these are known.

    Of the heads named for their kernel, or of any set where none were. None where it was not measured, or is undefined.
    """
    if found.causality is None:
        return None
    rows = found.causality.frame.query("condition == 'kernel' and reference == 'uniform' and measure == 'faithfulness'")
    rows = rows[rows["control"].isin(["permuted weights", "nuisance weights"])].dropna(subset=["diff_low"])
    named = rows[rows["set"] == "kernel"]
    least = (named if len(named) else rows).groupby("set")["diff_low"].min()
    return None if least.empty else bool(least.max() > 0)
