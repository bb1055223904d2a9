"""The recovery study: its counts by hand, its rows by the comparison itself, and the study in the package."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from mechicl.accounts.judging import MARGIN
from mechicl.analyses.accounts import compare_accounts
from mechicl.analyses.recovery.kinds import grow
from mechicl.analyses.recovery.recover import KINDS, recover_accounts, shipped_recovery
from mechicl.analyses.recovery.rows import attribute
from mechicl.analyses.recovery.study import COLUMNS, RecoveryStudy, outcome_of, wilson
from mechicl.provenance import Provenance

QUICK = {"n_contexts": 40, "n_orders": 2, "n_boot": 200, "progress": False, "n_jobs": 1}
TWO = ["regression: gradient descent", "regression: null"]


def row(kind, draw, truth, named, tied=(), rivals="", residual=np.nan):
    """A made-up row; truth and named are pairs of account and family."""
    whole = dict.fromkeys(COLUMNS, np.nan)
    own = {
        "kind": kind, "draw": draw, "truth_account": truth[0], "truth_family": truth[1], "parameters": "{}",
        "account": named[0], "family": named[1], "nearest": named[0], "tied": ", ".join(tied), "rivals": rivals,
        "fitted": "",
        "outcome": outcome_of(*truth, named[1], tied), "share": 0.9, "residual": residual,
    }  # fmt: skip
    return whole | own


@pytest.fixture(scope="module")
def made_up():
    """Ten organisms of which all is known."""
    gd, kernel, zero, none = ("GD", "gradient"), ("RBF", "kernel"), ("zero", "baseline"), ("none", "none")
    rows = [row("a", i, gd, gd, rivals="bayes" if i else "") for i in range(3)]
    rows += [row("a", 3, gd, ("GD++", "gradient")), row("a", 4, gd, kernel, ("GD",)), row("a", 5, gd, none)]
    rows += [row("b", 0, kernel, kernel, residual=0.1), row("b", 1, kernel, gd, residual=0.9)]
    rows += [row("c", 0, zero, none, ("RBF",)), row("c", 1, zero, kernel, ("zero",))]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    noise = pd.concat([frame[frame["kind"] == "a"].assign(noise=level) for level in (0.0, 1.0)], ignore_index=True)
    return RecoveryStudy(frame, noise, 0.95, Provenance.of())


@pytest.fixture(scope="module", autouse=True)
def _fewer_numbers_are_tried():
    """Accounts with fewer choices and a shorter search: what is tested here does not depend on them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechicl.accounts.fitting.EVALUATIONS", 10)
        patch.setattr("mechicl.accounts.regression.STEPS", (1, 2, 3, 4))
        patch.setattr("mechicl.accounts.regression.PLUS_STEPS", (2,))
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small study, with the folder of its rows."""
    store = tmp_path_factory.mktemp("rows")
    return recover_accounts(2, TWO, noise_levels=(0.0,), n_noise_draws=1, store=store, **QUICK), store


def test_confusion_counts_organisms(made_up):
    """Against counting by hand."""
    table = made_up.confusion
    expected = {
        ("gradient", "gradient"): 4, ("gradient", "kernel"): 1, ("gradient", "none"): 1,
        ("kernel", "kernel"): 1, ("kernel", "gradient"): 1,
        ("baseline", "none"): 1, ("baseline", "kernel"): 1,
    }  # fmt: skip
    assert {(i, j): int(table.loc[i, j]) for i in table.index for j in table.columns if table.loc[i, j]} == expected
    by_account = made_up.account_confusion
    assert by_account.loc["a", "GD++"] == 1
    assert by_account.to_numpy().sum() == len(made_up.frame) == 10


def test_accuracy_is_of_families_and_of_accounts(made_up):
    """Nulls are right where nothing was named; intervals are Wilson's."""
    rates = made_up.accuracy.set_index("kind")
    assert rates.loc["a", ["n", "right", "right_account", "tied", "unnamed"]].tolist() == [6, 4, 3, 1, 1]
    assert rates.loc["all accounts", ["n", "right", "alone"]].tolist() == [8, 5, 3]
    assert rates.loc["all nulls", ["n", "right", "right_account"]].tolist() == [2, 1, 1]
    p, n, z = 4 / 6, 6, 1.959964
    middle, half = (p + z**2 / (2 * n)), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    expected = np.array([middle - half, middle + half]) / (1 + z**2 / n)
    np.testing.assert_allclose(rates.loc["a", ["low", "high"]].to_numpy(float), expected, atol=1e-6)
    assert np.isnan(wilson(0, 0, 0.95)).all()


def test_what_became_of_each(made_up):
    """The five outcomes, and the tables that show all but the first."""
    assert made_up.frame["outcome"].tolist() == ["right"] * 4 + ["tied", "unnamed", "right", "wrong", "right", "false"]
    assert len(made_up.misattributed) == 4
    assert made_up.false_attributions["kind"].tolist() == ["c"]
    assert made_up.noise_table[["kind", "noise", "n", "right"]].to_numpy().tolist() == [["a", 0, 6, 4], ["a", 1, 6, 4]]


