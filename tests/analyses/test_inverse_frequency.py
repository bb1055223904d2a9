from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from mechicl import results
from mechicl.analyses.inverse_frequency import IFEResult, inverse_frequency_effect
from mechicl.provenance import Provenance

FORMS = ("PD", "DO")
QUICK = {"n_boot": 500, "n_permutations": 500}


def verbs(
    n: int = 22, *, pd_slope: float = 0.0, do_slope: float = 0.0, noise: float = 0.0, seed: int = 0
) -> pd.DataFrame:
    """Simulated verbs: y = intercept + slope * bias + noise."""
    rng = np.random.default_rng(seed)
    bias = rng.uniform(0.05, 0.75, size=n)
    return pd.DataFrame(
        {
            "verb": [f"verb{i:02d}" for i in range(n)],
            "bias": bias,
            "y_PD": 0.6 + pd_slope * bias + noise * rng.normal(size=n),
            "y_DO": 0.4 + do_slope * bias + noise * rng.normal(size=n),
        }
    )


def estimate(result: IFEResult, estimand: str, column: str = "estimate", scale: str = "probability") -> float:
    rows = result.estimates
    return rows[(rows["scale"] == scale) & (rows["estimand"] == estimand)].iloc[0][column]


# What was published


@pytest.mark.parametrize(
    ("file", "slopes", "p", "evidence"),
    [
        ("gpt3_pronoun.csv", (-0.078136, -0.078453), (4.8e-5, 4.2e-6), ("ife", "ife")),
        ("gpt2small_pronoun.csv", (0.011386, -0.007015), (0.597, 0.698), ("none", "none")),
    ],
)
def test_published_tables(data_folder: Path, file: str, slopes, p, evidence) -> None:
    frame = pd.read_csv(data_folder / "published_ife" / file)
    result = inverse_frequency_effect(frame)
    for form, slope, probability, label in zip(FORMS, slopes, p, evidence, strict=True):
        assert estimate(result, f"slope_{form}") == pytest.approx(slope, abs=1e-5)
        assert estimate(result, f"slope_{form}", "p_ols") == pytest.approx(probability, rel=0.02, abs=1e-6)
        assert result.evidence[form] == label
    assert result.provenance.model is None and result.estimates["n_verbs"].eq(22).all()


def test_published_gpt3_moves_as_a_whole(data_folder: Path) -> None:
    result = inverse_frequency_effect(pd.read_csv(data_folder / "published_ife" / "gpt3_pronoun.csv"))
    assert estimate(result, "common_shift") == pytest.approx(0.0783, abs=1e-4)
    assert estimate(result, "common_shift", "p_ols") == pytest.approx(2e-8, rel=0.5)
    assert estimate(result, "pe_slope") == pytest.approx(0.0003, abs=1e-4)
    assert estimate(result, "pe_slope", "p_ols") == pytest.approx(0.99, abs=0.005)
    assert result.verdict == (
        "IFE on PD and DO primes; no sign that the forms' slopes differ (PE-slope), "
        "so a verb effect that ignores structure could explain it"
    )


def test_published_gpt2_has_no_effect(data_folder: Path) -> None:
    assert (
        inverse_frequency_effect(pd.read_csv(data_folder / "published_ife" / "gpt2small_pronoun.csv")).verdict
        == "no IFE"
    )


# Planted effects and no effect


def test_planted_slopes_come_back_exactly() -> None:
    result = inverse_frequency_effect(verbs(pd_slope=-0.05, do_slope=-0.17), **QUICK)
    expected = {"slope_PD": -0.05, "slope_DO": -0.17, "common_shift": 0.11, "pe_slope": 0.12}
    for estimand, value in expected.items():
        for column in ("estimate", "low", "high", "ols_low", "ols_high", "loo_low", "loo_high"):
            assert estimate(result, estimand, column) == pytest.approx(value, abs=1e-10)
    assert result.evidence == {"PD": "ife", "DO": "ife"} and result.verdict == "IFE on PD and DO primes"


def test_planted_slopes_on_the_logit_scale_come_back_exactly() -> None:
    frame = verbs()
    frame["bias_logit"] = logit(frame["bias"]) + 0.3
    for form, slope in zip(FORMS, (-0.2, -0.4), strict=True):
        frame[f"L_{form}"] = 0.5 + slope * frame["bias_logit"]
        frame[f"y_{form}"] = expit(frame[f"L_{form}"])
    result = inverse_frequency_effect(frame, **QUICK)
    assert estimate(result, "slope_PD", scale="logit") == pytest.approx(-0.2, abs=1e-10)
    assert estimate(result, "pe_slope", scale="logit") == pytest.approx(0.2, abs=1e-10)
    probability = np.polyfit(frame["bias"], frame["y_PD"], 1)[0]
    assert estimate(result, "slope_PD") == pytest.approx(probability, abs=1e-10)
    assert abs(probability + 0.2) > 0.01  # the scales are not the same


