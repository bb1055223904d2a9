"""A folder to open in a browser: does a model show priming and the inverse frequency effect, and by which heads?

`index.html` holds everything (pictures, tables, method, caveats, provenance) and asks no network for anything; beside
it lie the frames as CSV, the pictures as PNG and the results as they were saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from mechicl.analyses import report_content as content
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.heads.report import head_sections
from mechicl.analyses.report_files import files_beside, frames_of, python_lines
from mechicl.analyses.report_folder import (
    DOTS_PER_INCH,
    check_report_folder,
    draw_all,
    number_tables,
    page_template,
    section_drawings,
    write_folder,
)
from mechicl.analyses.report_method import head_method, method
from mechicl.analyses.report_section import Drawing, Section
from mechicl.views import plot_forest, plot_ife_scatter, plot_verb_effects
from mechicl.views.circuits_page import CircuitsFigure, _fragment
from mechicl.wording import percent

__all__ = ["check_report_folder", "write_report"]
BESIDE = (("corpus/", "the corpus, for mechicl.tasks.corpus.load_corpus"), ("scores/", "finished scores, to be reused"))


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
    sections = [*head_sections(heads, paths), *more]
    frames = frames_of(priming, ife, comparison, sections)
    results = {"priming": priming, "inverse_frequency": ife, "comparison": comparison}
    for section in sections:
        results |= section.results
    kept = [words for words in BESIDE if (target / words[0]).is_dir()]
    return write_folder(
        target,
        pictures=lambda: _pictures(priming, ife, comparison, sections),
        frames=frames,
        results=results,
        page=lambda pictures: _render(
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
        ),
    )


def _render(
    priming: Any,
    ife: Any,
    comparison: Any,
    pictures: Sequence[Mapping[str, Any]],
    *,
    sections: Sequence[Section],
    attention: Sequence[CircuitsFigure],
    **words: Any,
) -> str:
    first, second = priming.forms
    scales = [scale for scale in ("probability", "logit") if content.has_scale(ife, scale)]
    tables = [content.effects_table(priming), *(content.estimates_table(ife, scale) for scale in scales)]
    tables.append(content.verbs_table(priming, ife))
    if comparison is not None:
        tables.append(content.comparison_table(comparison, ife.forms))
    number_tables([*tables, *(table for section in sections for table in section.tables)])
    model = priming.provenance.model or "a model without a name"
    return page_template("report.html.j2").render(
        title=f"Structural priming and the inverse frequency effect in {model}",
        subtitle=f"Corpus “{priming.corpus}”, {len(priming.items):,} pairs of prime and target. {_moment(ife)}",
        priming=content.priming_answer(priming),
        ife=content.ife_answer(ife),
        level=percent(ife.level),
        pictures=pictures,
        tables=tables,
        sections=sections,
        by_two=len(sections) > 1,
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


def _moment(ife: Any) -> str:
    return f"{ife.provenance.created[:16].replace('T', ' ')} UTC."


def _pictures(priming: Any, ife: Any, comparison: Any, sections: Sequence[Section]) -> list[dict[str, Any]]:
    """All pictures in the page's order, drawn; those of the priming experiment belong to no section."""
    own = [("", drawing) for drawing in _drawings(priming, ife, comparison)]
    return draw_all([*own, *section_drawings(sections)], DOTS_PER_INCH)


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
