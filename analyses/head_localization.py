"""Which attention heads drive priming, or the inverse frequency effect?

An effect F is a linear functional of item outcomes (`mechicl.analyses.functionals`). A head's effect on it is

    dF(head) = F(outcomes with the head's output replaced) - F(outcomes)

with the verbs' biases held at their clean values. The steps, after arXiv 2404.15255 and 2504.13151:

1. gate: only an effect whose interval excludes 0 is localised;
2. exact patching of every head on one half of the corpus, the strongest are candidates;
3. confirmation of these alone on the other half, which has other prime verbs and other targets;
4. what several heads do together, random sets of as many heads, and controls.

It answers "none" where none is confirmed. A head that carries information about the verb's bias which nothing uses is
named as such (arXiv 2605.29971): decoding is not causing.

Caveats:
- Heads that make up for one another each look unimportant when replaced alone: see `curves` and `random_sets`.
- What is found depends on what is put in a head's place. An exchange with the other form shows what depends on the
  form, a mean over verbs what is particular to the verb.
- Intervals of single heads are somewhat too narrow with few verbs (95% hold the truth in about 92% of draws at 11 verbs
  a half): judge by p.
- That no head is confirmed does not show that none matters: many small ones can carry an effect together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.functionals import SCALES, Functional, functional_of
from mechicl.analyses.heads.attention import attention_table, confirmed_effects_table
from mechicl.analyses.heads.controls import control_table, with_head_kinds
from mechicl.analyses.heads.curves import curve_table, random_set_table
from mechicl.analyses.heads.effects import ABLATIONS, Rows, Sweeper, usable_pairs
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.heads.question import Question
from mechicl.analyses.heads.selection import confirm_heads, gate_table, select_heads
from mechicl.analyses.heads.splits import split_rows
from mechicl.analyses.heads.words import head_verdict
from mechicl.analyses.priming import PrimingResult, measure_priming
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.tasks.corpus import PrimingCorpus


def localize_heads(
    model: Any,
    corpus: PrimingCorpus,
    effect: str | Functional = "priming",
    *,
    scale: str = "nats",
    roles: Sequence[str] = ("target",),
    ablation: str | None = None,
    primed: PrimingResult | None = None,
    n_items: int = 96,
    n_candidates: int = 10,
    n_random: int = 100,
    untrained: bool = True,
    unrelated_texts: Sequence[str] | None = None,
    level: float = 0.95,
    n_boot: int = 2_000,
    n_permutations: int = 10_000,
    seed: int = 0,
    prepend_bos: bool = True,
    store: str | Path | None = None,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> HeadMap:
    """Find the heads that drive an effect in a model, and test them.

    effect: "priming", "ife", "ife_PD", "ife_DO" (the forms' own names), or a `Functional`. scale: "nats" (log-odds) or
    "probability". roles: where heads are replaced: ("target",) leaves the encoding of the prime as it was; ("prime",)
    is the other half of the question; ("last",) the token before the two forms of the target part.
    ablation: what is put in place of a head's output.
        "interchange": the same item's after the other form of the prime (default for priming). At prime roles that are
            longer in one form than in the other each token receives the other form's mean over the role, which takes
            the form away rather than turning it round; name parts of equal length, such as ("prime.theme",)
        "mean": the mean over pairs of other verbs and targets, by context and place in the sentence (default for
            slopes: it takes out what is particular to the verb and leaves the form)
        "resample": the same target's after another verb's prime in the same context
        "zero": nothing; it misleads where other heads make up for a missing one, and is never the default.
    primed: the result of `measure_priming` on this model and corpus, if at hand. n_items: pairs in each half.
    n_candidates: heads that are taken to the other half. n_random: random sets of heads patched exactly.
    untrained: repeat the gate on a copy of the model with shuffled weights. unrelated_texts: on which the damage done
    by the confirmed heads is measured; a few sentences by default. store: a folder for finished scores and items; an
    interrupted call goes on from there. seed: of the halves, the bootstrap, permutations and random sets.

    Errors (ValueError, before any long work): unknown effect, scale, ablation or roles; too few prime verbs in a half
    (6 for a mean, 4 for a slope at level .95); whatever `measure_priming` and `patch_heads` refuse.

        head_map = localize_heads(model, corpus, "priming")
        head_map.verdict            # which heads, how much, how sure
        head_map.plot()
    """
    wrapped = wrap(model)
    _check(wrapped, corpus, scale, ablation, roles, (n_items, n_candidates, n_random))
    frame = corpus.to_frame()
    pairs = frame[["prime", "target"]].to_numpy().tolist()
    if primed is not None and primed.items[["prime", "target"]].to_numpy().tolist() != pairs:
        raise ValueError("primed is of another corpus; give the result of measure_priming on this one, or none")
    functional = functional_of(effect, corpus.forms, neutral=bool(frame["prime_neutral"].notna().any()))
    folder = Path(store) if store is not None else None
    if primed is None:
        primed = measure_priming(
            wrapped, corpus, prepend_bos=prepend_bos, n_boot=n_boot, level=level, seed=seed,
            store=folder / "scores" if folder else None, memory_budget=memory_budget, progress=progress,
        )  # fmt: skip
    bias = primed.bias.set_index("verb")["bias"]
    question = Question(functional, scale, bias, level, n_boot, n_permutations, seed)
    sweeper = Sweeper(
        wrapped, corpus, tuple(roles), ablation or ("interchange" if functional.over == "mean" else "mean"),
        prepend_bos, memory_budget, progress, folder / "patches" if folder else None, seed,
    )  # fmt: skip
    usable = usable_pairs(primed.items, functional.contexts)
    select, confirm = split_rows(frame, usable, bias, n_items, seed, fewest=question.fewest_verbs)
    gate = gate_table(primed.items.iloc[usable], question)
    options = {
        "scale": scale, "n_items": n_items, "n_candidates": n_candidates, "n_random": n_random, "n_boot": n_boot,
        "n_permutations": n_permutations,
    }  # fmt: skip
    found = _Tables.empty()
    if gate["passed"].iloc[0]:
        found = _localize(sweeper, question, select, confirm, n_candidates, n_random, untrained, unrelated_texts)
    return HeadMap(
        effect=functional.name,
        unit=functional.unit(scale),
        contexts=dict(functional.contexts),
        over=functional.over,
        roles=tuple(roles),
        ablation=sweeper.ablation,
        level=level,
        gate=gate,
        **vars(found),
        verbs=_verb_table(bias, select, confirm),
        verdict=head_verdict(question, gate, found.heads),
        provenance=_provenance(wrapped, corpus, options, prepend_bos, seed),
    )


@dataclass(frozen=True)
class _Tables:
    """The frames of a `HeadMap` that a localisation fills."""

    heads: pd.DataFrame
    confirmed_effects: pd.DataFrame
    curves: pd.DataFrame
    random_sets: pd.DataFrame
    attention: pd.DataFrame
    controls: pd.DataFrame

    @classmethod
    def empty(cls) -> _Tables:
        """Where there is nothing to localise."""
        return cls(*(pd.DataFrame() for _ in range(6)))


def _localize(
    sweeper: Sweeper,
    question: Question,
    select: Rows,
    confirm: Rows,
    n_candidates: int,
    n_random: int,
    untrained: bool,
    texts: Sequence[str] | None,
) -> _Tables:
    """All that follows the gate. Means, where they replace heads, are always those of the other half."""
    heads, chosen = select_heads(sweeper, question, select, confirm, n_candidates)
    heads, found = confirm_heads(sweeper, question, confirm, select, heads, chosen)
    heads = with_head_kinds(sweeper, question, heads, (select, confirm))
    curves = curve_table(sweeper, question, confirm, select, heads)
    random_sets = random_set_table(sweeper, question, confirm, select, heads, found.heads, n_random)
    return _Tables(
        heads=heads,
        confirmed_effects=confirmed_effects_table(found, question, confirm),
        curves=curves,
        random_sets=random_sets,
        attention=attention_table(sweeper, question, confirm, found.heads),
        controls=control_table(
            sweeper, question, heads, found, confirm, random_sets, untrained=untrained, texts=texts, curves=curves
        ),
    )


def _verb_table(bias: pd.Series, select: Rows, confirm: Rows) -> pd.DataFrame:
    halves = {"selection": select, "confirmation": confirm}
    rows = [(v, bias[v], half) for half, rows in halves.items() for v in np.unique(rows.prime_verb)]
    return pd.DataFrame(rows, columns=["verb", "bias", "split"])


def _provenance(
    wrapped: WrappedModel, corpus: PrimingCorpus, options: dict[str, Any], prepend_bos: bool, seed: int
) -> Provenance:
    return Provenance.of(
        {**wrapped.facts(), "prepend_bos": prepend_bos},
        seeds={"localize_heads": seed} | ({} if corpus.seed is None else {"corpus": corpus.seed}),
        options={"corpus": corpus.name, "n_pairs": len(corpus), **options},
    )


def _check(
    wrapped: WrappedModel,
    corpus: PrimingCorpus,
    scale: str,
    ablation: str | None,
    roles: Sequence[str],
    numbers: tuple[int, int, int],
) -> None:
    if scale not in SCALES:
        raise ValueError(f"got scale={scale!r}, expected one of {', '.join(SCALES)}")
    if ablation is not None and ablation not in ABLATIONS:
        raise ValueError(f"got ablation={ablation!r}, expected one of {', '.join(ABLATIONS)}")
    if min(numbers[:2]) < 1 or numbers[2] < 0:
        named = ", ".join(f"{k}={v}" for k, v in zip(("n_items", "n_candidates", "n_random"), numbers, strict=True))
        raise ValueError(f"got {named}; expected at least 1 of the first two, 0 or more of the last")
    known = {"last", "prime", "target"}
    for side in ("prime", "target"):
        known |= {f"{side}.{role}" for role in corpus.spans["role"]}
    if isinstance(roles, str) or not roles or not set(roles) <= known:
        raise ValueError(f"got roles={roles!r}, expected a list of some of: {', '.join(sorted(known))}")
    wrapped.point("z", 0)
