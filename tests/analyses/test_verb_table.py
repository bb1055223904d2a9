"""What goes into the analysis of the inverse frequency effect: columns, norms, and input that does not fit."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit

from mechicl.analyses.inverse_frequency import IFEResult, inverse_frequency_effect

QUICK = {"n_boot": 500, "n_permutations": 500}


def verbs(n: int = 22, *, pd_slope: float = 0.0, do_slope: float = 0.0, noise: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    bias = rng.uniform(0.05, 0.75, size=n)
    y_pd = 0.6 + pd_slope * bias + noise * rng.normal(size=n)
    y_do = 0.4 + do_slope * bias + noise * rng.normal(size=n)
    return pd.DataFrame({"verb": [f"verb{i:02d}" for i in range(n)], "bias": bias, "y_PD": y_pd, "y_DO": y_do})


def estimate(result: IFEResult, estimand: str, column: str = "estimate") -> float:
    rows = result.estimates
    return rows[(rows["scale"] == "probability") & (rows["estimand"] == estimand)].iloc[0][column]


def test_columns_are_recognised_in_order() -> None:
    frame = verbs(pd_slope=-0.05, do_slope=-0.17).assign(mine=lambda f: 0.5 + 0.1 * f["bias"])
    published = frame.rename(columns={"y_PD": "pd_pd", "y_DO": "do_pd"})
    by_y, by_published = (inverse_frequency_effect(f, **QUICK) for f in (frame, published))
    pd.testing.assert_frame_equal(by_y.estimates, by_published.estimates)
    both = inverse_frequency_effect(frame.assign(do_pd=0.5 + 0.3 * frame["bias"]), **QUICK)
    assert estimate(both, "slope_DO") == pytest.approx(-0.17)  # y_ goes before
    # L_PD belongs to y_PD: it does not serve for another outcome.
    told = inverse_frequency_effect(frame.assign(L_PD=5.0), outcomes={"PD": "mine"}, **QUICK)
    assert estimate(told, "slope_PD") == pytest.approx(0.1) and estimate(told, "slope_DO") == pytest.approx(-0.17)
    np.testing.assert_allclose(told.verbs["L_PD"], logit(frame["mine"]))


def test_external_norms_replace_the_bias() -> None:
    frame = verbs(noise=0.05).assign(bias_logit=3.0)
    norm = pd.DataFrame({"verb": frame["verb"][::-1], "bias": np.linspace(0.1, 0.9, 22)})
    frame["y_DO"] = frame["verb"].map(norm.set_index("verb")["bias"]) * -0.3 + 0.5
    for without_own in (frame, frame.drop(columns=["bias", "bias_logit"])):
        result = inverse_frequency_effect(without_own, bias=norm, **QUICK)
        assert estimate(result, "slope_DO") == pytest.approx(-0.3, abs=1e-10)
        np.testing.assert_allclose(result.verbs["bias_logit"], logit(result.verbs["bias"]))
        assert result.provenance.options["external_norms"] is True


def test_verbs_without_a_norm_are_dropped_aloud() -> None:
    frame = verbs(noise=0.05)
    norm = frame[["verb", "bias"]].iloc[2:].assign(bias=lambda f: f["bias"].where(f["verb"] != "verb05"))
    with pytest.warns(UserWarning, match="dropped the verbs without a norm: verb00, verb01, verb05"):
        result = inverse_frequency_effect(frame, bias=norm, **QUICK)
    assert result.estimates["n_verbs"].eq(19).all()
    with (
        pytest.warns(UserWarning, match="dropped"),
        pytest.raises(ValueError, match="slope undefined with 2 verbs that have a norm"),
    ):
        inverse_frequency_effect(frame, bias=norm.iloc[:2])
    with pytest.raises(ValueError, match=r"the norms lack the columns \['bias'\]"):
        inverse_frequency_effect(frame, bias=norm[["verb"]])
    with pytest.raises(ValueError, match="frame of norms has several rows for verb00"):
        inverse_frequency_effect(frame, bias=pd.concat([frame[["verb", "bias"]], frame[["verb", "bias"]].iloc[:1]]))
    with pytest.raises(ValueError, match=r"bias is outside \[0, 1\] for verb00.*put ratings onto 0 to 1"):
        inverse_frequency_effect(frame, bias=frame[["verb", "bias"]].assign(bias=np.arange(22) * -2.0 + 50))


def test_a_partial_neutral_baseline_is_left_out_aloud() -> None:
    frame = verbs(noise=0.05).assign(y_neutral=0.5)
    frame.loc[[1, 4], "y_neutral"] = np.nan
    with pytest.warns(UserWarning, match="neutral baseline, which is missing for verb01, verb04"):
        result = inverse_frequency_effect(frame, **QUICK)
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
        (at("verb", None), "the verb is missing in 1 rows"),
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
        inverse_frequency_effect(frame, **QUICK)


def test_forms_that_do_not_fit() -> None:
    for forms, message in [
        (("PD", "PD"), "expected two different names"),
        (("PD", "neutral"), "neither 'neutral'"),
        (("active", "passive"), r"lacks the columns \['y_active', 'y_passive'\].*forms=\('active', 'passive'\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            inverse_frequency_effect(verbs(), forms=forms)
    with pytest.raises(ValueError, match=r"got outcomes for \['PO'\], expected the forms \['PD', 'DO'\]"):
        inverse_frequency_effect(verbs(), outcomes={"PO": "bias"})
    with pytest.raises(ValueError, match=r"lacks the columns \['absent'\]"):
        inverse_frequency_effect(verbs(), outcomes={"PD": "absent"})


def test_three_verbs_are_few_but_never_significant() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result = inverse_frequency_effect(verbs(3, do_slope=-0.3), **QUICK)
    assert result.verdict == "no IFE" and estimate(result, "slope_DO", "p_permutation") > 0.1
    assert not result.estimates.isna().any(axis=None)
