import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from mechicl import results
from mechicl.analyses.inverse_frequency import IFEResult, inverse_frequency
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
    result = inverse_frequency(frame)
    for form, slope, probability, label in zip(FORMS, slopes, p, evidence, strict=True):
        assert estimate(result, f"slope_{form}") == pytest.approx(slope, abs=1e-5)
        assert estimate(result, f"slope_{form}", "p_ols") == pytest.approx(probability, rel=0.02, abs=1e-6)
        assert result.evidence[form] == label
    assert result.provenance.model is None and result.estimates["n_verbs"].eq(22).all()


def test_published_gpt3_moves_as_a_whole(data_folder: Path) -> None:
    result = inverse_frequency(pd.read_csv(data_folder / "published_ife" / "gpt3_pronoun.csv"))
    assert estimate(result, "common_shift") == pytest.approx(0.0783, abs=1e-4)
    assert estimate(result, "common_shift", "p_ols") == pytest.approx(2e-8, rel=0.5)
    assert estimate(result, "pe_slope") == pytest.approx(0.0003, abs=1e-4)
    assert estimate(result, "pe_slope", "p_ols") == pytest.approx(0.99, abs=0.005)
    assert result.verdict == (
        "IFE on PD and DO primes; no sign that the forms' slopes differ (PE-slope), "
        "so a verb effect that ignores structure could explain it"
    )


def test_published_gpt2_has_no_effect(data_folder: Path) -> None:
    assert inverse_frequency(pd.read_csv(data_folder / "published_ife" / "gpt2small_pronoun.csv")).verdict == "no IFE"


# Planted effects and no effect


def test_planted_slopes_come_back_exactly() -> None:
    result = inverse_frequency(verbs(pd_slope=-0.05, do_slope=-0.17), **QUICK)
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
    result = inverse_frequency(frame, **QUICK)
    assert estimate(result, "slope_PD", scale="logit") == pytest.approx(-0.2, abs=1e-10)
    assert estimate(result, "pe_slope", scale="logit") == pytest.approx(0.2, abs=1e-10)
    probability = np.polyfit(frame["bias"], frame["y_PD"], 1)[0]
    assert estimate(result, "slope_PD") == pytest.approx(probability, abs=1e-10)
    assert abs(probability + 0.2) > 0.01  # the scales are not the same


def test_logits_of_the_means_where_a_frame_has_only_probabilities() -> None:
    frame = verbs(pd_slope=-0.1)
    result = inverse_frequency(frame, **QUICK)
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
    result = inverse_frequency(verbs(pd_slope=pd_slope, do_slope=do_slope, noise=0.01), **QUICK)
    assert result.verdict.startswith(headline)
    assert result.verdict[len(headline) :].startswith(";") or result.verdict == headline
    labels = {-0.2: "ife", 0.0: "none", 0.2: "reversed"}
    assert result.evidence == {"PD": labels[pd_slope], "DO": labels[do_slope]}


def test_equal_slopes_could_be_a_verb_effect_and_different_ones_not() -> None:
    same = inverse_frequency(verbs(pd_slope=-0.2, do_slope=-0.2), **QUICK)
    assert "a verb effect that ignores structure could explain it" in same.verdict
    row = same.estimates[same.estimates["estimand"] == "pe_slope"].iloc[0]
    assert (row["estimate"], row["low"], row["high"], row["p_ols"], row["p_permutation"]) == (0, 0, 0, 1, 1)
    different = inverse_frequency(verbs(pd_slope=-0.1, do_slope=-0.3), **QUICK)
    assert "structure" not in different.verdict


def test_false_positives_are_at_most_as_many_as_promised() -> None:
    """Zero slopes: an effect on either form in at most 5% of the simulations (3 binomial standard errors of room)."""
    runs = 100
    found = [
        inverse_frequency(verbs(noise=0.03, seed=seed), seed=seed, n_boot=200, n_permutations=300)
        for seed in range(runs)
    ]
    effects = sum(set(result.evidence.values()) != {"none"} for result in found)
    assert effects / runs <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / runs)
    assert all(result.verdict.startswith("no IFE") for result in found if set(result.evidence.values()) == {"none"})


def test_permuted_verbs_lose_a_planted_effect() -> None:
    frame = verbs(pd_slope=-0.2, do_slope=-0.2, noise=0.02)
    assert inverse_frequency(frame, **QUICK).evidence == {"PD": "ife", "DO": "ife"}
    rng, lost = np.random.default_rng(1), 0
    for _ in range(20):
        shuffled = frame.assign(bias=rng.permutation(frame["bias"]))
        lost += inverse_frequency(shuffled, n_boot=200, n_permutations=300).verdict.startswith("no IFE")
    assert lost >= 17  # 19 or more expected; fewer than 17 has probability .02


# The verdict's qualifications


