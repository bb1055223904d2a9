"""By which paths do the confirmed heads act: straight to the output, or through one another?

The effect of a path is what it adds to the effect F: F - F(with the sender's output replaced, felt by this receiver
alone), in the head map's unit; above 0 where the path raises F. Other heads stay as they were, MLPs pass the change on
(see `mechicl.hooks.path_patching`). For the output as receiver it is the direct effect. Source: arXiv:2211.00593.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.functionals import Functional
from mechicl.analyses.heads.effects import Rows, Sweeper
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.heads.pictures import OUTPUT
from mechicl.analyses.heads.question import Question
from mechicl.analyses.heads.selection import head_name
from mechicl.hooks.patching import Head
from mechicl.hooks.path_patching import path_effects
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.corpus import PrimingCorpus

COLUMNS = ["source", "target", "effect", "low", "high", "survives"]


def paths_between_heads(
    model: Any,
    head_map: HeadMap,
    corpus: PrimingCorpus,
    *,
    n_items: int = 24,
    max_heads: int = 8,
    n_boot: int = 2_000,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> pd.DataFrame:
    """Direct effects among the confirmed heads, and from each to the output, on pairs of the confirmation half.

    One row a path: source and target (heads' names, or "output"), effect with its interval over prime verbs and
    targets, and `survives`: does the interval exclude 0? `draw_circuit` draws those that do. max_heads: the strongest.
    Empty where no head was confirmed. Raises `ValueError` for a corpus that lacks the head map's pairs.
    """
    heads = head_map.confirmed[:max_heads]
    if not heads:
        return pd.DataFrame(columns=COLUMNS)
    wrapped = wrap(model)
    options = head_map.provenance.options
    functional = Functional(head_map.effect, head_map.contexts, head_map.over)
    bias = head_map.verbs.set_index("verb")["bias"]
    question = Question(functional, str(options.get("scale", "nats")), bias, head_map.level, n_boot, 1, seed)
    bos = head_map.provenance.prepend_bos is not False
    sweeper = Sweeper(
        wrapped, corpus, head_map.roles, head_map.ablation, bos, memory_budget, progress, store=None, seed=seed
    )
    rows, held_out = _rows(head_map, corpus, n_items, seed)
    patched, clean = {}, {}
    for context in functional.contexts:
        found = path_effects(
            wrapped,
            sweeper.items(rows, context),
            senders=heads,
            receivers=[*heads, "logits"],
            roles=head_map.roles,
            replacement=sweeper.replacement(context, held_out),
            memory_budget=memory_budget,
            progress=progress,
        )
        patched[context] = (found.clean + found.effects).reshape(-1, len(rows.numbers))
        clean[context] = found.clean[None]
    change = question.outcome(clean) - question.outcome(patched)
    intervals = question.intervals(change, rows)
    receivers = [*map(head_name, heads), OUTPUT]
    frame = pd.DataFrame(
        {
            "source": np.repeat([head_name(head) for head in heads], len(receivers)),
            "target": np.tile(receivers, len(heads)),
            "effect": intervals.estimate,
            "low": intervals.low,
            "high": intervals.high,
        }
    )
    frame["survives"] = (frame["low"] > 0) | (frame["high"] < 0)
    later = [_may_reach(source, target) for source in heads for target in (*heads, None)]
    return frame[later].reset_index(drop=True)


def _may_reach(source: Head, target: Head | None) -> bool:
    return target is None or target[0] > source[0]


def _rows(head_map: HeadMap, corpus: PrimingCorpus, n_items: int, seed: int) -> tuple[Rows, Rows]:
    """Pairs of the confirmation half, as many of each verb as can be; and pairs with other verbs and targets."""
    frame = corpus.to_frame()
    known = head_map.confirmed_effects[["prime_verb", "target"]].drop_duplicates()
    place = frame.reset_index(names="row").merge(known, on=["prime_verb", "target"])["row"].to_numpy()
    if len(place) < len(known):
        raise ValueError(
            f"Got a corpus with {len(place)} of the head map's {len(known)} pairs; expected the corpus it was made of."
        )
    shuffled = pd.Series(frame["prime_verb"].to_numpy()[place]).sample(frac=1, random_state=seed)
    turn = shuffled.groupby(shuffled).cumcount().sort_values(kind="stable")
    chosen = np.sort(place[turn.index.to_numpy()[:n_items]])
    selecting = set(head_map.verbs.loc[head_map.verbs["split"] == "selection", "verb"])
    others = frame["prime_verb"].isin(selecting) & ~frame["target"].isin(set(known["target"]))
    if "neutral" in head_map.contexts:
        others &= frame["prime_neutral"].notna()
    return Rows.of(frame, chosen), Rows.of(frame, np.flatnonzero(others))
