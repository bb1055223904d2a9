"""The kernel account of a model on film reviews: writes its numbers beside this file.

    python tests/benchmarks/kernel_reviews.py                       # SmolLM2; takes long, see --store
    python tests/benchmarks/kernel_reviews.py --model gemma3-270m
    python tests/benchmarks/kernel_reviews.py --prompts 40 --queries 12 --out /tmp/try.md

Reads movie_reviews.tsv (10,605 snippets with a score from -4 to 4; Hutto and Gilbert 2014) from the folder that
MECHICL_DATA names; nothing of the texts is written. Reviews of less than 200 characters with a score beyond 1.5 on
either side, 8 demonstrations, 4 of each label. Finished work is kept in `--store` and reused.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

import mechicl
from mechicl.analyses.kernel_account import KernelAccount, measure_kernel_account
from mechicl.tasks import FewShotTask, load_task

HERE = Path(__file__).parent
DATA = Path(os.environ.get("MECHICL_DATA", HERE.parents[2] / "shared" / "data"))
SHOWN = ["layer", "head", "demos", "kernel", "unique_r2", "unique_r2_low", "unique_r2_high", "position_r2", "label_r2",
         "agreement_label", "accuracy_label", "kind", "p_fwe", "follows_kernel"]  # fmt: skip


def reviews(longest: int) -> FewShotTask:
    """The task, without long texts."""
    task = load_task(DATA / "movie_reviews.tsv", score="score", threshold=1.5, template="review", name="reviews")
    return replace(task, frame=task.frame[task.frame["text"].str.len() < longest])


def table(frame: pd.DataFrame, digits: int = 2) -> str:
    """Markdown; nothing where there is no number."""

    def cell(value: object) -> str:
        if isinstance(value, (bool, np.bool_, int, np.integer)):
            return str(value)
        if isinstance(value, (float, np.floating)):
            return "" if np.isnan(value) else f"{value:.{digits}f}"
        return str(value)

    rows = [list(frame.columns), ["---"] * frame.shape[1], *([cell(x) for x in row] for row in frame.to_numpy(object))]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def page(found: KernelAccount, command: str) -> str:
    """All tables of an account."""
    regression = found.regression
    best = regression.heads.sort_values("unique_r2", ascending=False)
    judged = int(regression.evaluation.sum())
    kinds = regression.heads["kind"].value_counts().rename_axis("attention follows").reset_index(name="heads")
    parts = [
        f"# The kernel account of {found.provenance.model} on film reviews",
        f"Regenerate with `{command}`. {len(regression.evaluation)} prompts, {judged} of them "
        f"not used to choose heads and kernels; {regression.n_demos} demonstrations. Brackets and low, high: 95%.",
        found.verdict,
        "## Answers rebuilt\n\n" + table(regression.rebuilt),
        "## Heads\n\n" + table(kinds),
        table(best[SHOWN].head(12), 3),
    ]
    if found.attention is not None:
        whole = found.attention.frame.query("layer == 'all'")
        parts.append("## Attention of the last token, mean over layers\n\n" + table(whole))
    if found.probes is not None:
        parts.append("## Keys and values, best of all heads (a maximum)\n\n" + table(found.probes.best()))
    if found.causality is not None:
        rows = found.causality.frame.query(
            "condition == 'kernel' and measure in ('faithfulness', 'agreement', 'moved')"
        )
        parts.append("## Attention replaced by the kernel's weights\n\n" + table(rows))
    if found.phenomena is not None:
        trials = found.phenomena
        parts.append("## Conditions\n\n" + table(trials.frame.drop(columns=["n"])))
        parts.append(table(trials.orders))
        parts.append(table(trials.correlations))
    return "\n\n".join(parts) + "\n"


def main(
    model: str = "smollm2",
    prompts: int = 120,
    queries: int = 40,
    longest: int = 200,
    seed: int = 0,
    out: Path | None = None,
    store: Path | None = None,
) -> None:
    """Measure and write."""
    found = measure_kernel_account(
        mechicl.load(model), reviews(longest), n_prompts=prompts, n_phenomena=queries, seed=seed, store=store
    )
    print(found.verdict)
    asked = "" if model == "smollm2" else f" --model {model}"
    command = f"python tests/benchmarks/kernel_reviews.py{asked} --prompts {prompts} --queries {queries}"
    target = out or HERE / "results" / f"kernel_reviews_{model}.md"
    target.write_text(page(found, command), encoding="utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    tyro.cli(main)
