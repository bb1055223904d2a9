"""The Bayesian account's report and verdict: they say what the results hold, and own up to what these do not show."""

import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.pages.sections import write_sections
from mechicl.analyses.strategies import shipped
from mechicl.analyses.strategies.account import StrategyAccount, measure_strategies, readings_data
from mechicl.analyses.strategies.report import strategies_section
from mechicl.analyses.strategies.report_cells import small_interval
from mechicl.analyses.strategies.report_drawings import telling_diversities
from mechicl.analyses.strategies.report_words import card, subtitle, title
from mechicl.analyses.strategies.words import account_verdict, judgement
from mechicl.analyses.strategies.words_transience import turning_points
from mechicl.results import load
from mechicl.strategies.fit import fit_data
from mechicl.wording import number, with_interval

ABOVE = Path(__file__).parent
Page = runpy.run_path(str(ABOVE.parent / "test_report.py"))["Page"]
made_up_readings = runpy.run_path(str(ABOVE / "made_up_strategies.py"))["made_up_readings"]
SMALL: dict[str, Any] = {"n_steps": 8, "n_sequences": 6, "diversities": (4, 8, 16, 32, 64)}


@pytest.fixture(scope="module")
def account() -> Any:
    return measure_strategies(made_up_readings(noise=0.3, **SMALL), n_boot=100)


@pytest.fixture(scope="module")
def regression() -> Any:
    readings = made_up_readings(setting="linear_regression", n_seeds=1, advantage=-0.1, **SMALL)
    return measure_strategies(readings, n_boot=0, held_out=0.0)


@pytest.fixture(scope="module")
def page(account: Any, regression: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 30)
        sections = [strategies_section(account), strategies_section(regression)]
        return write_sections(
            tmp_path_factory.mktemp("report"), sections, title=title(account), subtitle=subtitle(account)
        )


def words(path: Path) -> str:
    return re.sub(r"\s+", " ", Page(path.read_text(encoding="utf-8")).text).replace("\N{NO-BREAK SPACE}", " ")


def verdict(account: Any, fit: Any = None, **changed: Any) -> str:
    """The verdict of an account with some of its parts changed."""
    parts = {"transitions": account.transitions, "transience": account.transience} | changed
    return account_verdict(account.setting, fit or account.fit, **parts)


def with_measure(fit: Any, cells: str, **values: float) -> Any:
    """A fit whose correlation of d_rel over some cells is another."""
    rows = (fit.measures["measure"] == "d_rel") & (fit.measures["cells"] == cells)
    return replace(fit, measures=fit.measures.assign(**{
        name: fit.measures[name].mask(rows, value) for name, value in values.items()
    }))  # fmt: skip


def test_the_page_says_the_numbers_of_the_account(page: Path, account: Any) -> None:
    text = words(page)
    for _, row in account.fit.parameters.iterrows():
        assert f"{row['parameter']} {with_interval(row['estimate'], row['low'], row['high'])} inside" in text
    table = account.fit.measures.set_index(["measure", "cells"])
    held, fitted = table.loc[("d_rel", "held_out")], table.loc[("d_rel", "fitted")]
    shown = [with_interval(row["value"], row["low"], row["high"]) for row in (fitted, held)]
    assert f"Correlation of d_rel {shown[0]} {shown[1]} {number(held['control'])}" in text
    times = account.transitions.times.dropna(subset=["observed"])
    assert len(times) and all(f"{t:,.0f} [{a:,.0f}, {b:,.0f}]" in text for t, a, b in zip(
        times["observed"], times["observed_low"], times["observed_high"], strict=True
    ))  # fmt: skip
    for part in (account.ablations, account.three, account.context):
        assert small_interval(part.to_frame().iloc[-1], "held_out_excess") in text
    for name in ("alpha = 0", "linear K", "one weight for all cells", "and the best constant as a third", "strength 1"):
        assert name in text
    sentences = re.split(r"(?<=\.) (?=[A-Z])", account.verdict)
    assert len(sentences) == 6 and all(sentence in text for sentence in sentences)
    assert "10 transformers" in text and "A description, not a mechanism" in text


