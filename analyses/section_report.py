"""A report of analyses that need no priming experiment: one page made of sections, with files beside it.

`index.html` holds everything (pictures, tables, method, caveats, provenance) and asks no network for anything; beside
it lie the frames as CSV, the pictures as PNG and the results as they were saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mechicl.analyses.report_content import model_rows, option_words
from mechicl.analyses.report_files import files_beside
from mechicl.analyses.report_folder import (
    DOTS_PER_INCH,
    check_report_folder,
    draw_all,
    number_tables,
    page_template,
    section_drawings,
    write_folder,
)
from mechicl.analyses.report_section import Section
from mechicl.views.circuits_page import CircuitsFigure, _fragment


def write_sections(
    folder: str | Path,
    sections: Sequence[Section],
    *,
    title: str,
    subtitle: str,
    attention: Sequence[CircuitsFigure] = (),
    overwrite: bool = False,
    command: str | None = None,
) -> Path:
    """Write a report of ``sections`` alone (`kernel_section(found)`, say); return the path of `index.html`.

    ``attention``: figures to explore, for which the page then carries one script. ``command``: the command line that
    made the results, to be quoted. Other files in ``folder`` (kept work, say) stay where they are.

    Raises ValueError for no sections, two with one slug or with files of one name, and, as `write_report` does, where
    the folder already holds a report, unless ``overwrite``, or files of the same names that are no report, always.
    Nothing is replaced before the new report is complete.
    """
    target = Path(folder)
    _check(sections)
    check_report_folder(target, overwrite=overwrite)
    frames = {name: frame for section in sections for name, frame in section.frames.items()}
    results = {name: result for section in sections for name, result in section.results.items()}
    words = {"title": title, "subtitle": subtitle, "command": command, "python": _python_lines(sections)}
    return write_folder(
        target,
        pictures=lambda: draw_all(section_drawings(sections), DOTS_PER_INCH),
        frames=frames,
        results=results,
        page=lambda pictures: _render(
            sections, attention, pictures=pictures, files=files_beside(frames, pictures), **words
        ),
    )


def _render(sections: Sequence[Section], attention: Sequence[CircuitsFigure], **words: Any) -> str:
    number_tables([table for section in sections for table in section.tables])
    return page_template("sections.html.j2").render(
        sections=sections,
        by_two=len(sections) > 1,
        # a fragment of the page's own making, in which every word is escaped; one copy of the script, whatever it shows
        attention=Markup(_fragment(list(attention), name="attention")) if attention else None,
        provenance=_provenance(sections),
        **words,
    )


def _provenance(sections: Sequence[Section]) -> list[tuple[str, str]]:
    """The models of the results, each once, then what sections say of themselves, and versions."""
    known = [result.provenance for section in sections for result in section.results.values()]
    models = list(dict.fromkeys(row for one in known for row in model_rows(one)))
    own = [row for section in sections for row in section.provenance]
    ends = [(("Measured at", one.created), ("Versions", option_words(one.versions, joint=" "))) for one in known[:1]]
    return [*models, *own, *(row for both in ends for row in both)]


def _python_lines(sections: Sequence[Section]) -> str:
    """Lines to run in the report's folder, which load the results."""
    names = [name for section in sections for name in section.results]
    lines = [f'print(load("results/{name}").verdict)' for name in names]
    return "\n".join(["from mechicl.results import load", "", *lines])


def _check(sections: Sequence[Section]) -> None:
    if not sections:
        raise ValueError("Got no sections, expected at least one to make a page.")
    for what, names in (
        ("slug", [section.slug for section in sections]),
        ("frame", [name for section in sections for name in section.frames]),
        ("result", [name for section in sections for name in section.results]),
        ("picture", [drawing.name for section in sections for drawing in section.drawings]),
    ):
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"Got two sections with the {what} {twice[0]!r}; expected names of their own.")
