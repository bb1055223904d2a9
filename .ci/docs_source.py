"""What the source says of itself, read without importing it: docstrings, signatures, fields of classes, constants."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]
_FLOORS = {"mechicl.analyses": "analyses", "mechicl.hooks": "hooks", "mechicl": "mechicl"}
D = TypeVar("D", ast.FunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Source:
    """A module: its text, and what stands at its top level."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def doc(self) -> str:
        """The module's docstring, without its indentation."""
        return ast.get_docstring(self.tree) or ""

    def segment(self, node: ast.AST) -> str:
        """The text of a node."""
        return ast.get_source_segment(self.text, node) or ""


def path_of(dotted: str) -> Path | None:
    """The file of a module, or the folder of a package; None for anything else."""
    for floor, folder in _FLOORS.items():
        if dotted == floor or dotted.startswith(floor + "."):
            place = ROOT.joinpath(folder, *dotted[len(floor) :].split(".")[1:])
            if place.is_dir():
                return place
            return place.with_suffix(".py") if place.with_suffix(".py").is_file() else None
    return None


@cache
def opened(module: str) -> Source:
    """The source of a module; a ValueError where it has no file."""
    path = path_of(module)
    if path is None:
        raise ValueError(f"there is no module {module!r}; mend docs/parts.toml, which names it")
    path = path / "__init__.py" if path.is_dir() else path
    text = path.read_text(encoding="utf-8")
    return Source(path, text, ast.parse(text))


def found(dotted: str, kind: type[D]) -> tuple[Source, D]:
    """The function or class of a dotted name, with the module that defines it; a ValueError where it is no `kind`."""
    module, _, name = dotted.rpartition(".")
    source = opened(module)
    for node in source.tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return found(f"{node.module}.{name}", kind)
        if isinstance(node, kind) and node.name == name:
            return source, node
    raise ValueError(f"{source.path} has no {kind.__name__} named {name!r}; mend docs/parts.toml, which names it")


def doc_of(node: ast.FunctionDef | ast.ClassDef) -> str:
    """Its docstring, without indentation."""
    return ast.get_docstring(node) or ""


def signature(source: Source, node: ast.FunctionDef) -> str:
    """The call as it is written, without `def` and the colon at its end."""
    lines = source.text.splitlines()[node.lineno - 1 : node.body[0].lineno - 1]
    return inspect.cleandoc("\n".join(lines)).removeprefix("def ").rstrip().removesuffix(":")


def parameters(node: ast.FunctionDef) -> list[str]:
    """The names of a function's parameters."""
    own = node.args
    rest = [one for one in (own.vararg, own.kwarg) if one is not None]
    return [one.arg for one in (*own.posonlyargs, *own.args, *own.kwonlyargs, *rest)]


def fields(source: Source, node: ast.ClassDef) -> dict[str, str]:
    """Name -> type of each field of a dataclass, in order."""
    annotated = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    return {source.segment(one.target): source.segment(one.annotation) for one in annotated}


def ancestors(source: Source, node: ast.ClassDef) -> list[tuple[Source, ast.ClassDef]]:
    """The classes of mechicl that it extends, farthest first; `Result`, which all extend, is not counted."""
    home = {
        alias.name: one.module for one in source.tree.body if isinstance(one, ast.ImportFrom) for alias in one.names
    }
    kin: list[tuple[Source, ast.ClassDef]] = []
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id != "Result" and (home.get(base.id) or "").startswith("mechicl"):
            where, parent = found(f"{home[base.id]}.{base.id}", ast.ClassDef)
            kin += [*ancestors(where, parent), (where, parent)]
    return kin


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Its public methods and properties."""
    return [one for one in node.body if isinstance(one, ast.FunctionDef) and not one.name.startswith("_")]


def is_property(node: ast.FunctionDef) -> bool:
    """Whether it is read without a call."""
    return any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)


def view_of(plot: ast.FunctionDef) -> str:
    """The dotted name of the function of `mechicl.views` that a method draws with; "" where there is none."""
    for node in ast.walk(plot):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mechicl.views"):
            return f"{node.module}.{node.names[0].name}"
    return ""


def constants(source: Source, node: ast.FunctionDef) -> dict[str, str]:
    """Name -> value of the constants that a signature's defaults name, where the value is short enough to be shown."""
    defaults = [one for one in (*node.args.defaults, *node.args.kw_defaults) if one is not None]
    names = [one.id for default in defaults for one in ast.walk(default) if isinstance(one, ast.Name)]
    shown = {name: _value(source, name) for name in dict.fromkeys(names) if name.isupper()}
    return {name: value for name, value in shown.items() if 0 < len(value) < 320}


def _value(source: Source, name: str) -> str:
    """The text of a constant, from the module that sets it; of a mapping its keys; "" where it is not found."""
    for node in source.tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = getattr(node, "value", None)
            if isinstance(value, ast.Dict):
                keys = [key for key in value.keys if key is not None]
                return f"({', '.join(source.segment(key) for key in keys)})"
            return re.sub(r"\s+", " ", source.segment(value)).replace("( ", "(").replace(", )", ")") if value else ""
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return _value(opened(str(node.module)), name) if path_of(str(node.module)) else ""
    return ""