def test_the_page_is_whole_for_regression_too(page: Path, account: Any, regression: Any) -> None:
    read = Page(page.read_text(encoding="utf-8"))
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and {"strategies_balls_and_urns", "strategies_linear_regression"} <= set(ids)
    text = words(page)
    assert "nan" not in text.lower().split() and "None" not in text.split()
    assert "{" not in text[: text.index("@software{")], "BibTeX has braces"
    assert "in squared error at D = 4" in text and "nothing was held out, which is no test" in text
    assert len(read.all("img")) == 2 * (10 + len(telling_diversities(account)))
    assert text.count("Same likeliest label") == 1, "means have none"
    assert regression.three is None and text.count("Added") == 1
    section = strategies_section(account)
    for name, (frame, _) in section.frames.items():
        found = pd.read_csv(page.parent / "frames" / f"{name}.csv").select_dtypes("number")
        expected = frame.select_dtypes("number").reset_index(drop=True)
        pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False)
    assert load(page.parent / "results" / "strategies_balls_and_urns") == account


def test_a_known_model_of_training_is_found_and_random_predictions_are_not(account: Any) -> None:
    assert judgement(account.fit) == "predicts" and card(account) == ("yes", "Yes, also where it was not fitted")
    assert "The model of training predicts d_rel at checkpoints" in account.verdict
    rng = np.random.default_rng(0)
    readings = made_up_readings(**SMALL)
    weight = rng.uniform(size=readings.predictions.shape[:3])[..., None, None]
    mixed = weight * readings.memorising[:, None] + (1 - weight) * readings.generalising[:, None]
    null = fit_data(readings_data(replace(readings, predictions=mixed)), n_boot=0)
    assert judgement(null) == "fails" and card(replace(account, fit=null))[0] == "none"
    assert "fails to predict d_rel" in verdict(account, null)


def test_models_that_are_near_neither_strategy(account: Any) -> None:
    far = fit_data(readings_data(made_up_readings(strange=0.9, **SMALL)), n_boot=0, n_permutations=0)
    assert judgement(far) == "far" and card(replace(account, fit=far))[0] == "none"
    assert "They are near neither, so d_rel says little" in verdict(account, far)


def test_what_is_said_of_a_prediction(account: Any) -> None:
    fit = account.fit
    changed = {
        "partly": with_measure(fit, "held_out", value=0.8, low=0.6, high=0.9),
        "fails": with_measure(fit, "held_out", value=0.1, low=-0.2, high=0.4, p=0.5),
        "untested": replace(with_measure(fit, "held_out", value=np.nan, low=np.nan),
                            fitted=np.broadcast_to(fit.kept[:, None], fit.fitted.shape).copy()),
    }  # fmt: skip
    said = {
        "partly": "predicts d_rel in part at checkpoints and diversities that it was not fitted to: correlation 0.800 "
        "[0.600, 0.900]",
        "fails": "fails to predict d_rel at checkpoints and diversities that it was not fitted to: correlation 0.100",
        "untested": "nothing was held out, which is no test",
    }
    for kind, other in changed.items():
        assert judgement(other) == kind and said[kind] in verdict(account, other)
        assert card(replace(account, fit=other))[0] == "none"
    as_shuffled = with_measure(fit, "held_out", p=0.2)
    assert judgement(as_shuffled) == "fails"
    flat = with_measure(fit, "held_out", value=np.nan, low=np.nan, high=np.nan)
    assert judgement(flat) == "fails" and "d_rel does not vary" in verdict(account, flat)
    model = fit.baselines["baseline"] == "model"
    worse = fit.baselines.assign(held_out_explained=fit.baselines["held_out_explained"].mask(model, -0.3))
    assert judgement(replace(fit, baselines=worse)) == "fails"
    assert "no better there than one weight for all cells" in verdict(account, replace(fit, baselines=worse))


def test_numbers_that_are_none(account: Any) -> None:
    bound = account.fit.parameters.assign(bound=["", "upper", "lower"])
    fit = replace(account.fit, parameters=bound, converged=False)
    said = verdict(account, fit)
    assert "At a bound of the search, and so no estimate: beta (upper) and gamma (lower)." in said
    assert "The fit did not converge: they are where the search stopped." in said
    assert "bound" not in account.verdict and "converge" not in account.verdict


