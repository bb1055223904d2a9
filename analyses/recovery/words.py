"""What a recovery study found, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mechicl.wording import percent

if TYPE_CHECKING:
    from mechicl.analyses.recovery.study import RecoveryStudy

FOLLOWED = 0.5  # residual of a trained model below it: nearer to one predictor than to the middle between both


def recovery_verdict(study: RecoveryStudy) -> str:
    """How many organisms were attributed to their family, what the others came to, and the nulls."""
    rates = study.accuracy.set_index("kind")
    words = []
    if "all accounts" in rates.index:
        own: Any = rates.loc["all accounts"]
        words.append(f"{_counted(own)} organisms that follow an account are attributed to its family.")
        words.append(_alone(study, rates))
        words += [
            f"{kind}: {int(rates.loc[kind, 'right'])} of {int(rates.loc[kind, 'n'])}{_others(rates.loc[kind])}."
            for kind in rates.index
            if not kind.startswith("all ") and not _is_null(study, kind) and rates.loc[kind, "rate"] < 1
        ]
    if "all nulls" in rates.index:
        nulls: Any = rates.loc["all nulls"]
        named = int(nulls["n"] - nulls["right"])
        high = percent(1 - float(nulls["low"]))
        verb = "are" if named > 1 else "is"
        words.append(f"Of {int(nulls['n'])} nulls {named or 'none'} {verb} attributed to an account (at most {high}).")
    trained = study.frame.dropna(subset=["residual"])
    stray = int((trained["residual"] >= FOLLOWED).sum())
    if len(trained):
        words.append(
            f"{len(trained) - stray} of {len(trained)} trained transformers follow their strategy (residual below "
            f"{FOLLOWED:g})."
        )
    return " ".join(words)


def _counted(row: Any) -> str:
    interval = f"{percent(float(row['rate']))} [{percent(float(row['low']))}, {percent(float(row['high']))}]"
    return f"{int(row['right'])} of {int(row['n'])} ({interval})"


def _alone(study: RecoveryStudy, rates: Any) -> str:
    """How many of them tie with no other family, and the kinds of those that do."""
    own: Any = rates.loc["all accounts"]
    kinds = [
        f"{kind} ({int(row['right'] - row['alone'])} with {_most(study, kind)})"
        for kind, row in rates.iterrows()
        if not str(kind).startswith("all ") and not _is_null(study, str(kind)) and row["alone"] < row["right"]
    ]
    first = f"{int(own['alone'])} of these are told apart from every other family"
    others = f"; the others are the simplest or nearest of those that tie: {', '.join(kinds)}" if kinds else ""
    return f"{first}{others}."


def _most(study: RecoveryStudy, kind: str) -> str:
    """The families that organisms of a kind tie with where theirs was named, the most frequent first."""
    rows = study.frame[(study.frame["kind"] == kind) & (study.frame["outcome"] == "right")]
    counts = rows["rivals"].str.split(", ").explode().value_counts()
    return " or ".join(name for name in counts.index if name)


def _others(row: Any) -> str:
    """What became of those that were not attributed to their family."""
    wrong = int(row["n"] - row["right"] - row["tied"] - row["unnamed"])
    parts = [
        f"{count} {words}"
        for count, words in (
            (int(row["tied"]), "not told apart from another"),
            (int(row["unnamed"]), "not named"),
            (wrong, "wrong"),
        )
        if count
    ]
    return f" ({', '.join(parts)})" if parts else ""


def _is_null(study: RecoveryStudy, kind: str) -> bool:
    return bool((study.frame.loc[study.frame["kind"] == kind, "truth_family"] == "baseline").all())
