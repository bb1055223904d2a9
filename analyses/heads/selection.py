"""Gate, selection and confirmation: is there an effect, which heads might drive it, and which do on other items?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechicl.analyses.heads.effects import Rows, SetEffects, Sweeper, all_heads
from mechicl.analyses.heads.question import Question
from mechicl.analyses.verdict import NEGLIGIBLE
from mechicl.hooks.patching import Head


@dataclass(frozen=True)
class Confirmation:
    """What the candidates do on the other half.

    change: of each item's combined outcome, [candidate item]; clean: the outcome itself. effect: of all heads at once.
    """

    candidates: tuple[Head, ...]
    confirmed: Bool[np.ndarray, " head"]
    change: Float[np.ndarray, "head item"]
    clean: Float[np.ndarray, " item"]
    clean_total: float
    all_effect: float

    @property
    def heads(self) -> list[Head]:
        """The confirmed heads."""
        return [head for head, yes in zip(self.candidates, self.confirmed, strict=True) if yes]


def gate_table(items: pd.DataFrame, question: Question) -> pd.DataFrame:
    """Is there an effect at all? One row: F on all items, its interval, and whether there is one to localise.

    There is where the interval excludes 0 and the estimate is not negligible (`mechicl.analyses.verdict`).
    """
    rows = Rows(np.arange(len(items)), items["prime_verb"].to_numpy(), items["target"].to_numpy())
    log_odds = {context: items[f"L_{context}"].to_numpy() for context in question.functional.contexts}
    found = question.intervals(question.outcome(log_odds)[None], rows)
    low, high = float(found.low[0]), float(found.high[0])
    return pd.DataFrame(
        {
            "estimate": found.estimate, "low": [low], "high": [high], "n_pairs": [len(items)],
            "n_verbs": [found.n_verbs], "n_targets": [found.n_targets],
            "passed": [bool((low > 0 or high < 0) and abs(found.estimate[0]) >= NEGLIGIBLE)],
        }
    )  # fmt: skip


def select_heads(
    sweeper: Sweeper, question: Question, select: Rows, held_out: Rows, n_candidates: int
) -> tuple[pd.DataFrame, list[Head]]:
    """Every head's effect on the selection half, and the candidates: the largest effects, whatever their sign."""
    heads = all_heads(sweeper.wrapped)
    effects = sweeper.effects(
        select, held_out, [*([head] for head in heads), heads], list(question.functional.contexts)
    )
    change = question.change(effects)
    totals = question.total(change, select)
    intervals, tests = question.intervals(change[:-1], select), question.tests(change[:-1], select)
    priming, conditional = _priming_change(effects, question, select, totals)
    table = pd.DataFrame(
        {
            "layer": [layer for layer, _ in heads],
            "head": [head for _, head in heads],
            "name": [head_name(head) for head in heads],
            "effect": totals[:-1],
            "low": intervals.low,
            "high": intervals.high,
            "share": _share(totals[:-1], totals[-1]),
            "t": tests.t,
            "p": tests.p,
            "p_fwe": tests.p_fwe,
            "p_bh": tests.p_bh,
            "d_priming": priming,
            "conditional": conditional,
        }
    )
    strongest = np.argsort(-np.abs(totals[:-1]), kind="stable")
    chosen = [heads[i] for i in strongest[:n_candidates] if totals[i] != 0]
    table["candidate"] = [head in set(chosen) for head in heads]
    return table, chosen


def confirm_heads(
    sweeper: Sweeper, question: Question, confirm: Rows, held_out: Rows, table: pd.DataFrame, chosen: list[Head]
) -> tuple[pd.DataFrame, Confirmation]:
    """The candidates' effects on the other half; confirmed are those of the same sign with p below 1 - level.

    p is family-wise over the candidates, so that the chance of any false head is at most 1 - level.
    """
    heads = all_heads(sweeper.wrapped)
    effects = sweeper.effects(
        confirm, held_out, [*([head] for head in chosen), heads], list(question.functional.contexts)
    )
    change = question.change(effects)
    totals = question.total(change, confirm)
    clean = question.outcome(effects.clean)
    columns = ["confirm_effect", "confirm_low", "confirm_high", "confirm_share", "confirm_p"]
    table[columns] = np.nan
    table["confirmed"] = False
    confirmed = np.zeros(len(chosen), dtype=bool)
    if chosen:
        intervals, tests = question.intervals(change[:-1], confirm), question.tests(change[:-1], confirm)
        place = {head: i for i, head in enumerate(heads)}
        index = [place[head] for head in chosen]
        same_sign = np.sign(totals[:-1]) == np.sign(table["effect"].to_numpy()[index])
        confirmed = (tests.p_fwe <= 1 - question.level) & same_sign
        found = (totals[:-1], intervals.low, intervals.high, _share(totals[:-1], totals[-1]), tests.p_fwe)
        table.loc[index, columns] = np.column_stack(found)
        table.loc[index, "confirmed"] = confirmed
    return table, Confirmation(
        candidates=tuple(chosen),
        confirmed=confirmed,
        change=change[:-1],
        clean=clean,
        clean_total=float(question.total(clean, confirm)),
        all_effect=float(totals[-1]),
    )


def head_name(head: Head) -> str:
    """As in the literature: L7H3 is head 3 of layer 7, both counted from 0."""
    return f"L{head[0]}H{head[1]}"


def _share(totals: Float[np.ndarray, " head"], whole: float) -> Float[np.ndarray, " head"]:
    return totals / whole if whole else np.full_like(totals, np.nan)


def _priming_change(
    effects: SetEffects, question: Question, rows: Rows, totals: Float[np.ndarray, " set"]
) -> tuple[Float[np.ndarray, " head"], Float[np.ndarray, " head"]]:
    """Each head's effect on mean priming in nats, and the relative change of F / priming."""
    forms = [context for context in effects.clean if context != "neutral"]
    unknown = np.full(len(totals) - 1, np.nan)
    if len(forms) != 2:
        return unknown, unknown
    first, second = forms
    clean = (effects.clean[first] - effects.clean[second]).mean()
    patched = (effects.patched[first] - effects.patched[second]).mean(-1)[:-1]
    if question.functional.over == "mean":
        return patched - clean, unknown
    before = question.total(question.outcome(effects.clean), rows)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ((before + totals[:-1]) / patched) / (before / clean) - 1
    return patched - clean, np.where(np.isfinite(ratio), ratio, np.nan)
