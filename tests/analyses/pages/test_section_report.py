"""A report made of sections alone: complete, replaced only as a whole, and refused where files would collide."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from markupsafe import Markup

from mechicl.analyses.pages.files import python_lines
from mechicl.analyses.pages.section import Drawing, Section
from mechicl.analyses.pages.sections import write_sections
from mechicl.views.circuits_page import CircuitsFigure


def section(slug: str = "one", **changes: Any) -> Section:
    words: dict[str, Any] = {
        "slug": slug,
        "question": f"Is it {slug}?",
        "kind": "yes",
        "verdict": "Yes & no",
        "brief": "In brief.",
        "sentence": "At length (p = .034).",
        "tables": [{"caption": f"Table of {slug}", "heads": ["a", "b"], "rows": [["x", "1"]]}],
        "drawings": [Drawing(f"{slug}_line", f"A line of {slug}", (3.0, 2.0), lambda ax: ax.plot([0, 1], [0, 1]))],
        "method": [("Way", "as told")],
        "caveats": [("Care", "not much")],
        "frames": {f"{slug}_frame": (pd.DataFrame({"a": [1, 2]}), "numbers")},
    }
    return Section(**words | changes)


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mechicl.analyses.pages.sections.DOTS_PER_INCH", 40)


def test_all_of_every_section_is_there_in_order(tmp_path: Path) -> None:
    path = write_sections(tmp_path / "new", [section(), section("two")], title="T", subtitle="S")
    text = path.read_text(encoding="utf-8")
    numbered = re.findall(r"<strong>((?:Figure|Table) \d)\.</strong> ([\w ]+)", text)
    assert numbered == [
        ("Figure 1", "A line of one"), ("Table 1", "Table of one"),
        ("Figure 2", "A line of two"), ("Table 2", "Table of two"),
    ]  # fmt: skip
    for said in ("Is it one?", "Is it two?", "Yes &amp; no", "Way.</strong> as told", "Care.</strong> not much"):
        assert said in text
    assert text.count('class="answer yes"') == 2 and "priming" not in text.lower()
    assert pd.read_csv(path.parent / "frames" / "two_frame.csv")["a"].tolist() == [1, 2]
    assert {p.name for p in (path.parent / "pictures").iterdir()} == {"one_line.png", "two_line.png"}


def test_figures_to_explore_bring_one_script(tmp_path: Path) -> None:
    figures = [CircuitsFigure("Thing", {"value": n}, f"figure {n}", "var CircuitsVis = {};") for n in (1, 2)]
    text = write_sections(tmp_path, [section()], title="T", subtitle="S", attention=figures).read_text("utf-8")
    assert text.count("var CircuitsVis = {};") == 1 and "figure 1" in text and "figure 2" in text


def test_a_report_is_replaced_only_when_asked_and_then_whole(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    path = write_sections(tmp_path, [section()], title="old", subtitle="S")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="already holds a report"):
        write_sections(tmp_path, [section("two")], title="new", subtitle="S")

    def fail(ax: Any) -> None:
        raise KeyboardInterrupt

    broken = section("two", drawings=[Drawing("x", "x", (3.0, 2.0), fail)])
    with pytest.raises(KeyboardInterrupt):
        write_sections(tmp_path, [broken], title="new", subtitle="S", overwrite=True)
    assert path.read_bytes() == before and (tmp_path / "pictures" / "one_line.png").exists()
    write_sections(tmp_path, [section("two")], title="new", subtitle="S", overwrite=True)
    assert {p.name for p in tmp_path.iterdir()} == {"kept", "index.html", "frames", "pictures"}
    assert {p.name for p in (tmp_path / "frames").iterdir()} == {"two_frame.csv"}


def test_what_would_collide_is_refused(tmp_path: Path) -> None:
    same = section("two", frames=section().frames)
    for sections, message in (
        ([], "no sections"),
        ([section(), section()], "the slug 'one'"),
        ([section(), same], "frame"),
    ):
        with pytest.raises(ValueError, match=message):
            write_sections(tmp_path / "new", sections, title="T", subtitle="S")
    assert not (tmp_path / "new").exists()
    (tmp_path / "frames").mkdir()
    with pytest.raises(ValueError, match="something else"):
        write_sections(tmp_path, [section()], title="T", subtitle="S", overwrite=True)


def test_contents_name_every_chapter_once_in_the_pages_order(tmp_path: Path) -> None:
    opening = section("answer", points=[("First account", "It explains .40 [.30, .50].")], frames={}, drawings=[])
    text = write_sections(tmp_path, [section(), section("two")], title="T", subtitle="S", opening=opening).read_text()
    (nav,) = re.findall(r"<nav.*?</nav>", text, re.DOTALL)
    assert re.findall(r'href="#([^"]+)"', nav) == [
        "answer", "analyses", "one", "two", "method", "caveats", "provenance", "cite", "reproduce",
    ]  # fmt: skip
    assert text.index("<dt>First account</dt>") < text.index('<h2 id="analyses">') < text.index('<h2 id="one">')
    assert text.count("Is it answer?") == 1, "in the contents alone: the opening has no card"
    assert text.count("Table of answer") == 1
    assert text.index("Table of answer") < text.index("Table of one")


def test_sections_of_other_models_and_warnings_stand_out(tmp_path: Path) -> None:
    shown = section("two", about="Of others.", warnings=["Mind <this>."])
    text = write_sections(tmp_path, [section(), shown], title="T", subtitle="S", level=0.9).read_text("utf-8")
    assert text.count('<p class="about">Of others.</p>') == 2 and "90% intervals" in text
    assert '<p class="warning">Mind &lt;this&gt;.</p>' in text


def test_markup_of_our_own_stays_and_all_else_is_escaped(tmp_path: Path) -> None:
    words = [("Ours", Markup("<i>L</i> (p = .034)")), ("Theirs", "<i>L</i>")]
    text = write_sections(tmp_path, [section(method=words)], title="T", subtitle="S").read_text("utf-8")
    assert "<i>L</i> (p\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}.034)" in text and "&lt;i&gt;L&lt;/i&gt;" in text


def test_lines_of_a_section_take_the_place_of_verdicts() -> None:
    own = section(python=("from math import pi", "from mechicl.results import load", "x = pi"))
    stand_in = section("two", results={"two": object()})
    assert python_lines([own, stand_in]).splitlines() == [
        "from math import pi", "from mechicl.results import load", "", "x = pi",
        'print(load("results/two").verdict)',
    ]  # fmt: skip
