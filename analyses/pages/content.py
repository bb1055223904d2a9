"""What a report says: its sentences and tables, made from results by rules that hold for null results too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from mechicl.analyses.verdict import PRIMARY, SECONDARY, form_evidence, headline
from mechicl.views import estimand_label
from mechicl.wording import number, p_value, percent, with_interval

Row = list[str]


def priming_answer(priming: Any) -> dict[str, str]:
    """Does the model show structural priming? Decided by the interval in nats; the one in probability stands beside."""
    first, second = priming.forms
    nats, share = (_effect(priming.effects, f"{first} vs {second}", scale) for scale in ("nats", "probability"))
    p = p_value(_corrected_p(nats))
    after = [percent(float(np.mean(expit(priming.items[f"L_{form}"].to_numpy(float))))) for form in priming.forms]
    kind = {1: "yes", 0: "none", -1: "reversed"}[_sign(nats)]
    verdict = {"yes": "Yes", "none": "No clear effect", "reversed": "The reverse: a form makes itself less likely"}[
        kind
    ]
    sentence = (
        f"The share of {first} is {after[0]} after a {first} prime and {after[1]} after a {second} prime: a difference "
        f"of {_interval(share)} in probability and of {_interval(nats, 2)} nats in log-odds ({p})."
    )
    if _sign(share) != _sign(nats):
        sentence += " The two scales do not agree on whether this differs from zero."
    return {"kind": kind, "verdict": verdict, "sentence": sentence}


def ife_answer(ife: Any) -> dict[str, str]:
    """Does it show the inverse frequency effect? The analysis' own verdict, with the slopes that it rests on."""
    first, _ = ife.forms
    found = set(ife.evidence.values())
    parts = []
    for form in ife.forms:
        row = estimand(ife.estimates, f"slope_{form}", PRIMARY)
        parts.append(f"{_interval(row)} after {form} primes ({p_value(row['p_holm'])})")
    short = headline(ife.evidence)
    notes = ife.verdict.removeprefix(short).strip("; ")
    return {
        "kind": "yes" if "ife" in found else "reversed" if "reversed" in found else "none",
        "verdict": _capital(short),
        "notes": f"{_capital(notes)}." if notes else "",
        "sentence": f"Slope of the share of {first} over verb bias: {', '.join(parts)}. Negative is the effect.",
        "own_slope": _own_slope(ife),
        "other_scale": _other_scale(ife),
    }


def _own_slope(ife: Any) -> str:
    pe_slope = estimand(ife.estimates, "pe_slope", PRIMARY)
    says = {
        1: f"priming is stronger with verbs that prefer {ife.forms[0]}",
        0: "its interval includes zero, so the data do not show that priming itself depends on the verb's bias",
        -1: f"priming is weaker with verbs that prefer {ife.forms[0]}",
    }[_sign(pe_slope)]
    return f"The slope of the priming effect itself over verb bias (PE-slope) is {_interval(pe_slope)}: {says}."


def _other_scale(ife: Any) -> str:
    """Whether the logit scale tells the same story."""
    if not has_scale(ife, SECONDARY):
        return "There is no logit scale here, because a share is exactly 0 or 1."
    evidence = form_evidence(ife.estimates, ife.forms, ife.level, SECONDARY)
    rows = [(form, estimand(ife.estimates, f"slope_{form}", SECONDARY)) for form in ife.forms]
    slopes = " and ".join(f"{_interval(row)} after {form} primes" for form, row in rows)
    same = evidence == ife.evidence
    says = "the same verdict" if same else f"another verdict ({headline(evidence)}), so neither should be quoted alone"
    return f"On the logit scale the slopes are {slopes}: {says}."


def effects_table(priming: Any) -> dict[str, Any]:
    """Every contrast between contexts, in nats and in probability."""
    rows = []
    for contrast in dict.fromkeys(priming.effects["contrast"]):
        nats, share = (_effect(priming.effects, contrast, scale) for scale in ("nats", "probability"))
        if np.isfinite(nats["estimate"]):
            p_values = [p_value(_corrected_p(row), name=False) for row in (nats, share)]
            rows.append([contrast, _interval(nats, 2), p_values[0], _interval(share), p_values[1]])
            rows[-1] += [_count(nats.get("n_pairs")), _count(nats.get("n_verbs"))]
    heads = ["Contrast", "Nats", "p (Holm)", "Probability", "p (Holm)", "Pairs", "Verbs"]
    caption = f"Priming effects: how much more {priming.forms[0]} follows in the first context than in the second."
    return {"caption": caption, "heads": heads, "rows": rows}


