"""Accounts side by side, in every organism that comes along and in language models: writes its tables beside this file.

    python tests/benchmarks/which_account.py                        # organisms: some minutes
    python tests/benchmarks/which_account.py --model smollm2        # texts: takes long, see --store
    python tests/benchmarks/which_account.py --model gemma3-270m

Of a language model: priming on generated dative sentences, sentiment of remarks (`load_task("sentiment")`), and, where
MECHICL_DATA names a folder with movie_reviews.tsv (Hutto and Gilbert 2014), reviews of less than 200 characters with a
score beyond 1.5 on either side; nothing of the texts is written. Finished work is kept in `--store` and reused.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

import mechicl
from mechicl.analyses.accounts import AccountTable, compare_accounts
from mechicl.organisms import CLASSIFIERS, REGRESSORS, load_classifier, load_organism, load_regressor
from mechicl.organisms.classifiers import find_classifier
from mechicl.organisms.grid import GRID_MODELS, load_grid_model
from mechicl.organisms.grid.examples import grid_model_folder
from mechicl.organisms.grid.store import read_point
from mechicl.organisms.regressors import find_regressor
from mechicl.tasks import dative_corpus, load_task, speaker_corpus

HERE = Path(__file__).parent
DATA = Path(os.environ.get("MECHICL_DATA", HERE.parents[2] / "shared" / "data"))
SPEAKERS = ("delta-medium", "boost-medium", "static-medium")
COLUMNS = ["account", "family", "n_free", "parameters", "share", "low", "high", "behind", "behind_low", "behind_high"]


def organisms(n_contexts: int, seed: int) -> Iterator[tuple[str, Any, Any, dict[str, Any]]]:
    """Name, model, task and options of every model that comes along."""
    for name in REGRESSORS:
        yield name, load_regressor(name), find_regressor(name).task, {"n_contexts": n_contexts}
    for name in GRID_MODELS:
        yield name, load_grid_model(name), read_point(grid_model_folder(name)).task, {"n_contexts": n_contexts}
    for name in CLASSIFIERS:
        yield name, load_classifier(name), find_classifier(name).task, {"n_contexts": n_contexts}
    for name in SPEAKERS:
        yield name, load_organism(name), speaker_corpus(targets_per_verb=4, seed=seed), {"n_contexts": n_contexts}


def of_texts(
    name: str, n_prompts: int, n_pairs: int, store: Path | None
) -> Iterator[tuple[str, Any, Any, dict[str, Any]]]:
    """Priming and few-shot tasks of a language model."""
    model = mechicl.load(name)
    corpus = dative_corpus(design="factorial", primes_per_verb=4, targets_per_verb=6, seed=0)  # few primes to step on
    yield "priming", model, corpus, {"n_contexts": n_pairs, "store": store and store / "priming"}
    tasks = {"sentiment": load_task("sentiment")}
    if (DATA / "movie_reviews.tsv").is_file():
        reviews = load_task(DATA / "movie_reviews.tsv", score="score", threshold=1.5, template="review", name="reviews")
        tasks["reviews"] = replace(reviews, frame=reviews.frame[reviews.frame["text"].str.len() < 200])
    for task_name, task in tasks.items():
        own = store and store / task_name
        yield task_name, model, task, {"n_contexts": n_prompts, "lengths": (2, 4, 8), "store": own}


def rows_of(frame: pd.DataFrame) -> str:
    """Markdown, numbers to two decimals, or three where they are small."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return "" if value != value else f"{value:.3f}" if abs(value) < 0.1 else f"{value:.2f}"
        return str(value)

    lines = [list(frame.columns), ["---"] * frame.shape[1], *([cell(x) for x in row] for row in frame.to_numpy(object))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def section(name: str, found: AccountTable) -> str:
    """One model on one task."""
    unit = "squared units" if found.is_mean else "nats"
    lengths = ", ".join(map(str, dict.fromkeys(found.by_length["length"])))
    parts = [
        f"## {name}",
        found.verdict,
        f"Task: {found.task}. Lengths {lengths}; {found.n_judged} contexts judged ({found.n_clusters} clusters), "
        f"{found.n_fitted} fitted. Room {found.room:.4g} [{found.room_low:.4g}, {found.room_high:.4g}], ceiling "
        f"{found.ceiling:.4g} {unit}.",
        rows_of(found.frame[COLUMNS]),
    ]
    if len(found.truth):
        parts += [f"Error against the right answers ({unit}):", rows_of(found.truth)]
    if len(found.mechanisms):
        parts += ["Inside:", rows_of(found.mechanisms)]
    return "\n\n".join(parts)


def main(
    model: str | None = None,
    contexts: int = 600,
    prompts: int = 60,
    pairs: int = 400,
    seed: int = 0,
    out: Path | None = None,
    store: Path | None = None,
) -> None:
    """Measure and write.

    Args:
        model: a language model; without one the organisms are measured.
        contexts: of an organism, a length. prompts: of a language model, a length. pairs: of prime and target.
    """
    asked = organisms(contexts, seed) if model is None else of_texts(model, prompts, pairs, store)
    parts = []
    for name, own, task, options in asked:
        found = compare_accounts(own, task, seed=seed, **options)
        parts.append(section(name, found))
        print(f"{name}: {found.verdict}\n", flush=True)
    sizes = f"--contexts {contexts}" if model is None else f"--model {model} --prompts {prompts} --pairs {pairs}"
    command = f"python tests/benchmarks/which_account.py {sizes}"
    head = f"# Accounts side by side: {model or 'organisms'}\n\nRegenerate with `{command}`."
    target = out or HERE / "results" / f"which_account_{model or 'organisms'}.md"
    target.write_text("\n\n".join([head, *parts]) + "\n", encoding="utf-8")
    print(f"wrote {target}")


if __name__ == "__main__":
    tyro.cli(main)
