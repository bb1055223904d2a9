"""What the commands `heads`, `gradient` and `ife` do with a corpus: measure, and write the report.

Analyses are imported when a command needs them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mechicl.commands.messages import report_folder, say
from mechicl.commands.options import PATHS, UPDATED, Ife, Reporting, read_corpus


def written(
    options: Reporting,
    arguments: Sequence[str],
    effects: Sequence[str],
    asked: dict[str, Any],
    steps: dict[str, Any] | None = None,
) -> tuple[Path, list[Any], Any]:
    """Measure priming, localise each effect, take gradient steps if told how, write the report; its path, head maps and
    gradient account."""
    from mechicl.analyses.report import check_report_folder, write_report

    folder = report_folder(options)
    check_report_folder(folder, overwrite=options.overwrite)
    corpus = read_corpus(options)
    if effects:
        from mechicl.analyses.functionals import functional_of

        for effect in effects:  # a slip of the pen shows before anything is scored
            functional_of(effect, corpus.forms, neutral=True)
    if steps is not None:
        from mechicl.analyses.implicit_gradient import check_account

        check_account(corpus, **{name: value for name, value in steps.items() if name != "parameters"})
    model, priming, ife = measured(options, corpus, store=folder / "scores")
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
    return page, maps, found


def measured(options: Reporting | Ife, corpus: Any, *, store: Path | None, norms: Any = None) -> tuple[Any, Any, Any]:
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
        say(f"{corpus.name}: {len(corpus):,} pairs of prime and target, {len(corpus.verbs)} verbs")
    model = mechicl.load(options.model, device=options.device, dtype=options.dtype)
    measured = measure_priming(model, corpus, store=store, progress=not options.quiet, seed=options.seed)
    return model, measured, inverse_frequency_effect(measured, bias=norms, seed=options.seed)
