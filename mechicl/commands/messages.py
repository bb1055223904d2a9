"""What commands say, and where their reports go."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mechicl.commands.accounts import Accounts
from mechicl.commands.options import Gradient, Heads, Ife, Kernel, Report, Reporting
from mechicl.commands.strategies import Strategies
from mechicl.commands.train import Train


def report_folder(options: Reporting | Kernel) -> Path:
    """Where the report goes: as told, or report/ and the model's name made fit for a folder."""
    name = re.sub(r"[^\w.-]+", "-", options.model).strip("-.") or "model"
    suffix = {Heads: "-heads", Gradient: "-gradient", Kernel: "-kernel", Accounts: "-accounts"}.get(type(options), "")
    default = Path("report") / f"{name}{suffix}"
    return options.out if options.out is not None else default


def what_is_kept(command: Any) -> str:
    """What an interrupted command left behind, and how it goes on."""
    if isinstance(command, Train):
        return "Checkpoints are kept; run the same command again and it goes on from there."
    if isinstance(command, Strategies):
        return "Nothing was written."
    goes_on = "run the same command again and it goes on from there."
    if isinstance(command, Kernel | Accounts | Report):
        folder = report_folder(command)
        kept = folder / "kernel" if isinstance(command, Kernel) else folder
        return f"Finished work is kept in {kept}; {goes_on}" if kept.is_dir() else "Nothing was run yet."
    store = report_folder(command) / "scores" if isinstance(command, Reporting) else getattr(command, "keep", None)
    if isinstance(command, Heads | Gradient) and store is not None and store.is_dir():
        return f"Finished work is kept in {store.parent}; {goes_on}"
    if store is not None and store.is_dir():
        return f"Finished scores are kept in {store}; {goes_on}"
    if isinstance(command, Ife) and command.model and store is None:
        return "Nothing was kept; with --keep FOLDER it would be."
    return "Nothing was scored yet."


def each_once() -> Callable[..., None]:
    """How warnings are shown: a line each, and the same words only once, wherever they come from."""
    said: set[str] = set()

    def show(message: Any, *where: Any, **more: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            say(f"warning: {message}")

    return show


def say(text: str) -> None:
    """A message, on stderr."""
    print(f"mechicl: {text}", file=sys.stderr)
