"""Make docs/parts.md, README's table and a page for each analysis, from docs/parts.toml and the docstrings.

    python .ci/make_docs.py (make docs)     writes the pages that differ, and removes those of analyses that are gone

Nothing is imported and no service is asked: the source is read as text. What a page lacks is written into a docstring:
the module's head (purpose, formula, and a paragraph that begins with "Caveats:"), the function's, the result's, and
that of the function in `mechicl.views` which draws it.
"""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import docs_source as source
from docs_markdown import fenced, inline, markdown, split_caveats, wrapped

ROOT = source.ROOT
TABLE, PAGES, README = "docs/parts.md", "docs/analyses", "README.md"
BEGIN, END = "<!-- analyses: made by `make docs` from docs/parts.toml -->", "<!-- end of analyses -->"
WARNING = "<!-- Made by `make docs` from docs/parts.toml and the docstrings; change those. -->"
INTRODUCTION = (
    "Every part of mechicl: where the idea comes from, what the tests check it against (`make test`), and the command\n"
    "that runs it. Each analysis leads to its page: purpose, formula, how to read the picture, caveats. Back to the\n"
    "[README](../README.md)."
)
COMMON = {  # what these fields are in every result
    "level": "what intervals are meant to hold, .95 for 95%",
    "notes": "what could not be measured, and why",
    "verdict": "what came out, in words",
    "provenance": "model, versions, seeds and options behind the numbers",
}
KEPT = "`.save(folder)` keeps it and `.load(folder)` gives it back, bit for bit."
Part = dict[str, Any]


@cache
def groups() -> list[dict[str, Any]]:
    """The groups of docs/parts.toml, each with its parts."""
    with (ROOT / "docs/parts.toml").open("rb") as file:
        found: list[dict[str, Any]] = tomllib.load(file)["groups"]
    return found


def analyses() -> list[Part]:
    """The parts that have a page."""
    return [part for group in groups() for part in group["parts"] if "page" in part]


def pages() -> dict[str, str]:
    """Path from the root -> text of every page that is made."""
    return {README: readme(), TABLE: table(), **{f"{PAGES}/{part['page']}.md": page(part) for part in analyses()}}


def table() -> str:
    """docs/parts.md: a table for each group."""
    text = [WARNING, "# What is there", INTRODUCTION]
    for group in groups():
        rows = ["| part | source | checked against | command |", "|---|---|---|---|"]
        for part in group["parts"]:
            words = f"[{part['words']}](analyses/{part['page']}.md)" if "page" in part else part["words"]
            cells = [words, *(inline(part.get(name, "")) for name in ("source", "checked", "command"))]
            rows.append(f"| {' | '.join(cells)} |")
        text += [f"## {group['name']}", group["text"], "\n".join(rows)]
    return "\n\n".join(text) + "\n"


def readme() -> str:
    """README with its table: the analyses, without the parts that they are made of."""
    before, begin, rest = (ROOT / README).read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks the lines {BEGIN} and {END}, between which its table goes")
    rows = ["| analysis | source | checked against | command |", "|---|---|---|---|"]
    for part in analyses():
        if part.get("readme"):
            words = f"[{part['words']}](docs/analyses/{part['page']}.md)"
            rows.append(
                f"| {' | '.join([words, *(inline(part.get(name, '')) for name in ('source', 'checked', 'command'))])} |"
            )
    return f"{before}{begin}\n{chr(10).join(rows)}\n{end}{after}"


def page(part: Part) -> str:
    """The page of one analysis."""
    module, function = source.found(part["call"], ast.FunctionDef)
    link = _linker(part)
    purpose, caveats = split_caveats(module.doc)
    call, call_caveats = split_caveats(source.doc_of(function).replace("see the head of this file", "see Purpose"))
    ways = ["[All parts](../parts.md)", f"[guide](../{part['guide']})" if "guide" in part else ""]
    if "example" in part:
        ways.append(f"[worked example](../../examples/{part['example']}.ipynb)")
    text = [WARNING, f"# {part['title']}", " · ".join(way for way in ways if way)]
    text += ["## Purpose", markdown(purpose, link=link), "## Call", _call(part, module, function)]
    text.append(markdown(call, names=source.parameters(function), link=link))
    caveats = "\n".join([*filter(None, (caveats, call_caveats)), *(f"- {one}" for one in part.get("caveats", []))])
    if "result" in part:
        result_text, picture = _result(part, link)
        text += ["## What comes back", *result_text, "## How to read the picture", *picture]
    if caveats:
        text += ["## Caveats", markdown(caveats, link=link)]
    text += ["## Checked against", _checked(part, link)]
    if "command" in part:
        help_words = " `--help` lists the options." if "`mechicl " in part["command"] else ""
        text += ["## Command", f"{inline(part['command'])}.{help_words}"]
    home = part["call"].rpartition(".")[0]
    text += ["## Source", wrapped(_sentence(inline(part["source"]))), f"Code: [`{home}`]({_up(module.path)})."]
    return "\n\n".join(text) + "\n"


