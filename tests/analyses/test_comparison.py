from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.api as sm

from mechicl import results
from mechicl.analyses.comparison import ComparisonResult, compare
from mechicl.analyses.inverse_frequency import IFEResult, inverse_frequency_effect
from mechicl.provenance import Provenance
from mechicl.stats import holm

FACTS = {"family": "tiny", "dtype": "float32", "prepend_bos": True}


def result(
    slope: float, seed: int = 0, noise: float = 0.0, forms: tuple[str, str] = ("PD", "DO"), **facts: Any
) -> IFEResult:
    """An IFE result on simulated verbs with this slope after second-form primes; `corpus` goes into the options."""
    rng = np.random.default_rng(seed)
    bias = np.linspace(0.1, 0.7, 12)
    frame = pd.DataFrame({"verb": [f"verb{i}" for i in range(12)], "bias": bias})
    frame[f"y_{forms[0]}"] = 0.6 + noise * rng.normal(size=12)
    frame[f"y_{forms[1]}"] = 0.4 + slope * bias + noise * rng.normal(size=12)
    found = inverse_frequency_effect(frame, forms=forms, n_boot=200, n_permutations=200, level=facts.pop("level", 0.95))
    options = {**found.provenance.options, "corpus": facts.pop("corpus", "same")}
    return replace(found, provenance=Provenance.of({**FACTS, **facts}, seeds=found.provenance.seeds, options=options))


SIZES = {"a": 10**6, "b": 10**7, "c": 10**8, "d": 10**9}


def row(comparison: ComparisonResult, estimand: str, scale: str = "probability") -> pd.Series:
    return comparison.trend.query("scale == @scale and estimand == @estimand").iloc[0]


def test_a_planted_trend_comes_back_exactly() -> None:
    """b_DO = -.02 - .03 log10(size / 1e6): steeper by .03 with every factor of ten."""
    slopes = {name: -0.02 - 0.03 * (np.log10(size) - 6) for name, size in SIZES.items()}
    found = compare({name: result(slopes[name], model=name, n_params=SIZES[name]) for name in SIZES})
    assert row(found, "slope_DO")["slope"] == pytest.approx(-0.03, abs=1e-10)
    assert row(found, "slope_DO")["spearman"] == pytest.approx(-1)
    assert row(found, "common_shift")["slope"] == pytest.approx(0.015, abs=1e-10)
    assert row(found, "slope_DO")["p"] < 1e-6 and row(found, "slope_DO")["n_models"] == 4
    flat = row(found, "slope_PD")  # no trend was planted there
    assert (flat["slope"], flat["p"]) == (0, 1) and np.isnan(flat["spearman"])
    assert found.warnings == () and found.trend["note"].eq("").all()


def test_trend_agrees_with_statsmodels() -> None:
    found = compare([result(-0.1, seed, 0.05, model=name, n_params=SIZES[name]) for seed, name in enumerate(SIZES)])
    for trend in found.trend.itertuples():
        y = found.estimates.query("scale == @trend.scale and estimand == @trend.estimand")["estimate"].to_numpy()
        fit = sm.OLS(y, sm.add_constant(np.log10(list(SIZES.values())))).fit()
        expected = [fit.params[1], *fit.conf_int()[1], fit.pvalues[1]]
        np.testing.assert_allclose([trend.slope, trend.low, trend.high, trend.p], expected, rtol=1e-8)
        assert trend.spearman == pytest.approx(scipy.stats.spearmanr(range(4), y).statistic)


def test_trend_of_models_without_one_is_significant_at_the_nominal_rate() -> None:
    """The control: estimates that do not depend on size, and p at most .05 in about 5 of 100."""
    rng, base = np.random.default_rng(0), result(-0.1)
    models = [replace(base, provenance=replace(base.provenance, n_params=size)) for size in SIZES.values()]
    p = []
    for _ in range(100):
        noisy = [replace(m, estimates=m.estimates.assign(estimate=rng.normal(size=len(m.estimates)))) for m in models]
        p.append(row(compare(dict(zip(SIZES, noisy, strict=True))), "slope_DO")["p"])
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_tables() -> None:
    named = {name: result(-0.1, seed, 0.05, model=name, n_params=SIZES[name]) for seed, name in enumerate(SIZES)}
    found = compare(named)
    assert found.models["model"].tolist() == list(SIZES) and found.models["n_params"].tolist() == list(SIZES.values())
    assert found.models["verdict"].tolist() == [each.verdict for each in named.values()]
    for name, each in named.items():
        own = found.estimates[found.estimates["model"] == name].drop(columns=["model", "p_holm_across"])
        pd.testing.assert_frame_equal(own.reset_index(drop=True), each.estimates)
    paper = found.estimates.query("scale == 'logit' and estimand in ('slope_PD', 'slope_DO')")
    np.testing.assert_allclose(paper["p_holm_across"], holm(paper["p_permutation"].to_numpy()))
    assert len(paper) == 8 and (found.estimates["p_holm_across"] >= found.estimates["p_permutation"]).all()
    assert found.to_frame().equals(found.estimates) and found.to_frame() is not found.estimates


