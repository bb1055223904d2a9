"""One draw of the calibration study: a planted model with fresh verbs and noise, and what a localisation says of it.

Two heads cause something: one writes k (s - p_v), one k (s - 1/2), see `mechicl.organisms.planted`; in null draws k is
0. All heads of the upper layers write noise, for every verb and noun a number of their own that has nothing to do with
bias or structure. Biases, noise and corpus are drawn anew each time, so each draw is a sample of verbs from a
population in which the truth is known:

    effect      replaced by    a cause's effect on F                         a noise head's
    ife         mean           -k for k (s - p_v), 0 for k (s - 1/2)         0
    priming     interchange    -2k for both                                  0

Draws go through the network, or (`via="formula"`) through the closed forms, which the network equals, without one:
the statistics are the same code, hundreds of times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch

from mechicl.analyses.functionals import functional_of
from mechicl.analyses.heads.effects import Rows, SetEffects, Sweeper, usable_pairs
from mechicl.analyses.heads.question import Question
from mechicl.analyses.heads.selection import confirm_heads, gate_table, select_heads
from mechicl.analyses.heads.splits import split_rows
from mechicl.analyses.priming import measure_priming
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted_circuit import Circuit, Head, HeadPlan
from mechicl.organisms.planted_language import Language, planted_corpus
from mechicl.organisms.planted_network import build_model
from mechicl.organisms.planted_truth import FORMS, Planted

ABLATION = {"ife": "mean", "priming": "interchange"}  # the defaults of localize_heads
CARRIER, IFE, PRIMING = (0, 0), (1, 0), (1, 1)
READS = ("both", "PD", "DO")


@dataclass(frozen=True)
class Setting:
    """Sizes of models, corpora and statistics; noise in nats."""

    via: str
    n_layers: int
    n_heads: int
    n_targets: int
    n_items: int
    n_candidates: int
    noise: float
    item_noise: float = 0.1
    n_verbs: int = 22
    scale: str = "nats"
    n_boot: int = 1_000
    n_permutations: int = 2_000


@dataclass(frozen=True)
class Formula:
    """Stands for a `Sweeper`: the effects of sets of heads in closed form."""

    planted: Planted
    ablation: str
    wrapped: Any = field(init=False)

    def __post_init__(self) -> None:
        """What is asked of the model: its sizes."""
        circuit = self.planted.circuit
        object.__setattr__(self, "wrapped", SimpleNamespace(n_layers=circuit.n_layers, n_heads=circuit.n_heads))

    def effects(
        self, rows: Rows, held_out: Rows, sets: Sequence[Sequence[Head]], contexts: Sequence[str]
    ) -> SetEffects:
        """As `Sweeper.effects`; heads that wait for others are not among these models' heads, so that all add up."""
        patched, clean = {}, {}
        for context in contexts:
            clean[context] = self.planted.expected_L(context)[rows.numbers]
            change = np.zeros((len(sets), len(rows.numbers)))
            if context in FORMS:
                own = self.planted.contributions(context)
                other = self.planted.contributions(FORMS[context == FORMS[0]])[..., rows.numbers]
                new = other if self.ablation == "interchange" else own[..., held_out.numbers].mean(-1, keepdims=True)
                single = new - own[..., rows.numbers]
                change = np.array(
                    [sum((single[head] for head in chosen), np.zeros(change.shape[1])) for chosen in sets]
                )
            patched[context] = clean[context] + change
        return SetEffects(patched, clean)


def draw(setting: Setting, kind: str, strength: float, seed: Sequence[int]) -> list[dict[str, Any]]:
    """What both localisations of one planted model say; one row an effect."""
    torch.set_num_threads(1)
    planted = _planted(setting, strength, np.random.default_rng(seed))
    if setting.via == "model":
        primed = measure_priming(planted.model, planted.corpus, n_boot=100, progress=False)
        items, bias = primed.items, primed.bias.set_index("verb")["bias"]
    else:
        frame = planted.corpus.to_frame()
        items = frame.assign(**{f"L_{context}": planted.expected_L(context) for context in (*FORMS, "neutral")})
        bias = pd.Series(planted.bias)
    return [
        {"kind": kind, "effect": effect} | _judged(planted, setting, effect, strength, items, bias, seed[-1])
        for effect in ABLATION
    ]


