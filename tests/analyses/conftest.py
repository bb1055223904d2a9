"""Planted models, and what a localisation says of them, each made once a session."""

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.functionals import functional_of
from mechicl.analyses.head_localization import localize_heads
from mechicl.analyses.heads.effects import Sweeper, usable_pairs
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.heads.question import Question
from mechicl.analyses.heads.splits import split_rows
from mechicl.analyses.priming import PrimingResult, measure_priming
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted import planted_decoys, planted_ife, planted_null, planted_priming
from mechicl.organisms.planted_language import planted_corpus
from mechicl.organisms.planted_truth import Planted

WORDS = {"n_verbs": 12, "n_persons": 8, "n_things": 6}
QUICK: dict[str, Any] = {
    "n_items": 24, "n_random": 2, "n_boot": 200, "n_permutations": 1_000, "untrained": False, "progress": False
}  # fmt: skip
MAKE = {"ife": planted_ife, "priming": planted_priming, "decoys": planted_decoys, "null": planted_null}
STRENGTH: dict[str, dict[str, float]] = {"decoys": {"strength": 1.3, "priming_strength": 0.7}, "null": {}}


@pytest.fixture(scope="session")
def planted() -> Callable[..., Planted]:
    """Makes planted models: "ife" and "priming" of strength 1.3, "decoys" of 1.3 and .7, "null"; noisy if asked for."""

    @cache
    def make(kind: str, noisy: bool = False) -> Planted:
        noise = {"noise": 0.3, "item_noise": 0.2} if noisy else {}
        strength = STRENGTH.get(kind, {"strength": 1.3})
        return MAKE[kind](corpus=planted_corpus(**WORDS, seed=2), seed=3, **WORDS, **strength, **noise)

    return make


@pytest.fixture(scope="session")
def primed(planted: Callable[..., Planted]) -> Callable[..., PrimingResult]:
    """The priming of planted models."""

    @cache
    def measure(kind: str, noisy: bool = False) -> PrimingResult:
        made = planted(kind, noisy)
        return measure_priming(made.model, made.corpus, n_boot=200, progress=False)

    return measure


@pytest.fixture(scope="session")
def localized(planted: Callable[..., Planted], primed: Callable[..., PrimingResult]) -> Callable[..., HeadMap]:
    """Localisations of planted models: kind, effect, then options of `localize_heads` (which can be hashed)."""

    @cache
    def localize(kind: str, effect: Any, **options: Any) -> HeadMap:
        made = planted(kind)
        return localize_heads(made.model, made.corpus, effect, primed=primed(kind), **{**QUICK, **options})

    return localize


@pytest.fixture(scope="session")
def study(planted: Callable[..., Planted], primed: Callable[..., PrimingResult]) -> Callable[..., SimpleNamespace]:
    """The parts of a localisation: planted, items, bias, question, sweeper, and the rows of both halves."""

    @cache
    def make(
        kind: str, effect: Any, ablation: str, noisy: bool = False, scale: str = "nats", roles: Any = ("target",)
    ) -> SimpleNamespace:
        made, items = planted(kind, noisy), primed(kind, noisy).items
        bias = pd.Series(made.bias)
        functional = functional_of(effect, made.corpus.forms, neutral=True)
        select, confirm = split_rows(
            made.corpus.to_frame(), usable_pairs(items, functional.contexts), bias, QUICK["n_items"], 0
        )
        return SimpleNamespace(
            planted=made,
            items=items,
            bias=bias,
            question=Question(functional, scale, bias, 0.95, 200, 1_000, 0),
            sweeper=Sweeper(wrap(made.model), made.corpus, roles, ablation, True, 1 << 30, False, None),
            select=select,
            confirm=confirm,
        )

    return make


@pytest.fixture(scope="session")
def truth() -> Callable[..., np.ndarray]:
    """What replacing single heads at the target does to L of the rows in a context, in closed form."""

    def changes(parts: SimpleNamespace, context: str, rows: Any, held_out: Any) -> np.ndarray:
        made = parts.planted
        if context not in made.corpus.forms:
            return np.zeros((made.circuit.n_layers, made.circuit.n_heads, len(rows.numbers)))
        if parts.sweeper.ablation == "mean":  # means over the rows of the other half, as many as each verb has there
            own = made.contributions(context)
            return own[..., held_out.numbers].mean(-1, keepdims=True) - own[..., rows.numbers]
        return made.item_effects(parts.sweeper.ablation, context)[..., rows.numbers]

    return changes