def test_logits_of_the_means_where_a_frame_has_only_probabilities() -> None:
    frame = verbs(pd_slope=-0.1)
    result = inverse_frequency_effect(frame, **QUICK)
    slope = np.polyfit(logit(frame["bias"]), logit(frame["y_PD"]), 1)[0]
    assert estimate(result, "slope_PD", scale="logit") == pytest.approx(slope, abs=1e-10)
    np.testing.assert_allclose(result.verbs["L_DO"], logit(frame["y_DO"]))


@pytest.mark.parametrize(
    ("pd_slope", "do_slope", "headline"),
    [
        (0.0, -0.2, "IFE on DO primes, not on PD primes"),
        (-0.2, 0.0, "IFE on PD primes, not on DO primes"),
        (-0.2, -0.2, "IFE on PD and DO primes"),
        (0.2, -0.2, "IFE on DO primes, reversed on PD primes"),
        (0.2, 0.0, "no IFE; reversed on PD primes"),
        (0.2, 0.2, "no IFE; reversed on PD and DO primes"),
        (0.0, 0.0, "no IFE"),
    ],
)
def test_the_verdict_is_as_planted(pd_slope: float, do_slope: float, headline: str) -> None:
    result = inverse_frequency_effect(verbs(pd_slope=pd_slope, do_slope=do_slope, noise=0.01), **QUICK)
    assert result.verdict.startswith(headline)
    assert result.verdict[len(headline) :].startswith(";") or result.verdict == headline
    labels = {-0.2: "ife", 0.0: "none", 0.2: "reversed"}
    assert result.evidence == {"PD": labels[pd_slope], "DO": labels[do_slope]}


def test_equal_slopes_could_be_a_verb_effect_and_different_ones_not() -> None:
    same = inverse_frequency_effect(verbs(pd_slope=-0.2, do_slope=-0.2), **QUICK)
    assert "a verb effect that ignores structure could explain it" in same.verdict
    row = same.estimates[same.estimates["estimand"] == "pe_slope"].iloc[0]
    assert (row["estimate"], row["low"], row["high"], row["p_ols"], row["p_permutation"]) == (0, 0, 0, 1, 1)
    different = inverse_frequency_effect(verbs(pd_slope=-0.1, do_slope=-0.3), **QUICK)
    assert "structure" not in different.verdict


def test_false_positives_are_at_most_as_many_as_promised() -> None:
    """Zero slopes: an effect on either form in at most 5% of the simulations (3 binomial standard errors of room)."""
    runs = 60
    found = [
        inverse_frequency_effect(verbs(noise=0.03, seed=seed), seed=seed, n_boot=200, n_permutations=300)
        for seed in range(runs)
    ]
    effects = sum(set(result.evidence.values()) != {"none"} for result in found)
    assert effects / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert all(result.verdict.startswith("no IFE") for result in found if set(result.evidence.values()) == {"none"})


def test_permuted_verbs_lose_a_planted_effect() -> None:
    frame = verbs(pd_slope=-0.2, do_slope=-0.2, noise=0.02)
    assert inverse_frequency_effect(frame, **QUICK).evidence == {"PD": "ife", "DO": "ife"}
    rng, lost = np.random.default_rng(1), 0
    for _ in range(20):
        shuffled = frame.assign(bias=rng.permutation(frame["bias"]))
        lost += inverse_frequency_effect(shuffled, n_boot=200, n_permutations=300).verdict.startswith("no IFE")
    assert lost >= 17  # 19 or more expected; fewer than 17 has probability .02


# The verdict's qualifications


def test_neutral_baseline_tells_a_verb_effect_from_an_ife() -> None:
    """With the same slope after neutral primes nothing is left; with a flat neutral line all of it is."""
    frame = verbs(pd_slope=-0.1, do_slope=-0.2, noise=0.005)
    noise = 0.005 * np.random.default_rng(9).normal(size=len(frame))
    explained = inverse_frequency_effect(frame.assign(y_neutral=0.5 - 0.2 * frame["bias"] + noise), **QUICK)
    assert (
        "IFE on PD and DO primes; measured from the neutral prime: no IFE, reversed on PD primes" in explained.verdict
    )
    left = inverse_frequency_effect(frame.assign(y_neutral=0.5 + noise), **QUICK)
    assert left.verdict == "IFE on PD and DO primes"
    for result, neutral in ((explained, -0.2), (left, 0.0)):
        assert estimate(result, "slope_neutral") == pytest.approx(neutral, abs=0.02)
        for form in FORMS:
            difference = estimate(result, f"slope_{form}") - estimate(result, "slope_neutral")
            assert estimate(result, f"slope_{form}_from_neutral") == pytest.approx(difference, abs=1e-9)
        shift = estimate(result, "common_shift") + estimate(result, "slope_neutral")
        assert estimate(result, "common_shift_from_neutral") == pytest.approx(shift, abs=1e-9)


