"""What a report says of accounts: the table's numbers, in words that hold where nothing is named, too."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.accounts import AccountTable, compare_accounts
from mechicl.analyses.pages.opening import opening_section, question
from mechicl.analyses.pages.parts import MISSING
from mechicl.analyses.pages.section import Section
from mechicl.analyses.pages.sections import write_sections
from mechicl.analyses.rivals.report import accounts_section, mechanisms_table, shares_table, truth_table
from mechicl.analyses.rivals.report_words import accounts_slug, card, family_words, task_words, titled, without_numbers
from mechicl.results import load
from mechicl.tasks.regression import RegressionTask
from mechicl.wording import with_interval

TASK = RegressionTask(dim=3, n_demos=6)
OPTIONS: dict[str, Any] = {"n_contexts": 60, "n_orders": 2, "n_boot": 200, "progress": False}


def step(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
    """One step of gradient descent from zero."""
    return 0.5 * np.einsum("bi,bij,bj->b", y, x, query) / x.shape[1]


@pytest.fixture(scope="module")
def found() -> AccountTable:
    return compare_accounts(step, TASK, **OPTIONS)


@pytest.fixture(scope="module")
def null() -> AccountTable:
    """A model that answers 0 whatever it is shown."""
    return compare_accounts(lambda x, y, query: 0.0 * query[:, 0], TASK, **OPTIONS)


def test_the_card_names_the_account_that_the_model_follows(found: AccountTable) -> None:
    section = accounts_section(found)
    assert found.named == "gradient descent" and section.kind == "yes"
    assert section.verdict == "Gradient steps: “gradient descent”" and section.brief == found.verdict
    assert section.slug == accounts_slug(found) == "accounts_regression"
    assert section.question == "Which account explains its answers in regression?"


def test_the_table_holds_the_shares_nearest_first(found: AccountTable) -> None:
    rows = shares_table(found)["rows"]
    assert [row[0] for row in rows] == found.frame["account"].tolist()
    for shown, (_, row) in zip(rows, found.frame.iterrows(), strict=True):
        assert shown[2] == with_interval(row["share"], row["low"], row["high"], 2) and shown[5] == str(row["n_free"])
    assert rows[0][3] == "nearest" and "nearest" not in [row[3] for row in rows[1:]]
    truth = truth_table(found)["rows"]
    assert truth[0][0] == "The model" and len(truth) == len(found.truth) == len(found.frame) + 1


def test_where_there_is_nothing_to_explain_none_is_named(null: AccountTable) -> None:
    section = accounts_section(null)
    assert section.kind == "none" and section.verdict == card(null) == "There is nothing to explain"
    assert "apart" not in " ".join(drawing.name for drawing in section.drawings), "no room, no distances in it"
    opening = opening_section("toy", [null], [section])
    assert opening.kind == "none" and "changes nothing that an account could explain" in opening.sentence
    assert not [text for _, text in opening.points if re.search(r"explains [\d.]", text)]


def test_a_page_of_accounts_is_whole_and_its_result_reloads(
    found: AccountTable, null: AccountTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 30)
    for one, folder in ((found, tmp_path / "found"), (null, tmp_path / "null")):
        page = write_sections(folder, [accounts_section(one)], title="T", subtitle="S").read_text("utf-8")
        assert "nan" not in re.sub(r"data:image[^\"]*", "", page).lower().split()
        assert load(folder / "results" / "accounts_regression") == one
        pd.testing.assert_frame_equal(
            pd.read_csv(folder / "frames" / "accounts_regression_pairs.csv"), one.pairs, check_dtype=False
        )
        assert "@misc{oswald2022gradient" in page and "@software{mechicl" in page
    assert (tmp_path / "found" / "pictures" / "accounts_regression_apart.png").is_file()


def test_measures_inside_the_model_stand_beside_their_control(found: AccountTable) -> None:
    row = ["gradient descent", "cosine", 0.9, 0.8, 1.0, float("nan"), "as told"]
    columns = ["account", "measure", "estimate", "low", "high", "control", "note"]
    stand_in: Any = SimpleNamespace(kind="regression", mechanisms=pd.DataFrame([row], columns=columns))
    assert mechanisms_table(stand_in)["rows"] == [["gradient descent", "cosine", "0.90 [0.80, 1.00]", "n/a", "as told"]]
    assert mechanisms_table(found)["words"] is True


def test_the_opening_has_a_sentence_an_account_with_its_share(found: AccountTable) -> None:
    gone = Section("kernel", "Does it?", "none", MISSING, "The window is too short.", "")
    opening = opening_section("toy", [found], [accounts_section(found, shares=False), gone])
    points = dict(opening.points)
    assert list(points) == [
        "Gradient steps", "Kernel regression", "Bayesian strategies", "Baselines, and a constant boost",
    ]  # fmt: skip
    row: Any = found.leading("gradient")
    assert with_interval(row["share"], row["low"], row["high"], 2) in points["Gradient steps"]
    assert "could not be measured (The window is too short)" in points["Kernel regression"]
    assert "gradient steps come nearest to its answers: “gradient descent”" in opening.sentence
    assert [table["caption"] for table in opening.tables] == [shares_table(found)["caption"]]
    assert question("toy") == "By what mechanism does toy learn from its context?"
    assert [drawing.name for drawing in opening.drawings] == ["accounts_regression_shares"]


def test_shares_stand_once_on_a_page(found: AccountTable) -> None:
    with_them, without = accounts_section(found), accounts_section(found, shares=False)
    assert len(with_them.tables) == len(without.tables) + 1 and len(with_them.drawings) == len(without.drawings) + 1


def test_tasks_have_words() -> None:
    def stand_in(kind: str, task: str) -> Any:
        return SimpleNamespace(kind=kind, task=task, sentences={})

    assert task_words(stand_in("priming", "datives")) == "what one prime does"
    assert task_words(stand_in("few-shot", "sentiment")) == "its answers in the task “sentiment”"
    assert titled(stand_in("few-shot", "sentiment")) == "Few-shot, sentiment"
    assert titled(stand_in("urns", "urns: D 4")) == "Urns: D 4"
    fitted = "“step” (rate = 1 of 2e-05, bias = (0.1, -0.1)) explains 0.5, as “copy last” (difference 0.1 [0.0, 0.2])."
    assert without_numbers(fitted) == "“step” explains 0.5, as “copy last” (difference 0.1 [0.0, 0.2])."
    assert family_words([stand_in("priming", "datives")], ["kernel"]) == ""
