"""What is known of the insides beside the accounts of few-shot text: one row a measure, from results that are at hand.

    kernel of the inputs    unique R^2 of the kernel that a head's attention follows most, beyond place, label, length
                            and words. Control: the median of heads that follow none
                            (`mechicl.analyses.kernel_regression`)
                            faithfulness: do the answers come back where the kernel's weights are put in the place of
                            the attention of heads? 1: as in the clean run, 0: as far off as with uniform attention.
                            Control: weights of place, label, length and words alone
                            (`mechicl.analyses.causality.replaced_attention`)
    attention of one head   agreement of the labels' votes with the answers. Control: what is expected by chance
                            nats by which the answers move where the heads attend to all demonstrations alike. Control:
                            random heads
    gradient step           SimAOU and SimAM: do attention's outputs, and its weights, move in context as a real step
                            moves them? Effect correlation: do the answers? Control: the same model with shuffled
                            weights (`mechicl.analyses.resemblance.gradient_comparison`)

The best following head is picked by the numbers that are shown: with many heads its R^2 is a little flattered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from mechicl.analyses.causality.replaced_attention import KernelCausality
from mechicl.analyses.kernel_account import KernelAccount
from mechicl.analyses.kernel_regression import KernelRegression
from mechicl.analyses.resemblance.gradient_comparison import GradientComparison

COLUMNS = ["account", "measure", "estimate", "low", "high", "control", "note"]
UNTRAINED = "random init"
RESEMBLANCE = ("SimAOU", "SimAM", "effect correlation")
_NAN = float("nan")
Row = tuple[str, str, float, float, float, float, str]


def fewshot_mechanisms(
    kernel_account: KernelAccount | None = None, comparison: GradientComparison | None = None
) -> pd.DataFrame:
    """The rows of both kinds of results, in the columns account, measure, estimate, low, high, control, note.

    kernel_account: of `measure_kernel_account`; comparison: of `compare_to_gradient`. Numbers are NaN where nothing
    could be measured; the note says why. Empty without results.
    """
    rows: list[Row] = []
    if kernel_account is not None:
        rows += [*_followed(kernel_account.regression), _rebuilt(kernel_account.regression)]
        if kernel_account.causality is not None:
            rows += _replaced(kernel_account.causality)
    if comparison is not None:
        rows += _resembled(comparison)
    return pd.DataFrame(rows, columns=COLUMNS)


def mechanisms_beside(results: Sequence[Any]) -> pd.DataFrame:
    """`fewshot_mechanisms` of those results that speak of few-shot text, the last of each kind."""
    kernel = [own for own in results if isinstance(own, KernelAccount)]
    gradient = [own for own in results if isinstance(own, GradientComparison)]
    return fewshot_mechanisms(kernel[-1] if kernel else None, gradient[-1] if gradient else None)


def _followed(found: KernelRegression) -> Iterator[Row]:
    heads = found.heads
    following = heads[heads["follows_kernel"].astype(bool)]
    rest = heads.loc[~heads["follows_kernel"].astype(bool), "unique_r2"].dropna()
    control = float(rest.median()) if len(rest) else _NAN
    if following.empty:
        note = f"none of {len(heads)} heads follows a kernel"
        yield "kernel of the inputs", "unique R^2 of a head's kernel", _NAN, _NAN, _NAN, control, note
        return
    best: Any = following.sort_values("unique_r2", kind="stable").iloc[-1]
    measure = f"unique R^2 of the kernel in L{best['layer']}H{best['head']}"
    note = f"{best['kernel']}; {len(following)} of {len(heads)} heads follow a kernel; control: median of the others"
    interval = (float(best[name]) for name in ("unique_r2", "unique_r2_low", "unique_r2_high"))
    estimate, low, high = interval
    yield "kernel of the inputs", measure, estimate, low, high, control, note


def _rebuilt(found: KernelRegression) -> Row:
    row: Any = found.rebuilt.set_index("name").loc["best head"]
    gain = f"{row['gain']:+.2f} [{row['gain_low']:+.2f}, {row['gain_high']:+.2f}]"
    note = f"{gain} beyond weights of place alone; control: chance"
    measure = f"agreement of {row['chosen']}'s votes with the answers"
    values = (float(row[name]) for name in ("agreement", "low", "high", "chance"))
    agreement, low, high, chance = values
    return "attention of one head", measure, agreement, low, high, chance, note


def _replaced(found: KernelCausality) -> Iterator[Row]:
    sets = [name for name in dict.fromkeys(found.frame["set"]) if name in found.sets]
    for name in sets:
        own = found.frame[found.frame["set"] == name]
        heads = ", ".join(f"L{layer}H{head}" for layer, head in found.heads[found.sets.index(name)])
        words = f"kernel's weights in heads named by {name}"
        yield _row("kernel of the inputs", f"faithfulness of the {words}", own, "kernel", "uniform", "faithfulness",
                   "nuisance weights", heads)  # fmt: skip
        yield _row("attention of one head", f"nats moved by uniform attention in heads named by {name}", own, "uniform",
                   "clean", "moved", "random heads", heads)  # fmt: skip


def _row(
    account: str, measure: str, table: pd.DataFrame, condition: str, reference: str, what: str, control: str, note: str
) -> Row:
    """A measure of replaced attention beside its control, and their difference in words."""
    chosen = (table["condition"] == condition) & (table["reference"] == reference) & (table["measure"] == what)
    rows = table[chosen].set_index("control")
    if "none" not in rows.index:
        return account, measure, _NAN, _NAN, _NAN, _NAN, f"{note}; not measured"
    own, beside, words = _values(rows, "none"), _NAN, "none"
    if control in rows.index:
        beside, words = float(rows["estimate"][control]), f"{control}, {_difference(rows.loc[control])}"
    return account, measure, *own, beside, f"{note}; control: {words}"


def _resembled(found: GradientComparison) -> Iterator[Row]:
    variants = list(dict.fromkeys(found.frame["variant"]))
    for variant in variants:
        for measure in RESEMBLANCE:
            chosen = (found.frame["variant"] == variant) & (found.frame["measure"] == measure)
            rows = found.frame[chosen & (found.frame["layer"] == "all")].set_index("control")
            if "none" not in rows.index:
                note = next((one for one in found.notes if measure in one), "not measured")
                yield "gradient step", f"{measure}, steps on {variant}", _NAN, _NAN, _NAN, _NAN, note
                continue
            beside, words = _NAN, "none"
            if UNTRAINED in rows.index:
                beside = float(rows["estimate"][UNTRAINED])
                words = f"shuffled weights, {_difference(rows.loc[UNTRAINED])}"
            note = f"{rows['n']['none']} prompts of {found.n_demos}; control: {words}"
            yield "gradient step", f"{measure}, steps on {variant}", *_values(rows, "none"), beside, note


def _values(rows: pd.DataFrame, name: str) -> tuple[float, float, float]:
    row: Any = rows.loc[name]
    return float(row["estimate"]), float(row["low"]), float(row["high"])


def _difference(row: Any) -> str:
    return f"{row['difference']:+.2f} [{row['diff_low']:+.2f}, {row['diff_high']:+.2f}] beyond it"
