"""From slopes and intervals to words: which primes show an inverse frequency effect, and what speaks against it.

The rule is stated in `mechicl.analyses.inverse_frequency`; here it is applied.
"""

import pandas as pd

PRIMARY, SECONDARY = "probability", "logit"

# A smaller effect counts as none, however small its error: a verb whose bias goes from 0 to 1 then changes the outcome
# by less than half a percent (of a nat, on the logit scale). In models trained on noiseless data slopes of .001 differ
# from 0 beyond chance; the smallest significant slope in arXiv 2406.18501, .032, is six times this bound.
NEGLIGIBLE = 0.005


def form_evidence(
    estimates: pd.DataFrame, forms: tuple[str, str], level: float, scale: str = PRIMARY, suffix: str = ""
) -> dict[str, str]:
    """Form -> "ife" (slope below 0), "reversed" (above 0) or "none"; both need interval, corrected p and size."""
    return {form: _evidence(_row(estimates, scale, f"slope_{form}{suffix}"), level) for form in forms}


def verdict_in_words(estimates: pd.DataFrame, forms: tuple[str, str], level: float) -> str:
    """One sentence; what qualifies it follows after semicolons."""
    evidence = form_evidence(estimates, forms, level)
    parts = [headline(evidence), _from_neutral(estimates, forms, level, evidence)]
    parts += [_other_scale(estimates, forms, level, evidence)]
    if set(evidence.values()) != {"none"}:
        parts += [_targets_alone(estimates)]
    if "ife" in evidence.values():
        parts += [_structure_independent(estimates)]
    return "; ".join(part for part in parts if part)


def headline(evidence: dict[str, str]) -> str:
    """Such as "IFE on DO primes, not on PD primes", "no IFE", "no IFE; reversed on PD primes"."""
    by_label = {label: [f for f in evidence if evidence[f] == label] for label in ("ife", "none", "reversed")}
    if not by_label["ife"]:
        return "no IFE" + (f"; reversed on {_primes(by_label['reversed'])}" if by_label["reversed"] else "")
    text = f"IFE on {_primes(by_label['ife'])}"
    if by_label["none"]:
        text += f", not on {_primes(by_label['none'])}"
    return text + (f", reversed on {_primes(by_label['reversed'])}" if by_label["reversed"] else "")


def _evidence(row: pd.Series, level: float) -> str:
    if row["p_holm"] >= 1 - level or row["low"] <= 0 <= row["high"] or abs(row["estimate"]) < NEGLIGIBLE:
        return "none"
    return "ife" if row["estimate"] < 0 else "reversed"


def _other_scale(estimates: pd.DataFrame, forms: tuple[str, str], level: float, evidence: dict[str, str]) -> str:
    if SECONDARY not in set(estimates["scale"]):
        return "the logit scale is undefined here (a share is 0 or 1)"
    other = form_evidence(estimates, forms, level, SECONDARY)
    return "" if other == evidence else f"the logit scale disagrees ({headline(other)})"


def _from_neutral(estimates: pd.DataFrame, forms: tuple[str, str], level: float, evidence: dict[str, str]) -> str:
    """What the same rule finds when each outcome is measured from the same verb's neutral prime, if it is other."""
    if f"slope_{forms[0]}_from_neutral" not in set(estimates["estimand"]):
        return ""
    other = form_evidence(estimates, forms, level, suffix="_from_neutral")
    return "" if other == evidence else f"measured from the neutral prime: {headline(other).replace(';', ',')}"


def _targets_alone(estimates: pd.DataFrame) -> str:
    """Plain means carry the slope that the pairing brings; adjusted ones do not, and a published table cannot say."""
    known = set(estimates["estimand"])
    if "slope_unprimed" not in known or any(name.endswith("_raw") for name in known):
        return ""
    row = _row(estimates, PRIMARY, "slope_unprimed")
    if abs(row["estimate"]) < 1e-6:
        return ""
    return f"not adjusted for targets, which slope by {row['estimate']:.3f} without any prime"


def _structure_independent(estimates: pd.DataFrame) -> str:
    row = _row(estimates, PRIMARY, "pe_slope")
    if not row["low"] <= 0 <= row["high"]:
        return ""
    return "no sign that the forms' slopes differ (PE-slope), so a verb effect that ignores structure could explain it"


def _row(estimates: pd.DataFrame, scale: str, estimand: str) -> pd.Series:
    return estimates[(estimates["scale"] == scale) & (estimates["estimand"] == estimand)].iloc[0]


def _primes(forms: list[str]) -> str:
    return f"{' and '.join(forms)} primes"
