"""`mechicl accounts`: models that come along on their own tasks, and what is refused before a model is loaded."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

import mechicl
from mechicl.__main__ import main
from mechicl.analyses.rivals.command import chosen
from mechicl.commands.accounts import COMPARED, Accounts, compared
from mechicl.organisms.regression_recipes import find_regressor
from mechicl.results import load
from mechicl.tasks.facts import sentiment_task
from mechicl.wording import with_interval


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures: they take most of the time."""
    monkeypatch.setattr("mechicl.analyses.pages.sections.draw_all", lambda *drawings: [])


def test_a_regressor_reads_its_own_task(tmp_path: Path, capsys: Any) -> None:
    asked = ["accounts", "--model", "lsa-1", "--out", str(tmp_path / "out"), "--contexts", "60", "--orders", "2"]
    assert main([*asked, "--quiet"]) == 0
    out, err = capsys.readouterr()
    found = load(tmp_path / "out" / "results" / "accounts_regression")
    lines = out.splitlines()
    assert err == "" and lines[0] == found.verdict and found.named == "gradient descent"
    for _, row in found.frame.iterrows():
        (line,) = [line for line in lines if re.match(rf"  {re.escape(row['account'])}  ", line)]
        assert with_interval(row["share"], row["low"], row["high"], 2) in line
    page = unescape((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    assert "Which account of in-context learning explains lsa-1?" in page or "explains" in page
    assert "mechicl accounts --model lsa-1" in page
    assert main([*asked, "--quiet"]) == 2 and "already holds a report" in capsys.readouterr().err
    assert main([*asked, "--quiet", "--overwrite", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["named"] == "gradient descent" and content["verdict"] == found.verdict
    assert [row["account"] for row in content["accounts"]] == found.frame["account"].tolist()
    assert content["report"] == str((tmp_path / "out" / "index.html").resolve())


@pytest.mark.parametrize(
    ("name", "kind", "task"),
    [
        ("lsa-1", "numeric", "RegressionTask"),
        ("urns-general", "numeric", "UrnTask"),
        ("classifier-memory", "numeric", "ClassificationTask"),
        ("delta-medium", "priming", "PrimingCorpus"),
        ("some/model", "few-shot", "FewShotTask"),
    ],
)
def test_the_task_goes_with_the_model(name: str, kind: str, task: str) -> None:
    found_kind, found_task, _ = chosen(Accounts(model=name))
    assert (found_kind, type(found_task).__name__) == (kind, task)


def test_sizes_are_those_of_the_kind_and_no_more_than_there_are_rows() -> None:
    assert chosen(Accounts(model="lsa-1"))[1] == find_regressor("lsa-1").task
    assert compared("numeric", "small") == COMPARED["numeric"]["small"]
    task = sentiment_task()
    assert compared("few-shot", "paper", task)["n_contexts"] == len(task.frame) - 1


def test_mistakes_are_one_line_before_a_model_is_loaded(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def load_model(*given: Any, **options: Any) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr(mechicl, "load", load_model, raising=False)
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["lsa-1", "--task", "sentiment"], "cannot read 'sentiment'; leave --task out"),
        (["m", "--task", "absent.csv"], "there is no file 'absent.csv'"),
        (["m", "--task", "priming", "--lengths", "4"], "a context of priming is one prime"),
        (["m", "--corpus", "folder"], "give --task priming with them"),
        (["m", "--task", "priming", "--corpus", "absent.csv"], "there is no file or folder absent.csv"),
        (["m", "--lengths", "0"], "expected numbers of 1 or more"),
    ):
        assert main(["accounts", "--quiet", "--model", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == "" and "Traceback" not in err and message in err, arguments
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "near"), [("lsa2", "lsa-2"), ("smolm2", "smollm2"), ("urn-general", "urns-general")])
def test_a_slip_of_the_pen_is_told_before_the_hub_is_asked(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown model '{name}'; did you mean '{near}'\? There are smollm2, "):
        chosen(Accounts(model=name))
