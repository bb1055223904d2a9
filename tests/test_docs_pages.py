"""The pages of docs/ that are made: they are what the docstrings say, none is missing, and their Markdown shows it."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ["Purpose", "Call", "What comes back", "How to read the picture", "Caveats", "Checked against", "Source"]
NO_ANALYSES = {
    "read_run",
    "shipped_recovery",
    "shipped_strategies",
    "write_report",
}  # data, results that come along, a page


@pytest.fixture(scope="module")
def made() -> Iterator[ModuleType]:
    """The generator, which is no part of the package."""
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        yield importlib.import_module("make_docs")
    finally:
        sys.path.remove(str(ROOT / ".ci"))


@pytest.fixture(scope="module")
def written(made: ModuleType) -> ModuleType:
    return importlib.import_module("docs_markdown")


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return {name: text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def test_pages_are_what_the_docstrings_say(made: ModuleType) -> None:
    pages = made.pages()
    assert len(pages) > 30
    kept = {name: (ROOT / name).read_text(encoding="utf-8") if (ROOT / name).is_file() else "" for name in pages}
    assert [name for name, text in pages.items() if kept[name] != text] == [], "make docs, and commit what it wrote"
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / made.PAGES).iterdir()}
    assert there - set(pages) == set(), "pages of analyses that are gone: make docs removes them"


def test_every_analysis_has_a_page(made: ModuleType) -> None:
    import mechicl.analyses

    functions = {name for name in mechicl.analyses.__all__ if name[0].islower()}
    described = {part["call"].rpartition(".")[2] for part in made.analyses()}
    assert functions > NO_ANALYSES
    assert functions - NO_ANALYSES - described == set(), "name them in docs/parts.toml"


def test_a_name_that_is_not_there_is_an_error(made: ModuleType) -> None:
    part = made.analyses()[0]
    for wrong in ("mechicl.analyses.priming.no_such_function", "mechicl.no_such_module.compare"):
        with pytest.raises(ValueError, match=r"parts\.toml"):
            made.page({**part, "call": wrong})
    names = [part["page"] for part in made.analyses()]
    assert len(names) == len(set(names))


def test_every_page_has_all_sections(made: ModuleType) -> None:
    for part in made.analyses():
        found = sections(made.page(part))
        wanted = (
            SECTIONS
            if "result" in part
            else [name for name in SECTIONS if "picture" not in name and "What" not in name]
        )
        assert [name for name in found if name != "Command"] == wanted, part["page"]
        assert min(len(text) for name, text in found.items() if name in wanted) > 15, part["page"]
        assert part["call"].rpartition(".")[2] + "(" in found["Call"]


def test_links_lead_somewhere(made: ModuleType) -> None:
    for name, text in made.pages().items():
        targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
        missing = [target for target in targets if not ((ROOT / name).parent / target.partition("#")[0]).exists()]
        assert targets and missing == [], name


def test_no_page_is_read_as_html_or_emphasis(made: ModuleType) -> None:
    whole = {name: text for name, text in made.pages().items() if name != made.README}  # of which but a table is made
    for name, text in whole.items():
        prose = re.sub(
            r"^```.*?^```$|`[^`\n]+`|^<!--.*?-->$|\]\([^)\s]+\)", "code", text, flags=re.MULTILINE | re.DOTALL
        )
        assert re.findall(r"<\w+>|(?<![\\\w*])[*_]\w", prose.replace("**", "")) == [], name


def test_running_text_shows_as_it_stands(written: ModuleType) -> None:
    shown = written.inline("y_<form> of `f(x)`, a * b, |dW|_F; see arXiv 2406.18501, not 0.20623")
    assert shown == (
        "y\\_&lt;form> of `f(x)`, a \\* b, |dW|\\_F; see "
        "[arXiv:2406.18501](https://arxiv.org/abs/2406.18501), not 0.20623"
    )
    assert written.inline("x_i and **bold** stay") == "x_i and **bold** stay"
    assert written.inline("`score`", lambda name: f"{name}.md") == "[`score`](score.md)"


def test_names_become_a_list_and_other_colons_do_not(written: ModuleType) -> None:
    doc = "First words. low: the smaller end.\nhigh, top: the larger, of: both. Raises `ValueError` for none."
    assert written.markdown(doc, names={"low": "float", "high": "float", "top": "float"}) == (
        "First words.\n\n- **`low`** (`float`): the smaller end.\n"
        "- **`high`**, **`top`** (`float`): the larger, of: both.\n\nRaises `ValueError` for none."
    )
    assert written.markdown(doc).startswith("First words. low: the smaller end. high, top:")


def test_formulas_calls_and_lists_keep_their_shape(written: ModuleType) -> None:
    doc = "Text\n\n    a   = b_i / c\n\n    d   = e *\n\nand\n\n    f(x).plot()\n\n- one\n  more\n- two"
    assert written.markdown(doc) == (
        "Text\n\n```text\na   = b_i / c\n\nd   = e *\n```\n\nand\n\n```python\nf(x).plot()\n```\n\n- one more\n- two"
    )


@pytest.mark.parametrize("mark", ["Caveats:\n", "**Caveats.** "])
def test_caveats_are_taken_out(written: ModuleType, mark: str) -> None:
    assert written.split_caveats(f"A.\n\n{mark}- b\n\nC.") == ("A.\n\nC.", "- b")
    assert written.split_caveats("A.\n\nC.") == ("A.\n\nC.", "")


def test_no_wrapped_line_begins_like_a_list(written: ModuleType) -> None:
    text = written.wrapped("a " * 60 + "- b # c 1. d " + "e " * 80)
    assert "- b" in text and not re.search(r"^\s*([-#+]|\d+\.) ", text, flags=re.MULTILINE)
    assert " ".join(text.split()) == ("a " * 60 + "- b # c 1. d " + "e " * 80).strip()


def test_what_is_said_of_a_name_again_stays_where_it_is(written: ModuleType) -> None:
    assert written.markdown("low: one; low: two.", names=["low"]) == "- **`low`**: one; low: two."


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", changes, flags=re.MULTILINE)
    assert heads[:1] == re.findall(r"^version = (\S+)$", setup, flags=re.MULTILINE)
