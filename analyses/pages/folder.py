"""The folder of a report: written beside the old one and put in its place when it is complete; and its pictures."""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib.figure import Figure

from mechicl.analyses.pages.files import write_frames
from mechicl.analyses.pages.section import Drawing, Section
from mechicl.views import STYLE

MARKER = '<meta name="generator" content="mechicl">'
FOLDERS = ("frames", "pictures", "results")
DOTS_PER_INCH = 200


def check_report_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Raise ValueError where a report would refuse ``folder``: ask before hours of scoring, not after."""
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"Got {target}, which is a file; expected a folder to write a report into.")
    taken = [name for name in ("index.html", *FOLDERS) if (target / name).exists()]
    index = target / "index.html"
    ours = index.is_file() and MARKER in index.read_text(encoding="utf-8", errors="replace")
    if taken and not ours:
        raise ValueError(f"Got {target}, which holds {', '.join(taken)} of something else; choose another folder.")
    if taken and not overwrite:
        raise ValueError(f"Got {target}, which already holds a report; choose another folder, or overwrite it.")


def write_folder(
    target: Path,
    *,
    pictures: Callable[[], Sequence[Mapping[str, Any]]],
    frames: Mapping[str, tuple[pd.DataFrame, str]],
    results: Mapping[str, Any],
    page: Callable[[Sequence[Mapping[str, Any]]], str],
) -> Path:
    """Draw, write and save everything in a hidden folder, then put it in the old report's place; path of the page.

    ``page`` makes the page from the pictures. Nothing is replaced before the new report is complete.
    """
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".unfinished-") as staging:
        new = Path(staging)
        drawn = pictures()
        (new / "pictures").mkdir()
        for picture in drawn:
            (new / "pictures" / f"{picture['name']}.png").write_bytes(picture["bytes"])
        write_frames(new / "frames", frames)
        for name, result in results.items():
            if result is not None:
                result.save(new / "results" / name)
        (new / "index.html").write_text(page(drawn), encoding="utf-8")
        for name in FOLDERS:
            if (target / name).exists():
                shutil.rmtree(target / name)
            if (new / name).exists():
                (new / name).rename(target / name)
        (new / "index.html").replace(target / "index.html")  # last: a folder with it is complete
    return target / "index.html"


def page_template(name: str) -> Template:
    """A template of the folder beside this file; every word that it is given is escaped."""
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["tied"] = _tied
    return environment.get_template(name)


def number_tables(tables: Sequence[dict[str, Any]]) -> None:
    """Number them in the page's order."""
    for number, table in enumerate(tables, start=1):
        table |= {"number": number, "words": table.get("words", False)}


def draw_all(drawings: Sequence[tuple[str, Drawing]], dots_per_inch: int) -> list[dict[str, Any]]:
    """Pictures in the page's order; each comes with the section that it belongs to."""
    return [
        _picture(drawing, dots_per_inch) | {"section": slug, "number": number}
        for number, (slug, drawing) in enumerate(drawings, start=1)
    ]


def section_drawings(sections: Sequence[Section]) -> list[tuple[str, Drawing]]:
    """All drawings of sections, each with its section."""
    return [(section.slug, drawing) for section in sections for drawing in section.drawings]


def _tied(text: str) -> str:
    """No line break inside "p = .034" or an interval; markup stays markup."""
    tied = re.sub(r"\bp ([=<>]) (?=\.)", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    tied = re.sub(r"\[([^\]]{1,20}), ", "[\\1,\N{NO-BREAK SPACE}", tied)
    return Markup(tied) if isinstance(text, Markup) else str(tied)


def _picture(drawing: Drawing, dots_per_inch: int) -> dict[str, Any]:
    # A Figure of its own, unknown to pyplot: a report leaves no open figure behind.
    stream = BytesIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=drawing.size, dpi=dots_per_inch, layout="constrained")
        drawing.draw(figure.add_subplot())
        figure.savefig(stream, format="png", metadata={"Software": None})
    raw = stream.getvalue()
    width, height = (round(96 * inches) for inches in drawing.size)
    return {
        "name": drawing.name,
        "bytes": raw,
        "data": base64.b64encode(raw).decode("ascii"),
        "caption": drawing.caption,
        "alt": drawing.caption,
        "half": drawing.half,
        "width": width,
        "height": height,
    }
