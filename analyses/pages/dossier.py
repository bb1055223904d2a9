"""The dossier of a model, what `mechicl report` writes: by what mechanism does it learn from its context?

At the top the accounts, a sentence each, and the table of their shares on each task; then a section an analysis. Parts
share their work: priming is scored once, its gradient steps feed the accounts of priming, heads and kernels stand
beside the accounts. A part that the model cannot do says why in its place.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mechicl.analyses.heads.report import head_sections
from mechicl.analyses.pages.folder import check_report_folder
from mechicl.analyses.pages.method import with_head_method
from mechicl.analyses.pages.opening import opening_section, question
from mechicl.analyses.pages.parts import MISSING, STEPS, attention_figures, missing_section, run_step
from mechicl.analyses.pages.section import Section
from mechicl.analyses.pages.sections import write_sections
from mechicl.analyses.pages.workbench import Workbench
from mechicl.commands.options import PARTS, Kernel, Report, read_corpus

ON_PRIMING = ("priming", "heads", "gradient", "accounts")  # parts that read the corpus
ON_TEXTS = ("kernel", "accounts")  # parts that read the few-shot task


def write_dossier(
    options: Report, arguments: Sequence[str], folder: Path, say: Callable[[str], None]
) -> tuple[Path, Section | None, list[Section]]:
    """Measure all parts that were asked for and write the page; its path, what stands at its top, and its sections.

    Raises ValueError for mistakes in what was asked, before the model is loaded, and where none of the parts could be
    measured with the model.
    """
    check_report_folder(folder, overwrite=options.overwrite)
    wanted = PARTS if options.parts is None else tuple(dict.fromkeys(options.parts))
    if not wanted:
        raise ValueError(f"--parts stands alone; name at least one of {', '.join(PARTS)}")
    corpus, asked, refused = _checked(options, wanted, say)
    model: Any = _loaded(options) if set(wanted) - {"strategies"} else None
    bench = Workbench(model, options, corpus=corpus, asked=asked, folder=folder)
    if corpus is not None:
        corpus.save(folder / "corpus", overwrite=True)  # it replaces nothing but a corpus
    sections: list[Section] = []
    for step in STEPS:
        if step.part in wanted and step.part in refused:
            sections.append(missing_section(step, refused[step.part]))
        elif step.part in wanted:
            if not options.quiet:
                say(f"{step.question.removesuffix('?')} ...")
            sections += run_step(step, bench, say)
    own = [section for section in sections if not section.about]
    if own and all(section.verdict == MISSING for section in own):
        raise ValueError(f"nothing could be measured with this model; first, {own[0].slug}: {own[0].brief}")
    known = [result.provenance for section in own for result in section.results.values()]
    name = next((one.model for one in known if one.model), options.model)
    tables = bench.done_like("accounts of ")
    opening = opening_section(name, tables, sections) if tables else None
    page = write_sections(
        folder,
        _with_head_method(sections, bench),
        title=question(name),
        subtitle=_subtitle(known, options, corpus, asked),
        opening=opening,
        attention=attention_figures(bench, say),
        level=0.95,
        overwrite=options.overwrite,
        command=shlex.join(["mechicl", *arguments]),
    )
    return page, opening, sections


def _checked(
    options: Report, wanted: Sequence[str], say: Callable[[str], None]
) -> tuple[Any, dict[str, Any] | None, dict[str, str]]:
    """Corpus, few-shot task, and parts that this corpus does not allow, with the reason; a part that was named and is
    not allowed is a mistake."""
    from mechicl.analyses.implicit_gradient import check_account
    from mechicl.analyses.kernels.command import account_options
    from mechicl.analyses.strategies.shipped import shipped_strategies
    from mechicl.analyses.verb_table import check_slopes_defined
    from mechicl.commands.strategies import DEFAULT
    from mechicl.tasks.fewshot_sources import load_task

    for name, value, needed in (("--task", options.task, ON_TEXTS), ("--setting", options.setting, ("strategies",))):
        if value is not None and not set(needed) & set(wanted):
            raise ValueError(f"{name} is about {' and '.join(needed)}; name one of them in --parts")
    if "strategies" in wanted:
        shipped_strategies(options.setting or DEFAULT)
    corpus, refused = None, {}
    if set(ON_PRIMING) & set(wanted):
        corpus = read_corpus(options)
        check_slopes_defined(sorted(set(corpus.to_frame()["prime_verb"])), None)
        if not options.quiet:
            say(f"{corpus.name}: {len(corpus):,} pairs of prime and target, {len(corpus.verbs)} verbs")
        try:
            check_account(corpus)
        except ValueError as error:
            if options.parts is not None and "gradient" in wanted:
                raise
            refused["gradient"] = f"{str(error)[:1].upper()}{str(error)[1:]}."
    asked = None
    if set(ON_TEXTS) & set(wanted):
        shared = {name: getattr(options, name) for name in ("model", "size", "seed", "quiet", "demos")}
        asked = account_options(load_task(options.task or "sentiment"), Kernel(**shared), say)
    return corpus, asked, refused


def _loaded(options: Report) -> Any:
    import mechicl

    if options.quiet:
        from transformers.utils import logging

        logging.disable_progress_bar()  # that of loading weights
    return mechicl.load(options.model, device=options.device, dtype=options.dtype)


def _with_head_method(sections: Sequence[Section], bench: Workbench) -> list[Section]:
    """The first section of heads says how they were found, for all of them."""
    maps = bench.done_like("heads ")
    slugs = {section.slug for section in head_sections(maps)}
    ours = [section for section in sections if section.slug in slugs and section.verdict != MISSING]
    said = {section.slug: section for section in with_head_method(ours, maps, bench.done("ife"))}
    return [said.get(section.slug, section) for section in sections]


def _subtitle(known: Sequence[Any], options: Report, corpus: Any, asked: dict[str, Any] | None) -> str:
    """The model's size, what it read, and when."""
    n_params = next((one.n_params for one in known if one.n_params is not None), None)
    parts = [
        "" if n_params is None else f"{n_params:,} parameters",
        "" if corpus is None else f"corpus “{corpus.name}”, {len(corpus):,} pairs of prime and target",
        "" if asked is None else f"task “{asked['task'].name}”",
        f"size {options.size}",
    ]
    last = max((one.created for one in known), default="")
    when = f" {last[:16].replace('T', ' ')} UTC." if last else ""
    return f"{'; '.join(part for part in parts if part)}.{when}"
