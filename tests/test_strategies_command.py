"""`mechicl strategies`, alone and in a report: shipped results are shown, runs measured; mistakes cost no time."""

import json
import runpy
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mechicl.__main__ import main
from mechicl.analyses.strategies import account as accounts
from mechicl.analyses.strategies import shipped
from mechicl.commands.strategies import Strategies, strategies_folder
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.store import open_run
from mechicl.wording import with_interval

HERE = Path(__file__).parent
made_up_readings = runpy.run_path(str(HERE / "analyses" / "strategies" / "made_up_strategies.py"))["made_up_readings"]
POINT: dict[str, Any] = {"context": 8, "dim": 4, "steps": 4, "n_checkpoints": 2}
measure = accounts.measure_strategies


@pytest.fixture(scope="module")
def account() -> Any:
    readings = made_up_readings(noise=0.3, n_steps=6, n_sequences=4, diversities=(4, 8, 16, 32))
    return measure(readings, n_boot=0, progress=False)


@pytest.fixture
def at_hand(account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One setting is shipped; measuring gives its account and keeps what was asked in `calls`; no picture is drawn."""
    seen = SimpleNamespace(calls=[], stop=False)

    def measured(run: Path, **options: Any) -> Any:
        seen.calls.append((run, options))
        if seen.stop:
            raise KeyboardInterrupt
        return account

    account.save(tmp_path / "shipped" / "balls_and_urns")
    monkeypatch.setattr(shipped, "RESULTS", tmp_path / "shipped")
    monkeypatch.setattr(accounts, "measure_strategies", measured)
    monkeypatch.setattr("mechicl.analyses.strategies.report.strategy_drawings", lambda found, slug: [])
    return seen


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a grid of two diversities and two contexts, as if all of it were trained."""
    points = [
        GridPoint("classification", diversity, **POINT | {"context": context})
        for diversity in (4, 8)
        for context in (8, 16)
    ]
    folder = open_run(tmp_path / "run", points)
    for point in points:
        (folder / point.name).mkdir()
        known = {str(step): {} for step in point.schedule}
        (folder / point.name / "checkpoints.json").write_text(json.dumps(known))
    return folder


def mistake(capsys: Any, *arguments: str) -> str:
    """Run what must fail; return the one line that says why."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    (line,) = err.strip().splitlines()
    assert line.startswith("mechicl: error: ")
    return str(line)


def test_shipped_results_are_shown(at_hand: Any, account: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    assert main(["strategies", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == account.verdict and lines[-1] == f"Report: {(out / 'index.html').resolve()}"
    table = account.fit.measures.set_index(["measure", "cells"])["value"]
    for name, words in (("d_rel", "correlation of d_rel"), ("agreement", "same likeliest label")):
        (line,) = [line for line in lines if line.strip().startswith(words)]
        for cells in ("fitted", "held_out"):
            assert with_interval(table[name, cells], float("nan"), float("nan")) in line
    page = unescape((out / "index.html").read_text(encoding="utf-8"))
    assert f"mechicl strategies --out {out}" in page and "Memorising and generalising in training" in page
    assert at_hand.calls == [] and printed.err == ""
    assert "already holds a report" in mistake(capsys, "strategies", "--out", str(out))
    assert main(["strategies", "--out", str(out), "--overwrite", "--setting", "balls_and_urns"]) == 0


def test_as_json(at_hand: Any, account: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(["strategies", "--out", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str((tmp_path / "out" / "index.html").resolve()) and found["verdict"] == account.verdict
    estimates = [row["estimate"] for row in found["parameters"]]
    assert estimates == pytest.approx(account.fit.parameters["estimate"].tolist())
    assert found["parameters"][0]["low"] is None, "no refits, no interval"
    assert found["diversities"] == [4, 8, 16, 32] and len(found["kept"]) == len(found["steps"])
    assert {row["ablation"] for row in found["ablations"]} >= {"model", "alpha = 0", "linear K"}
    assert found["provenance"]["model"] == "8 made-up transformers"


def test_a_run_is_measured_as_asked(at_hand: Any, run: Path, tmp_path: Path, capsys: Any) -> None:
    asked = ["strategies", "--results", str(run), "--out", str(tmp_path / "out"), "--context", "16"]
    more = ["--refits", "0", "--held-out", "0.3", "--sequences", "20", "--seed", "3"]
    assert main([*asked, *more]) == 0
    assert f"reading the models of {run}" in capsys.readouterr().err
    ((folder, options),) = at_hand.calls
    assert folder == run and options == {
        "held_out": 0.3, "n_boot": 0, "seed": 3, "progress": True, "n_sequences": 20, "device": "cpu", "context": 16
    }  # fmt: skip
    assert main([*asked, "--quiet", "--overwrite"]) == 0
    assert capsys.readouterr().err == "" and at_hand.calls[-1][1]["progress"] is False
    at_hand.stop = True
    assert main([*asked, "--quiet", "--overwrite"]) == 130
    assert "stopped. Nothing was written." in capsys.readouterr().err
    assert strategies_folder(Strategies(), "classification") == Path("report/classification-strategies")


def test_mistakes_are_found_before_any_model_runs(at_hand: Any, run: Path, tmp_path: Path, capsys: Any) -> None:
    to = ("--out", str(tmp_path / "out"))
    chosen = ("strategies", "--results", str(run), "--context", "8", *to)
    for arguments, message in (
        (("strategies", "--results", str(tmp_path / "shipped"), *to), "holds no grid"),
        ((*chosen, "--setting", "balls_and_urns"), "holds models of classification, not of balls_and_urns"),
        (("strategies", "--results", str(run), *to), "2 kinds of models; choose one"),
        (("strategies", "--results", str(run), "--context", "9", *to), "no model of these sizes; choose one"),
        (("strategies", "--context", "8", *to), "they go with --results"),
        (("strategies", "--setting", "markov_chains", *to), "no results of 'markov_chains' come with this package"),
        ((*chosen, "--refits", "20"), "got --refits 20; expected 100 or more, or 0"),
        ((*chosen, "--held-out", "1"), "got --held-out 1; expected a share"),
        (
            ("report", "--model", "x", "--parts", "heads", "--setting", "classification"),
            "--setting is about strategies",
        ),
        (("report", "--model", "x", "--setting", "classification"), "no results of 'classification'"),
    ):
        assert message in mistake(capsys, *arguments)
    assert at_hand.calls == [] and not (tmp_path / "out").exists()
    (next(run.glob("*D8-C8*")) / "checkpoints.json").unlink()
    assert "1 of 2 models lack checkpoints" in mistake(capsys, *chosen)


def test_a_report_shows_shipped_results_as_those_of_other_models(
    at_hand: Any, account: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No model is loaded for them; the components come along."""
    monkeypatch.setattr("mechicl.analyses.pages.sections.draw_all", lambda *drawings: [])
    asked = ["report", "--model", "absent/model", "--parts", "strategies", "--out", str(tmp_path / "out")]
    assert main(asked) == 0
    page = unescape((tmp_path / "out" / "index.html").read_text(encoding="utf-8"))
    others = "Of other models: transformers that were trained for this question on balls and urns"
    assert page.count(others) == 4, "cards and sections of strategies and of parts"
    assert 'id="strategies_balls_and_urns"' in page and 'id="components"' in page
    assert "Rationally" in page and "2506.17859" in page, "how to cite"