@pytest.mark.parametrize(
    ("sizes", "n_sizes"),
    [((10**6, 10**7), 2), ((10**6, 10**7, 10**7), 2), ((10**6, 10**7, None), 2), ((None, None), 0)],
)
def test_no_trend_with_fewer_than_three_sizes(sizes: tuple[int | None, ...], n_sizes: int) -> None:
    found = compare({f"m{i}": result(-0.1, model=f"m{i}", n_params=size) for i, size in enumerate(sizes)})
    assert found.trend[["slope", "low", "high", "p", "spearman"]].isna().all(axis=None)
    assert found.trend["n_sizes"].eq(n_sizes).all()
    assert found.trend["note"].str.contains(f"with {n_sizes} known size.*at least 3 sizes are needed").all()


@pytest.mark.parametrize(
    ("fact", "values", "message"),
    [
        ("family", ("tiny", "big"), r"families differ \(tiny: x; big: y\): a trend over size mixes them"),
        ("dtype", ("float32", "bfloat16"), r"dtype differs \(float32: x; bfloat16: y\)"),
        ("prepend_bos", (True, False), r"prepend_bos differs \(True: x; False: y\)"),
        ("processed", (True, None), r"weight processing differs \(True: x; unknown: y\)"),
        ("corpus", ("one", "two"), r"corpus differs \(one: x; two: y\)"),
        ("level", (0.95, 0.9), r"level differs .*intervals do not compare"),
        ("n_params", (10, None), r"size unknown: y \(left out of the trend\)"),
        ("weights_sha256", ("abc", "abc"), r"the same model twice: x, y \(equal weights_sha256\)"),
        ("model", ("m", "m"), r"the same model twice: x, y \(equal model\)"),
    ],
)
def test_warnings(fact: str, values: tuple[Any, Any], message: str) -> None:
    facts = [{"n_params": 10 + i, fact: value} for i, value in enumerate(values)]
    found = compare({name: result(-0.1, **each) for name, each in zip("xy", facts, strict=True)})
    assert len(found.warnings) == 1
    assert pd.Series(found.warnings).str.contains(message).all()


def test_more_warnings_and_the_note_of_the_trend() -> None:
    few = result(-0.1, n_params=12, family="other")
    few = replace(few, verbs=few.verbs.iloc[:11])
    found = compare({"x": result(-0.1, n_params=10), "y": result(-0.2, n_params=11), "z": few})
    assert found.warnings == (
        "families differ (tiny: x, y; other: z): a trend over size mixes them",
        "verbs differ: x has 12, y has 12, z has 11",
    )
    assert found.trend["note"].eq(found.warnings[0]).all() and found.trend["slope"].notna().all()


def test_names_forms_and_nothing() -> None:
    one = result(-0.1, model="m")
    with pytest.raises(ValueError, match=r"several results are of \['m'\], expected unique names; pass a mapping"):
        compare([one, one])
    with pytest.raises(ValueError, match=r"results \[1\] .*do not name their model; pass a mapping"):
        compare([one, result(-0.1)])
    with pytest.raises(ValueError, match="got no results"):
        compare([])
    with pytest.raises(ValueError, match=r"results on \('PD', 'DO'\) and on other forms: \{'n': \('A', 'B'\)\}"):
        compare([one, result(-0.1, model="n", forms=("A", "B"))])


def test_saved_and_drawn(tmp_path: Path) -> None:
    found = compare([result(-0.1, model=name, n_params=size) for name, size in [*SIZES.items(), ("e", None)]])
    assert results.load(found.save(tmp_path)) == found
    assert "warnings=" in repr(found) and len(repr(found)) < 700
    with mpl.rc_context({"backend": "agg"}):
        assert [label.get_text() for label in found.plot().get_yticklabels()] == [*SIZES, "e"]
