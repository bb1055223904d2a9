"""The rule of the verdict, on estimates written by hand."""

import pandas as pd
import pytest

from mechicl.analyses.verdict import form_evidence, headline, verdict_in_words

FORMS = ("PD", "DO")
Row = tuple[float, float, float, float]  # estimate, low, high, p_holm
NONE: Row = (-0.1, -0.3, 0.1, 0.3)
BELOW: Row = (-0.2, -0.3, -0.1, 0.01)
ABOVE: Row = (0.2, 0.1, 0.3, 0.01)


def estimates(logit: dict[str, Row] | None = None, **probability: Row) -> pd.DataFrame:
    """Both scales with these rows on the probability scale, and `logit` where the other scale differs."""
    probability = {"pe_slope": ABOVE} | probability
    rows = [("probability", name, *row) for name, row in probability.items()]
    rows += [("logit", name, *row) for name, row in (probability | (logit or {})).items()]
    return pd.DataFrame(rows, columns=["scale", "estimand", "estimate", "low", "high", "p_holm"])


@pytest.mark.parametrize(
    ("row", "label"),
    [
        (BELOW, "ife"),
        (ABOVE, "reversed"),
        (NONE, "none"),
        ((-0.2, -0.3, 0.01, 0.01), "none"),  # p alone is not enough
        ((-0.2, -0.3, -0.1, 0.06), "none"),  # nor is the interval
        ((-0.2, -0.3, 0.0, 0.01), "none"),  # 0 at the border is not excluded
        ((0.0, 0.0, 0.0, 1.0), "none"),
        ((-0.004, -0.0041, -0.0039, 0.001), "none"),  # sure, but negligible
        ((-0.006, -0.0061, -0.0059, 0.001), "ife"),
    ],
)
def test_evidence_needs_the_interval_and_the_corrected_p(row: Row, label: str) -> None:
    assert form_evidence(estimates(slope_PD=row, slope_DO=NONE), FORMS, 0.95) == {"PD": label, "DO": "none"}


def test_the_level_sets_the_bound_on_p() -> None:
    table = estimates(slope_PD=(-0.2, -0.3, -0.1, 0.06), slope_DO=NONE)
    assert form_evidence(table, FORMS, 0.9)["PD"] == "ife" and form_evidence(table, FORMS, 0.95)["PD"] == "none"


def test_headlines() -> None:
    expected = {
        ("ife", "none"): "IFE on PD primes, not on DO primes",
        ("reversed", "ife"): "IFE on DO primes, reversed on PD primes",
        ("ife", "ife"): "IFE on PD and DO primes",
        ("none", "none"): "no IFE",
        ("none", "reversed"): "no IFE; reversed on DO primes",
    }
    assert {labels: headline(dict(zip(FORMS, labels, strict=True))) for labels in expected} == expected


def test_qualifications_come_only_when_they_are_true() -> None:
    plain = estimates(slope_PD=NONE, slope_DO=BELOW)
    assert verdict_in_words(plain, FORMS, 0.95) == "IFE on DO primes, not on PD primes"
    neutral = {"slope_PD_from_neutral": NONE, "slope_DO_from_neutral": BELOW, "common_shift_from_neutral": ABOVE}
    survives = estimates(slope_PD=NONE, slope_DO=BELOW, **neutral)
    assert verdict_in_words(survives, FORMS, 0.95) == "IFE on DO primes, not on PD primes"
    for changed, words in [
        ({"slope_DO_from_neutral": NONE}, "no IFE"),
        ({"slope_DO_from_neutral": ABOVE}, "no IFE, reversed on DO primes"),
        ({"slope_PD_from_neutral": BELOW}, "IFE on PD and DO primes"),
    ]:
        table = estimates(slope_PD=NONE, slope_DO=BELOW, **(neutral | changed))
        assert verdict_in_words(table, FORMS, 0.95).endswith(f"; measured from the neutral prime: {words}")
    hidden = estimates(slope_PD=NONE, slope_DO=NONE, **neutral)
    assert verdict_in_words(hidden, FORMS, 0.95) == (
        "no IFE; measured from the neutral prime: IFE on DO primes, not on PD primes"
    )
    every = estimates({"slope_DO": NONE}, slope_PD=NONE, slope_DO=BELOW, pe_slope=NONE)
    assert verdict_in_words(every, FORMS, 0.95) == (
        "IFE on DO primes, not on PD primes; the logit scale disagrees (no IFE); "
        "no sign that the forms' slopes differ (PE-slope), so a verb effect that ignores structure could explain it"
    )


def test_no_effect_is_not_qualified_where_baselines_agree() -> None:
    neutral = {"slope_PD_from_neutral": NONE, "slope_DO_from_neutral": NONE, "slope_unprimed": BELOW}
    table = estimates(slope_PD=NONE, slope_DO=NONE, pe_slope=NONE, **neutral)
    assert verdict_in_words(table, FORMS, 0.95) == "no IFE"
