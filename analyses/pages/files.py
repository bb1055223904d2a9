"""What lies beside a report's page: frames as CSV, saved results, and the lines that take them up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.analyses.pages.section import Section

BESIDE = {
    "corpus": "the corpus, for mechicl.tasks.corpus.load_corpus",
    "scores": "finished scores, to be reused",
    "steps": "finished gradient steps, to be reused",
    "kernel": "finished work on few-shot prompts, to be reused",
    "accounts": "finished readings of accounts, to be reused",
}


def write_frames(folder: Path, frames: Mapping[str, tuple[pd.DataFrame, str]]) -> None:
    """Write each frame to NAME.csv in a new folder."""
    folder.mkdir(parents=True)
    for name, (frame, _) in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)


def files_beside(
    frames: Mapping[str, tuple[pd.DataFrame, str]], pictures: Sequence[Mapping[str, Any]], folder: Path
) -> list[tuple[str, str]]:
    """Names and descriptions of the files beside the page, kept work in ``folder`` included."""
    names = ", ".join(f"{picture['name']}.png" for picture in pictures)
    return [
        *((f"frames/{name}.csv", words) for name, (_, words) in frames.items()),
        (f"pictures/ ({names})", "the pictures of this page"),
        ("results/", "the results, for mechicl.results.load"),
        *((f"{name}/", words) for name, words in BESIDE.items() if (folder / name).is_dir()),
    ]


def python_lines(sections: Sequence[Section]) -> str:
    """Lines to run in the report's folder, which load the results: those of each section, or print their verdicts."""
    lines = []
    for section in sections:
        printed = [f'print(load("results/{name}").verdict)' for name in section.results]
        lines += printed if section.python is None else list(section.python)
    imports = dict.fromkeys(line for line in lines if line.startswith("from "))
    imports["from mechicl.results import load"] = None
    return "\n".join([*sorted(imports), "", *(line for line in lines if line not in imports)])
