"""One row of a recovery study: an organism is grown and asked, and what is named is held against what was built.

Rows are kept in a folder, a file each, so that a study that was stopped goes on. A row that other settings or other
code of the accounts made is made again.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mechicl import accounts
from mechicl.accounts.judgement import Judgement
from mechicl.accounts.judging import MARGIN, judge_accounts
from mechicl.analyses import rivals
from mechicl.analyses.recovery.kinds import add_noise, grow
from mechicl.analyses.recovery.organisms import Organism
from mechicl.analyses.recovery.study import NONE, outcome_of
from mechicl.analyses.rivals.kinds import kind_of

LEVEL = 0.95
# What rows depend on, by the beginnings of file names: not what texts need, nor how results are drawn and told.
CODE = {
    Path(accounts.__file__).parent: ("account", "contexts", "dist", "draws", "fit", "judg", "priming", "regr", "share"),
    Path(rivals.__file__).parent: ("numeric.", "numeric_models", "prime_ceiling", "priming_readings"),
    Path(__file__).parent: ("organisms", "priming", "rows", "urns"),
}


@dataclass(frozen=True)
class Asking:
    """How organisms are asked: what a row depends on, besides kind, draw, noise and code. runs: trained models."""

    seed: int
    n_contexts: int
    n_orders: int
    n_boot: int
    runs: str


def attribute(organism: Organism, *, n_contexts: int, n_orders: int, n_boot: int, seed: int) -> dict[str, Any]:
    """What the comparison says of one organism, beside what is known: a row of the study without kind and draw."""
    kind = kind_of(organism.task)
    options = {"n_contexts": n_contexts, "n_orders": n_orders, **organism.reading}
    contexts = kind.read(organism.model, organism.task, options, seed=seed, store=None, progress=False)
    judged = judge_accounts(
        contexts, kind.accounts(contexts), anchor=kind.anchor, n_boot=n_boot, level=LEVEL, seed=seed
    )
    best, true = judged.row(judged.best), judged.row(organism.account)
    account, family = judged.named or NONE, judged.family or NONE
    return {
        "truth_account": organism.account,
        "truth_family": organism.family,
        "parameters": _json(organism.parameters),
        "account": account,
        "family": family,
        "nearest": judged.best,
        "tied": ", ".join(judged.tied),
        "rivals": ", ".join(rival_families(judged)),
        "outcome": outcome_of(organism.account, organism.family, family, judged.tied),
        **{name: float(best[name]) for name in ("share", "low", "high")},
        "truth_share": float(true["share"]),
        "truth_behind": float(true["behind"]),
        "room": judged.room,
        "room_low": judged.room_low,
        "ceiling": judged.ceiling,
        "fitted": str(best["parameters"]),
        **{name: float(organism.measured.get(name, float("nan"))) for name in ("d_rel", "residual")},
    }


def rival_families(judged: Judgement) -> tuple[str, ...]:
    """Families other than that of the preferred account, with an account that is not told apart from the nearest."""
    near = judged.frame[judged.frame["tied"]]["family"]
    own = str(judged.row(judged.best)["family"])
    return tuple(name for name in judged.families if name != own and name in set(near))


def organism_row(one: tuple[str, int, float | None], asking: Asking, store: str | Path | None) -> dict[str, Any]:
    """One organism's row, or the one that was kept."""
    kind, draw, level = one
    settings = {"kind": kind, "draw": draw, "noise": level, **_settings(asking)}
    name = f"{kind.replace(':', '').replace(' ', '-')}-{draw}{'' if level is None else f'-noise{level:g}'}.json"
    file = None if store is None else Path(store) / name
    if file is not None and file.is_file():
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["settings"] == settings:
            return {key: float("nan") if value is None else value for key, value in kept["row"].items()}
    organism = grow(kind, draw, seed=asking.seed, runs=asking.runs)
    if level is not None:
        organism = add_noise(organism, level, seed=asking.seed)
    found = attribute(organism, n_contexts=asking.n_contexts, n_orders=asking.n_orders, n_boot=asking.n_boot, seed=draw)
    row = {"kind": kind, "draw": draw, **found}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        plain = {key: None if value != value else value for key, value in row.items()}  # NaN is not in JSON
        file.write_text(json.dumps({"settings": settings, "row": plain}), encoding="utf-8")
    return row


def _settings(asking: Asking) -> dict[str, Any]:
    own = {name: getattr(asking, name) for name in ("seed", "n_contexts", "n_orders", "n_boot")}
    return own | {"margin": MARGIN, "code": code_version()}


def _json(parameters: Mapping[str, Any]) -> str:
    return json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in parameters.items()})


@cache
def code_version() -> str:
    """A checksum of the code that rows depend on, comments and docstrings aside."""
    plain = []
    files = [file for folder, starts in CODE.items() for file in folder.glob("*.py") if file.name.startswith(starts)]
    for file in sorted(files, key=lambda one: one.name):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_text(body[0]):
                node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
        plain.append(ast.unparse(tree))
    return hashlib.sha256("\n".join(plain).encode()).hexdigest()[:16]


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
