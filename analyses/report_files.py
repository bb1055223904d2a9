"""What lies beside a report's page: frames as CSV, saved results, and the lines that take them up again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.analyses.report_method import uses_external_norms
from mechicl.analyses.report_section import Section

FRAMES = {
    "items": "one row a pair of prime and target: log-odds in every context",
    "sentences": "one row a sentence: log-odds without a prime",
    "bias": "one row a verb: bias with intervals",
    "effects": "priming effects by contrast and scale",
    "verb_effects": "the same by verb of the prime",
    "verbs": "one row a verb: what the slopes were fitted to",
    "slopes": "all estimands on both scales",
    "models": "all estimands of all models",
}


def frames_of(
    priming: Any, ife: Any, comparison: Any, sections: Sequence[Section] = ()
) -> dict[str, tuple[pd.DataFrame, str]]:
    """Name -> frame and what it holds, of everything that a page rests on."""
    frames = {name: getattr(priming, name) for name in ("items", "sentences", "bias", "effects", "verb_effects")}
    frames |= {"verbs": ife.verbs, "slopes": ife.estimates}
    if comparison is not None:
        frames["models"] = comparison.estimates
    found = {name: (frame, FRAMES[name]) for name, frame in frames.items()}
    for section in sections:
        found |= section.frames
    return found


def write_frames(folder: Path, frames: Mapping[str, tuple[pd.DataFrame, str]]) -> None:
    """Write each frame to NAME.csv in a new folder."""
    folder.mkdir(parents=True)
    for name, (frame, _) in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)


def files_beside(
    frames: Mapping[str, tuple[pd.DataFrame, str]], pictures: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """Names and descriptions of the files beside the page."""
    names = ", ".join(f"{picture['name']}.png" for picture in pictures)
    return [
        *((f"frames/{name}.csv", words) for name, (_, words) in frames.items()),
        (f"pictures/ ({names})", "the pictures of this page"),
        ("results/", "the results, for mechicl.results.load"),
    ]


def python_lines(ife: Any, comparison: Any, sections: Sequence[Section] = ()) -> str:
    """Lines to run in the report's folder, which load the results and repeat the second analysis."""
    options = ife.provenance.options | {"seed": ife.provenance.seeds.get("inverse_frequency", 0)}
    norms = ', bias=ife.verbs[["verb", "bias"]]' if uses_external_norms(ife) else ""
    names = ("n_boot", "n_permutations", "level", "seed")
    arguments = "".join(f", {name}={options[name]!r}" for name in names if name in options)
    lines = [
        "from mechicl.analyses.inverse_frequency import inverse_frequency_effect",
        "from mechicl.results import load",
        "",
        'priming, ife = load("results/priming"), load("results/inverse_frequency")',
        f"again = inverse_frequency_effect(priming{norms}{arguments})",
        "print(again.verdict, again.estimates.equals(ife.estimates))",
    ]
    if comparison is not None:
        lines.append('print(load("results/comparison").to_frame())')
    lines += [f'print(load("results/{name}").verdict)' for section in sections for name in section.results]
    return "\n".join(lines)
