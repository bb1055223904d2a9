"""Head maps as plain text for a terminal, and as JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.commands.printing import finite_json
from mechicl.wording import p_value, percent, with_interval

FRAMES = ("gate", "heads", "curves", "random_sets", "attention", "controls", "verbs")


def heads_as_text(head_map: Any) -> str:
    """The verdict, and one line a candidate: its change on the confirmation half, and whether it was confirmed."""
    lines = [head_map.verdict]
    if head_map.heads.empty:
        return lines[0]
    rows = head_map.heads[head_map.heads["candidate"]]
    if len(rows):
        lines += [
            "",
            f"{head_map.effect}: change on the confirmation half ({head_map.unit}), {head_map.level:.0%} intervals",
        ]
    for _, row in rows.loc[rows["confirm_effect"].abs().sort_values(ascending=False).index].iterrows():
        change = with_interval(row["confirm_effect"], row["confirm_low"], row["confirm_high"])
        word = "confirmed" if row["confirmed"] else ""
        share = percent(row["confirm_share"])
        lines.append(
            f"  {row['name']:7} {change:26} {share:>5} of all heads   {p_value(row['confirm_p']):9}  {word}".rstrip()
        )
    return "\n".join([*lines, ""])


def heads_as_json(head_maps: Sequence[Any], report: Path) -> str:
    """All that the head maps hold, except single items; what is not finite becomes null."""
    content = {"report": str(report), "maps": [_map_content(head_map) for head_map in head_maps]}
    return finite_json(content)


def _map_content(head_map: Any) -> dict[str, Any]:
    names = ("effect", "unit", "contexts", "over", "roles", "ablation", "level", "verdict")
    content = {name: getattr(head_map, name) for name in names}
    content["confirmed"] = [f"L{layer}H{head}" for layer, head in head_map.confirmed]
    frames: dict[str, pd.DataFrame] = {name: getattr(head_map, name) for name in FRAMES}
    content |= {name: frame.to_dict("records") for name, frame in frames.items()}
    return content | {"provenance": asdict(head_map.provenance)}
