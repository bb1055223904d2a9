"""Several heads together: faithfulness of the k strongest, and random sets of as many heads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from mechicl.analyses.heads.effects import Rows, Sweeper, all_heads
from mechicl.analyses.heads.question import Question
from mechicl.circuit_scores import faithfulness, kept_counts
from mechicl.hooks.patching import Head
from mechicl.hooks.role_outputs import head_outputs

_NEAREST = 10  # a random head is drawn among so many of about the same norm
_SUMMED = 1_000  # random sets whose effect is summed from single heads


def curve_table(sweeper: Sweeper, question: Question, rows: Rows, held_out: Rows, heads: pd.DataFrame) -> pd.DataFrame:
    """F with the k strongest heads replaced ("ablate"), and with all others replaced ("keep"), for k from 0 to all.

    Heads are ordered by the selection half, F is measured on the other one. faithfulness = (F - F(all replaced)) /
    (F(clean) - F(all replaced)): 1 for the clean model, 0 with all heads replaced (arXiv 2504.13151).
    """
    every = all_heads(sweeper.wrapped)
    order = [every[i] for i in np.argsort(-heads["effect"].abs().to_numpy(), kind="stable")]
    counts = [0, *kept_counts(len(every)).tolist()]
    kinds = [(kind, k) for kind in ("ablate", "keep") for k in counts]
    sets = [order[:k] if kind == "ablate" else order[k:] for kind, k in kinds]
    effects = sweeper.effects(rows, held_out, [*sets, every], list(question.functional.contexts))
    values = question.outcome(effects.patched)
    found = question.intervals(values[:-1], rows)
    clean, empty = question.total(question.outcome(effects.clean), rows), question.total(values[-1], rows)
    f = faithfulness(found.estimate, float(empty), float(clean)) if clean != empty else np.full(len(sets), np.nan)
    return pd.DataFrame(
        {
            "kind": [kind for kind, _ in kinds],
            "k": [k for _, k in kinds],
            "share_of_heads": [k / len(every) for _, k in kinds],
            "value": found.estimate,
            "low": found.low,
            "high": found.high,
            "faithfulness": f,
        }
    )


def random_set_table(
    sweeper: Sweeper,
    question: Question,
    rows: Rows,
    held_out: Rows,
    heads: pd.DataFrame,
    confirmed: list[Head],
    n_random: int,
) -> pd.DataFrame:
    """What random sets of as many heads do to F, none of them confirmed; the first row is the confirmed set.

    matched "layer": as many heads in every layer; "norm": each head among the ten whose output is about as large.
    `exact`: patched together on the confirmation half, like the confirmed set. Others are sums of single heads' effects
    on the selection half: many, but without what heads do together.
    """
    columns = ["matched", "exact", "effect"]
    if not confirmed or not n_random:
        return pd.DataFrame(columns=columns)
    rng = np.random.default_rng(question.seed)
    norm = _output_norms(sweeper, rows, next(iter(question.functional.contexts)))
    every = [head for head in all_heads(sweeper.wrapped) if head not in set(confirmed)]
    drawn = {
        "layer": [_same_layers(confirmed, every, rng) for _ in range(_SUMMED)],
        "norm": [_same_norms(confirmed, every, norm, rng) for _ in range(_SUMMED)],
    }
    exact = [(kind, chosen) for kind in drawn for chosen in drawn[kind][: (n_random + 1) // 2] if chosen]
    sets = [confirmed, *(chosen for _, chosen in exact)]
    change = question.change(sweeper.effects(rows, held_out, sets, list(question.functional.contexts)))
    totals = question.total(change, rows)
    single = dict(zip(all_heads(sweeper.wrapped), heads["effect"], strict=True))
    found = [("confirmed", True, totals[0])]
    found += [(kind, True, total) for (kind, _), total in zip(exact, totals[1:], strict=True)]
    found += [(kind, False, sum(single[h] for h in chosen)) for kind in drawn for chosen in drawn[kind] if chosen]
    return pd.DataFrame(found, columns=columns)


def _same_layers(confirmed: list[Head], every: list[Head], rng: np.random.Generator) -> list[Head]:
    """As many heads of each layer; of the nearest layer with heads left where a layer has too few."""
    left = [every[i] for i in rng.permutation(len(every))]
    chosen = []
    for layer, _ in confirmed:
        if left:
            chosen.append(left.pop(int(np.argmin([abs(own - layer) for own, _ in left]))))
    return chosen


def _same_norms(
    confirmed: list[Head], every: list[Head], norm: dict[Head, float], rng: np.random.Generator
) -> list[Head]:
    left = list(every)
    chosen = []
    for head in confirmed:
        near = sorted(left, key=lambda other: abs(norm[other] - norm[head]))[:_NEAREST]
        if near:
            chosen.append(near[rng.integers(len(near))])
            left.remove(chosen[-1])
    return chosen


def _output_norms(sweeper: Sweeper, rows: Rows, context: str) -> dict[Head, float]:
    """Mean length of what each head adds to the residual stream at the roles, z W_O."""
    wrapped = sweeper.wrapped
    z = head_outputs(wrapped, sweeper.items(rows, context), roles=sweeper.roles)
    found = {}
    with torch.no_grad():
        for layer in range(wrapped.n_layers):
            written = torch.einsum("ihd,hdm->ihm", z[:, layer], wrapped.W_O(layer).float().cpu())
            for head, length in enumerate(written.norm(dim=-1).mean(0).tolist()):
                found[layer, head] = length
    return found