def test_a_disagreement_of_the_scales_is_told() -> None:
    frame = verbs(pd_slope=-0.1, do_slope=-0.3, noise=0.005)
    frame["L_DO"] = 0.3 * logit(frame["bias"])
    result = inverse_frequency_effect(frame, **QUICK)
    assert (
        result.verdict == "IFE on PD and DO primes; the logit scale disagrees (IFE on PD primes, reversed on DO primes)"
    )


def test_an_infinite_logit_leaves_the_probability_scale() -> None:
    frame = verbs(do_slope=-0.2, noise=0.01)
    frame.loc[3, "bias"] = 0.0
    result = inverse_frequency_effect(frame, **QUICK)
    assert set(result.estimates["scale"]) == {"probability"}
    assert result.verdict == "IFE on DO primes, not on PD primes; the logit scale is undefined here (a share is 0 or 1)"


# Tables, families, repeats


def test_estimates_table() -> None:
    result = inverse_frequency_effect(
        verbs(do_slope=-0.2, noise=0.05).assign(y_neutral=np.linspace(0.4, 0.5, 22)), **QUICK
    )
    table = result.to_frame()
    assert list(table.columns) == [
        *("scale", "estimand", "estimate", "se", "ols_low", "ols_high", "p_ols", "low", "high"),
        *("p_permutation", "p_holm", "loo_low", "loo_high", "n_verbs", "interval"),
    ]
    assert table["scale"].tolist() == ["probability"] * 8 + ["logit"] * 8
    control = table["estimand"] == "slope_neutral"
    assert table["interval"].eq("bca").all() and table.loc[control, "p_holm"].isna().all()
    assert not table[~control].isna().any(axis=None)
    for _, rows in table.groupby("scale"):
        paper, derived = rows.iloc[:2], rows[rows["estimand"].str.contains("common|pe_slope")]
        low, high = sorted(paper["p_permutation"])
        assert sorted(paper["p_holm"]) == pytest.approx([min(1, 2 * low), max(min(1, 2 * low), high)])
        assert derived["p_holm"].min() == pytest.approx(min(1, 3 * derived["p_permutation"].min()))
    assert (table["loo_low"] <= table["estimate"]).all() and (table["estimate"] <= table["loo_high"]).all()


def test_no_mark_is_left_on_the_input_and_seeds_repeat() -> None:
    frame = verbs(noise=0.05)
    before = frame.copy(deep=True)
    first, second, third = (inverse_frequency_effect(frame, seed=seed, **QUICK) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(first.estimates, second.estimates)
    assert not first.estimates["low"].equals(third.estimates["low"])
    assert first.provenance.seeds == {"inverse_frequency": 1} and first.provenance.options["n_boot"] == 500


def test_a_saved_result_reloads_bit_for_bit(tmp_path: Path) -> None:
    result = inverse_frequency_effect(verbs(noise=0.05), **QUICK)
    assert results.load(result.save(tmp_path)) == result
    assert len(repr(result)) < 500


def test_plot_returns_axes() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"backend": "agg"}):
        ax = inverse_frequency_effect(verbs(noise=0.05), **QUICK).plot(scale="logit")
    assert ax.get_xlabel()


# From a priming result


@dataclass(frozen=True)
class Scores:
    """As much of a priming result as the analysis may rely on."""

    forms: tuple[str, str]
    provenance: Provenance
    table: pd.DataFrame

    def verb_table(self) -> pd.DataFrame:
        return self.table


def test_from_a_priming_result() -> None:
    table = verbs(do_slope=-0.2, noise=0.01).rename(columns={"y_PD": "y_PO"})
    table = table.assign(y_neutral=np.nan, L_neutral=np.nan, n_pairs=7)
    provenance = Provenance.of(
        {"model": "tiny", "n_params": 3}, seeds={"bootstrap": 5}, options={"corpus": "mine", "level": 0.9}
    )
    result = inverse_frequency_effect(Scores(("PO", "DO"), provenance, table), seed=2, **QUICK)
    assert result.forms == ("PO", "DO") and result.verdict.startswith("IFE on DO primes, not on PO primes")
    assert "y_neutral" not in result.verbs and len(result.estimates) == 8
    assert (result.provenance.model, result.provenance.n_params) == ("tiny", 3)
    assert result.provenance.seeds == {"bootstrap": 5, "inverse_frequency": 2}
    assert result.provenance.options["corpus"] == "mine" and result.provenance.options["level"] == 0.95
    with pytest.raises(ValueError, match=r"got forms \('PD', 'DO'\), but the priming result has \('PO', 'DO'\)"):
        inverse_frequency_effect(Scores(("PO", "DO"), provenance, table), forms=("PD", "DO"))
