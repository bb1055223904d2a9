"""The kernel account as plain text for a terminal, and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mechicl.commands.printing import finite_json
from mechicl.wording import number, p_value, with_interval


def kernel_as_text(found: Any) -> str:
    """The verdict, then a line a way to rebuild the model's answers: agreement with it, chance, and accuracy."""
    regression = found.regression
    lines = [
        found.verdict,
        "",
        f"The model's answers rebuilt from demonstrations' labels ({regression.level:.0%} intervals over queries):",
    ]
    names = [
        str(row["name"]) + (f" ({row['chosen']})" if row["chosen"] else "") for _, row in regression.rebuilt.iterrows()
    ]
    width = max(map(len, names))
    for name, (_, row) in zip(names, regression.rebuilt.iterrows(), strict=True):
        agreed = with_interval(row["agreement"], row["low"], row["high"], 2)
        right = with_interval(row["accuracy"], row["accuracy_low"], row["accuracy_high"], 2)
        lines.append(
            f"  {name:{width}}  agreement {agreed:18} chance {number(row['chance'], 2)}   {p_value(row['p']):9}   "
            f"accuracy {right}"
        )
    return "\n".join([*lines, ""])


def kernel_as_json(found: Any, report: Path) -> str:
    """What the account holds except single items; what is not finite becomes null."""
    regression = found.regression
    content: dict[str, Any] = {
        "report": str(report),
        "verdict": found.verdict,
        "task": regression.task,
        "n_demos": regression.n_demos,
        "accuracy": regression.accuracy,
        "named": {name: [f"L{layer}H{head}" for layer, head in heads] for name, heads in regression.named.items()},
        "notes": list(regression.notes),
        "rebuilt": regression.rebuilt.to_dict("records"),
        "heads": regression.heads.to_dict("records"),
    }
    for name, frame in _other_frames(found).items():
        content[name] = frame.to_dict("records")
    return finite_json(content | {"provenance": asdict(found.provenance)})


def _other_frames(found: Any) -> dict[str, Any]:
    frames = {}
    if found.attention is not None:
        frames["attention"] = found.attention.frame
    if found.probes is not None:
        frames["probes"] = found.probes.best()
    if found.causality is not None:
        frames["causality"] = found.causality.frame
    if found.phenomena is not None:
        own = found.phenomena
        frames |= {"phenomena": own.frame, "accounts": own.accounts, "orders": own.orders}
    return frames
