"""The parts of a dossier: what each measures, and its sections; one that a model cannot do says why."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mechicl.analyses.pages.section import Drawing, Section
from mechicl.analyses.pages.workbench import FAILURES, Workbench
from mechicl.analyses.strategies.words_shared import setting_words
from mechicl.commands.strategies import DEFAULT

MISSING = "Could not be measured"
ON_TEXTS = "Another task can be named with --task, fewer demonstrations with --demos."
OTHERS = (
    "Of other models: transformers that were trained for this question on {words}, whose results come with the package."
)


@dataclass(frozen=True)
class Step:
    """One step of a part: the slug and question of its section, should it fail, what makes its sections, and what may
    help where it fails."""

    part: str
    slug: str
    question: str
    sections: Callable[[Workbench], Sequence[Section]]
    hint: str = ""


def run_step(step: Step, bench: Workbench, say: Callable[[str], None]) -> list[Section]:
    """Its sections; where the model cannot do it, one section that says why. With MECHICL_DEBUG set, failures rise."""
    try:
        found = list(step.sections(bench))
    except FAILURES as error:
        if os.environ.get("MECHICL_DEBUG"):
            raise
        say(f"warning: {step.slug} could not be measured: {_reason(error)}")
        return [missing_section(step, _reason(error))]
    return [replace(one, drawings=[_guarded(drawing, say) for drawing in one.drawings]) for one in found]


def _guarded(drawing: Drawing, say: Callable[[str], None]) -> Drawing:
    """The same picture; where it cannot be drawn, a sentence that says so: one picture must not lose a page."""

    def draw(ax: Any) -> Any:
        try:
            return drawing.draw(ax)
        except FAILURES as error:
            if os.environ.get("MECHICL_DEBUG"):
                raise
            say(f"warning: the picture {drawing.name} could not be drawn: {_reason(error)}")
            ax.clear()
            ax.set_axis_off()
            return ax.text(0.5, 0.5, f"This picture could not be drawn:\n{_reason(error)}", ha="center", wrap=True)

    return replace(drawing, draw=draw)


def missing_section(step: Step, reason: str) -> Section:
    """What stands in the place of a step that could not be done."""
    return Section(
        slug=step.slug,
        question=step.question,
        kind="none",
        verdict=MISSING,
        brief=reason,
        sentence=f"This could not be measured with this model: {reason} {step.hint}".strip(),
    )


def _reason(error: Exception) -> str:
    """The error's first line, as a sentence."""
    words = (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith('.') else '.'}"


def _priming(bench: Workbench) -> list[Section]:
    from mechicl.analyses.pages.priming import priming_section

    return [priming_section(bench.priming())]


def _ife(bench: Workbench) -> list[Section]:
    from mechicl.analyses.pages.priming import ife_section

    return [ife_section(bench.priming(), bench.ife())]


def _heads(effect: str) -> Callable[[Workbench], list[Section]]:
    def sections(bench: Workbench) -> list[Section]:
        from mechicl.analyses.heads.report import head_sections

        found = bench.heads(effect)
        return head_sections([found], [bench.paths(effect)])

    return sections


def _gradient(bench: Workbench) -> list[Section]:
    from mechicl.analyses.gradient.report import gradient_section

    return [gradient_section(bench.implicit())]


def _kernel(bench: Workbench) -> list[Section]:
    from mechicl.analyses.kernels.report import kernel_section

    return [kernel_section(bench.kernel())]


def _priming_accounts(bench: Workbench) -> list[Section]:
    from mechicl.analyses.rivals.report import accounts_section

    return [accounts_section(bench.priming_accounts(), shares=False)]


def _fewshot_accounts(bench: Workbench) -> list[Section]:
    from mechicl.analyses.rivals.report import accounts_section

    return [accounts_section(bench.fewshot_accounts(), shares=False)]


def _strategies(bench: Workbench) -> list[Section]:
    from mechicl.analyses.strategies.command import shipped_sections
    from mechicl.analyses.strategies.report import strategies_section
    from mechicl.analyses.strategies.shipped import shipped_strategies

    setting = bench.options.setting or DEFAULT
    found = [strategies_section(shipped_strategies(setting)), *shipped_sections(setting)]
    return [of_others(section, setting) for section in found]


STEPS: tuple[Step, ...] = (
    Step("priming", "priming", "Does it show structural priming?", _priming),
    Step("priming", "ife", "Does it show the inverse frequency effect?", _ife),
    Step("heads", "heads_priming", "Which heads drive structural priming?", _heads("priming")),
    Step("heads", "heads_ife", "Which heads drive the inverse frequency effect?", _heads("ife")),
    Step("gradient", "gradient", "Does learning in context go like a gradient step?", _gradient),
    Step("kernel", "kernel", "Does it answer by a kernel regression over its demonstrations?", _kernel, ON_TEXTS),
    Step("accounts", "accounts_priming", "Which account explains what one prime does?", _priming_accounts),
    Step(
        "accounts",
        "accounts_few_shot",
        "Which account explains its answers to few-shot prompts?",
        _fewshot_accounts,
        ON_TEXTS,
    ),
    Step("strategies", "strategies", "Do Bayesian odds of two strategies predict training?", _strategies),
)


def of_others(section: Section, setting: str) -> Section:
    """The same section, said to be of other models than the page's."""
    return replace(section, about=OTHERS.format(words=setting_words(setting)))


def attention_figures(bench: Workbench, say: Callable[[str], None]) -> list[Any]:
    """Figures to explore, of the heads that were confirmed and named; none where the model does not show attention."""
    try:
        return _figures(bench)
    except FAILURES as error:
        if os.environ.get("MECHICL_DEBUG"):
            raise
        say(f"warning: attention could not be shown: {_reason(error)}")
        return []


def _figures(bench: Workbench) -> list[Any]:
    figures: list[Any] = []
    maps = bench.done_like("heads ")
    if maps:
        from mechicl.analyses.heads.viewer import example_attention

        figures += example_attention(bench.model, maps, bench.corpus)
    kernel = bench.done("kernel")
    if kernel is not None and bench.asked is not None:
        from mechicl.analyses.kernels.command import example_figures

        figures += example_figures(bench.model, kernel, dict(bench.asked))
    return figures
