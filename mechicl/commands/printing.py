"""Slopes over verb bias as plain text for a terminal, and as JSON for programs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from mechicl.views import estimand_label
from mechicl.wording import p_value, with_interval

UNITS = {"probability": "probability per probability", "logit": "nats per nat"}


def as_text(result: Any) -> str:
    """The verdict of an inverse frequency analysis, and one line an estimand and scale."""
    lines = [result.verdict, ""]
    for scale in dict.fromkeys(result.estimates["scale"]):
        lines.append(f"{scale} scale ({UNITS[scale]}), {result.level:.0%} intervals over {len(result.verbs)} verbs")
        for _, row in result.estimates[result.estimates["scale"] == scale].iterrows():
            numbers = with_interval(row["estimate"], row["low"], row["high"])
            tests = f"{p_value(row['p_holm']):9} (Holm)   OLS {p_value(row['p_ols'])}"
            lines.append(f"  {estimand_label(row['estimand'], result.forms):38} {numbers:24}  {tests}")
        lines.append("")
    return "\n".join(lines).rstrip()


def as_json(result: Any) -> str:
    """Verdict, evidence, estimates, the table of verbs and provenance; what is not finite becomes null."""
    content = {name: getattr(result, name) for name in ("verdict", "evidence", "forms", "level")}
    content |= {name: getattr(result, name).to_dict("records") for name in ("estimates", "verbs")}
    return finite_json(content | {"provenance": asdict(result.provenance)})


def finite_json(content: Any) -> str:
    """JSON in which what is not finite is null."""
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