def _call(part: Part, module: source.Source, function: ast.FunctionDef) -> str:
    """How it is imported and called, and the values of constants that its defaults name."""
    name, place = function.name, part["call"].rpartition(".")[0]
    if f'"{name}":' in source.opened("mechicl.analyses").text:
        place = "mechicl.analyses"
    text = fenced(f"from {place} import {name}\n\n{source.signature(module, function)}").replace("```text", "```python")
    known = source.constants(module, function)
    return "\n\n".join(
        [text, *(["Defaults: " + "; ".join(f"`{k}` is `{v}`" for k, v in known.items()) + "."] if known else [])]
    )


def _result(part: Part, link: Any) -> tuple[list[str], list[str]]:
    """What is said of the result's class, and of its pictures."""
    module, result = source.found(part["result"], ast.ClassDef)
    text, picture = [f"{'An' if result.name[0] in 'AEIOU' else 'A'} `{result.name}`."], []
    kin = [(module, result), *source.ancestors(module, result)[::-1]]
    said: dict[str, ast.FunctionDef] = {}  # a method of a class before those of what it extends
    for where, node in kin:
        text += [f"From `{node.name}`:"] if node is not result else []
        text.append(_fields(where, node, link))
        said |= {one.name: one for one in source.methods(node) if one.name not in said}
    calls = {name: f"`.{name}{'' if source.is_property(one) else '()'}`" for name, one in said.items()}
    others = {name: _first(source.doc_of(one)) for name, one in said.items() if not name.startswith("plot")}
    listed = [wrapped(f"- {calls[name]}: {inline(words, link)}", "  ") for name, words in others.items()]
    text += ["It can be asked for more:", "\n".join([*listed, f"- {KEPT}"])]
    for name, plot in said.items():
        if name.startswith("plot"):
            words, *more = source.doc_of(plot).split("\n\n")
            view = source.view_of(plot) or part.get("view", "")
            if not view:
                raise ValueError(f"no view is known for {part['result']}.{name}; name it in docs/parts.toml as view")
            drawn, function = source.found(view, ast.FunctionDef)
            picture += [wrapped(f"{calls[name]}: {inline(words, link)}"), *(markdown(one, link=link) for one in more)]
            drawing = f"Drawn by [`{view}`]({_up(drawn.path)}):"
            if drawing in picture:
                picture.append("Drawn as above.")
            else:
                picture += [drawing, _quoted(markdown(source.doc_of(function), link=link))]
    return text, picture


def _fields(module: source.Source, node: ast.ClassDef, link: Any) -> str:
    """A class's docstring, and the fields that it does not mention."""
    fields = source.fields(module, node)
    said = markdown(source.doc_of(node), names=fields, link=link)
    rest = {name: kind for name, kind in fields.items() if f"**`{name}`**" not in said}
    listed = said.rpartition("\n\n")[2].startswith("- ")
    items = [f"- **`{name}`** (`{kind}`): {COMMON[name]}." for name, kind in rest.items() if name in COMMON]
    if bare := [f"`{name}` (`{kind}`)" for name, kind in rest.items() if name not in COMMON]:
        items.insert(0, wrapped(f"- besides: {', '.join(bare)}.", "  "))
    return ("\n" if listed else "\n\n").join([said, "\n".join(items)]) if items else said


def _first(doc: str) -> str:
    return doc.split("\n\n")[0]


def _checked(part: Part, link: Any) -> str:
    """What the tests compare it with, and where they are."""
    rows = []
    for test in part["tests"]:
        path = ROOT / "tests" / test
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        words = f": {inline(_first(doc), link)}" if doc else ""
        rows.append(wrapped(f"- [`tests/{test}`](../../tests/{test}){words}", "  "))
    return "\n\n".join([_sentence(inline(part["checked"])), *(["\n".join(rows)] if rows else [])])


def _linker(here: Part) -> Any:
    """A function: a name in backticks -> the page or the file that it leads to, from a page of docs/analyses."""
    known: dict[str, str] = {}
    for part in analyses():
        target = f"{part['page']}.md"
        for dotted in (part["call"], part.get("result", "")):
            known |= {name: target for name in (dotted, dotted.rpartition(".")[0], dotted.rpartition(".")[2]) if name}
    own = {name for name, target in known.items() if target == f"{here['page']}.md"}

    def link(name: str) -> str:
        if name in own:
            return ""
        if name in known:
            return known[name]
        if name.startswith("mechicl."):
            path = source.path_of(name) or source.path_of(name.rpartition(".")[0])
            return _up(path) if path and path != ROOT / "mechicl" else ""
        return ""

    return link


def _up(path: Path) -> str:
    return f"../../{path.relative_to(ROOT).as_posix()}"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def main() -> None:
    """Write what differs, remove what is no longer made."""
    made = pages()
    for name, text in made.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {name}")
    for path in sorted((ROOT / PAGES).glob("*.md")):
        if path.relative_to(ROOT).as_posix() not in made:
            path.unlink()
            print(f"removed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
