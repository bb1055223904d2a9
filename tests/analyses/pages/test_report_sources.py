"""How to cite: each section's papers once, in BibTeX that stands by itself."""

import re

import pytest

from mechicl.analyses.pages.section import Section
from mechicl.analyses.pages.sources import BEHIND, PAPERS, bibtex, citations, papers_behind

KERNEL = ("han2023kernel",)


def section(slug: str, sources: tuple[str, ...] = ()) -> Section:
    return Section(slug, "Is it?", "yes", "Yes", "It is.", "It is so.", sources=sources)


def test_papers_stand_once_in_the_order_of_the_page() -> None:
    sections = [
        section("kernel"),
        section("heads_ife"),
        section("ife"),
        section("accounts_urns", sources=("han2023kernel",)),
    ]
    assert papers_behind(sections) == ["han2023kernel", "zhou2024error", "wang2022ioi", "kramar2024atp"]
    assert papers_behind([section("answer")]) == [] and "@software{mechicl" in bibtex([section("answer")])


def test_every_kind_of_section_has_known_papers() -> None:
    for slug, keys in BEHIND.items():
        assert papers_behind([section(slug)]) == list(keys) and set(keys) <= set(PAPERS)


@pytest.mark.parametrize("key", PAPERS)
def test_an_entry_is_balanced_and_names_the_paper(key: str) -> None:
    entry = bibtex([section("x", sources=(key,))]).split("\n\n")[1]
    title, authors, year, number = PAPERS[key]
    assert entry.startswith(f"@misc{{{key},") and entry.count("{") == entry.count("}")
    for said in (title, authors, str(year), number):
        assert said in entry
    ((names, reference),) = citations([section("x", sources=(key,))])
    assert names.endswith(" et al.") and "{" not in names and "\\" not in names
    assert key != "kramar2024atp" or names == "Kramár et al."
    assert re.fullmatch(r"\(\d{4}\)\. .+\. arXiv:\d{4}\.\d{5}\.", reference)
