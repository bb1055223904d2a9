"""Activation patching of heads: what happens to a metric when heads' outputs are replaced by others?

For an item with clean metric m and a set S of heads, z of every head in S is replaced at the patched roles (by a
donor's, a mean, or zero), everything after it is computed anew, and the metric is read again: m(S). The effect of S is
m(S) - m. Denoising and noising are the same call with prompts and donors exchanged; they are not symmetric.

All heads alone is the usual sweep; sets of several heads serve cumulative ablation and random controls. One forward
pass a head is what peers run. Here the pass without a patch is kept, and a patched one begins at its first patched
layer, on the nodes that can change, many heads at once (see `mechicl.hooks.resume`); it is exact for causal models.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.head_sets import Head, checked_sets
from mechicl.hooks.hook_loop import loop_log_probs
from mechicl.hooks.patch_items import Metric, PatchItem, check_items, checked_metric, log_odds
from mechicl.hooks.patch_store import PatchStore
from mechicl.hooks.patch_support import way_to_patch
from mechicl.hooks.patch_sweep import Plan, sweep
from mechicl.hooks.replacements import Interchange, Replacement
from mechicl.hooks.wrapper import wrap


@dataclass(frozen=True)
class PatchedHeads:
    """Metrics of items with heads replaced.

    sets: the sets of heads, each a tuple of (layer, head). values: the metric with a set replaced; clean: without.
    Unit and sign are the metric's.
    """

    sets: tuple[tuple[Head, ...], ...]
    values: Float[np.ndarray, "set item"]
    clean: Float[np.ndarray, " item"]

    @property
    def effects(self) -> Float[np.ndarray, "set item"]:
        """values - clean: above 0 where the replacement raises the metric."""
        return self.values - self.clean


def patch_heads(
    model: Any,
    items: Sequence[PatchItem],
    *,
    roles: Sequence[str],
    replacement: Replacement | None = None,
    sets: Sequence[Collection[Head]] | None = None,
    metric: Metric = log_odds,
    by_hooks: bool = False,
    memory_budget: int = 1 << 30,
    progress: bool = True,
    store: str | Path | None = None,
) -> PatchedHeads:
    """Replace heads' outputs at the roles of every item, and read the metric.

    roles: where z is replaced, such as ["target"], ["prime"] or ["last"], the token before the first scored one.
    replacement: `Interchange()` with the items' donors (the default), means from `mean_activations`, or `Zero()`.
    sets: each a collection of (layer, head) replaced together; by default every head alone, layer by layer.
    metric: a function of the scored log-probabilities: `log_odds`, `span_log_prob`, or one of yours.
    by_hooks: one plain forward pass a set and prompt, with hooks: slow, and the oracle of the tests.

    Models that take no mask, positions or cache of the caller's making, carry hooks of yours, or have an attention
    window shorter than a text go the slow way by themselves, with one warning. `memory_budget` (bytes) bounds a pass'
    activations. With `store`, a folder, finished items are kept, and an interrupted call goes on where it was. The
    model is left as it was, whatever happens.

    Raises `ValueError`, before any forward pass, for items without donors, donors with another target, roles that a
    prompt lacks, heads that the model has not, texts that are too long, a budget too small for one item; and for a
    metric that is not finite (the item is named).
    """
    wrapped = wrap(model)
    replacement = replacement or Interchange()
    check_items(wrapped, items, roles, donors=isinstance(replacement, Interchange))
    chosen = checked_sets(wrapped, sets)
    plan = Plan(tuple(items), tuple(roles), replacement, chosen, memory_budget)
    kept = PatchStore.open(wrapped, store, plan) if store is not None else None
    found: list[tuple[Tensor, Tensor] | None] = [kept.get(i) if kept else None for i in range(len(items))]
    todo = [i for i, known in enumerate(found) if known is None]
    bar = tqdm(total=len(items), initial=len(items) - len(todo), desc="patching", unit="item", disable=not progress)
    values = np.full((len(chosen), len(items)), np.nan)
    clean = np.full(len(items), np.nan)

    def finish(number: int, patched: Tensor, unpatched: Tensor) -> None:
        if kept is not None:
            kept.put(number, patched, unpatched)
        values[:, number], clean[number] = _metrics(metric, items[number], number, patched, unpatched)
        bar.update()

    try:
        for number, known in enumerate(found):
            if known is not None:
                values[:, number], clean[number] = _metrics(metric, items[number], number, *known)
        with wrapped.evaluating():
            way = "hooks" if by_hooks or not todo else way_to_patch(wrapped, items)
            if way == "hooks":
                for number in todo:
                    finish(number, *loop_log_probs(wrapped, plan, number))
            else:
                sweep(wrapped, plan, todo, finish, cached=way == "cached")
    finally:
        bar.close()
        if kept is not None:
            kept.flush()
    return PatchedHeads(chosen, values, clean)


def _metrics(
    metric: Metric, item: PatchItem, number: int, patched: Tensor, clean: Tensor
) -> tuple[Float[np.ndarray, " set"], float]:
    """The metric of one item in all its runs; the last row is the run without a patch."""
    lengths = [len(prompt.part(item.scored)) for prompt in item.prompts]
    runs = torch.cat([patched, clean[None]]).double()
    found = checked_metric(metric(tuple(runs.split(lengths, -1))), len(runs), number)
    return found[:-1].numpy(), float(found[-1])
