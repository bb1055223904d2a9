"""`mechicl kernel`, alone and in a report: all is checked before a model is loaded, kept when it is stopped."""

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mechicl
from mechicl.__main__ import main
from mechicl.analyses import kernel_account
from mechicl.commands.options import ACCOUNTED
from mechicl.organisms.kernel_model import planted_kernel
from mechicl.tasks.datives import dative_corpus
from mechicl.wording import with_interval

measure = kernel_account.measure_kernel_account
FEW: dict[str, Any] = {"n_prompts": 24, "n_boot": 120, "n_permutations": 30}


@pytest.fixture(scope="module")
def planted() -> Any:
    return planted_kernel(seed=0)


@pytest.fixture(scope="module")
def account(planted: Any) -> Any:
    return measure(planted.model, planted.task, **FEW, parts=("attention",), progress=False, seed=1)


@pytest.fixture
def toy(planted: Any, account: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A planted model is loaded whatever the name, and its account is at hand; what was asked is in `calls`."""
    seen = SimpleNamespace(loaded=[], calls=[], stop=False)

    def load(name: str, **options: Any) -> Any:
        seen.loaded.append((name, options))
        return planted.model

    def measured(model: Any, task: Any, *, store: Path, **options: Any) -> Any:
        seen.calls.append({"task": task, "store": store, **options})
        store.mkdir(parents=True, exist_ok=True)
        if seen.stop:
            raise KeyboardInterrupt
        return account

    monkeypatch.setattr(mechicl, "load", load, raising=False)
    monkeypatch.setattr(kernel_account, "measure_kernel_account", measured)
    monkeypatch.setattr("mechicl.analyses.kernels.report.kernel_drawings", lambda found: [])
    return seen


@pytest.fixture
def own_task(planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted model's task, whatever the name: no other has its tokens."""
    monkeypatch.setattr("mechicl.tasks.fewshot_sources.load_task", lambda source, **columns: planted.task)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    def write(n_rows: int, **columns: Any) -> str:
        path = tmp_path / "own.csv"
        frame = pd.DataFrame({"text": [f"Text {i}." for i in range(n_rows)], "label": ["yes", "no"] * (n_rows // 2)})
        frame.assign(**columns).to_csv(path, index=False)
        return str(path)

    return write


def mistake(capsys: Any, *arguments: str) -> str:
    """Run what must fail; return the one line that says why."""
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    (line,) = err.strip().splitlines()
    assert line.startswith("mechicl: error: ")
    return str(line)


def test_from_task_to_page(toy: Any, own_task: None, account: Any, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    asked = ["kernel", "--model", "some/model", "--out", str(out), "--size", "small", "--seed", "1"]
    assert main([*asked, "--aggregate", "sum", "--places", "ask", "--dtype", "bfloat16"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0] == account.verdict and lines[-1] == f"Report: {(out / 'index.html').resolve()}"
    for _, row in account.regression.rebuilt.iterrows():
        (line,) = [line for line in lines if re.match(rf"  {re.escape(row['name'])}(  | \()", line)]
        assert (
            with_interval(row["agreement"], row["low"], row["high"], 2) in line
            and f"chance {row['chance']:.2f}" in line
        )
    assert "planted-kernel: 128 texts, 2 labels; 40 prompts of 8" in printed.err
    assert toy.loaded == [("some/model", {"device": None, "dtype": "bfloat16"})]
    (call,) = toy.calls
    assert call["store"] == out / "kernel" and call["progress"] is True and call["n_candidates"] is None
    assert (call["n_demos"], call["aggregate"], call["places"], call["seed"]) == (8, "sum", ("ask",), 1)
    assert {name: call[name] for name in ACCOUNTED["small"]} == ACCOUNTED["small"]
    page = unescape((out / "index.html").read_text(encoding="utf-8"))
    assert f"mechicl kernel --model some/model --out {out}" in page and "Attention, to explore" in page
    assert page.count("attention of the last token (") == 4, "the heads that were named"

    line = mistake(capsys, *asked)
    assert "already holds a report" in line and len(toy.loaded) == 1, "refused before a model was loaded"
    assert main([*asked, "--overwrite", "--quiet"]) == 0
    assert capsys.readouterr().err == "" and toy.calls[-1]["progress"] is False


def test_as_json(toy: Any, own_task: None, account: Any, tmp_path: Path, capsys: Any) -> None:
    asked = ["kernel", "--model", "toy", "--out", str(tmp_path / "out"), "--json", "--quiet", "--parts", "causality"]
    assert main([*asked, "--demos", "4"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["report"] == str((tmp_path / "out" / "index.html").resolve()) and found["verdict"] == account.verdict
    agreement = [row["agreement"] for row in found["rebuilt"]]
    assert agreement == pytest.approx(account.regression.rebuilt["agreement"].tolist())
    assert len(found["heads"]) == 12 and found["heads"][2]["unique_r2"] is None, "what is not finite becomes null"
    assert found["named"]["kernel"] and found["provenance"]["model"] == "planted-kernel"
    assert toy.calls[0]["parts"] == ("causality",) and toy.calls[0]["n_demos"] == 4


def test_a_table_of_ones_own_is_read_and_sizes_are_cut(toy: Any, table: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("mechicl.analyses.kernels.command.example_figures", lambda *given: [])
    monkeypatch.chdir(tmp_path)
    path = table(30, review=[f"Review {i}" for i in range(30)], stars=[1.5, -2.0] * 15)
    asked = ["kernel", "--model", "org/name", "--task", path, "--quiet"]
    assert main([*asked, "--text", "review", "--score", "stars"]) == 0
    (call,) = toy.calls
    assert call["task"].name == "own" and call["task"].frame["text"][3] == "Review 3"
    assert call["task"].frame["label"][:2].tolist() == ["positive", "negative"]
    assert call["n_prompts"] == call["n_phenomena"] == 29, "each prompt asks another row"
    assert (tmp_path / "report" / "org-name-kernel" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "sentimnt.csv"], "there is no file 'sentimnt.csv'"),
        (["--demos", "1"], "--demos 1; expected 2 to 47"),
        (["--demos", "48"], "--demos 48; expected 2 to 47"),
        (["--candidates", "3"], "--candidates 3; expected 2 to 2"),
        (["--places"], "name at least one of ask, text, alone"),
    ],
)
def test_mistakes_are_one_line_before_a_model_is_loaded(
    toy: Any, arguments: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in mistake(capsys, "kernel", "--model", "toy", *arguments)
    assert toy.loaded == [] and list(tmp_path.iterdir()) == []


def test_columns_and_few_rows_are_refused(toy: Any, table: Any, capsys: Any) -> None:
    path = table(12)
    assert "has no column 'stars'" in mistake(capsys, "kernel", "--model", "toy", "--task", path, "--score", "stars")
    assert "the task has 12 rows" in mistake(capsys, "kernel", "--model", "toy", "--task", path)
    line = mistake(capsys, "report", "--model", "toy", "--task", path, "--parts", "priming")
    assert "--task is about kernel and accounts" in line
    assert toy.loaded == []


def test_an_interrupted_run_says_what_is_kept(toy: Any, own_task: None, tmp_path: Path, capsys: Any) -> None:
    toy.stop = True
    asked = ["kernel", "--model", "toy", "--out", str(tmp_path / "out"), "--quiet"]
    assert main(asked) == 130
    err = capsys.readouterr().err
    assert f"kept in {tmp_path / 'out' / 'kernel'}" in err and "same command" in err and "Traceback" not in err
    assert not (tmp_path / "out" / "index.html").exists()
    toy.stop = False
    assert main(asked) == 0 and toy.calls[0]["store"] == toy.calls[1]["store"]


def test_a_report_says_it_where_asked(
    toy: Any, own_task: None, account: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def score(model: Any, contexts: Any, continuations: Any, **options: Any) -> Any:
        return np.random.default_rng(0).normal(size=len(contexts)) - 1

    facts = {"model": "toy", "n_params": 7}
    monkeypatch.setattr("mechicl.analyses.pages.sections.draw_all", lambda *drawings: [])
    monkeypatch.setattr("mechicl.analyses.priming.score", score)
    monkeypatch.setattr("mechicl.analyses.priming.wrap", lambda model: SimpleNamespace(facts=lambda: facts))
    verbs = ["give", "send", "show", "throw", "find", "make", "save", "draw"]
    dative_corpus(targets_per_verb=2, verbs=verbs).save(tmp_path / "corpus")
    asked = [
        "report",
        "--model",
        "toy",
        "--corpus",
        str(tmp_path / "corpus"),
        "--out",
        str(tmp_path / "out"),
        "--quiet",
    ]
    assert main([*asked, "--parts", "priming"]) == 0 and toy.calls == []
    assert main([*asked, "--parts", "priming", "kernel", "--size", "small", "--overwrite"]) == 0
    assert "Does it answer by a kernel regression over its demonstrations? " in capsys.readouterr().out.splitlines()[-2]
    assert toy.calls[0]["store"] == tmp_path / "out" / "kernel" and toy.calls[0]["parts"] == ACCOUNTED["small"]["parts"]
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Does it show structural priming?" in page and "Does it answer by a kernel regression" in page
    assert (tmp_path / "out" / "results" / "kernel_account").is_dir()
    assert (tmp_path / "out" / "frames" / "kernel_rebuilt.csv").is_file()
