"""`mechicl report`: parts share their work, one that a model cannot do says why, mistakes cost no time."""

import re
import runpy
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from matplotlib.figure import Figure

import mechicl
from mechicl.__main__ import main
from mechicl.analyses import finetuning, priming
from mechicl.analyses.pages.parts import MISSING, STEPS, Step, run_step
from mechicl.analyses.pages.section import Drawing, Section
from mechicl.analyses.pages.workbench import Workbench
from mechicl.commands.options import PARTS, Report
from mechicl.organisms.shipped import organism_folder
from mechicl.results import load
from mechicl.tasks.speaker_pairs import speaker_corpus

Page = runpy.run_path(str(Path(__file__).with_name("analyses") / "test_report.py"))["Page"]


def counted(patch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """Let a function run as ever, and keep what each call returned."""
    original, calls = getattr(module, name), []

    def call(*given: Any, **options: Any) -> Any:
        calls.append(original(*given, **options))
        return calls[-1]

    for home in (module.__name__, "mechicl.analyses.implicit_gradient", "mechicl.analyses.rivals.priming_readings"):
        patch.setattr(f"{home}.{name}", call)
    return calls


@pytest.fixture(scope="module")
def dossier(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A dossier of an organism that learns from its errors, of all parts but heads and shipped results."""
    folder = tmp_path_factory.mktemp("dossier")
    verbs = sorted(speaker_corpus(targets_per_verb=1).verbs)[::2]
    speaker_corpus(targets_per_verb=1, verbs=verbs, seed=1).save(folder / "speakers")
    asked = ["report", "--model", str(organism_folder("delta-medium")), "--corpus", str(folder / "speakers")]
    asked += ["--out", str(folder / "out"), "--size", "small"]
    asked += ["--parts", *(part for part in PARTS if part not in ("heads", "strategies"))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 30)
        scored, stepped = counted(patch, priming, "measure_priming"), counted(patch, finetuning, "finetune_on_primes")
        assert main(asked) == 0
    return SimpleNamespace(
        asked=asked, out=folder / "out", scored=scored, stepped=stepped,
        text=(folder / "out" / "index.html").read_text(encoding="utf-8"),
    )  # fmt: skip


def test_at_the_top_stand_the_question_an_answer_an_account_and_the_table(dossier: Any) -> None:
    page = unescape(dossier.text)
    table = load(dossier.out / "results" / "accounts_priming")
    assert re.findall(r"<h1>(.*?)</h1>", page) == ["By what mechanism does delta-medium learn from its context?"]
    top = page[page.index("<h1>") : page.index('<h2 id="analyses">')]
    assert re.findall(r"<dt>(.*?)</dt>", top) == [
        "Gradient steps", "Kernel regression", "Bayesian strategies", "Baselines, and a constant boost",
    ]  # fmt: skip
    assert table.best == "delta rule" and table.n_clusters < 10, "so few verbs name no account"
    assert "no account is named: the nearest, “delta rule”" in top and "too few to name one" in top
    assert all(f'<th scope="row">{name}</th>' in top for name in table.frame["account"])
    assert 'alt="Priming, speakers: each account' in top


def test_parts_share_their_work(dossier: Any) -> None:
    (scored,), (stepped,) = dossier.scored, dossier.stepped
    results = dossier.out / "results"
    assert load(results / "priming") == scored == load(results / "implicit_gradient").priming
    assert load(results / "implicit_gradient").finetuned == stepped
    measures = load(results / "accounts_priming").mechanisms
    assert {"gradient step"} <= set(measures["account"]), "the gradient account stands beside"


def test_what_the_model_cannot_do_says_why_and_the_rest_stands(dossier: Any) -> None:
    page = unescape(dossier.text)
    assert page.count(f'<p class="verdict">{MISSING}</p>') == 2, "it knows no word of the texts with labels"
    assert page.count("The tokens of the label 'positive' begin those of 'negative'") >= 4
    assert "fewer demonstrations with --demos" in page
    headings = re.findall(r'<h2 id="([^"]+)"', page)
    assert headings == [
        "analyses", "priming", "ife", "gradient", "kernel", "accounts_priming", "accounts_few_shot",
        "method", "caveats", "provenance", "cite", "reproduce",
    ]  # fmt: skip


def test_the_page_is_one_whole_file_below_20_megabytes(dossier: Any) -> None:
    read = Page(dossier.text)
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids)) and len(dossier.text) < 20e6
    assert all(attrs["href"].removeprefix("#") in ids for attrs in read.all("a"))
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in read.all("img"))
    assert len(read.all("img")) == len(list((dossier.out / "pictures").glob("*.png"))) > 7
    for beside in ("corpus", "scores", "steps", "frames", "results"):
        assert f"<code>{beside}/" in dossier.text and (dossier.out / beside).is_dir()


def test_it_says_how_to_cite_what_stands_on_it(dossier: Any) -> None:
    for number in ("2406.18501", "2212.10559"):
        assert f"eprint = {{{number}}}" in dossier.text
    assert "2305.12766" in dossier.text, "the kernel account, though it could not be measured"
    assert f"version = {{{mechicl.__version__}}}" in dossier.text


def test_a_second_run_takes_up_finished_work(dossier: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def files() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns for name in ("scores", "steps") for path in (dossier.out / name).iterdir()
        }

    kept = files()
    monkeypatch.setattr("mechicl.analyses.pages.sections.draw_all", lambda *drawings: [])
    before = dossier.asked[: dossier.asked.index("--parts")]
    assert main([*before, "--parts", "priming", "gradient", "--overwrite"]) == 0
    assert kept and files() == kept
    out, err = capsys.readouterr()
    assert out.startswith("Does it show structural priming? Yes.") and "Does it show structural priming ..." in err
    assert not (dossier.out / "results" / "accounts_priming").exists(), "the new report has taken the old one's place"


# What goes wrong


def failing(error: Exception) -> Step:
    def sections(bench: Any) -> Any:
        raise error

    return Step("kernel", "kernel", "Does it?", sections)


def test_a_failure_of_the_model_is_a_section_and_one_of_ours_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    bench = Workbench("toy", Report(model="toy"), corpus=None, asked=None, folder=Path())
    step = failing(RuntimeError("out of memory\nsecond line"))
    (section,) = run_step(step, bench, said.append)
    assert section.brief == "Out of memory." and section.verdict == MISSING and section.kind == "none"
    assert said == ["warning: kernel could not be measured: Out of memory."]
    with pytest.raises(KeyError):
        run_step(failing(KeyError("a slip of ours")), bench, said.append)
    monkeypatch.setenv("MECHICL_DEBUG", "1")
    with pytest.raises(RuntimeError):
        run_step(step, bench, said.append)


def test_a_picture_that_cannot_be_drawn_says_so_in_its_place() -> None:
    def draw(ax: Any) -> Any:
        ax.plot([0, 1], [0, 1])
        raise ValueError("no finite value")

    found = [Section("x", "Is it?", "none", "No", "", "", drawings=[Drawing("x_line", "A line.", (3.0, 2.0), draw)])]
    said: list[str] = []
    bench = Workbench("toy", Report(model="toy"), corpus=None, asked=None, folder=Path())
    (section,) = run_step(Step("kernel", "x", "Is it?", lambda bench: found), bench, said.append)
    ax = Figure().add_subplot()
    section.drawings[0].draw(ax)
    assert [text.get_text() for text in ax.texts] == ["This picture could not be drawn:\nNo finite value."]
    assert len(ax.lines) == 0 and said == ["warning: the picture x_line could not be drawn: No finite value."]


def test_what_failed_once_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def measure(*given: Any, **options: Any) -> Any:
        tries.append(1)
        raise ValueError("the texts are too long")

    monkeypatch.setattr(priming, "measure_priming", measure)
    bench = Workbench("toy", Report(model="toy"), corpus=None, asked=None, folder=tmp_path)
    own = [step for step in STEPS if step.part in ("priming", "heads", "gradient")]
    found = [run_step(step, bench, lambda words: None) for step in own]
    assert [one.brief for (one,) in found] == ["The texts are too long."] * len(own) and tries == [1]


def mistake(capsys: Any, *arguments: str) -> str:
    assert main(list(arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and "Traceback" not in err
    return str(err.strip().splitlines()[-1])


def test_mistakes_are_found_before_a_model_is_loaded(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def load_model(*given: Any, **options: Any) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr(mechicl, "load", load_model, raising=False)
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"text": list("abcdef"), "label": list("ababab")}).to_csv("few.csv", index=False)
    speaker_corpus(targets_per_verb=1, verbs=["gave", "sold", "sent"]).save(tmp_path / "few")
    for arguments, message in (
        (["--task", "sentimnt.csv"], "there is no file 'sentimnt.csv'"),
        (["--task", "few.csv"], "the task has 6 rows"),
        (["--parts", "priming", "--task", "capitals"], "--task is about kernel and accounts"),
        (["--parts", "gradient", "--corpus", "few"], "at least 4 are needed"),
        (["--demos", "1"], "expected 2 to"),
        (["--parts"], "name at least one of priming, heads"),
        (["--setting", "markov_chains"], "no results of 'markov_chains'"),
    ):
        assert message in mistake(capsys, "report", "--model", "toy", "--quiet", *arguments), arguments
    assert not (tmp_path / "report").exists()


def test_a_model_that_can_do_nothing_gives_no_page(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(mechicl, "load", lambda *given, **options: "toy", raising=False)

    def measure(*given: Any, **options: Any) -> Any:
        raise ValueError("the model is not causal")

    monkeypatch.setattr(priming, "measure_priming", measure)
    asked = ["report", "--model", "toy", "--parts", "priming", "strategies", "--out", str(tmp_path / "out")]
    line = mistake(capsys, *asked, "--size", "small", "--quiet")
    assert "nothing could be measured with this model; first, priming: The model is not causal." in line
    assert not (tmp_path / "out" / "index.html").exists()
