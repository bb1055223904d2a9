"""What `mechicl kernel` does: read the task, check what was asked, measure the kernel account, write its report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mechicl.commands.options import ACCOUNTED, Kernel

STORE = "kernel"  # of finished work, beside the report
FEWEST = 20  # different queries, of which half choose heads and kernels and half judge


def run_kernel(options: Kernel, arguments: Sequence[str], folder: Path, say: Callable[[str], None]) -> None:
    """Measure and report; print the verdict and the table of rebuilt answers."""
    from mechicl.analyses.pages.folder import check_report_folder

    check_report_folder(folder, overwrite=options.overwrite)
    asked = account_options(read_task(options), options, say)
    if options.quiet:
        from transformers.utils import logging

        logging.disable_progress_bar()  # that of loading weights
    import mechicl
    from mechicl.analyses.kernels.report import kernel_section
    from mechicl.analyses.pages.sections import write_sections
    from mechicl.commands.kernel import kernel_as_json, kernel_as_text

    model = mechicl.load(options.model, device=options.device, dtype=options.dtype)
    found = measured_account(model, asked, store=folder / STORE)
    page = write_sections(
        folder,
        [kernel_section(found)],
        title=f"Kernel regression in {found.provenance.model or options.model}",
        subtitle=f"Task \u201c{found.regression.task}\u201d, {found.regression.n_demos} demonstrations, "
        f"{asked['n_prompts']} prompts. {found.provenance.created[:16].replace('T', ' ')} UTC.",
        attention=example_figures(model, found, asked),
        overwrite=options.overwrite,
        command=shlex.join(["mechicl", *arguments]),
    )
    if options.json:
        print(kernel_as_json(found, page.resolve()))
        return
    print(kernel_as_text(found))
    print(f"Report: {page.resolve()}")


def read_task(options: Any) -> Any:
    """The few-shot task that was asked for, by `--task` and the names of columns."""
    from mechicl.tasks.fewshot_sources import load_task

    names = ("text", "label", "score", "split", "subset")
    return load_task(options.task, **{name: getattr(options, name) for name in names if hasattr(options, name)})


def account_options(task: Any, options: Any, say: Callable[[str], None]) -> dict[str, Any]:
    """What `measure_kernel_account` is asked; sizes are cut to what the task holds.

    Raises ValueError, before any model is loaded, for numbers that cannot be.
    """
    n_demos, candidates = getattr(options, "demos", 8), getattr(options, "candidates", None)
    n_rows = len(task.frame)
    if not 2 <= n_demos < n_rows:
        raise ValueError(f"got --demos {n_demos}; expected 2 to {n_rows - 1}, for the task has {n_rows} rows")
    if candidates is not None and not 2 <= candidates <= len(task.labels):
        raise ValueError(f"got --candidates {candidates}; expected 2 to {len(task.labels)}, the labels of the task")
    if n_rows - 1 < FEWEST:
        raise ValueError(f"the task has {n_rows} rows; expected more than {FEWEST}, for each prompt asks another one")
    chosen = dict(ACCOUNTED[options.size])
    if getattr(options, "parts", None) is not None:
        chosen["parts"] = options.parts
    if hasattr(options, "places") and not options.places:
        raise ValueError("--places stands alone; name at least one of ask, text, alone")
    for name in ("n_prompts", "n_phenomena"):
        chosen[name] = min(chosen[name], n_rows - 1)
    asked = chosen | {
        "task": task,
        "n_demos": n_demos,
        "n_candidates": candidates,
        "seed": options.seed,
        "progress": not options.quiet,
    }
    asked |= {name: getattr(options, name) for name in ("aggregate", "places") if hasattr(options, name)}
    if not options.quiet:
        say(f"{task.name}: {n_rows} texts, {len(task.labels)} labels; {chosen['n_prompts']} prompts of {n_demos}")
    return asked


def measured_account(model: Any, asked: dict[str, Any], *, store: Path) -> Any:
    """The kernel account."""
    from mechicl.analyses.kernel_account import measure_kernel_account

    return measure_kernel_account(
        model, asked["task"], store=store, **{name: value for name, value in asked.items() if name != "task"}
    )


def example_figures(model: Any, found: Any, asked: dict[str, Any]) -> list[Any]:
    """The heads that were named, over the first prompt that chose nothing."""
    from mechicl.analyses.kernel_account import account_prompts
    from mechicl.analyses.kernels.viewer import example_demonstrations

    prompts = account_prompts(
        model, asked["task"], asked["n_demos"], asked["n_prompts"], n_candidates=asked["n_candidates"],
        seed=asked["seed"], prepend_bos=True,
    )  # fmt: skip
    item = int(found.regression.evaluation.argmax())
    return example_demonstrations(model, found.regression, prompts[item])
