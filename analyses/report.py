"""A folder to open in a browser: does a model show priming and the inverse frequency effect, and by which heads?

`index.html` holds everything (pictures, tables, method, caveats, provenance) and asks no network for anything; beside
it lie the frames as CSV, the pictures as PNG and the results as they were saved.
"""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from mechicl.analyses import report_content as content
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.heads.report import head_sections
from mechicl.analyses.report_files import files_beside, frames_of, python_lines, write_frames
from mechicl.analyses.report_method import head_method, method
from mechicl.analyses.report_section import Drawing, Section
from mechicl.circuits_page import CircuitsFigure, _fragment
from mechicl.views import STYLE, plot_forest, plot_ife_scatter, plot_verb_effects
from mechicl.wording import percent

MARKER = '<meta name="generator" content="mechicl">'
FOLDERS = ("frames", "pictures", "results")
BESIDE = (("corpus/", "the corpus, for mechicl.tasks.corpus.load_corpus"), ("scores/", "finished scores, to be reused"))
DOTS_PER_INCH = 200


def write_report(
    folder: str | Path,
    *,
    priming: Any,
    ife: Any,
    comparison: Any = None,
    heads: Sequence[HeadMap] = (),
    paths: Sequence[pd.DataFrame | None] = (),
    attention: Sequence[CircuitsFigure] = (),
    more: Sequence[Section] = (),
    overwrite: bool = False,
    command: str | None = None,
) -> Path:
    """Write the report of a priming experiment and its inverse frequency analysis; return the path of `index.html`.

    ``comparison``: several models side by side, which adds a table and a forest plot. ``heads``: head maps of the
    same model, a section each; ``paths``: what `paths_between_heads` found for each of them; ``attention``: figures
    to explore (see `show_heads`), for which the page then carries one script. ``more``: sections of other analyses of
    the same model (`mechicl.analyses.gradient.report.gradient_section`). ``command``: the command line that
    made the results, to be quoted. Other files in ``folder`` (kept scores, say) stay where they are.

    Raises ValueError where the folder already holds a report, unless ``overwrite``; where it holds files of the same
    names that are no report, always. Nothing is replaced before the new report is complete.
    """
    target = Path(folder)
    check_report_folder(target, overwrite=overwrite)
    target.mkdir(parents=True, exist_ok=True)
    sections = [*head_sections(heads, paths), *more]
    with tempfile.TemporaryDirectory(dir=target, prefix=".unfinished-") as staging:
        new = Path(staging)
        pictures = _pictures(priming, ife, comparison, sections)
        (new / "pictures").mkdir()
        for picture in pictures:
            (new / "pictures" / f"{picture['name']}.png").write_bytes(picture["bytes"])
        frames = frames_of(priming, ife, comparison, sections)
        write_frames(new / "frames", frames)
        results = {"priming": priming, "inverse_frequency": ife, "comparison": comparison}
        for section in sections:
            results |= section.results
        for name, result in results.items():
            if result is not None:
                result.save(new / "results" / name)
        kept = [words for words in BESIDE if (target / words[0]).is_dir()]
        page = _render(
            priming,
            ife,
            comparison,
            pictures,
            sections=sections,
            attention=attention,
            files=[*files_beside(frames, pictures), *kept],
            command=command,
            python=python_lines(ife, comparison, sections),
            provenance=content.provenance_rows(priming, ife, [row for s in sections for row in s.provenance]),
            **head_method(heads),
        )
        (new / "index.html").write_text(page, encoding="utf-8")
        for name in FOLDERS:
            if (target / name).exists():
                shutil.rmtree(target / name)
            (new / name).rename(target / name)
        (new / "index.html").replace(target / "index.html")  # last: a folder with it is complete
    return target / "index.html"


def check_report_folder(folder: str | Path, *, overwrite: bool = False) -> None:
    """Raise ValueError where :func:`write_report` would refuse ``folder``: ask before hours of scoring, not after."""
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


