"""Head maps with made-up numbers of a realistic size: heads confirmed, none confirmed, nothing to localise."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.heads.map import HeadMap
from mechicl.provenance import Provenance

N_LAYERS, N_HEADS = 30, 9
TRUE = {(12, 4): -0.42, (17, 2): -0.26, (9, 7): -0.19, (21, 5): 0.11}  # change of priming, nats, when replaced
VERBS = [
    "bring",
    "buy",
    "catch",
    "draw",
    "feed",
    "find",
    "get",
    "give",
    "keep",
    "leave",
    "make",
    "promise",
    "purchase",
    "save",
    "sell",
    "send",
    "show",
    "supply",
    "take",
    "throw",
]
KEYS = (
    "bos",
    "prime.subject",
    "prime.verb",
    "prime.theme",
    "prime.recipient",
    "target.subject",
    "target.verb",
    "target.theme",
)
CLEAN, ALL_REPLACED = 1.78, 0.06
EFFECTS = {
    "priming": ("nats", {"PD": 1.0, "DO": -1.0}, "mean"),
    "ife": ("nats per unit of bias", {"PD": -0.5, "DO": -0.5, "neutral": 1.0}, "slope"),
}


def made_up_head_map(kind: str = "confirmed", *, effect: str = "priming", seed: int = 0, **changes: Any) -> HeadMap:
    """A head map of 30 x 9 heads: "confirmed" (four heads), "none" (candidates that failed), "gated" (no effect)."""
    rng = np.random.default_rng(seed)
    unit, contexts, over = EFFECTS.get(effect, EFFECTS["priming"])
    gated = kind == "gated"
    clean = 0.03 if gated else CLEAN
    heads = _heads(rng, over, confirmed=kind == "confirmed")
    chosen = heads[heads["confirmed"]]
    parts: dict[str, Any] = {
        "effect": effect,
        "unit": unit,
        "contexts": contexts,
        "over": over,
        "roles": ("target",),
        "ablation": "interchange" if over == "mean" else "mean",
        "level": 0.95,
        "gate": pd.DataFrame(
            [
                {
                    "estimate": clean,
                    "low": clean - 0.15,
                    "high": clean + 0.16,
                    "n_pairs": 420,
                    "n_verbs": len(VERBS),
                    "n_targets": 44,
                    "passed": not gated,
                }
            ]
        ),
        "heads": heads,
        "confirmed_effects": _items(rng, chosen),
        "curves": _curves(rng),
        "random_sets": _random_sets(rng, chosen),
        "attention": _attention(rng, chosen["name"], contexts),
        "controls": _controls(chosen, over),
        "verbs": pd.DataFrame(
            {
                "verb": VERBS,
                "bias": np.linspace(0.12, 0.93, len(VERBS)).round(3),
                "split": ["selection", "confirmation"] * (len(VERBS) // 2),
            }
        ),
        "verdict": {
            "confirmed": f"4 of 270 heads drive {effect} (1.78 [1.63, 1.94] {unit}): L12H4 (0.391, 23% of "
            "what all heads do), L17H2, L9H7, L21H5.",
            "none": f"No head was confirmed as driving {effect}: none of the 10 strongest of 270 heads held.",
            "gated": f"No {effect} to localise: 0.030 [0, 0.190] {unit}, and the interval includes 0.",
        }[kind],
        "provenance": _provenance(seed),
    }
    if gated:
        empty = ("heads", "confirmed_effects", "curves", "random_sets", "attention", "controls")
        parts |= {name: parts[name].iloc[:0] for name in empty}
    return HeadMap(**parts | changes)


def _provenance(seed: int) -> Provenance:
    options = {"corpus": "datives", "n_items": 200, "n_candidates": 10, "n_boot": 2000, "n_permutations": 10_000}
    facts = {"model": "made-up-135m", "n_params": 134_515_008, "dtype": "float32", "device": "cpu"}
    found = Provenance.of(facts, seeds={"localisation": seed}, options=options)
    return replace(found, created="2026-01-01T00:00:00Z")  # two maps alike are equal


def _heads(rng: np.random.Generator, over: str, *, confirmed: bool) -> pd.DataFrame:
    """All heads: those of TRUE, and noise."""
    place = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]
    effect = rng.normal(0, 0.012, len(place))
    if confirmed:
        for head, size in TRUE.items():
            effect[place.index(head)] = size
    width = rng.uniform(0.015, 0.03, len(place))
    t = effect / width * 2
    p = np.exp(-np.abs(t))
    candidate = np.abs(effect) >= np.sort(np.abs(effect))[-10]
    real = np.array([head in TRUE and confirmed for head in place])
    again = np.where(real, effect * 0.93, rng.normal(0, 0.012, len(place)))
    frame = pd.DataFrame(place, columns=["layer", "head"])
    bias_p = rng.uniform(0.06, 1, len(place))
    bias_p[[40, 100, 180]] = 0.002
    return frame.assign(
        name=[f"L{layer}H{head}" for layer, head in place],
        effect=effect,
        low=effect - width,
        high=effect + width,
        share=effect / (ALL_REPLACED - CLEAN),
        t=t,
        p=p,
        p_fwe=np.minimum(1, p * 40),
        p_bh=np.minimum(1, p * 10),
        d_priming=effect if over == "mean" else rng.normal(0, 0.02, len(place)),
        conditional=np.nan if over == "mean" else effect * 0.8,
        candidate=candidate,
        confirm_effect=np.where(candidate, again, np.nan),
        confirm_low=np.where(candidate, again - width, np.nan),
        confirm_high=np.where(candidate, again + width, np.nan),
        confirm_share=np.where(candidate, again / (ALL_REPLACED - CLEAN), np.nan),
        confirm_p=np.where(candidate, np.where(real, 0.0004, rng.uniform(0.2, 1, len(place))), np.nan),
        confirmed=real,
        bias_r2=np.where(bias_p < 0.05, 0.55, 0.02),
        bias_p=bias_p,
        carries_bias=(bias_p < 0.05) & ~real,
        induction=rng.beta(0.4, 3, len(place)),
        previous_token=rng.beta(0.4, 3, len(place)),
        duplicate_token=rng.beta(0.4, 3, len(place)),
    )


def _items(rng: np.random.Generator, chosen: pd.DataFrame) -> pd.DataFrame:
    """200 items of the confirmation split for every confirmed head."""
    verbs = VERBS[1::2]
    bias = dict(zip(VERBS, np.linspace(0.12, 0.93, len(VERBS)).round(3), strict=True))
    rows = [
        (name, verb, f"target-{k}", bias[verb], effect * (0.6 + 0.8 * bias[verb]) + rng.normal(0, 0.08))
        for name, effect in zip(chosen["name"], chosen["confirm_effect"], strict=True)
        for verb in verbs
        for k in range(20)
    ]
    return pd.DataFrame(rows, columns=["name", "prime_verb", "target", "bias", "d_effect"])


def _curves(rng: np.random.Generator) -> pd.DataFrame:
    """Few heads do most: the effect falls fast as they are replaced."""
    rows = []
    for k in (0, 1, 2, 3, 4, 5, 14, 27, 54, 135, N_LAYERS * N_HEADS):
        left = float(np.exp(-k / 3)) * (1 - k / 270)
        kept = float(1 - np.exp(-k / 5)) if k < 270 else 1.0
        for kind, share in (("ablate", left), ("keep", kept)):
            value = ALL_REPLACED + share * (CLEAN - ALL_REPLACED)
            wide = 0.12 + 0.02 * rng.random()
            rows.append((kind, k, k / 270, value, value - wide, value + wide, share))
    return pd.DataFrame(rows, columns=["kind", "k", "share_of_heads", "value", "low", "high", "faithfulness"])


def _random_sets(rng: np.random.Generator, chosen: pd.DataFrame) -> pd.DataFrame:
    kinds = [("layer", True)] * 20 + [("norm", True)] * 20 + [("layer", False)] * 1000 + [("norm", False)] * 1000
    effects = rng.normal(-0.01, 0.03 * np.sqrt(len(chosen)), len(kinds))
    rows = [("confirmed", True, chosen["confirm_effect"].sum())] if len(chosen) else []
    rows += [(*kind, effect) for kind, effect in zip(kinds, effects, strict=True) if len(chosen)]
    return pd.DataFrame(rows, columns=["matched", "exact", "effect"])


def _attention(rng: np.random.Generator, names: pd.Series, contexts: Iterable[str]) -> pd.DataFrame:
    rows = []
    for name in names:
        for context in contexts:
            for query, seen in (("last", len(KEYS) - 1), ("prime.verb", KEYS.index("prime.verb") + 1)):
                shares = np.zeros(len(KEYS))
                shares[:seen] = 0.9 * rng.dirichlet(np.full(seen, 0.5))  # the rest falls between the named parts
                rows += [(name, context, query, key, share) for key, share in zip(KEYS, shares, strict=True)]
    return pd.DataFrame(rows, columns=["name", "context", "query", "key", "share"])


def _controls(chosen: pd.DataFrame, over: str) -> pd.DataFrame:
    nan = float("nan")
    rows: list[tuple[str, str, float, float, float, str]] = [
        (f"overlap with {kind}", "Spearman's rho", rho, nan, nan,
         f"rank correlation over heads of |effect| and {kind.replace('_', ' ')} score (p {p:.3f})")
        for kind, rho, p in (("induction", 0.21, 0.001), ("duplicate_token", 0.04, 0.5), ("previous_token", 0, 0.9))
    ]  # fmt: skip
    if len(chosen):
        rows += [
            (f"random sets ({kind}, {how})", "effect", -0.01, -0.07, 0.05,
             f"effect of {n} random sets matched by {kind}, {words}: mean and middle 95%; p = {p:.4f}")
            for how, words, n, p in (("exact", "patched together", 20, 0.0476),
                                     ("summed", "single effects summed", 1000, 0.001))
            for kind in ("layer", "norm")
        ]  # fmt: skip
        rows += [
            (f"pairs with {words}", "effect", size, size - 0.1, size + 0.1,
             f"sum of the confirmed heads' effects on {n} pairs with {words}")
            for words, size, n in (("the same preposition", -0.81, 92), ("different prepositions", -0.66, 108))
        ]  # fmt: skip
        if over == "slope":
            rows += [
                (f"verb interchange, {name}", "slope", -0.2, -0.31, -0.08,
                 "change of the outcome per unit of the donor verb's bias over the prime's, all else equal")
                for name in [*chosen["name"], "all confirmed heads"]
            ]  # fmt: skip
        rows += [("unrelated text", "nats per token", 0.012, 0.006, 0.019, "loss with the confirmed heads replaced")]
    rows += [("shuffled weights", "priming", 0.004, -0.02, 0.03, "the effect in a copy of the model, weights shuffled")]
    return pd.DataFrame(rows, columns=["control", "quantity", "estimate", "low", "high", "what"])
