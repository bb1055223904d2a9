"""What stands at the top of a dossier: the question, a sentence an account, the table of accounts for each task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mechicl.analyses.pages.parts import MISSING
from mechicl.analyses.pages.section import Section
from mechicl.analyses.rivals.report import shares_table
from mechicl.analyses.rivals.report_drawings import shares_drawing
from mechicl.analyses.rivals.report_words import accounts_slug, family_words, without_numbers

if TYPE_CHECKING:
    from mechicl.analyses.accounts import AccountTable

SLUG = "answer"
# An account of in-context learning: the families of account that speak for it, and the section inside the model
ANSWERS: dict[str, tuple[tuple[str, ...], str]] = {
    "Gradient steps": (("gradient",), "gradient"),
    "Kernel regression": (("kernel",), "kernel"),
    "Bayesian strategies": (("bayes",), ""),
    "Baselines, and a constant boost": (("boost", "baseline"), ""),
}


NAMES = {"gradient": "Item by item", "kernel": "Inside the model"}
NEAREST = {
    "gradient": "gradient steps come nearest to its answers",
    "kernel": "kernel regression comes nearest to its answers",
    "bayes": "Bayesian strategies come nearest to its answers",
    "boost": "a constant boost comes nearest to its answers",
}


def question(model: str) -> str:
    """The question of a dossier."""
    return f"By what mechanism does {model} learn from its context?"


def opening_section(model: str, tables: Sequence[AccountTable], sections: Sequence[Section]) -> Section:
    """The answer at the top. ``sections``: those of the page, whose verdicts stand beside what accounts explain."""
    return Section(
        slug=SLUG,
        question="The answer in short",
        kind="yes" if any(found.named is not None for found in tables) else "none",
        verdict="",
        brief="",
        sentence=" ".join(_nearest(found) for found in tables),
        points=[(name, _point(name, tables, sections)) for name in ANSWERS],
        paragraphs=[_how_to_read(tables)],
        tables=[shares_table(found) for found in tables],
        drawings=[shares_drawing(found, accounts_slug(found)) for found in tables],
    )


def _nearest(found: AccountTable) -> str:
    """What is nearest on one task, and whether it may be named."""
    where = "After one prime" if found.kind == "priming" else f"In {found.task}"
    where = f"{where},"
    if not found.has_room:
        return f"{where} the context changes nothing that an account could explain."
    if found.named is not None:
        tied = f" (not told apart from {', '.join(f'“{name}”' for name in found.tied)})" if found.tied else ""
        return f"{where} {NEAREST[str(found.family)]}: “{found.named}”{tied}."
    said = without_numbers(found.verdict).partition(". ")[0].rstrip(".")
    return f"{where} {said[:1].lower()}{said[1:]}."


def _point(name: str, tables: Sequence[AccountTable], sections: Sequence[Section]) -> str:
    families, slug = ANSWERS[name]
    said = [family_words(tables, families)] if tables else []
    inside = {section.slug: section for section in sections}.get(slug)
    if inside is not None and inside.verdict == MISSING:
        said.append(f"What single heads do could not be measured ({inside.brief.rstrip('.')}).")
    elif inside is not None:
        said.append(f"{NAMES[slug]}: {inside.verdict[:1].lower()}{inside.verdict[1:]}.")
    return " ".join(one for one in said if one) or "No account of this kind could be compared."


def _how_to_read(tables: Sequence[AccountTable]) -> str:
    if not tables:
        return "Accounts were not compared on this page; what single analyses found stands below."
    return (
        "A share is how far an account goes from a trivial prediction (0) towards the model's own answers, as near as "
        "an account can come that does not know the order of what was shown (1). It is about behaviour; what was found "
        "inside the model stands in the sections below."
    )
