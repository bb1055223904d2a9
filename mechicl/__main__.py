"""The command line: `mechicl report`, `heads`, `gradient`, `ife` and `models`. A thin door, no science in it.

Results go to stdout, bars and messages to stderr. Exit codes: 0 done, 2 a mistake in what was asked (one line says
which; set MECHICL_DEBUG=1 to see where), 130 interrupted. Heavy libraries are imported by the commands that need them,
so that `--help` and `models` answer at once.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from mechicl.command_options import (
    PATCHED,
    PATHS,
    UPDATED,
    Gradient,
    Heads,
    Ife,
    Models,
    Report,
    Reporting,
    read_corpus,
    read_table,
)

Command = (
    Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Heads, tyro.conf.subcommand("heads")]
    | Annotated[Gradient, tyro.conf.subcommand("gradient")]
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
        Ife: _ife,
        Models: _models,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _each_once()
        try:
            runs[type(command)](command, arguments)
        except KeyboardInterrupt:
            _say(f"stopped. {_what_is_kept(command)}")
            return 130
        except (ValueError, OSError) as error:
            if os.environ.get("MECHICL_DEBUG"):
                raise
            _say(f"error: {error}")
            return 2
    return 0


def _report(options: Report, arguments: Sequence[str]) -> None:
    effects = ("priming", "ife") if options.heads else ()
    steps: dict[str, Any] | None = {} if options.gradient else None
    page, priming, ife, maps, found = _written(options, arguments, effects, PATCHED[options.size], steps)
    from mechicl.analyses.report_content import ife_answer, priming_answer

    for question, answer in (
        ("Structural priming", priming_answer(priming)),
        ("Inverse frequency effect", ife_answer(ife)),
    ):
        print(" ".join((f"{question}: {answer['verdict']}. {answer['sentence']}", answer.get("notes", ""))).rstrip())
    for head_map in maps:
        print(head_map.verdict)
    if found is not None:
        print(found.verdict)
    print(f"Report: {page.resolve()}")


def _gradient(options: Gradient, arguments: Sequence[str]) -> None:
    names = ("learning_rate", "steps", "optimizer", "parameters")
    page, *_, found = _written(options, arguments, (), {}, {name: getattr(options, name) for name in names})
    from mechicl.gradient_printing import gradient_as_json, gradient_as_text

    print(gradient_as_json(found, page.resolve()) if options.json else gradient_as_text(found))
    if not options.json:
        print(f"Report: {page.resolve()}")


def _heads(options: Heads, arguments: Sequence[str]) -> None:
    if not options.effect:
        raise ValueError("--effect stands alone; name at least one effect, such as priming or ife")
    asked: dict[str, Any] = {"scale": options.scale, "roles": options.roles, "ablation": options.ablation}
    asked |= PATCHED[options.size] | {"n_candidates": options.candidates}
    if options.items is not None:
        asked["n_items"] = options.items
    page, _, _, maps, _ = _written(options, arguments, options.effect, asked)
    from mechicl.head_printing import heads_as_json, heads_as_text

    if options.json:
        print(heads_as_json(maps, page.resolve()))
        return
    for head_map in maps:
        print(heads_as_text(head_map))
    print(f"Report: {page.resolve()}")


def _written(
    options: Reporting,
    arguments: Sequence[str],
    effects: Sequence[str],
    asked: dict[str, Any],
    steps: dict[str, Any] | None = None,
) -> tuple[Path, Any, Any, list[Any], Any]:
    """Measure, localise each effect, step if told how, write the report; its path and all results."""
    from mechicl.analyses.report import check_report_folder, write_report

    folder = _folder(options)
    check_report_folder(folder, overwrite=options.overwrite)
    corpus = read_corpus(options)
    if effects:
        from mechicl.analyses.functionals import functional_of

        for effect in effects:  # a slip of the pen shows before anything is scored
            functional_of(effect, corpus.forms, neutral=True)
    if steps is not None:
        from mechicl.analyses.implicit_gradient import check_account

        check_account(corpus, **{name: value for name, value in steps.items() if name != "parameters"})
    model, priming, ife = _measured(options, corpus, store=folder / "scores")
    corpus.save(folder / "corpus", overwrite=True)  # it replaces nothing but a corpus
    maps: list[Any] = []
    paths: list[Any] = []
    figures: list[Any] = []
    if effects:
        from mechicl.analyses.head_localization import localize_heads
        from mechicl.analyses.heads.paths import paths_between_heads
        from mechicl.analyses.heads.viewer import example_attention

        shared = {"primed": priming, "store": folder, "progress": not options.quiet, "seed": options.seed}
        maps = [localize_heads(model, corpus, effect, **asked, **shared) for effect in effects]
        how: dict[str, Any] = {"n_items": PATHS[options.size], "seed": options.seed, "progress": not options.quiet}
        paths = [paths_between_heads(model, head_map, corpus, **how) for head_map in maps]
        figures = example_attention(model, maps, corpus)
    found, more = None, []
    if steps is not None:
        from mechicl.analyses.gradient.report import gradient_section
        from mechicl.analyses.implicit_gradient import measure_implicit_gradient

        steps |= UPDATED[options.size] | {"store": folder, "progress": not options.quiet, "seed": options.seed}
        found = measure_implicit_gradient(model, corpus, primed=priming, **steps)
        more = [gradient_section(found)]
    page = write_report(
        folder,
        priming=priming,
        ife=ife,
        heads=maps,
        paths=paths,
        attention=figures,
        more=more,
        overwrite=options.overwrite,
        command=shlex.join(["mechicl", *arguments]),
    )
    return page, priming, ife, maps, found


def _ife(options: Ife, arguments: Sequence[str]) -> None:
    from mechicl.analyses.inverse_frequency import inverse_frequency_effect
    from mechicl.printing import as_json, as_text

    if (options.model is None) == (options.scores is None):
        raise ValueError("give either --model, to score a corpus, or --scores, a table of scores (one of the two)")
    if options.scores is None:
        if options.outcomes is not None:
            raise ValueError("--outcomes names columns of a table; it belongs to --scores")
        *_, result = _measured(options, read_corpus(options), store=options.keep, norms=read_table(options.norms))
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


def _measured(options: Reporting | Ife, corpus: Any, *, store: Path | None, norms: Any = None) -> tuple[Any, Any, Any]:
    """Load the model, score the corpus, test for the effect; the model and both results."""
    import mechicl
    from mechicl.analyses.inverse_frequency import inverse_frequency_effect
    from mechicl.analyses.priming import measure_priming
    from mechicl.analyses.verb_table import check_slopes_defined

    check_slopes_defined(sorted(set(corpus.to_frame()["prime_verb"])), norms)
    if options.quiet:
        from transformers.utils import logging

        logging.disable_progress_bar()  # that of loading weights
    else:
        _say(f"{corpus.name}: {len(corpus):,} pairs of prime and target, {len(corpus.verbs)} verbs")
    model = mechicl.load(options.model, device=options.device, dtype=options.dtype)
    measured = measure_priming(model, corpus, store=store, progress=not options.quiet, seed=options.seed)
    return model, measured, inverse_frequency_effect(measured, bias=norms, seed=options.seed)


def _folder(options: Reporting) -> Path:
    """Where the report goes: as told, or report/ and the model's name made fit for a folder."""
    name = re.sub(r"[^\w.-]+", "-", options.model).strip("-.") or "model"
    suffix = {Heads: "-heads", Gradient: "-gradient"}.get(type(options), "")
    default = Path("report") / f"{name}{suffix}"
    return options.out if options.out is not None else default


def _what_is_kept(command: Any) -> str:
    store = _folder(command) / "scores" if isinstance(command, Reporting) else getattr(command, "keep", None)
    if isinstance(command, Heads | Gradient) and store is not None and store.is_dir():
        return f"Finished work is kept in {store.parent}; run the same command again and it goes on from there."
    if store is not None and store.is_dir():
        return f"Finished scores are kept in {store}; run the same command again and it goes on from there."
    if isinstance(command, Ife) and command.model and store is None:
        return "Nothing was kept; with --keep FOLDER it would be."
    return "Nothing was scored yet."


def _each_once() -> Callable[..., None]:
    """How warnings are shown: a line each, and the same words only once, wherever they come from."""
    said: set[str] = set()

    def show(message: Any, *where: Any, **more: Any) -> None:
        if str(message) not in said:
            said.add(str(message))
            _say(f"warning: {message}")

    return show


def _say(text: str) -> None:
    print(f"mechicl: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
