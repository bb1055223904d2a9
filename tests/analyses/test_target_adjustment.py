"""From items to the verdict: what the pairing of primes and targets brings along must not pass for an effect."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from mechicl.analyses.inverse_frequency import inverse_frequency_effect
from mechicl.analyses.priming import PrimingResult
from mechicl.provenance import Provenance

QUICK: dict[str, Any] = {"n_boot": 500, "n_permutations": 500}


def simulated(n_verbs: int, slope: float = 0.0, *, separate: bool = False, seed: int = 0) -> PrimingResult:
    """Every verb primes the targets of every other verb (with `separate`: of the other half of the verbs).

    Targets lean as their verb does; a prime adds 1 or takes 1 away in nats, and `slope` times its verb's bias.
    """
    rng = np.random.default_rng(seed)
    names = [f"v{i:02d}" for i in range(n_verbs)]
    lean = dict(zip(names, rng.permutation(np.linspace(-2, 2, n_verbs)), strict=True))
    half = {name: i % 2 for i, name in enumerate(names)}
    rows = []
    for prime in names:
        for target in names:
            if prime == target or (separate and half[prime] == half[target]):
                continue
            for i in range(2):
                unprimed = lean[target] + 0.3 * i
                verb = slope * lean[prime]
                rows.append((prime, f"{target}-{i}", prime, target, unprimed + 1 + verb, unprimed - 1 + verb, unprimed))
    items = pd.DataFrame(
        rows, columns=["prime", "target", "prime_verb", "target_verb", "L_PD", "L_DO", "L_unprimed"]
    ).assign(L_neutral=np.nan)
    bias = pd.DataFrame({"verb": names, "bias": expit(list(lean.values())), "bias_logit": list(lean.values())})
    empty = pd.DataFrame({"contrast": []})
    return PrimingResult(
        forms=("PD", "DO"), corpus="simulated", level=0.95, items=items, sentences=empty, bias=bias, effects=empty,
        verb_effects=empty, provenance=Provenance.of(),
    )  # fmt: skip


def estimate(result: Any, estimand: str, scale: str = "logit") -> float:
    rows = result.estimates.query("scale == @scale and estimand == @estimand")
    return float(rows["estimate"].iloc[0])


@pytest.mark.parametrize("n_verbs", [6, 22])
def test_a_design_without_any_effect_gives_none(n_verbs: int) -> None:
    result = inverse_frequency_effect(simulated(n_verbs), **QUICK)
    assert result.verdict == "no IFE"
    for form in ("PD", "DO"):
        assert estimate(result, f"slope_{form}") == pytest.approx(0, abs=1e-9)
        # the paper's slope carries exactly what the pairing brings
        assert estimate(result, f"slope_{form}_raw") == pytest.approx(-1 / (n_verbs - 1), abs=1e-9)
    assert estimate(result, "slope_unprimed") == pytest.approx(-1 / (n_verbs - 1), abs=1e-9)


def test_a_planted_slope_is_recovered_and_named() -> None:
    result = inverse_frequency_effect(simulated(22, slope=-0.4), **QUICK)
    assert [estimate(result, f"slope_{form}") for form in ("PD", "DO")] == pytest.approx([-0.4, -0.4], abs=1e-9)
    assert result.verdict.startswith("IFE on PD and DO primes")
    assert result.verbs["L_PD_raw"].to_numpy() == pytest.approx(
        simulated(22, slope=-0.4).verb_table()["L_PD"].to_numpy()
    )


def test_where_targets_cannot_be_told_from_verbs_the_verdict_says_so() -> None:
    priming = simulated(22, slope=-0.8, separate=True)
    assert priming.verb_table()["y_PD_adjusted"].isna().all()
    result = inverse_frequency_effect(priming, **QUICK)
    assert not result.estimates["estimand"].str.endswith("_raw").any()
    assert "IFE on PD and DO primes; not adjusted for targets, which slope by" in result.verdict
    assert result.verbs["y_PD"].to_numpy() == pytest.approx(priming.verb_table()["y_PD"].to_numpy())


def test_adjusted_means_answer_for_the_same_targets() -> None:
    table = simulated(10).verb_table()
    assert np.ptp(table["L_PD_adjusted"]) < 1e-9 < np.ptp(table["L_PD"])
    assert table["L_PD_adjusted"].mean() == pytest.approx(table["L_PD"].mean())