def _render(
    priming: Any,
    ife: Any,
    comparison: Any,
    pictures: list[dict[str, Any]],
    *,
    sections: Sequence[Section],
    attention: Sequence[CircuitsFigure],
    **words: Any,
) -> str:
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["tied"] = _tied
    first, second = priming.forms
    scales = [scale for scale in ("probability", "logit") if content.has_scale(ife, scale)]
    tables = [content.effects_table(priming), *(content.estimates_table(ife, scale) for scale in scales)]
    tables.append(content.verbs_table(priming, ife))
    if comparison is not None:
        tables.append(content.comparison_table(comparison, ife.forms))
    for number, table in enumerate([*tables, *(table for section in sections for table in section.tables)], start=1):
        table |= {"number": number, "words": table.get("words", False)}
    model = priming.provenance.model or "a model without a name"
    return environment.get_template("report.html.j2").render(
        title=f"Structural priming and the inverse frequency effect in {model}",
        subtitle=f"Corpus “{priming.corpus}”, {len(priming.items):,} pairs of prime and target. {_moment(ife)}",
        priming=content.priming_answer(priming),
        ife=content.ife_answer(ife),
        level=percent(ife.level),
        pictures=pictures,
        tables=tables,
        sections=sections,
        # a fragment of the page's own making, in which every word is escaped; one copy of the script, whatever it shows
        attention=Markup(_fragment(list(attention), name="attention")) if attention else None,
        warnings=list(getattr(comparison, "warnings", None) or []),
        corpus=priming.corpus,
        first=first,
        second=second,
        neutral=content.has_neutral(ife),
        **method(priming, ife),
        **words,
    )


def _tied(text: str) -> str:
    """No line break inside "p = .034" or an interval."""
    text = re.sub(r"\bp ([=<>]) (?=\.)", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", text)
    return re.sub(r"\[([^\]]{1,20}), ", "[\\1,\N{NO-BREAK SPACE}", text)


def _moment(ife: Any) -> str:
    return f"{ife.provenance.created[:16].replace('T', ' ')} UTC."


def _pictures(priming: Any, ife: Any, comparison: Any, sections: Sequence[Section]) -> list[dict[str, Any]]:
    """All pictures in the page's order, drawn; `section` says which one of those on heads a picture belongs to."""
    drawings = [("", drawing) for drawing in _drawings(priming, ife, comparison)]
    drawings += [(section.slug, drawing) for section in sections for drawing in section.drawings]
    return [_picture(drawing) | {"section": slug, "number": n} for n, (slug, drawing) in enumerate(drawings, start=1)]


def _drawings(priming: Any, ife: Any, comparison: Any) -> list[Drawing]:
    first, second = ife.forms
    neutral = " The dotted line is the neutral baseline." if content.has_neutral(ife) else ""
    scatter = (
        f"Share of {first} after a {first} prime (dots, solid line) and a {second} prime (triangles, dashed line) "
        f"over the bias of the prime's verb. Falling lines are the inverse frequency effect; the distance between the "
        f"two marks of a verb is its priming effect.{neutral} Bands: {percent(ife.level)} t intervals of the lines."
    )
    effects = (
        f"Priming effect by verb of the prime, in nats: L after {first} minus L after {second}, with "
        f"{percent(ife.level)} intervals. Filled marks: the verb's own interval excludes zero (some do by chance). "
        "The dashed line and the band are the mean over all pairs."
    )
    logit = "The same on the logit scale: log-odds over log-odds, where nothing saturates."
    tall = 1.3 + 0.21 * max(len(ife.verbs), 4)
    drawings = [
        Drawing("inverse_frequency", scatter, (6.4, 5.2), lambda ax: plot_ife_scatter(ife, ax=ax)),
        Drawing("priming_by_verb", effects, (6.4, tall), lambda ax: plot_verb_effects(priming, ax=ax)),
    ]
    if content.has_scale(ife, "logit"):
        draw = lambda ax: plot_ife_scatter(ife, scale="logit", ax=ax)  # noqa: E731
        drawings.append(Drawing("inverse_frequency_logit", logit, (6.4, 5.2), draw))
    if comparison is not None:
        n_models = comparison.estimates["model"].nunique()
        forest = "Models side by side: slopes and their sums, with intervals. Left of the line: negative."
        size = (6.4, 1.5 + 0.8 * n_models)
        drawings.append(Drawing("models", forest, size, lambda ax: plot_forest(comparison, ax=ax)))
    return drawings


def _picture(drawing: Drawing) -> dict[str, Any]:
    # A Figure of its own, unknown to pyplot: a report leaves no open figure behind.
    stream = BytesIO()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=drawing.size, dpi=DOTS_PER_INCH, layout="constrained")
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