def test_neutral_baseline_tells_a_verb_effect_from_an_ife() -> None:
    """With the same slope after neutral primes nothing is left; with a flat neutral line all of it is."""
    frame = verbs(pd_slope=-0.1, do_slope=-0.2, noise=0.005)
    noise = 0.005 * np.random.default_rng(9).normal(size=len(frame))
    explained = inverse_frequency(frame.assign(y_neutral=0.5 - 0.2 * frame["bias"] + noise), **QUICK)
    assert "it does not survive the neutral baseline (PD slope, DO slope, common shift)" in explained.verdict
    left = inverse_frequency(frame.assign(y_neutral=0.5 + noise), **QUICK)
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
    result = inverse_frequency(frame, **QUICK)
    assert (
        result.verdict == "IFE on PD and DO primes; the logit scale disagrees (IFE on PD primes, reversed on DO primes)"
    )


def test_an_infinite_logit_leaves_the_probability_scale() -> None:
    frame = verbs(do_slope=-0.2, noise=0.01)
    frame.loc[3, "bias"] = 0.0
    result = inverse_frequency(frame, **QUICK)
    assert set(result.estimates["scale"]) == {"probability"}
    assert result.verdict == "IFE on DO primes, not on PD primes; the logit scale is undefined here (a share is 0 or 1)"


# Tables, families, repeats


def test_estimates_table() -> None:
    result = inverse_frequency(verbs(do_slope=-0.2, noise=0.05).assign(y_neutral=np.linspace(0.4, 0.5, 22)), **QUICK)
    table = result.to_frame()
    assert list(table.columns) == [
        *("scale", "estimand", "estimate", "se", "ols_low", "ols_high", "p_ols", "low", "high"),
        *("p_permutation", "p_holm", "loo_low", "loo_high", "n_verbs", "interval"),
    ]
    assert table["scale"].tolist() == ["probability"] * 8 + ["logit"] * 8
    assert table["interval"].eq("bca").all() and not table.isna().any(axis=None)
    for _, rows in table.groupby("scale"):
        paper, derived = rows.iloc[:2], rows.iloc[2:]
        low, high = sorted(paper["p_permutation"])
        assert sorted(paper["p_holm"]) == pytest.approx([min(1, 2 * low), max(min(1, 2 * low), high)])
        assert derived["p_holm"].min() == pytest.approx(min(1, 6 * derived["p_permutation"].min()))
    assert (table["loo_low"] <= table["estimate"]).all() and (table["estimate"] <= table["loo_high"]).all()


