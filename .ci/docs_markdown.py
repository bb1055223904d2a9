"""Docstrings as Markdown: paragraphs, lists of fields, formulas as code blocks, names and papers as links."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping

WIDTH = 120
CAVEATS = re.compile(r"Caveats:\s*|\*\*Caveats\.\*\*\s*")
_CODE = re.compile(r"(``.+?``|`[^`]+`)")
_PAPER = re.compile(r"(?:arXiv[: ] ?)?\b(\d{4}\.\d{5})\b")
_TROUBLE = re.compile(r"(?<=[.;] )(?:Raises|Warns|Errors) ")
Link = Callable[[str], str]  # a name -> where it leads, or ""


def split_caveats(doc: str) -> tuple[str, str]:
    """A docstring without its paragraph of caveats, and that paragraph's list."""
    blocks = doc.split("\n\n")
    kept = [block for block in blocks if not CAVEATS.match(block)]
    return "\n\n".join(kept), "\n".join(CAVEATS.sub("", block, count=1) for block in blocks if CAVEATS.match(block))


def markdown(doc: str, *, names: Mapping[str, str] | Iterable[str] = (), link: Link = lambda _: "") -> str:
    """A docstring as Markdown. names: of the fields or parameters that it explains, which become lists."""
    types = names if isinstance(names, Mapping) else dict.fromkeys(names, "")
    parts: list[str] = []
    for block in _blocks(doc):
        lines = block.split("\n")
        if all(line.startswith("    ") or not line for line in lines):
            parts.append(fenced(textwrap.dedent(block)))
        elif re.match(r"(- |\d+\. )", lines[0]):
            parts.append("\n".join(wrapped(inline(item, link), "  ") for item in _items(lines)))
        else:
            parts.append(_paragraph(lines, types, link))
    return "\n\n".join(parts)


def fenced(code: str) -> str:
    """A code block: Python where it is Python that calls something, else plain text."""
    try:
        calls = any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(code)))
    except SyntaxError:
        calls = False
    return f"```{'python' if calls else 'text'}\n{code}\n```"


def inline(text: str, link: Link = lambda _: "") -> str:
    """Running text: code stays code, a known name leads to its page, papers to arXiv, all else shows as it stands."""
    pieces = _CODE.split(re.sub(r"\s+", " ", text).strip())
    return "".join(_name(piece.strip("`"), link) if i % 2 else _plain(piece) for i, piece in enumerate(pieces))


def _name(code: str, link: Link) -> str:
    target = link(code)
    return f"[`{code}`]({target})" if target else f"`{code}`"


def _plain(text: str) -> str:
    """Marks that Markdown would take for its own are escaped; two asterisks are meant."""
    text = text.replace("<", "&lt;").replace("](", "]\\(").replace("$", "\\$")
    text = re.sub(r"(?<!\*)\*(?!\*)", r"\\*", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return _PAPER.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _blocks(doc: str) -> list[str]:
    """Paragraphs; code blocks that stand one after another are one."""
    blocks: list[str] = []
    for block in re.split(r"\n\s*\n", doc.strip("\n")):
        if blocks and block.startswith("    ") and blocks[-1].startswith("    "):
            blocks[-1] += f"\n\n{block}"
        else:
            blocks.append(block)
    return [block for block in blocks if block.strip()]


def _items(lines: list[str]) -> list[str]:
    """The items of a list, each in one line."""
    items: list[str] = []
    for line in lines:
        if items and not re.match(r"(- |\d+\. )", line):
            items[-1] += f" {line.strip()}"
        else:
            items.append(line)
    return items


def _paragraph(lines: list[str], types: Mapping[str, str], link: Link) -> str:
    """Running text; from the first "name: " of a known name on, a list with an item for each."""
    marked = [re.sub(r'^\s+("[\w ]+":?) +', r"\n\1 ", line) for line in lines]
    text = " ".join(marked if sum(line.startswith("\n") for line in marked) > 1 else (line.strip() for line in lines))
    known = "|".join(sorted(map(re.escape, types), key=len, reverse=True))
    if not known:
        return wrapped(inline(text, link))
    found = list(re.finditer(rf"(?:^|(?<=[.;)] ))((?:{known})(?:,? (?:and )?(?:{known}))*): ", text))
    found = [one for at, one in enumerate(found) if one[1] not in {earlier[1] for earlier in found[:at]}]
    if not found:
        return wrapped(inline(text, link))
    trouble = _TROUBLE.search(text, found[-1].end())  # what is said after the last name, of none of them
    end = trouble.start() if trouble else len(text)
    ends = [one.start() for one in found[1:]] + [end]
    items = [_item(one[1], text[one.end() : stop], types, link) for one, stop in zip(found, ends, strict=True)]
    parts = (inline(text[: found[0].start()], link), "\n".join(items), inline(text[end:], link))
    return "\n\n".join([wrapped(part) if part is not parts[1] else part for part in parts if part])


def _item(names: str, text: str, types: Mapping[str, str], link: Link) -> str:
    """What is said of one name, or of several at once; quoted choices stand below it."""
    own = re.findall(r"\w+", names.replace(" and ", " "))
    kinds = list(dict.fromkeys(types[name] for name in own if types[name]))
    label = ", ".join(f"**`{name}`**" for name in own) + "".join(
        f" (`{kind}`)" for kind in kinds[:1] if len(kinds) == 1
    )
    first, *choices = re.sub(r";$", ".", text.strip()).split("\n")
    lines = [wrapped(f"- {label}: {inline(first, link)}", "  ")]
    return "\n".join([*lines, *(wrapped(f"  - {inline(choice, link)}", "    ") for choice in choices)])


def wrapped(text: str, indent: str = "") -> str:
    """Lines of at most `WIDTH`, none of which begins with what would start a list or a heading."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    kept: list[str] = []
    for line in lines:
        if kept and re.match(r"\s*([-+>=#|]|\d+[.)])(\s|$)", line):
            kept[-1] += f" {line.strip()}"
        else:
            kept.append(line)
    return "\n".join(kept)
