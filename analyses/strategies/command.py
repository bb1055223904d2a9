"""What `mechicl strategies` does: check what was asked, read or measure the Bayesian account, write its report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mechicl.analyses.pages.section import Section
from mechicl.commands.strategies import DEFAULT, Strategies, strategies_folder
from mechicl.resampling import MIN_BOOT


def run_strategies(options: Strategies, arguments: Sequence[str], say: Callable[[str], None]) -> None:
    """Measure, or read shipped results, and report; print the verdict and the table of measures."""
    from mechicl.analyses.pages.folder import check_report_folder

    setting = asked_setting(options)
    folder = strategies_folder(options, setting)
    check_report_folder(folder, overwrite=options.overwrite)
    if options.results is None:
        from mechicl.analyses.strategies.shipped import shipped_strategies

        found = shipped_strategies(setting)
    else:
        found = measured_account(options, say)
    from mechicl.analyses.pages.sections import write_sections
    from mechicl.analyses.strategies.report import strategies_section
    from mechicl.analyses.strategies.report_words import subtitle, title
    from mechicl.commands.strategies import strategies_as_json, strategies_as_text

    inside = [] if options.results is not None else shipped_sections(setting)
    page = write_sections(
        folder,
        [strategies_section(found), *inside],
        title=title(found),
        subtitle=subtitle(found),
        overwrite=options.overwrite,
        command=shlex.join(["mechicl", *arguments]),
    )
    if options.json:
        print(strategies_as_json(found, page.resolve()))
        return
    print(strategies_as_text(found))
    print(f"Report: {page.resolve()}")


def shipped_sections(setting: str) -> list[Section]:
    """What the parts of this setting's models carry, from the results that come with the package."""
    from mechicl.analyses.components.regenerate import KERNELS, shipped_components
    from mechicl.analyses.components.report import components_section, kernels_section

    found: dict[str, Any] = shipped_components(setting)
    return [kernels_section(one) if name == KERNELS else components_section(one) for name, one in found.items()]


def asked_setting(options: Strategies) -> str:
    """The setting that was named, or that of the run.

    Raises ValueError, before any model runs, for a folder without a grid, of another setting or not trained to the end,
    for sizes that do not choose one kind of models in it, for numbers that cannot be, and for sizes without a run.
    """
    if options.results is None:
        if options.sizes:
            raise ValueError("--context, --dim, --mlp and --layers choose models of a run; they go with --results")
        return options.setting or DEFAULT
    if options.refits != 0 and options.refits < MIN_BOOT:
        raise ValueError(f"got --refits {options.refits}; expected {MIN_BOOT} or more, or 0 for no intervals")
    if not 0 <= options.held_out < 1:
        raise ValueError(f"got --held-out {options.held_out:g}; expected a share, 0 or more and below 1")
    from mechicl.analyses.strategies.readings import crossed_points
    from mechicl.organisms.grid.store import read_grid

    points = read_grid(options.results)
    settings = sorted({point.setting for point in points})
    if options.setting is not None and options.setting not in settings:
        raise ValueError(f"{options.results} holds models of {', '.join(settings)}, not of {options.setting}")
    chosen = crossed_points(points, options.sizes)
    _check_trained(options.results, chosen)
    return chosen[0].setting


def _check_trained(run: Path, points: Sequence[Any]) -> None:
    """A ValueError where training has not come to its end."""
    from mechicl.organisms.grid.store import checkpoint_steps

    missing = [point for point in points if not set(point.schedule) <= set(checkpoint_steps(run / point.name))]
    if missing:
        raise ValueError(
            f"{run} is not trained to the end: {len(missing)} of {len(points)} models lack checkpoints, "
            f"{missing[0].name} for one; run mechicl train again with the same options and it goes on"
        )


def measured_account(options: Strategies, say: Callable[[str], None]) -> Any:
    """The account of the run that was named."""
    from mechicl.analyses.strategies.account import measure_strategies

    if not options.quiet:
        say(f"reading the models of {options.results}")
    return measure_strategies(
        Path(str(options.results)),
        held_out=options.held_out,
        n_boot=options.refits,
        seed=options.seed,
        progress=not options.quiet,
        n_sequences=options.sequences,
        device=options.device,
        **options.sizes,
    )