def test_caution_where_the_true_account_ties_with_a_baseline():
    """Nothing is named, but the account was not lost. A null that is named is an error, whatever ties with it."""
    assert outcome_of("RBF", "kernel", "none", ("RBF", "mean label")) == "tied"
    assert outcome_of("RBF", "kernel", "none", ("mean label",)) == "unnamed"
    assert outcome_of("zero", "baseline", "kernel", ("zero",)) == "false"


def test_the_verdict_says_how_many(made_up):
    """Counts of all, of what was missed, of nulls, and of trained models that follow nothing."""
    verdict = made_up.verdict
    assert verdict.startswith("5 of 8 (62%")
    assert "3 of these are told apart from every other family; the others are the" in verdict
    assert "of those that tie: a (2 with bayes)." in verdict
    assert "a: 4 of 6 (1 not told apart from another, 1 not named)." in verdict
    assert "b: 1 of 2 (1 wrong)." in verdict
    assert "Of 2 nulls 1 is attributed to an account" in verdict
    assert "1 of 2 trained transformers follow" in verdict


def test_rows_are_those_of_compare_accounts():
    """The study judges as the analysis that users call does: the same contexts, halves and draws."""
    organism = grow("regression: Gaussian kernel", 0)
    found = attribute(organism, n_contexts=40, n_orders=2, n_boot=200, seed=4)
    table = compare_accounts(
        organism.model, organism.task, n_contexts=40, n_orders=2, n_boot=200, seed=4, **organism.reading
    )
    best = table.row(table.best)
    assert (found["account"], found["family"], found["nearest"]) == (table.named, table.family, table.best)
    assert [found[name] for name in ("share", "low", "high")] == [best[name] for name in ("share", "low", "high")]
    assert found["tied"] == ", ".join(table.tied)


def test_a_descent_is_found_and_a_null_is_not(small):
    """Two organisms of each; the null is the control."""
    study, _ = small
    assert study.frame.groupby("kind")["family"].unique().map(list).to_dict() == {
        TWO[0]: ["gradient"],
        TWO[1]: ["none"],
    }
    assert list(study.frame.columns) == list(COLUMNS)
    assert json.loads(study.frame["parameters"][0])["rate"] > 0
    assert study.noise["noise"].tolist() == [0.0]


def test_a_study_goes_on_from_its_rows_and_begins_as_a_shorter_one(small, monkeypatch):
    """Kept rows are read and not made again; draws do not depend on how many there are."""
    study, store = small
    again = recover_accounts(1, TWO[1:], n_noise_draws=0, **QUICK)
    same = (study.frame["draw"] == 0) & (study.frame["kind"] == TWO[1])
    assert again.frame.equals(study.frame[same].reset_index(drop=True))
    monkeypatch.setattr("mechicl.analyses.recovery.rows.grow", None)  # nothing can be grown
    kept = recover_accounts(2, TWO, noise_levels=(0.0,), n_noise_draws=1, store=store, **QUICK)
    assert kept.frame.equals(study.frame)
    with pytest.raises(TypeError):  # other settings are other rows
        recover_accounts(2, TWO, n_noise_draws=0, store=store, **{**QUICK, "n_contexts": 42})


def test_results_survive_a_folder(small, tmp_path):
    """Saved and loaded, bit for bit; another study is another result."""
    study, _ = small
    study.save(tmp_path / "kept")
    assert RecoveryStudy.load(tmp_path / "kept") == study != replace(study, level=0.9)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kinds": ["urns: magic"]}, "expected some of"),
        ({"kinds": []}, "expected some of"),
        ({"n_draws": 0}, "expected 1 or more"),
        ({"n_noise_draws": -1}, "0 or more"),
        ({"noise_levels": (-1.0,)}, "finite numbers"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, words):
    """Before any organism is grown."""
    with pytest.raises(ValueError, match=words):
        recover_accounts(**{"n_draws": 1, "kinds": TWO, **QUICK} | wrong)


def test_the_study_that_comes_with_the_package():
    """Twenty draws a kind, every row consistent with its outcome, made with the default margin."""
    study = shipped_recovery()
    assert set(study.frame["kind"]) == set(KINDS)
    assert study.frame.groupby("kind")["draw"].nunique().min() >= 20
    assert study.provenance.options["margin"] == MARGIN
    for one in study.frame.itertuples():
        tied = tuple(one.tied.split(", "))
        assert one.outcome == outcome_of(one.truth_account, one.truth_family, one.family, tied)
        assert (one.family == "none") == (one.account == "none")
    trained = study.frame.dropna(subset=["residual"])
    assert set(trained["kind"]) == {"urns: memorising", "urns: generalising"}
    assert str(study.accuracy.set_index("kind").loc["all accounts", "right"]) in study.verdict
