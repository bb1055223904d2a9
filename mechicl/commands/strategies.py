"""`mechicl strategies`: its options, and the Bayesian account as plain text for a terminal and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mechicl.commands.train import SettingName
from mechicl.wording import number, p_value, with_interval

DEFAULT: SettingName = "balls_and_urns"
WORDS = {
    "d_rel": "correlation of d_rel",
    "spearman": "rank correlation of predictions",
    "r2": "R² of predictions",
    "agreement": "same likeliest label",
    "loss": "distance to the predictions",
}


@dataclass(frozen=True, kw_only=True)
class Strategies:
    """Do Bayesian odds of memorising and generalising predict training? A report, of a run or of shipped results."""

    setting: SettingName | None = None
    """Which mixture of tasks; by default that of --results, or balls_and_urns."""
    results: Path | None = None
    """Folder that `mechicl train` filled; by default the results that come with the package are shown."""
    context: int | None = None
    """Of a run with several: the length of sequences, C."""
    dim: int | None = None
    """Of a run with several: colours, states or dimensions, d."""
    mlp: int | None = None
    """Of a run with several: the width of the MLPs."""
    layers: int | None = None
    """Of a run with several: the number of layers."""
    sequences: int = 128
    """Held-out sequences that every checkpoint reads."""
    held_out: float = 0.2
    """Share of the last checkpoints, and of the largest diversities, that the fit never sees."""
    refits: int = 200
    """On redrawn seeds and sequences, for intervals; at least 100, or 0 for none."""
    out: Path | None = None
    """Folder of the report; by default in report/, named after the setting."""
    overwrite: bool = False
    """Replace a report that the folder already holds."""
    json: bool = False
    """Print JSON instead of sentences."""
    device: str = "cpu"
    """Where checkpoints are run: cpu, cuda, cuda:1."""
    seed: int = 0
    """Of the refits and the shuffles."""
    quiet: bool = False
    """No bars and messages."""

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that were named, as `read_run` knows them."""
        own = {"context": self.context, "dim": self.dim, "d_mlp": self.mlp, "n_layers": self.layers}
        return {name: value for name, value in own.items() if value is not None}


def strategies_folder(options: Strategies, setting: str) -> Path:
    """Where the report goes: as told, or report/ and the setting."""
    return options.out if options.out is not None else Path("report") / f"{setting}-strategies"


def strategies_as_text(found: Any) -> str:
    """The verdict, then a line a measure: where the model of training was fitted, where it was not, and the control."""
    table = found.fit.measures.set_index(["measure", "cells"])
    lines = [found.verdict, "", f"The model of training ({found.fit.level:.0%} intervals over seeds and sequences):"]
    for name, words in WORDS.items():
        held = table.loc[(name, "held_out")]
        if table.loc[(name, "fitted")].isna().all():  # of means there is no likeliest label
            continue
        digits = 4 if name == "loss" else 3
        fitted, other = (
            with_interval(float(row["value"]), float(row["low"]), float(row["high"]), digits)
            for row in (table.loc[(name, "fitted")], held)
        )
        p = f"   {p_value(float(held['p']))}" if held["p"] == held["p"] else ""
        lines.append(
            f"  {words:32} fitted {fitted:26} not fitted {other:26} control {number(float(held['control']), digits)}{p}"
        )
    return "\n".join([*lines, ""])


def strategies_as_json(found: Any, report: Path) -> str:
    """What the account holds except single cells; what is not finite becomes null."""
    from mechicl.commands.printing import finite_json  # which draws on matplotlib, as `--help` does not

    fit = found.fit
    content: dict[str, Any] = {
        "report": str(report),
        "verdict": found.verdict,
        "setting": found.setting,
        "sizes": found.sizes,
        "steps": fit.terms.steps.tolist(),
        "diversities": fit.terms.diversities.tolist(),
        "kept": fit.kept.tolist(),
        "converged": fit.converged,
        "warnings": [*fit.warnings, *found.transitions.warnings],
    }
    frames = {
        "parameters": fit.parameters,
        "measures": fit.measures,
        "baselines": fit.baselines,
        "transitions": found.transitions.times,
        "exponents": found.transitions.scaling,
        "transience": found.transience,
        "predictor_losses": found.predictor_losses,
    }
    more = {"ablations": found.ablations, "three": found.three, "context_odds": found.context}
    frames |= {name: part.to_frame() for name, part in more.items() if part is not None}
    content |= {name: frame.to_dict("records") for name, frame in frames.items()}
    return finite_json(content | {"provenance": asdict(found.provenance)})
