"""The command line: `mechicl report`, `mechicl ife`, `mechicl models`. A thin door, no science in it.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Dtype = Literal["float32", "bfloat16", "float16", "float64"]
Size = Literal["small", "default", "paper"]

# What `--size` means: of a generated corpus, and how many pairs are drawn from a PrimeLM file (None: all).
# Every target meets all other verbs, and targets a verb are even in number: so every verb primes equally many targets
# with "a" and with "the", of every other verb. A verb's outcome then rests on dozens of different primes.
FEW = ("give", "send", "show", "throw", "promise", "find", "get", "make", "save", "buy", "draw")
GENERATED: dict[str, dict[str, Any]] = {
    "small": {"targets_per_verb": 2, "verbs": FEW},
    "default": {"targets_per_verb": 4},
    "paper": {"targets_per_verb": 50},
}
DRAWN: dict[str, int | None] = {"small": 200, "default": 3_000, "paper": None}


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What is scored, and how: the options that two commands share."""

    model: str | None = None
    """A known name (see `mechicl models`), a folder with model and tokenizer, or a Hugging Face id."""
    corpus: Path | None = None
    """A PrimeLM file (.csv) or the folder of a saved corpus; by default dative sentences are generated."""
    pronoun: bool = False
    """Generate sentences whose recipient is a pronoun."""
    size: Size = "default"
    """Of the generated corpus, or of the sample that is drawn from a PrimeLM file."""
    device: str | None = None
    """cpu, cuda, cuda:1, mps; by default CUDA where there is one."""
    dtype: Dtype = "float32"
    """Precision of the model."""
    seed: int = 0
    """For the corpus, the bootstrap and the permutations."""
    quiet: bool = False
    """No bars and messages."""


@dataclass(frozen=True, kw_only=True)
class Report(Scoring):
    """Score a corpus with a model and write a report: does it show structural priming and the IFE?"""

    model: str = field()  # here it must be given
    """A known name (see `mechicl models`), a folder with model and tokenizer, or a Hugging Face id."""
    out: Path | None = None
    """Folder of the report; by default report/MODEL. Finished scores are kept there and reused."""
    overwrite: bool = False
    """Replace a report that the folder already holds."""


@dataclass(frozen=True, kw_only=True)
class Ife(Scoring):
    """Test for the inverse frequency effect alone: with a model, or without one from a table of scores."""

    scores: Path | None = None
    """CSV file with one row a verb: verb, bias and the share of the first form after primes of each form."""
    norms: Path | None = None
    """CSV file of verb and bias that replaces the model's own bias."""
    forms: tuple[str, str] = ("PD", "DO")
    """With --scores: the two forms; bias and outcomes are shares of the first."""
    outcomes: tuple[str, str] | None = None
    """With --scores: the columns of the outcomes after primes of the first and the second form."""
    keep: Path | None = None
    """Folder for finished scores, from which an interrupted run goes on."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Models:
    """List the models that have a name here, whether each is ready, and what makes it ready."""


Command = (
    Annotated[Report, tyro.conf.subcommand("report")]
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
    runs: dict[type, Callable[[Any, Sequence[str]], None]] = {Report: _report, Ife: _ife, Models: _models}
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
    from mechicl.analyses.report import check_report_folder, write_report
    from mechicl.analyses.report_content import ife_answer, priming_answer

    folder = _folder(options)
    check_report_folder(folder, overwrite=options.overwrite)
    corpus = _corpus(options)
    priming, ife = _measured(options, corpus, store=folder / "scores")
    corpus.save(folder / "corpus", overwrite=True)  # it replaces nothing but a corpus
    command = shlex.join(["mechicl", *arguments])
    page = write_report(folder, priming=priming, ife=ife, overwrite=options.overwrite, command=command)
    for question, answer in (
        ("Structural priming", priming_answer(priming)),
        ("Inverse frequency effect", ife_answer(ife)),
    ):
        print(" ".join((f"{question}: {answer['verdict']}. {answer['sentence']}", answer.get("notes", ""))).rstrip())
    print(f"Report: {page.resolve()}")


def _ife(options: Ife, arguments: Sequence[str]) -> None:
    from mechicl.analyses.inverse_frequency import inverse_frequency_effect
    from mechicl.printing import as_json, as_text

    if (options.model is None) == (options.scores is None):
        raise ValueError("give either --model, to score a corpus, or --scores, a table of scores (one of the two)")
    if options.scores is None:
        if options.outcomes is not None:
            raise ValueError("--outcomes names columns of a table; it belongs to --scores")
        _, result = _measured(options, _corpus(options), store=options.keep, norms=_table(options.norms))
    else:
        outcomes = None if options.outcomes is None else dict(zip(options.forms, options.outcomes, strict=True))
        result = inverse_frequency_effect(
            _table(options.scores),
            bias=_table(options.norms),
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


def _measured(options: Report | Ife, corpus: Any, *, store: Path | None, norms: Any = None) -> tuple[Any, Any]:
    """Load the model, score the corpus, test for the effect."""
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
    return measured, inverse_frequency_effect(measured, bias=norms, seed=options.seed)


def _corpus(options: Scoring) -> Any:
    """The corpus that was asked for: read, loaded or generated."""
    path = options.corpus
    if path is None:
        from mechicl.tasks.datives import dative_corpus

        return dative_corpus(pronoun=options.pronoun, seed=options.seed, **GENERATED[options.size])
    if options.pronoun:
        raise ValueError("--pronoun is about generated sentences; it does not go with --corpus")
    if path.is_dir():
        from mechicl.tasks.corpus import load_corpus

        return load_corpus(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}; --corpus takes a PrimeLM file or a saved corpus")
    from mechicl.tasks.primelm import read_primelm

    return read_primelm(path, max_pairs=DRAWN[options.size], seed=options.seed)


def _table(path: Path | None) -> Any:
    if path is None:
        return None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; expected a CSV file")
    import pandas as pd

    return pd.read_csv(path)


def _folder(options: Report) -> Path:
    """Where the report goes: as told, or report/ and the model's name made fit for a folder."""
    name = re.sub(r"[^\w.-]+", "-", options.model).strip("-.") or "model"
    return options.out if options.out is not None else Path("report") / name


def _what_is_kept(command: Any) -> str:
    store = _folder(command) / "scores" if isinstance(command, Report) else getattr(command, "keep", None)
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
