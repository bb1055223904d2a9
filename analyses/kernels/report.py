"""What a report says about the kernel account: card, sentences, tables, pictures, method and caveats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mechicl.analyses.kernels import report_tables as tables
from mechicl.analyses.kernels.report_drawings import SLUG, kernel_drawings
from mechicl.analyses.kernels.report_method import CAVEATS, method
from mechicl.analyses.kernels.report_words import card, notes, paragraphs
from mechicl.analyses.kernels.words import rebuilt_sentence
from mechicl.analyses.pages.content import option_words
from mechicl.analyses.pages.section import Section

if TYPE_CHECKING:
    from mechicl.analyses.kernel_account import KernelAccount

FRAMES = {
    "rebuilt": "the model's answers rebuilt: agreement, chance, accuracy",
    "heads": "one row a head: agreement, kernel, R² with intervals, nuisances",
    "kernels": "the kernels that were tried",
    "curves": "log attention over the kernel for named heads, in bins",
    "attention": "attention of the last token by layer and kind of token",
    "probes": "probes of keys and values",
    "causality": "replaced attention: every measure and control",
    "replaced_items": "one row a prompt of these",
    "phenomena": "accuracy by condition and predictor",
    "phenomena_accounts": "differences of model and accounts by condition",
    "phenomena_orders": "accuracy over orders",
    "phenomena_correlations": "accounts' accuracy against the model's over conditions",
}


def kernel_section(found: KernelAccount) -> Section:
    """The section of `mechicl.analyses.report` and `mechicl.analyses.pages.sections`."""
    regression = found.regression
    kind, verdict = card(found)
    shown = [tables.rebuilt_table(regression), tables.heads_table(regression)]
    if found.causality is not None:
        shown.append(tables.causality_table(found.causality))
    if found.phenomena is not None:
        shown.append(tables.phenomena_table(found.phenomena))
    if found.probes is not None:
        shown.append(tables.probes_table(found.probes))
    return Section(
        slug=SLUG,
        question="Does it answer by a kernel regression over its demonstrations?",
        kind=kind,
        verdict=verdict,
        brief=rebuilt_sentence(regression.rebuilt, regression.accuracy),
        sentence=regression.verdict,
        paragraphs=paragraphs(found),
        tables=shown,
        drawings=kernel_drawings(found),
        method=method(found),
        caveats=[*CAVEATS, *notes(found)],
        frames={f"{SLUG}_{name}": (frame, FRAMES[name]) for name, frame in _frames(found).items()},
        results={"kernel_account": found},
        provenance=[
            ("Kernel account", option_words(found.provenance.seeds | found.provenance.options)),
            ("Kernel regression", option_words(regression.provenance.options)),
        ],
    )


def _frames(found: KernelAccount) -> dict[str, pd.DataFrame]:
    regression = found.regression
    frames = {name: getattr(regression, name) for name in ("rebuilt", "heads", "kernels", "curves")}
    if found.attention is not None:
        frames["attention"] = found.attention.frame
    if found.probes is not None:
        frames["probes"] = found.probes.frame
    if found.causality is not None:
        frames |= {"causality": found.causality.frame, "replaced_items": found.causality.items}
    if found.phenomena is not None:
        own = found.phenomena
        frames |= {"phenomena": own.frame, "phenomena_accounts": own.accounts}
        frames |= {"phenomena_orders": own.orders, "phenomena_correlations": own.correlations}
    return frames
