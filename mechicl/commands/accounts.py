"""`mechicl accounts`: its options, and accounts side by side as plain text for a terminal and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mechicl.commands.options import Reporting

# By kind of task, what `--size` means: contexts of a length (of priming, pairs of prime and target), half of them to
# fit on, and in how many orders (of priming, after how many primes of one verb) the model reads them.
COMPARED: dict[str, dict[str, dict[str, Any]]] = {
    "priming": {
        "small": {"n_contexts": 200, "n_orders": 3},
        "default": {"n_contexts": 400, "n_orders": 4},
        "paper": {"n_contexts": 2_000, "n_orders": 8},
    },
    "few-shot": {
        "small": {"n_contexts": 40, "n_orders": 3},
        "default": {"n_contexts": 120, "n_orders": 6},
        "paper": {"n_contexts": 400, "n_orders": 8},
    },
    "numeric": {
        "small": {"n_contexts": 100, "n_orders": 4},
        "default": {"n_contexts": 300, "n_orders": 8},
        "paper": {"n_contexts": 2_000, "n_orders": 16},
    },
}


def compared(kind: str, size: str, task: Any = None) -> dict[str, Any]:
    """Numbers of contexts and orders; of texts with labels not more contexts than there are rows to ask for."""
    asked = dict(COMPARED[kind][size])
    if kind == "few-shot" and task is not None:
        asked["n_contexts"] = min(asked["n_contexts"], len(task.frame) - 1)
    return asked


@dataclass(frozen=True, kw_only=True)
class Accounts(Reporting):
    """How much of a model's answers does each account explain? A report. The model may be one that comes along, such as
    lsa-1, urns-general, classifier-memory or delta-medium, on the task that it was trained for."""

    task: str | None = None
    """priming, or a few-shot task: sentiment (the default), capitals, rule, "rule order", a .csv or .tsv file, or the
    name of a Hugging Face dataset."""
    text: str = "text"
    """Column of the texts, in a file or dataset."""
    label: str = "label"
    """Column of the labels."""
    score: str | None = None
    """Column of numbers instead of labels: above 0 is positive, below 0 negative."""
    lengths: tuple[int, ...] | None = None
    """Numbers of demonstrations; by default several, up to the task's most."""
    contexts: int | None = None
    """Contexts of each length (of priming, pairs of prime and target), half of them to fit on; by default as --size."""
    orders: int | None = None
    """In how many orders each is read (of priming, after how many primes of one verb); by default as --size says."""
    json: bool = False
    """Print JSON instead of sentences."""


def accounts_as_text(found: Any) -> str:
    """The verdict, then a line an account: its share, how far it is behind the nearest, its fitted numbers."""
    from mechicl.wording import with_interval

    lines = [found.verdict, "", f"{found.task}: share of each account ({found.level:.0%} intervals; 0: {found.anchor})"]
    width = max(map(len, found.frame["account"]))
    for _, row in found.frame.iterrows():
        share = with_interval(float(row["share"]), float(row["low"]), float(row["high"]), 2)
        lines.append(f"  {row['account']:{width}}  {row['family']:8}  {share:22}  {row['parameters']}".rstrip())
    return "\n".join([*lines, ""])


def accounts_as_json(found: Any, report: Path) -> str:
    """What the table holds; what is not finite becomes null."""
    from mechicl.commands.printing import finite_json  # which draws on matplotlib, as `--help` does not

    names = ("verdict", "sentences", "kind", "task", "best", "tied", "named", "family", "anchor", "margin", "level")
    content: dict[str, Any] = {"report": str(report), **{name: getattr(found, name) for name in names}}
    sizes = ("n_fitted", "n_judged", "n_clusters", "room", "room_low", "room_high", "ceiling")
    content |= {name: getattr(found, name) for name in sizes}
    frames = {"accounts": found.frame, **{name: getattr(found, name) for name in ("by_length", "pairs", "apart")}}
    frames |= {"truth": found.truth, "mechanisms": found.mechanisms}
    content |= {name: frame.to_dict("records") for name, frame in frames.items()}
    return finite_json(content | {"parameters": found.parameters, "provenance": asdict(found.provenance)})
