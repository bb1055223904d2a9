"""A section of a report: what one analysis has to say, show and leave beside the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from matplotlib.axes import Axes


@dataclass(frozen=True)
class Drawing:
    """A picture still to be drawn: its file name, what stands below it, inches, and whether two go side by side."""

    name: str
    caption: str
    size: tuple[float, float]
    draw: Callable[[Axes], Any]
    half: bool = False


@dataclass(frozen=True)
class Section:
    """What the page says about one analysis.

    question, verdict, brief: the card at the top, of `kind` "yes", "none" or "reversed". about: whose models these are,
    where they are not the page's own. sentence, points (title, text), paragraphs, warnings, tables (caption, heads,
    rows), drawings: the section itself. method, caveats: (title, text) pairs for the chapters of these names; a text
    may be `markupsafe.Markup`. frames: name -> (frame, what it holds), written as CSV; results: name -> result, saved;
    python: lines that take them up again, by default such that print their verdicts. provenance: rows. sources: keys of
    `mechicl.analyses.pages.sources.PAPERS`, beyond those that go with the slug.
    """

    slug: str
    question: str
    kind: str
    verdict: str
    brief: str
    sentence: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[dict[str, Any]] = ()
    drawings: Sequence[Drawing] = ()
    method: Sequence[tuple[str, str]] = ()
    caveats: Sequence[tuple[str, str]] = ()
    frames: Mapping[str, tuple[pd.DataFrame, str]] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)
    provenance: Sequence[tuple[str, str]] = ()
    about: str = ""
    points: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()
    python: Sequence[str] | None = None
    sources: Sequence[str] = ()
