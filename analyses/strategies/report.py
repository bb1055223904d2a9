"""What a report says about the Bayesian account: card, sentences, tables, pictures, method and caveats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from mechicl.analyses.pages.content import option_words
from mechicl.analyses.pages.section import Section
from mechicl.analyses.strategies.report_drawings import strategy_drawings
from mechicl.analyses.strategies.report_method import CAVEATS, method
from mechicl.analyses.strategies.report_tables import all_tables
from mechicl.analyses.strategies.report_words import card, notes, paragraphs
from mechicl.analyses.strategies.words import mixture_sentence, prediction_sentence
from mechicl.analyses.strategies.words_shared import setting_words

if TYPE_CHECKING:
    from mechicl.analyses.strategies.account import StrategyAccount

FRAMES = {
    "cells": "one row a seed, step and diversity: d_rel and odds, observed and predicted, residual, distances",
    "measures": "the model of training against the transformers, with controls",
    "parameters": "its fitted numbers",
    "baselines": "losses of single strategies, of one weight and of the best weights",
    "ablations": "what is left without parts of the model",
    "three": "with a constant as a third strategy",
    "context": "with odds that see the context",
    "transitions": "transition times, observed and predicted",
    "exponents": "how these grow with diversity",
    "transience": "one row a seed and diversity: the lowest and the last d_rel, losses on fresh tasks",
    "losses": "the transformers' losses at every checkpoint",
    "predictor_losses": "both strategies' losses",
}


def strategies_section(found: StrategyAccount) -> Section:
    """The section of `mechicl.analyses.report` and `mechicl.analyses.pages.sections`, one a setting."""
    slug = f"strategies_{found.setting}"
    kind, verdict = card(found)
    name = setting_words(found.setting)
    return Section(
        slug=slug,
        question=f"{name[0].upper()}{name[1:]}: do Bayesian odds of two strategies predict training?",
        kind=kind,
        verdict=verdict,
        brief=prediction_sentence(found.fit),
        sentence=f"{mixture_sentence(found.setting, found.fit)} {prediction_sentence(found.fit)}",
        paragraphs=paragraphs(found),
        tables=all_tables(found),
        drawings=strategy_drawings(found, slug),
        method=method(found),
        caveats=[*CAVEATS, *notes(found)],
        frames={f"{slug}_{frame}": (content, FRAMES[frame]) for frame, content in _frames(found).items()},
        results={slug: found},
        provenance=[
            (f"Strategies, {name}", option_words(found.provenance.seeds | found.provenance.options)),
            ("Sizes of the transformers", option_words(found.sizes)),
            (
                "Model of training",
                f"level = {found.fit.level}, refits = {len(found.fit.draws)}, seed = {found.fit.seed}",
            ),
        ],
    )


def _frames(found: StrategyAccount) -> dict[str, pd.DataFrame]:
    fit = found.fit
    more = {"three": found.three, "context": found.context}
    return {
        "cells": fit.to_frame(),
        "measures": fit.measures,
        "parameters": fit.parameters,
        "baselines": fit.baselines,
        "ablations": found.ablations.to_frame(),
        "transitions": found.transitions.times,
        "exponents": found.transitions.scaling,
        "transience": found.transience,
        "losses": found.losses,
        "predictor_losses": found.predictor_losses,
        **{name: part.to_frame() for name, part in more.items() if part is not None},
    }
