"""From rows to estimates and from estimates to words: all slopes of `error_driven` and its verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.gradient.error_slopes import ErrorSlope
from mechicl.analyses.verdict import NEGLIGIBLE
from mechicl.stats import holm
from mechicl.wording import p_value, with_interval

RAW, ADJUSTED, AFTER_NEUTRAL, OTHER_VERB = "raw", "with covariates", "after neutral primes", "another verb's error"
NAMES = {"icl": "the ICL effect", "residual": "the residual update", "attention": "attention's update"}
COLUMNS = [
    "outcome", "forms", "model", "estimate", "low", "high", "se", "r", "p", "p_holm", "relative", "mean", "n_rows",
    "n_primes", "n_verbs", "covariates",
]  # fmt: skip


def estimates_table(
    rows: pd.DataFrame,
    outcomes: tuple[str, ...],
    forms: tuple[str, str],
    *,
    by_target: bool,
    covariates: tuple[str, ...],
    draws: dict[str, Any],
) -> pd.DataFrame:
    """One row an outcome, forms ("both" or one) and model; p_holm over the outcomes of each of these families."""
    found = []
    for outcome in outcomes:
        for part in ("both", *forms):
            own = rows if part == "both" else rows[rows["form"] == part]
            base = {"outcome": outcome, "forms": part}
            found.append(base | _row(own, outcome, RAW, by_target, (), draws))
            found.append(base | _row(own, outcome, ADJUSTED, by_target, covariates, draws))
            if f"placebo_{outcome}" in own and own[f"placebo_{outcome}"].notna().all():
                found.append(base | _row(own, f"placebo_{outcome}", AFTER_NEUTRAL, by_target, (), draws))
            found.append(base | _other_verbs(own, outcome, by_target, draws))
    frame = pd.DataFrame(found)
    frame["p_holm"] = frame.groupby(["forms", "model"])["p"].transform(lambda p: holm(p.to_numpy(dtype=float)))
    return frame[COLUMNS]


def layer_table(
    rows: pd.DataFrame, by_layer: dict[str, np.ndarray], *, by_target: bool, draws: dict[str, Any]
) -> pd.DataFrame:
    """Raw slopes of each kind of size in each layer; p_holm over the layers of a kind."""
    found = []
    for kind, values in by_layer.items():
        for layer in range(values.shape[1]):
            own = _row(rows.assign(size=values[:, layer]), "size", RAW, by_target, (), draws)
            found.append({"outcome": kind, "layer": layer} | own)
    frame = pd.DataFrame(found)
    if frame.empty:
        return frame
    frame["p_holm"] = frame.groupby("outcome")["p"].transform(lambda p: holm(p.to_numpy(dtype=float)))
    return frame[["outcome", "layer", *(c for c in COLUMNS[3:] if c != "covariates")]]


def evidence_of(estimates: pd.DataFrame, level: float, model: str = RAW) -> dict[str, str]:
    """Outcome -> "grows", "shrinks" or "none": interval, corrected p, size and both forms must all speak.

    The forms' own slopes (without covariates) must both have the sign of the joint one: what a verb does whatever its
    form rises with the error of one form and falls with that of the other. Negligible is, for sizes, less than
    `NEGLIGIBLE` (half a percent) of their mean a unit of error, and for the ICL effect less than four times that in
    nats, which moves no probability by more than half a percent.
    """
    joint = estimates[(estimates["model"] == model) & (estimates["forms"] == "both")].set_index("outcome")
    plain = AFTER_NEUTRAL if model == AFTER_NEUTRAL else RAW
    by_form = estimates[(estimates["model"] == plain) & (estimates["forms"] != "both")]
    found = {}
    for outcome, row in joint.iterrows():
        own = by_form.loc[by_form["outcome"] == outcome, "estimate"]
        found[str(outcome)] = _evidence(row, own, str(outcome), level)
    return found


def verdict_of(estimates: pd.DataFrame, level: float, *, error: str, baseline: str, by_target: bool) -> str:
    """One sentence on what grows, then what qualifies it."""
    raw, adjusted = (evidence_of(estimates, level, model) for model in (RAW, ADJUSTED))
    placebo = evidence_of(estimates, level, AFTER_NEUTRAL)
    grows = [name for name, label in raw.items() if label == "grows" and name != "icl"]
    parts = [_headline(estimates, raw, error)]
    for name in raw:
        if raw[name] != adjusted[name]:
            row = _find(estimates, name, ADJUSTED)
            known = f"is {_size(row, error)} ({adjusted[name]})"
            parts.append(
                f"with covariates the slope of {_name(name)} {'is undefined' if np.isnan(row['estimate']) else known}"
            )
        if placebo.get(name, "none") != "none":
            size = _size(_find(estimates, name, AFTER_NEUTRAL), error)
            parts.append(f"after neutral primes, which show no form, {_name(name)} {placebo[name]} too ({size})")
    if raw["icl"] != "grows" and grows:
        parts.append("larger updates without a larger effect are no sign of error-driven learning")
    if raw["icl"] == "grows" and len(raw) > 1 and not grows:
        parts.append("so the effect follows the error although no size of the update does")
    if baseline != "neutral":
        parts.append("measured from no prime at all, as the corpus has no neutral ones, so with the effect of the verb")
    if not by_target:
        parts.append("not adjusted for targets, which do not link the verbs")
    return "; ".join(parts)


def _headline(estimates: pd.DataFrame, raw: dict[str, str], error: str) -> str:
    """The ICL effect first: it is what an account of learning has to explain."""
    words = {"grows": "grows", "shrinks": "shrinks", "none": "does not grow"}
    first, *sizes = [
        f"{_name(name)} {words[label]} ({_size(_find(estimates, name, RAW), error)})" for name, label in raw.items()
    ]
    found = {"grows": "error-driven growth found", "shrinks": "the reverse of error-driven growth found"}
    text = found.get(raw["icl"], "no error-driven growth found")
    return f"{text}: with the prime's prediction error {', '.join([first, *sizes])}"


def _evidence(row: pd.Series, by_form: pd.Series, outcome: str, level: float) -> str:
    size, bound = (row["estimate"], 4 * NEGLIGIBLE) if outcome == "icl" else (row["relative"], NEGLIGIBLE)
    if not np.isfinite(size) or not row["p_holm"] < 1 - level or row["low"] <= 0 <= row["high"]:
        return "none"
    if abs(size) < bound or (by_form * np.sign(size) <= 0).any():
        return "none"
    return "grows" if size > 0 else "shrinks"


def _row(
    rows: pd.DataFrame, outcome: str, model: str, by_target: bool, covariates: tuple[str, ...], draws: dict[str, Any]
) -> dict[str, Any]:
    fit = ErrorSlope.of(rows, outcome, "error", by_target=by_target, covariates=covariates)
    mean = float(rows[outcome].mean())
    found: dict[str, Any] = {"model": model, "estimate": fit.estimate, "r": fit.r, "mean": mean}
    found |= {"low": np.nan, "high": np.nan, "se": np.nan, "p": np.nan}
    if fit.is_defined:
        interval = fit.interval(n_boot=draws["n_boot"], level=draws["level"], seed=draws["seed"])
        p, _ = fit.permuted(n_permutations=draws["n_permutations"], seed=draws["seed"])
        found |= {"low": interval.low, "high": interval.high, "se": interval.se, "p": p}
    return found | _counts(rows, mean, fit.estimate) | {"covariates": ", ".join(fit.covariates)}


def _other_verbs(rows: pd.DataFrame, outcome: str, by_target: bool, draws: dict[str, Any]) -> dict[str, Any]:
    """The mean slope on another verb's error, and the range in which a share `level` of such slopes lies."""
    fit = ErrorSlope.of(rows, outcome, "error", by_target=by_target)
    _, slopes = fit.permuted(n_permutations=draws["n_permutations"], seed=draws["seed"])
    estimate, low, high, se = (np.nan,) * 4
    if len(slopes):
        estimate, se = float(slopes.mean()), float(slopes.std())
        low, high = np.quantile(slopes, [(1 - draws["level"]) / 2, (1 + draws["level"]) / 2])
    mean = float(rows[outcome].mean())
    found = {"model": OTHER_VERB, "estimate": estimate, "low": low, "high": high, "se": se, "r": np.nan, "p": np.nan}
    return found | {"mean": mean, "covariates": ""} | _counts(rows, mean, estimate)