def estimates_table(ife: Any, scale: str) -> dict[str, Any]:
    """All estimands on one scale: estimate, intervals, three p-values, range over verbs left out."""
    unit = {"probability": "probability per unit of probability", "logit": "nats per nat"}[scale]
    rows = []
    for _, row in ife.estimates[ife.estimates["scale"] == scale].iterrows():
        if np.isfinite(row["estimate"]):
            rows.append(
                [
                    _capital(estimand_label(row["estimand"], ife.forms, short=True).removeprefix("slope ")),
                    _interval(row),
                    f"[{number(row['ols_low'])}, {number(row['ols_high'])}]",
                    *(p_value(row[name], name=False) for name in ("p_ols", "p_permutation", "p_holm")),
                    f"{number(row['loo_low'])} to {number(row['loo_high'])}",
                ]
            )
    heads = [
        "Slope over verb bias",
        "Estimate",
        "OLS interval",
        "p (OLS)",
        "p (perm.)",
        "p (Holm)",
        "One verb out",
    ]
    caption = f"Slopes on the {scale} scale ({unit}); the interval beside the estimate is the bootstrap's over verbs."
    return {"caption": caption, "heads": heads, "rows": rows}


def verbs_table(priming: Any, ife: Any) -> dict[str, Any]:
    """Verb by verb: bias, shares after each prime, priming effect."""
    first, second = ife.forms
    verbs = ife.verbs.sort_values("bias")
    neutral = has_neutral(ife)
    contexts = [*ife.forms, *(["neutral"] if neutral else [])]
    effects = priming.verb_effects.query("contrast == @c and scale == 'nats'", local_dict={"c": f"{first} vs {second}"})
    by_verb = {row["verb"]: row for _, row in effects.iterrows()}
    rows = []
    for _, row in verbs.iterrows():
        effect = by_verb.get(row["verb"])
        shares = [number(row[f"y_{context}"]) for context in contexts]
        cells = [_interval(effect, 2), _count(effect.get("n_pairs"))] if effect is not None else ["n/a", "n/a"]
        rows.append([str(row["verb"]), number(row["bias"]), *shares, *cells])
    heads = ["Verb", "Bias", *(f"After {context}" for context in contexts), "Priming effect (nats)", "Pairs"]
    return {"caption": f"Shares of {first} by verb of the prime, ordered by bias.", "heads": heads, "rows": rows}


def comparison_table(comparison: Any, forms: Sequence[str]) -> dict[str, Any]:
    """The main estimands of every model, on both scales."""
    table = comparison.estimates
    wanted = [*(f"slope_{form}" for form in forms), "common_shift", "pe_slope"]
    scales = list(dict.fromkeys(table["scale"]))
    rows = []
    for model in dict.fromkeys(table["model"]):
        for scale in scales:
            part = table[(table["model"] == model) & (table["scale"] == scale)]
            rows.append([str(model), scale, *(_interval(estimand(part, name, scale)) for name in wanted)])
    heads = ["Model", "Scale", *(_capital(estimand_label(name, forms, short=True)) for name in wanted)]
    return {"caption": "Models side by side.", "heads": heads, "rows": rows}


def model_rows(*given: Any) -> list[tuple[str, str]]:
    """What results' provenance says of their one model, the first that knows; what is unknown is said to be."""

    def first(name: str) -> Any:
        return next((value for p in given if (value := getattr(p, name)) is not None), None)

    n_params = first("n_params")
    return [
        ("Model", _known(first("model"))),
        ("Family", _known(first("family"))),
        ("Parameters", "unknown" if n_params is None else f"{n_params:,}"),
        ("Weights (SHA-256)", _known(first("weights_sha256"))),
        ("Wrapper", _known(first("wrapper"))),
        ("Weights folded or centred", _yes_no(first("processed"))),
        ("BOS token before the text", _yes_no(first("prepend_bos"))),
        ("Device, precision", f"{_known(first('device'))}, {_known(first('dtype'))}"),
    ]


def estimand(table: pd.DataFrame, name: str, scale: str) -> pd.Series:
    """The row of one estimand; all NaN where the table has none."""
    return _only(table[(table["estimand"] == name) & (table["scale"] == scale)])


def has_scale(ife: Any, scale: str) -> bool:
    """Whether there are estimates on this scale (there are none in logits where a share is 0 or 1)."""
    return bool((ife.estimates["scale"] == scale).any())


def has_neutral(ife: Any) -> bool:
    """Whether any verb has a neutral baseline."""
    return "y_neutral" in ife.verbs and bool(ife.verbs["y_neutral"].notna().any())


def _effect(table: pd.DataFrame, contrast: str, scale: str) -> pd.Series:
    return _only(table[(table["contrast"] == contrast) & (table["scale"] == scale)])


def _only(rows: pd.DataFrame) -> pd.Series:
    return rows.iloc[0] if len(rows) else pd.Series(np.nan, index=rows.columns)


def _sign(row: pd.Series) -> int:
    """1 or -1 where the interval lies on one side of zero, else 0 (also where there is no interval)."""
    return int(row["low"] > 0) - int(row["high"] < 0)


def _corrected_p(row: pd.Series) -> float:
    return float(row.get("p_holm", row["p"]))


def _interval(row: pd.Series, digits: int = 3) -> str:
    return with_interval(float(row["estimate"]), float(row["low"]), float(row["high"]), digits)


def _count(value: Any) -> str:
    return "n/a" if value is None or pd.isna(value) else f"{int(value):,}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _known(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _yes_no(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "no"


def option_words(values: Any, joint: str = " = ") -> str:
    """Names and values in one line."""
    items: Iterable[tuple[str, Any]] = values.items()
    return ", ".join(f"{name}{joint}{value}" for name, value in items) or "none"