def test_what_is_said_of_transition_times(account: Any) -> None:
    own = account.transitions
    none = replace(own, times=own.times.assign(observed=np.nan))
    assert "At no diversity do they turn from generalising to memorising while they are watched" in verdict(
        account, transitions=none
    )
    one = replace(own, times=own.times.assign(observed=[np.nan, 50.0, np.nan, np.nan, np.nan]),
                  scaling=own.scaling.assign(slope=np.nan, low=np.nan, high=np.nan))  # fmt: skip
    assert "at D = 8, after 50 steps; these are too few for an exponent." in verdict(account, transitions=one)
    for (low, high), words_ in (
        ((1.1, 1.5), "exponent 1.20 [1.10, 1.50], faster than in proportion to D, beside the 1.20 [1.10, 1.50] pred"),
        ((0.7, 1.5), "not clearly faster or slower than in proportion to D"),
        ((0.2, 0.9), "slower than in proportion to D"),
        ((np.nan, np.nan), "exponent 1.20; one seed gives no interval"),
    ):
        other = replace(own, scaling=own.scaling.assign(slope=1.2, low=low, high=high))
        assert words_ in verdict(account, transitions=other)
    predicted = own.scaling["time"] == "predicted_where_observed"
    for low, high, words_ in ((1.5, 1.9, "but below the 1.20"), (0.5, 0.9, "but above the 1.20")):
        frame = own.scaling.assign(slope=1.2, low=1.0, high=1.4)
        frame.loc[predicted, ["low", "high"]] = low, high
        assert words_ in verdict(account, transitions=replace(own, scaling=frame))


def test_transience_counts_where_a_mixture_is_near(account: Any) -> None:
    fit = account.fit
    path = np.linspace(0.9, 0.8, len(fit.terms.steps))[:, None]
    flat = replace(fit, d_rel=np.broadcast_to(path, fit.d_rel.shape).copy(), residual=np.zeros_like(fit.residual))
    assert "generalising transient" in verdict(account, flat) and "and no model does." in verdict(account, flat)
    d_rel, residual = flat.d_rel.copy(), flat.residual.copy()
    d_rel[:, -3, 2], d_rel[:, -4, 2] = (0.3, 0.36), 0.05
    residual[:, -4, 2] = 0.8  # the lowest of all, but near neither strategy
    rises = replace(fit, d_rel=d_rel, residual=residual)
    found = turning_points(rises, account.transience).query("diversity == 16")
    np.testing.assert_allclose(found["lowest"], [0.3, 0.36])
    np.testing.assert_allclose(found["rise"], [0.5, 0.44])
    assert (found["step"] == fit.terms.steps[-3]).all()
    said = verdict(account, rises)
    assert "Generalising is transient at D = 16: d_rel rises from 0.33 by 0.47 (0.44 to 0.50 over 2" in said
    two = replace(rises, d_rel=d_rel[:, :, [2, 2, 0, 0, 0]], residual=residual[:, :, [2, 2, 0, 0, 0]])
    assert "at D = 4 and 8: at D = 4 d_rel rises from 0.33" in verdict(account, two)
    d_rel[1, -3, 2] = 0.7  # one seed alone
    assert "in every seed; 1 of 10 models do." in verdict(account, replace(rises, d_rel=d_rel))
    nowhere = replace(rises, residual=np.ones_like(residual))
    assert turning_points(nowhere, account.transience)["lowest"].isna().all()


def test_shipped_results_are_found_or_missed_by_name(
    account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(shipped.SHIPPED) == {folder.parent.name for folder in shipped.RESULTS.glob("*/result.json")}
    for setting in shipped.SHIPPED:
        assert isinstance(shipped.shipped_strategies(setting), StrategyAccount)
    monkeypatch.setattr(shipped, "RESULTS", tmp_path)
    with pytest.raises(ValueError, match=r"no results of 'markov_chains' .* mechicl train --setting markov_chains"):
        shipped.shipped_strategies("markov_chains")
    account.save(tmp_path / "markov_chains")
    assert shipped.shipped_strategies("markov_chains") == account