def _counts(rows: pd.DataFrame, mean: float, estimate: float) -> dict[str, Any]:
    n_primes = len(rows[["prime", "form"]].drop_duplicates())
    relative = estimate / abs(mean) if mean else np.nan
    return {"relative": relative, "n_rows": len(rows), "n_primes": n_primes, "n_verbs": rows["verb"].nunique()}


def _find(estimates: pd.DataFrame, outcome: str, model: str) -> pd.Series:
    chosen = (estimates["outcome"] == outcome) & (estimates["model"] == model) & (estimates["forms"] == "both")
    return estimates[chosen].iloc[0]


def _size(row: pd.Series, error: str) -> str:
    """The slope: of the ICL effect in nats, of a size in percent of its mean."""
    unit = "nat" if error == "surprisal" else "unit of probability"
    if row["outcome"] == "icl":
        scale, digits, own = 1.0, 3, " nats"
    else:
        scale, digits, own = (100 / row["mean"] if row["mean"] else np.nan), 1, "% of its mean"
    estimate, low, high = (scale * row[name] for name in ("estimate", "low", "high"))
    return f"{with_interval(estimate, low, high, digits)}{own} a {unit}, {p_value(row['p_holm'])}"


def _name(outcome: str) -> str:
    return NAMES.get(outcome, f"the {outcome} update")
