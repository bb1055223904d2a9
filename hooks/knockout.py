"""Attention knockout: what does a head contribute by looking from one part of a text at another?

For edges (query role, key role) the entries of a head's attention pattern from the query role's positions to the key
role's are set to zero, and the metric is read again: m(S) for heads S. With `renormalise` the rest of a row is scaled
back to the sum that it had, which is what masking the scores would do; without, the removed part is simply missing.

The new z, pattern' @ v, is computed here from the pattern and the values of the same run, so later heads of a set are
knocked out on what they attend to by then, and the result does not depend on whether a model heeds edits of its pattern
or its scores (some silently do not).

Sources: attention knockout, Geva et al., arXiv:2304.14767.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from mechicl.hooks.head_sets import Head, checked_sets
from mechicl.hooks.knockout_hooks import cut_entries, knocked_out
from mechicl.hooks.patch_items import Metric, PatchItem, check_items, log_odds
from mechicl.hooks.patch_rows import Source
from mechicl.hooks.patch_support import way_to_patch
from mechicl.hooks.row_runs import batches
from mechicl.hooks.wrapper import wrap

Edge = tuple[str, str]  # query role, key role


@dataclass(frozen=True)
class KnockedOut:
    """Metrics of items with heads' attention along edges knocked out.

    sets: the sets of heads, each a tuple of (layer, head). values: the metric with a set knocked out; clean: without.
    Unit and sign are the metric's.
    """

    edges: tuple[Edge, ...]
    sets: tuple[tuple[Head, ...], ...]
    values: Float[np.ndarray, "set item"]
    clean: Float[np.ndarray, " item"]

    @property
    def effects(self) -> Float[np.ndarray, "set item"]:
        """values - clean: below 0 where attention along the edges raised the metric."""
        return self.values - self.clean


def knock_out_attention(
    model: Any,
    items: Sequence[PatchItem],
    *,
    edges: Sequence[Sequence[str]],
    sets: Sequence[Collection[Head]] | None = None,
    metric: Metric = log_odds,
    renormalise: bool = True,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> KnockedOut:
    """Keep heads from attending along all `edges` at once, and read the metric.

    edges: pairs of roles, (query, key), such as ("target", "prime.verb"): tokens of the first no longer look at those
    of the second. "last" is the token before the first scored one. sets: each a collection of (layer, head) knocked out
    together; by default every head alone. Items need no donors.

    A head all of whose attention goes along the edges, so that nothing is left in the number format to scale up, writes
    zero. Models that take no trees, or carry hooks of yours, run one prompt a row, with one warning. The model is left
    as it was.

    Raises `ValueError` for what `patch_heads` refuses, edges that are no pair of roles, point only forward, or (with
    `renormalise`) leave a token nothing to look at, and for a model whose z is not its pattern times its values.
    """
    wrapped = wrap(model)
    if not edges or isinstance(edges, str) or not all(_is_pair(edge) for edge in edges):
        raise ValueError(f"got edges={edges!r}, expected pairs (query role, key role), such as [('target', 'prime')]")
    chosen = tuple((query, key) for query, key in edges)
    check_items(wrapped, items, list(dict.fromkeys(role for edge in chosen for role in edge)), donors=False)
    origin = _Edges(chosen)
    origin.check(items, renormalise)
    heads = checked_sets(wrapped, sets)
    by_layer: dict[int, list[int]] = {}
    for number, own in enumerate(heads):
        if own:
            by_layer.setdefault(own[0][0], []).append(number)
    values = np.zeros((len(heads), len(items)))
    clean = np.full(len(items), np.nan)
    queries = list(dict.fromkeys(query for query, _ in chosen))
    most = max(map(len, by_layer.values()), default=1)
    bar = tqdm(total=len(items), desc="knockout", unit="item", disable=not progress)
    with bar, wrapped.evaluating():
        way = way_to_patch(wrapped, items)
        for runs in batches(wrapped, items, queries, origin, way, budget=memory_budget, copies=most):
            numbers = list(runs.numbers)
            clean[numbers] = runs.metrics(metric, runs.start()[None])[0].cpu().numpy()
            values[:, numbers] = clean[numbers]  # for sets without heads
            cut = cut_entries(runs)
            for layer, together in by_layer.items():
                for start in range(0, len(together), runs.copies):
                    part = together[start : start + runs.copies]
                    hooks = knocked_out(runs, cut, [heads[number] for number in part], renormalise)
                    found = runs.metrics(metric, runs.again(layer, len(part), hooks))
                    values[np.ix_(part, numbers)] = found.cpu().numpy()
            bar.update(len(numbers))
    return KnockedOut(chosen, heads, values, clean)


def _is_pair(edge: object) -> bool:
    return isinstance(edge, (tuple, list)) and len(edge) == 2 and all(isinstance(role, str) for role in edge)


@dataclass(frozen=True)
class _Edges:
    """For every position of a query role, the positions that it must not look at."""

    edges: tuple[Edge, ...]

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """All of them, whatever role the position was found by; None where there are none."""
        keys = {
            key
            for query_role, key_role in self.edges
            if position in item.span(prompt, query_role)
            for key in item.span(prompt, key_role)
            if key <= position
        }
        return tuple(sorted(keys)) or None

    def check(self, items: Sequence[PatchItem], renormalise: bool) -> None:
        """Refuse edges that cut nothing, and those that leave a token nothing."""
        for number, item in enumerate(items):
            for p in range(len(item.prompts)):
                for query, key in self.edges:
                    if max(item.span(p, query)) < min(item.span(p, key)):
                        raise ValueError(
                            f"item {number}: no token of {query!r} stands behind one of {key!r}, so there is no "
                            "attention to knock out; an edge is (query role, key role)"
                        )
                    for position in item.span(p, query):
                        cut = self.source(item, p, position, query, 0) or ()
                        if renormalise and len(cut) == position + 1:  # type: ignore[arg-type]
                            raise ValueError(
                                f"item {number}: token {position} of {query!r} may look at nothing else; leave it the "
                                "BOS token, say, or pass renormalise=False"
                            )
