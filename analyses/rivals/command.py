"""What `mechicl accounts` does: choose model and task, check what was asked, compare accounts, write the report."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mechicl.commands.accounts import Accounts, accounts_as_json, accounts_as_text, compared
from mechicl.commands.options import read_corpus

Loads = Callable[[], Any]


def run_accounts(options: Accounts, arguments: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    """Compare and report; print the verdict and the table of shares."""
    from mechicl.analyses.pages.folder import check_report_folder

    check_report_folder(folder, overwrite=options.overwrite)
    kind, task, loads = chosen(options)
    asked = _sizes(options, kind, task)
    if options.quiet:
        from transformers.utils import logging

        logging.disable_progress_bar()  # that of loading weights
    from mechicl.analyses.accounts import compare_accounts
    from mechicl.analyses.pages.sections import write_sections
    from mechicl.analyses.report import moment
    from mechicl.analyses.rivals.report import accounts_section
    from mechicl.analyses.rivals.report_words import titled

    model = loads()
    store = None if kind == "numeric" else folder / ("accounts" if kind == "few-shot" else "")
    found = compare_accounts(model, task, store=store, seed=options.seed, progress=not options.quiet, **asked)
    if kind == "priming":
        task.save(folder / "corpus", overwrite=True)
    name = found.provenance.model or options.model
    page = write_sections(
        folder,
        [accounts_section(found)],
        title=f"Which account of in-context learning explains {name}?",
        subtitle=f"{titled(found)}. {moment(found)}",
        level=found.level,
        overwrite=options.overwrite,
        command=shlex.join(["mechicl", *arguments]),
    )
    if options.json:
        print(accounts_as_json(found, page.resolve()))
        return
    print(accounts_as_text(found))
    print(f"Report: {page.resolve()}")


def chosen(options: Accounts) -> tuple[str, Any, Loads]:
    """The kind of task (priming, few-shot or numeric), the task, and what loads the model.

    Raises ValueError for a task of texts with a model of numbers, and what reading the task refuses.
    """
    own = shipped_model(options)
    if own is not None:
        kind, task, loads = own
        if options.task not in (None, "priming" if kind == "priming" else options.model):
            raise ValueError(
                f"{options.model} comes along with a task of its own and cannot read {options.task!r}; leave --task out"
            )
        return kind, task, loads
    import mechicl

    def load() -> Any:
        return mechicl.load(options.model, device=options.device, dtype=options.dtype)

    if options.task == "priming":
        if options.lengths is not None:
            raise ValueError("--lengths is about demonstrations; a context of priming is one prime")
        return "priming", read_corpus(options), load
    if options.corpus is not None or options.pronoun:
        raise ValueError("--corpus and --pronoun are about priming; give --task priming with them")
    from mechicl.tasks.fewshot_sources import load_task

    names = ("text", "label", "score")
    task = load_task(options.task or "sentiment", **{name: getattr(options, name) for name in names})
    return "few-shot", task, load


def shipped_model(options: Accounts) -> tuple[str, Any, Loads] | None:
    """Kind, task and loader of a model that comes with the package, by its name; None for other names.

    Raises ValueError for a name that is nearly one of them.
    """
    from mechicl.organisms.classification_recipes import CLASSIFIERS, find_classifier
    from mechicl.organisms.grid.examples import GRID_MODELS, grid_model_folder, load_grid_model
    from mechicl.organisms.recipes import RECIPES
    from mechicl.organisms.regression_recipes import REGRESSORS, find_regressor

    name = options.model
    how: dict[str, Any] = {"device": options.device, "dtype": options.dtype}
    if name in REGRESSORS:
        from mechicl.organisms.regressors import load_regressor

        return "numeric", find_regressor(name).task, lambda: load_regressor(name, **how)
    if name in CLASSIFIERS:
        from mechicl.organisms.classifiers import load_classifier

        return "numeric", find_classifier(name).task, lambda: load_classifier(name, **how)
    if name in GRID_MODELS:
        from mechicl.organisms.grid.store import read_point

        how["device"] = options.device or "cpu"
        return "numeric", read_point(grid_model_folder(name)).task, lambda: load_grid_model(name, **how)
    if name in RECIPES:
        from mechicl.organisms.shipped import load_organism
        from mechicl.tasks.speaker_pairs import speaker_corpus

        corpus = (
            speaker_corpus(targets_per_verb=2, seed=options.seed) if options.corpus is None else read_corpus(options)
        )
        return "priming", corpus, lambda: load_organism(name, **how)
    _check_spelling(name, [*REGRESSORS, *CLASSIFIERS, *GRID_MODELS, *RECIPES])
    return None


def _check_spelling(name: str, shipped: Sequence[str]) -> None:
    """A slip of the pen would be asked for on the hub; a name there may be like ours, but not by one sign or two."""
    from mechicl.packaged import KNOWN_MODELS

    if name in KNOWN_MODELS or Path(name).exists() or "/" in name:
        return
    known = [*KNOWN_MODELS, *shipped]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if near:
        raise ValueError(f"unknown model {name!r}; did you mean {near[0]!r}? There are {', '.join(known)}")


def _sizes(options: Accounts, kind: str, task: Any) -> dict[str, Any]:
    """Numbers of contexts, as asked or as the size says."""
    asked = compared(kind, options.size, task)
    for name, value in (("n_contexts", options.contexts), ("n_orders", options.orders), ("lengths", options.lengths)):
        if value is not None:
            asked[name] = value
    if "lengths" in asked and (not asked["lengths"] or min(asked["lengths"]) < 1):
        raise ValueError(f"got --lengths {' '.join(map(str, asked['lengths']))}; expected numbers of 1 or more")
    return asked
