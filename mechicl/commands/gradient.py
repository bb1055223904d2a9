"""The gradient account as plain text for a terminal, and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from mechicl.commands.printing import finite_json
from mechicl.wording import number, p_value, with_interval


def gradient_as_text(found: Any) -> str:
    """The verdict, then a line a form and level: how well effects in context go along with those of gradient steps."""
    lines = [found.verdict, "", "Correlation of effects in context and by gradient steps on the same primes:"]
    for _, row in found.match.matches.iterrows():
        r = with_interval(row["r"], row["low"], row["high"], 2)
        lines.append(
            f"  {row['form'] + ' primes,':12} {row['level']:24} {r:22} chance {number(row['chance'], 2):>5}   "
            f"{p_value(row['p_holm'])}"
        )
    if found.mlp is not None:
        lines += ["", found.mlp.report()]
    return "\n".join([*lines, ""])


def gradient_as_json(found: Any, report: Path) -> str:
    """What the result holds except single items; what is not finite becomes null."""
    tuned = found.finetuned
    frames = {
        "match": found.match.matches,
        "errors": found.errors.estimates,
        "slopes": found.finetuned_ife.estimates,
        "effects": tuned.priming.effects,
        "attention": found.dual.heads,
    }
    content: dict[str, Any] = {
        "report": str(report),
        "verdict": found.verdict,
        "learning_rate": tuned.learning_rate,
        "steps": tuned.steps,
        "optimizer": tuned.optimizer,
        "parameters": tuned.parameters,
        "share_diverged": tuned.share_diverged,
        "evidence": found.errors.evidence,
        **{name: frame.to_dict("records") for name, frame in frames.items()},
    }
    if found.mlp is not None:
        content |= {
            "mlp": found.mlp.layers.to_dict("records"),
            "mlp_verified": found.mlp.verified,
            "mlp_error": float(found.mlp.checks["layer_error"].max()),
            "mlp_caveat": found.mlp.caveat,
        }
    return finite_json(content | {"provenance": asdict(found.provenance)})
