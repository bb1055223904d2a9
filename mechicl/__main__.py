"""The command line, a thin door without science: `mechicl report`, `accounts`, `heads`, `train` and more.

Results go to stdout, bars and messages to stderr. Exit codes: 0 done, 2 a mistake in what was asked (one line says
which; set MECHICL_DEBUG=1 to see where), 130 interrupted. Heavy libraries are imported by the commands that need them,
so that `--help` and `models` answer at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import tyro

from mechicl.commands.accounts import Accounts
from mechicl.commands.messages import each_once, report_folder, say, what_is_kept
from mechicl.commands.options import PATCHED, Gradient, Heads, Ife, Kernel, Models, Report, read_corpus, read_table
from mechicl.commands.strategies import Strategies
from mechicl.commands.train import Train, run_train

Command = (
    Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Heads, tyro.conf.subcommand("heads")]
    | Annotated[Gradient, tyro.conf.subcommand("gradient")]
    | Annotated[Kernel, tyro.conf.subcommand("kernel")]
    | Annotated[Accounts, tyro.conf.subcommand("accounts")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Strategies, tyro.conf.subcommand("strategies")]
    | Annotated[Ife, tyro.conf.subcommand("ife")]
    | Annotated[Models, tyro.conf.subcommand("models")]
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):  # a console that knows no minus sign or Greek gets a "?", not a crash
        getattr(stream, "reconfigure", lambda **_: None)(errors="replace")
    if arguments == ["--version"]:
        from mechicl import __version__

        print(f"mechicl {__version__}")
        return 0
    try:
        command: Any = tyro.cli(
            Command,  # type: ignore[arg-type]
            prog="mechicl",
            description="By what mechanism does a transformer learn from its context?",
            args=arguments,
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as stop:  # --help, or an argument that does not parse: tyro has said so
        return stop.code if isinstance(stop.code, int) else 2
    runs: dict[type, Callable[[Any, Sequence[str]], None]] = {
        Report: _report,
        Heads: _heads,
        Gradient: _gradient,
        Kernel: _kernel,
        Accounts: _accounts,
        Train: lambda options, _: run_train(options),
        Strategies: _strategies,
        Ife: _ife,
        Models: _models,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = each_once()
        try:
            runs[type(command)](command, arguments)
        except KeyboardInterrupt:
            say(f"stopped. {what_is_kept(command)}")
            return 130
        except (ValueError, OSError) as error:
            if os.environ.get("MECHICL_DEBUG"):
                raise
            say(f"error: {error}")
            return 2
    return 0


def _report(options: Report, arguments: Sequence[str]) -> None:
    from mechicl.analyses.pages.dossier import write_dossier

    page, opening, sections = write_dossier(options, arguments, report_folder(options), say)
    if opening is not None:
        print("\n".join([opening.sentence, *(f"{name}: {text}" for name, text in opening.points), ""]))
    for section in sections:
        print(f"{section.question} {section.verdict}. {section.brief}".rstrip())
    print(f"Report: {page.resolve()}")


def _gradient(options: Gradient, arguments: Sequence[str]) -> None:
    from mechicl.analyses.pages.command import written

    names = ("learning_rate", "steps", "optimizer", "parameters")
    page, _, found = written(options, arguments, (), {}, {name: getattr(options, name) for name in names})
    from mechicl.commands.gradient import gradient_as_json, gradient_as_text

    print(gradient_as_json(found, page.resolve()) if options.json else gradient_as_text(found))
    if not options.json:
        print(f"Report: {page.resolve()}")


def _kernel(options: Kernel, arguments: Sequence[str]) -> None:
    from mechicl.analyses.kernels.command import run_kernel

    run_kernel(options, arguments, report_folder(options), say)


def _accounts(options: Accounts, arguments: Sequence[str]) -> None:
    from mechicl.analyses.rivals.command import run_accounts

    run_accounts(options, arguments, report_folder(options), say)


def _strategies(options: Strategies, arguments: Sequence[str]) -> None:
    from mechicl.analyses.strategies.command import run_strategies

    run_strategies(options, arguments, say)


def _heads(options: Heads, arguments: Sequence[str]) -> None:
    if not options.effect:
        raise ValueError("--effect stands alone; name at least one effect, such as priming or ife")
    asked: dict[str, Any] = {"scale": options.scale, "roles": options.roles, "ablation": options.ablation}
    asked |= PATCHED[options.size] | {"n_candidates": options.candidates}
    if options.items is not None:
        asked["n_items"] = options.items
    from mechicl.analyses.pages.command import written

    page, maps, _ = written(options, arguments, options.effect, asked)
    from mechicl.commands.heads import heads_as_json, heads_as_text

    if options.json:
        print(heads_as_json(maps, page.resolve()))
        return
    for head_map in maps:
        print(heads_as_text(head_map))
    print(f"Report: {page.resolve()}")


def _ife(options: Ife, arguments: Sequence[str]) -> None:
    from mechicl.analyses.inverse_frequency import inverse_frequency_effect
    from mechicl.analyses.pages.command import measured
    from mechicl.commands.printing import as_json, as_text

    if (options.model is None) == (options.scores is None):
        raise ValueError("give either --model, to score a corpus, or --scores, a table of scores (one of the two)")
    if options.scores is None:
        if options.outcomes is not None:
            raise ValueError("--outcomes names columns of a table; it belongs to --scores")
        *_, result = measured(options, read_corpus(options), store=options.keep, norms=read_table(options.norms))
    else:
        outcomes = None if options.outcomes is None else dict(zip(options.forms, options.outcomes, strict=True))
        result = inverse_frequency_effect(
            read_table(options.scores),
            bias=read_table(options.norms),
            forms=options.forms,
            outcomes=outcomes,
            seed=options.seed,
        )
    print(as_json(result) if options.json else as_text(result))


def _models(options: Models, arguments: Sequence[str]) -> None:
    from mechicl.models import model_status

    rows = model_status()
    width = max(len(row.name) for row in rows)
    for row in rows:
        print(f"{row.name:{width}}  {'ready    ' if row.ready else 'not ready'}  {row.detail}")
        if row.command:
            print(f"{'':{width}}  make it ready:  {row.command}")


if __name__ == "__main__":
    sys.exit(main())
