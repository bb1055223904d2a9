"""The page of a report: sections, one an analysis, with contents, chapters on method and caveats, and files beside it.

`index.html` holds everything (pictures, tables, method, caveats, provenance, how to cite) and asks no network for
anything; beside it lie the frames as CSV, the pictures as PNG and the results as they were saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mechicl.analyses.pages.content import model_rows, option_words
from mechicl.analyses.pages.files import files_beside, python_lines
from mechicl.analyses.pages.folder import (
    DOTS_PER_INCH,
    check_report_folder,
    draw_all,
    number_tables,
    page_template,
    section_drawings,
    write_folder,
)
from mechicl.analyses.pages.section import Section
from mechicl.analyses.pages.sources import bibtex, citations
from mechicl.views.circuits_page import CircuitsFigure, _fragment
from mechicl.wording import percent

CHAPTERS = (
    ("method", "How it was measured"),
    ("caveats", "Caveats"),
    ("provenance", "Provenance"),
    ("cite", "How to cite"),
    ("reproduce", "How to reproduce"),
)


def write_sections(
    folder: str | Path,
    sections: Sequence[Section],
    *,
    title: str,
    subtitle: str,
    opening: Section | None = None,
    attention: Sequence[CircuitsFigure] = (),
    level: float | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> Path:
    """Write a report of ``sections`` alone (`kernel_section(found)`, say); return the path of `index.html`.

    ``opening``: what stands above all others: an answer in points, tables, pictures. ``attention``: figures to explore,
    for which the page then carries one script. ``level``: of the intervals, where it is one for all. ``command``: the
    command line that made the results, to be quoted. Other files in ``folder`` (kept work, say) stay where they are.

    Raises ValueError for no sections, two with one slug or with files of one name, and where the folder already holds a
    report, unless ``overwrite``, or files of the same names that are no report, always. Nothing is replaced before the
    new report is complete.
    """
    target = Path(folder)
    every = [*([opening] if opening is not None else []), *sections]
    _check(sections, every)
    check_report_folder(target, overwrite=overwrite)
    frames = {name: frame for section in every for name, frame in section.frames.items()}
    results = {name: result for section in every for name, result in section.results.items()}
    words: dict[str, Any] = {"title": title, "subtitle": subtitle, "command": command, "python": python_lines(every)}
    words["level"] = "" if level is None else f"{percent(level)} "
    return write_folder(
        target,
        pictures=lambda: draw_all(section_drawings(every), DOTS_PER_INCH),
        frames=frames,
        results=results,
        page=lambda pictures: _render(
            sections, opening, attention, pictures=pictures, files=files_beside(frames, pictures, target), **words
        ),
    )


def _render(
    sections: Sequence[Section], opening: Section | None, attention: Sequence[CircuitsFigure], **words: Any
) -> str:
    every = [*([opening] if opening is not None else []), *sections]
    number_tables([table for section in every for table in section.tables])
    return page_template("report.html.j2").render(
        sections=sections,
        opening=opening,
        contents=_contents(sections, opening, bool(attention)),
        by_two=len(sections) > 1,
        by_name=len(sections) > 1,
        # a fragment of the page's own making, in which every word is escaped; one copy of the script, whatever it shows
        attention=Markup(_fragment(list(attention), name="attention")) if attention else None,
        provenance=_provenance(every),
        citations=citations(every),
        bibtex=bibtex(every),
        **words,
    )


def _contents(sections: Sequence[Section], opening: Section | None, attention: bool) -> list[tuple[str, str]]:
    """Anchors and their words, in the page's order."""
    first = [] if opening is None else [(opening.slug, opening.question), ("analyses", "What each analysis found")]
    explored = [("attention", "Attention, to explore")] if attention else []
    return [*first, *((section.slug, section.question) for section in sections), *explored, *CHAPTERS]


def _provenance(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """The models of the results, each once, then what sections say of themselves, and versions."""
    known = [result.provenance for section in sections for result in section.results.values()]
    models: dict[tuple[Any, Any], list[Any]] = {}
    for one in known:
        models.setdefault((one.model, one.weights_sha256), []).append(one)
    rows = [row for same in models.values() for row in model_rows(*same)]
    own = [row for section in sections for row in section.provenance]
    ends = [(("Measured at", one.created), ("Versions", option_words(one.versions, joint=" "))) for one in known[:1]]
    return [*rows, *own, *(row for both in ends for row in both)]


def _check(sections: Sequence[Section], every: Sequence[Section]) -> None:
    if not sections:
        raise ValueError("Got no sections, expected at least one to make a page.")
    for what, names in (
        ("slug", [section.slug for section in every]),
        ("frame", [name for section in every for name in section.frames]),
        ("result", [name for section in every for name in section.results]),
        ("picture", [drawing.name for section in every for drawing in section.drawings]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Got two sections with the {what} {twice[0]!r}; expected names of their own.")
