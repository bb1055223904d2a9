"""A folder to open in a browser: does a model show priming and the inverse frequency effect, and by which heads?

The page of `mechicl.analyses.pages.sections`, whose first sections are about priming.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.heads.report import head_sections
from mechicl.analyses.pages.folder import check_report_folder
from mechicl.analyses.pages.method import with_head_method
from mechicl.analyses.pages.priming import ife_section, priming_section
from mechicl.analyses.pages.section import Section
from mechicl.analyses.pages.sections import write_sections
from mechicl.views.circuits_page import CircuitsFigure

__all__ = ["check_report_folder", "write_report"]


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
    opening: Section | None = None,
    overwrite: bool = False,
    command: str | None = None,
) -> Path:
    """Write the report of a priming experiment and its inverse frequency analysis; return the path of `index.html`.

    ``comparison``: several models side by side, which adds a table and a forest plot. ``heads``: head maps of the
    same model, a section each; ``paths``: what `paths_between_heads` found for each of them; ``attention``: figures
    to explore (see `show_heads`), for which the page then carries one script. ``more``: sections of other analyses of
    the same model (`mechicl.analyses.gradient.report.gradient_section`); ``opening``: what stands above all sections.
    ``command``: the command line that made the results, to be quoted. Other files in ``folder`` (kept scores, say) stay
    where they are.

    Raises ValueError where the folder already holds a report, unless ``overwrite``; where it holds files of the same
    names that are no report, always. Nothing is replaced before the new report is complete.
    """
    localised = with_head_method(head_sections(heads, paths), heads, ife)
    model = priming.provenance.model or "a model without a name"
    return write_sections(
        folder,
        [priming_section(priming), ife_section(priming, ife, comparison), *localised, *more],
        title=f"Structural priming and the inverse frequency effect in {model}",
        subtitle=f"Corpus “{priming.corpus}”, {len(priming.items):,} pairs of prime and target. {moment(ife)}",
        opening=opening,
        attention=attention,
        level=ife.level,
        overwrite=overwrite,
        command=command,
    )


def moment(result: Any) -> str:
    """When a result was made, as a subtitle says it."""
    return f"{result.provenance.created[:16].replace('T', ' ')} UTC."
