"""What is known of the insides beside the accounts of priming: one row a measure, from results that are at hand.

    gradient step    r of an item's effect in context with its effect by a real gradient step on the prime, within a
                     form, verb and target means taken out, and between verbs. Control: the mean r where verbs are
                     permuted (`mechicl.analyses.gradient.item_match`)
    delta rule       slopes on the prime's prediction error: of the effect in context, in nats a nat, and of the sizes
                     of the implicit update, in shares of their means a nat. Above 0 if learning is driven by errors, 0
                     for a constant boost. Control: the slopes after neutral primes, which show no form, or else with
                     another verb's error (`mechicl.analyses.gradient.error_growth`)
    patched heads    share of an effect F that goes when the confirmed heads are patched: change of F / change with all
                     heads patched. 1 if these heads are all of the account's mechanism, 0 if they are none of it.
                     Control: random sets of as many heads (`mechicl.analyses.heads.map`)

A head map of mean priming speaks of the constant boost (the part of priming that is the same for all verbs), one of an
inverse frequency effect of the delta rule. The share is the sum over single heads' changes on the confirmation half,
with a bootstrap interval over prime verbs and targets, over the change with all heads patched, which is taken as it is;
the note has the share with the heads patched together.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from mechicl.analyses.gradient.error_growth import ErrorDrivenResult
from mechicl.analyses.gradient.error_table import AFTER_NEUTRAL, OTHER_VERB, RAW
from mechicl.analyses.gradient.item_match import ItemMatch
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.implicit_gradient import ImplicitGradient
from mechicl.crossed import crossed_intervals

COLUMNS = ["account", "measure", "estimate", "low", "high", "control", "note"]
MATCHED = ("beyond verb and target", "between verbs")
SIZES = {
    "icl": "effect in context",
    "residual": "size of the residual update",
    "attention": "size of attention's update",
}
_NAN = float("nan")
_N_BOOT = 2_000
Row = tuple[str, str, float, float, float, float, str]


def priming_mechanisms(implicit: ImplicitGradient | None = None, heads: Sequence[HeadMap] = ()) -> pd.DataFrame:
    """The rows of both kinds of results, in the columns account, measure, estimate, low, high, control, note.

    implicit: of `measure_implicit_gradient`. heads: of `localize_heads`, for priming, the inverse frequency effect, or
    both. Numbers are NaN where nothing could be measured; the note says why. Empty without results.
    """
    if isinstance(heads, HeadMap):
        heads = [heads]
    rows: list[Row] = []
    if implicit is not None:
        rows += [*_matches(implicit.match), *_growth(implicit.errors)]
    for one in heads:
        rows.append(_patched(one))
    return pd.DataFrame(rows, columns=COLUMNS)


def mechanisms_beside(results: Sequence[Any]) -> pd.DataFrame:
    """`priming_mechanisms` of those results that speak of priming: head maps, and the last `ImplicitGradient`."""
    implicit = [own for own in results if isinstance(own, ImplicitGradient)]
    return priming_mechanisms(implicit[-1] if implicit else None, [own for own in results if isinstance(own, HeadMap)])


def _matches(match: ItemMatch) -> Iterator[Row]:
    table = match.matches
    for level in MATCHED:
        for row in table[table["level"] == level].to_dict("records"):
            note = f"{row['n_items']} items, {row['n_verbs']} verbs; p_holm {row['p_holm']:.2g}, verbs permuted"
            measure = f"r with a real gradient step, {level}, {row['form']} primes"
            yield "gradient step", measure, row["r"], row["low"], row["high"], row["chance"], note


def _growth(errors: ErrorDrivenResult) -> Iterator[Row]:
    table = errors.estimates[errors.estimates["forms"] == "both"].set_index(["outcome", "model"])
    unit = "nat" if errors.error == "surprisal" else "unit"
    for outcome in errors.evidence:
        row: Any = table.loc[(outcome, RAW)]
        beside = next((name for name in (AFTER_NEUTRAL, OTHER_VERB) if (outcome, name) in table.index), None)
        control = _NAN if beside is None else float(table["estimate"][outcome, beside])
        # an effect has a unit of its own; sizes of updates differ by orders of magnitude between models
        divisor = 1.0 if outcome == "icl" else float(row["mean"])
        measure = f"growth of the {SIZES.get(outcome, outcome)} a {unit} of the prime's error"
        note = (
            f"{errors.evidence[outcome]}; control: {beside or 'none'}; {row['n_primes']} primes, {row['n_verbs']} verbs"
        )
        estimate, low, high = (float(row[name]) / divisor for name in ("estimate", "low", "high"))
        yield "delta rule", measure, estimate, low, high, control / divisor, note


def _patched(found: HeadMap) -> Row:
    account = "constant boost" if found.over == "mean" else "delta rule"
    measure = f"share of {found.effect} that goes with the confirmed heads"
    if found.heads.empty:
        return account, measure, _NAN, _NAN, _NAN, _NAN, f"no {found.effect} to localise"
    if not found.confirmed:
        return account, measure, _NAN, _NAN, _NAN, _NAN, "no head was confirmed"
    curves: Any = found.curves.set_index(["kind", "k"])["value"]
    whole = float(curves["keep", 0] - curves["ablate", 0])  # all heads replaced, less the clean model
    if whole == 0:
        return account, measure, _NAN, _NAN, _NAN, _NAN, "patching all heads changes nothing"
    each = found.confirmed_effects
    items = each.assign(item=each.groupby("name").cumcount()).groupby("item")
    total = items.agg({"prime_verb": "first", "target": "first", "bias": "first", "d_effect": "sum"})
    bias = total.groupby("prime_verb")["bias"].first() if found.over == "slope" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # few verbs: the number stands in the note
        interval = crossed_intervals(
            total["d_effect"].to_numpy(float)[None],
            total["prime_verb"].to_numpy(),
            total["target"].to_numpy(),
            x=bias,
            n_boot=_N_BOOT,
            level=found.level,
        )
    low, high = sorted((float(interval.low[0]) / whole, float(interval.high[0]) / whole))
    control, together = _sets(found, whole)
    names = ", ".join(f"L{layer}H{head}" for layer, head in found.confirmed)
    note = (
        f"{names}; {together:.2f} patched together, {found.ablation} at {', '.join(found.roles)}; "
        f"{interval.n_verbs} verbs; control: random heads"
    )
    return account, measure, float(interval.estimate[0]) / whole, low, high, control, note


def _sets(found: HeadMap, whole: float) -> tuple[float, float]:
    """Mean share of random sets (patched together where any was), and the share of the confirmed set."""
    table = found.random_sets
    if table.empty:
        return _NAN, _NAN
    own = table["matched"] == "confirmed"
    random = table[~own & table["exact"].astype(bool)]
    random = table[~own] if random.empty else random
    return float(random["effect"].mean()) / whole, float(table.loc[own, "effect"].iloc[0]) / whole