def _planted(setting: Setting, strength: float, rng: np.random.Generator) -> Planted:
    language = Language(setting.n_verbs)
    corpus = planted_corpus(n_verbs=setting.n_verbs, targets_per_verb=2, seed=int(rng.integers(1 << 30)))
    targets = rng.permutation(corpus.pairs["target"].unique())[: setting.n_targets]
    bias = rng.uniform(0.1, 0.9, setting.n_verbs)
    plans: dict[Head, HeadPlan] = {}
    heads = [(layer, head) for layer in range(1, setting.n_layers) for head in range(setting.n_heads)]
    for i, head in enumerate(heads):
        verbs = setting.noise * rng.normal(size=setting.n_verbs)
        nouns = setting.item_noise * _centred(rng.normal(size=language.n_persons + language.n_things), language)
        if strength and head in (IFE, PRIMING):
            expected = {"thing": strength} if head == IFE else {"thing": strength / 2, "person": -strength / 2}
            slope = strength if head == IFE else 0.0
            plans[head] = HeadPlan(verbs - slope * bias, nouns, noun_gain=1.0, **expected)
        else:
            plans[head] = HeadPlan(verbs, nouns, noun_gain=1.0, reads=READS[i % 3])
    circuit = Circuit(language, bias, setting.n_layers, setting.n_heads, CARRIER, plans)
    model = build_model(circuit, "planted", "float32") if setting.via == "model" else None
    return Planted(model, corpus.where(corpus.pairs["target"].isin(targets)), {"noise": tuple(heads)}, circuit)


def _centred(nouns: np.ndarray, language: Language) -> np.ndarray:
    """Mean 0 over the persons and over the things that stand in primes: a head whose nouns had a mean would prime."""
    for start, number in ((0, language.n_persons), (language.n_persons, language.n_things)):
        nouns[start : start + number // 2] -= nouns[start : start + number // 2].mean()
    return nouns


def _judged(
    planted: Planted,
    setting: Setting,
    effect: str,
    strength: float,
    items: pd.DataFrame,
    bias: pd.Series,
    seed: int,
) -> dict[str, Any]:
    """Gate, selection and confirmation, the last two whatever the gate says."""
    corpus = planted.corpus
    functional = functional_of(effect, corpus.forms, neutral=True)
    question = Question(functional, setting.scale, bias, 0.95, setting.n_boot, setting.n_permutations, seed)
    gate = gate_table(items, question).iloc[0]
    select, confirm = split_rows(
        corpus.to_frame(), usable_pairs(items, functional.contexts), bias, setting.n_items, seed
    )
    sweeper: Any = Formula(planted, ABLATION[effect])
    if setting.via == "model":
        sweeper = Sweeper(wrap(planted.model), corpus, ("target",), ABLATION[effect], True, 1 << 30, False, None)
    table, chosen = select_heads(sweeper, question, select, confirm, setting.n_candidates)
    alone = [[head] for head in zip(table["layer"], table["head"], strict=True)]
    formula = Formula(planted, ABLATION[effect]).effects(select, confirm, alone, list(functional.contexts))
    gap = float(np.abs(question.total(question.change(formula), select) - table["effect"]).max())
    table, _ = confirm_heads(sweeper, question, confirm, select, table, chosen)
    truth = {"ife": {IFE: -strength}, "priming": {IFE: -2 * strength, PRIMING: -2 * strength}}[effect]
    if not strength or setting.scale != "nats":
        truth = dict.fromkeys(truth, 0.0)
    whole = {"ife": strength, "priming": 2 * strength}[effect]
    return {
        "gate": bool(gate["passed"]),
        "gate_covers": _covers(gate["low"], gate["high"], whole),
        "gap": gap,
    } | _scores(table, planted, truth, strength > 0)


def _scores(table: pd.DataFrame, planted: Planted, truth: dict[Head, float], causes: bool) -> dict[str, Any]:
    """Shares over heads: what was confirmed, and which intervals hold the truth."""
    head = list(zip(table["layer"], table["head"], strict=True))
    value = np.array([truth.get(h, 0.0) for h in head])
    is_cause = np.array([causes and h in truth for h in head])
    is_noise = np.array([h in planted.circuit.plans for h in head]) & ~is_cause
    confirmed = table["confirmed"].to_numpy()
    tried = table["candidate"].to_numpy()
    own = _covers(table["low"], table["high"], value)
    other = _covers(table["confirm_low"], table["confirm_high"], value)
    return {
        "false": bool((confirmed & ~is_cause).any()),
        "sweep_false": bool((table["p_fwe"].to_numpy() <= 0.05)[~is_cause].any()),
        "found": _share(confirmed[is_cause]),
        "noise_covered": _share(own[is_noise]),
        "noise_covered_confirm": _share(other[is_noise & tried]),
        "cause_covered": _share(own[is_cause]),
        "cause_covered_confirm": _share(other[is_cause & tried]),
    }


def _covers(low: Any, high: Any, value: Any) -> Any:
    return (np.asarray(low) <= value) & (value <= np.asarray(high))


def _share(of: np.ndarray) -> float:
    return float(of.mean()) if len(of) else float("nan")