def test_no_mark_is_left_on_the_input_and_seeds_repeat() -> None:
    frame = verbs(noise=0.05)
    before = frame.copy(deep=True)
    first, second, third = (inverse_frequency(frame, seed=seed, **QUICK) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(first.estimates, second.estimates)
    assert not first.estimates["low"].equals(third.estimates["low"])
    assert first.provenance.seeds == {"inverse_frequency": 1} and first.provenance.options["n_boot"] == 500


def test_a_saved_result_reloads_bit_for_bit(tmp_path: Path) -> None:
    result = inverse_frequency(verbs(noise=0.05), **QUICK)
    assert results.load(result.save(tmp_path)) == result
    assert len(repr(result)) < 500


def test_plot_returns_axes() -> None:
    import matplotlib as mpl

    with mpl.rc_context({"backend": "agg"}):
        ax = inverse_frequency(verbs(noise=0.05), **QUICK).plot(scale="logit")
    assert ax.get_xlabel()


# Columns, forms, norms


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
    result = inverse_frequency(Scores(("PO", "DO"), provenance, table), seed=2, **QUICK)
    assert result.forms == ("PO", "DO") and result.verdict.startswith("IFE on DO primes, not on PO primes")
    assert "y_neutral" not in result.verbs and len(result.estimates) == 8
    assert (result.provenance.model, result.provenance.n_params) == ("tiny", 3)
    assert result.provenance.seeds == {"bootstrap": 5, "inverse_frequency": 2}
    assert result.provenance.options["corpus"] == "mine" and result.provenance.options["level"] == 0.95
    with pytest.raises(ValueError, match=r"got forms \('PD', 'DO'\), but the priming result has \('PO', 'DO'\)"):
        inverse_frequency(Scores(("PO", "DO"), provenance, table), forms=("PD", "DO"))


def test_columns_are_recognised_in_order() -> None:
    frame = verbs(pd_slope=-0.05, do_slope=-0.17).assign(mine=lambda f: 0.5 + 0.1 * f["bias"])
    published = frame.rename(columns={"y_PD": "pd_pd", "y_DO": "do_pd"})
    by_y, by_published = (inverse_frequency(f, **QUICK) for f in (frame, published))
    pd.testing.assert_frame_equal(by_y.estimates, by_published.estimates)
    both = inverse_frequency(frame.assign(do_pd=0.5 + 0.3 * frame["bias"]), **QUICK)
    assert estimate(both, "slope_DO") == pytest.approx(-0.17)  # y_ goes before
    # L_PD belongs to y_PD: it does not serve for another outcome.
    told = inverse_frequency(frame.assign(L_PD=5.0), outcomes={"PD": "mine"}, **QUICK)
    assert estimate(told, "slope_PD") == pytest.approx(0.1) and estimate(told, "slope_DO") == pytest.approx(-0.17)
    np.testing.assert_allclose(told.verbs["L_PD"], logit(frame["mine"]))


def test_external_norms_replace_the_bias() -> None:
    frame = verbs(noise=0.05).assign(bias_logit=3.0)
    norm = pd.DataFrame({"verb": frame["verb"][::-1], "bias": np.linspace(0.1, 0.9, 22)})
    frame["y_DO"] = frame["verb"].map(norm.set_index("verb")["bias"]) * -0.3 + 0.5
    for without_own in (frame, frame.drop(columns=["bias", "bias_logit"])):
        result = inverse_frequency(without_own, bias=norm, **QUICK)
        assert estimate(result, "slope_DO") == pytest.approx(-0.3, abs=1e-10)
        np.testing.assert_allclose(result.verbs["bias_logit"], logit(result.verbs["bias"]))
        assert result.provenance.options["external_norms"] is True


def test_verbs_without_a_norm_are_dropped_aloud() -> None:
    frame = verbs(noise=0.05)
    norm = frame[["verb", "bias"]].iloc[2:].assign(bias=lambda f: f["bias"].where(f["verb"] != "verb05"))
    with pytest.warns(UserWarning, match="dropped the verbs without a norm: verb00, verb01, verb05"):
        result = inverse_frequency(frame, bias=norm, **QUICK)
    assert result.estimates["n_verbs"].eq(19).all()
    with (
        pytest.warns(UserWarning, match="dropped"),
        pytest.raises(ValueError, match="slope undefined with 2 verbs that have a norm"),
    ):
        inverse_frequency(frame, bias=norm.iloc[:2])
    with pytest.raises(ValueError, match=r"the norms lack the columns \['bias'\]"):
        inverse_frequency(frame, bias=norm[["verb"]])
    with pytest.raises(ValueError, match="frame of norms has several rows for verb00"):
        inverse_frequency(frame, bias=pd.concat([frame[["verb", "bias"]], frame[["verb", "bias"]].iloc[:1]]))
    with pytest.raises(ValueError, match=r"bias is outside \[0, 1\] for verb00.*put ratings onto 0 to 1"):
        inverse_frequency(frame, bias=frame[["verb", "bias"]].assign(bias=np.arange(22) * -2.0 + 50))


def test_a_partial_neutral_baseline_is_left_out_aloud() -> None:
    frame = verbs(noise=0.05).assign(y_neutral=0.5)
    frame.loc[[1, 4], "y_neutral"] = np.nan
    with pytest.warns(UserWarning, match="neutral baseline, which is missing for verb01, verb04"):
        result = inverse_frequency(frame, **QUICK)
    assert len(result.estimates) == 8 and "L_neutral" not in result.verbs


# Bad input


def at(column: str, value: object) -> pd.DataFrame:
    frame = verbs(noise=0.05)
    frame[column] = frame[column].astype(object)
    frame.loc[2, column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (
            verbs().drop(columns=["y_PD", "bias"]),
            r"lacks the columns \['bias', 'y_PD'\]; it has \['verb', 'y_DO'\].*rename\(.*outcomes=",
        ),
        (verbs().iloc[:2], "slope undefined with 2 verbs"),
        (verbs().iloc[:0], "slope undefined with 0 verbs"),
        (pd.concat([verbs(), verbs().iloc[4:5]]), "the frame has several rows for verb04; average"),
        (at("y_DO", np.nan), "y_DO is not finite.*for verb02"),
        (at("bias", np.inf), "bias is not finite.*for verb02"),
        (at("bias", None), "bias is not finite.*for verb02"),
        (at("y_PD", 1.2), r"y_PD is outside \[0, 1\] for verb02"),
        (at("y_PD", -0.1), r"y_PD is outside \[0, 1\] for verb02"),
        (at("y_PD", "high"), "'y_PD' holds what is not a number"),
        (verbs().assign(bias=0.3), r"bias is 0\.3 for all 22 verbs; it must vary"),
        (verbs(noise=0.01).assign(L_PD=[np.nan] + [0.1] * 21), "L_PD is not finite.*for verb00"),
        (verbs().assign(bias_logit=0.0), "slope undefined: bias_logit"),
    ],
)
def test_frames_that_do_not_fit(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inverse_frequency(frame, **QUICK)


def test_forms_that_do_not_fit() -> None:
    for forms, message in [
        (("PD", "PD"), "expected two different names"),
        (("PD", "neutral"), "neither 'neutral'"),
        (("active", "passive"), r"lacks the columns \['y_active', 'y_passive'\].*forms=\('active', 'passive'\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            inverse_frequency(verbs(), forms=forms)
    with pytest.raises(ValueError, match=r"got outcomes for \['PO'\], expected the forms \['PD', 'DO'\]"):
        inverse_frequency(verbs(), outcomes={"PO": "bias"})
    with pytest.raises(ValueError, match=r"lacks the columns \['absent'\]"):
        inverse_frequency(verbs(), outcomes={"PD": "absent"})


def test_three_verbs_are_few_but_never_significant() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = inverse_frequency(verbs(3, do_slope=-0.3), **QUICK)
    assert result.verdict == "no IFE" and estimate(result, "slope_DO", "p_permutation") > 0.1
    assert not result.estimates.isna().any(axis=None)
