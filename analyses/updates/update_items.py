"""Contexts and queries as token ids, checked before any model runs; and which other context is whose control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mechicl.hooks.scoring import Text as Given
from mechicl.hooks.wrapper import WrappedModel
from mechicl.stats import cluster_mean_interval

Text = tuple[int, ...]
CAVEAT = (
    "Caveat: such an update exists for any context and any weights, trained or not, and holds for one token. It "
    "describes what the context does in the form of a weight update; it does not prove that the model learns by "
    "gradient descent, or learns at all. Evidence can come from norms and angles beside their controls, from transfer "
    "to other queries, and from the comparison with real gradients."
)


@dataclass(frozen=True)
class Items:
    """Contexts and queries, token ids without BOS; `bos` goes before both a context and a query alone."""

    bos: Text
    contexts: tuple[Text, ...]
    queries: tuple[Text, ...]

    def __len__(self) -> int:
        """How many items."""
        return len(self.queries)

    def whole(self, context: int, query: int) -> Text:
        """BOS, a context and a query."""
        return (*self.bos, *self.contexts[context], *self.queries[query])

    def alone(self, query: int) -> Text:
        """BOS and a query."""
        return (*self.bos, *self.queries[query])


def read_items(wrapped: WrappedModel, contexts: Sequence[Given], queries: Sequence[Given], prepend_bos: bool) -> Items:
    """Texts or token ids, item by item; a context and its query are tokenised apart.

    Raises `ValueError` for lengths that differ, no item, an empty context or query, ids outside the vocabulary, and any
    pair of a context and a query that does not fit into the context window together.
    """
    if isinstance(contexts, str) or isinstance(queries, str):
        raise ValueError("got one text, expected a list of contexts and a list of queries; write [text]")
    if len(contexts) != len(queries) or not queries:
        raise ValueError(f"got {len(contexts)} contexts and {len(queries)} queries, expected as many, at least 1")
    bos = (wrapped.bos_token_id,) if prepend_bos else ()
    read = {
        kind: tuple(_tokens(wrapped, text, f"{kind} {i}") for i, text in enumerate(given))
        for kind, given in (("context", contexts), ("query", queries))
    }
    longest = max(range(len(queries)), key=lambda i: len(read["query"][i]))
    room = wrapped.n_ctx - len(bos) - len(read["query"][longest])
    for i, context in enumerate(read["context"]):
        if len(context) > room:
            raise ValueError(
                f"context {i} has {len(context)} tokens, but only {max(room, 0)} fit beside query {longest} (of "
                f"{len(read['query'][longest])} tokens) and BOS into the context window of {wrapped.n_ctx}; shorten it"
            )
    return Items(bos, read["context"], read["query"])


def other_of(contexts: Sequence[Text], seed: int) -> list[int]:
    """For every item the number of another item with another context: a derangement where there is one.

    Raises `ValueError` where all contexts are the same (or there is one only).
    """
    if len(set(contexts)) < 2:
        raise ValueError(
            "the control is another item's context, but all contexts are the same; give at least 2 different contexts"
        )
    rng = np.random.default_rng(seed)
    for _ in range(200):
        order = rng.permutation(len(contexts))
        if all(contexts[i] != contexts[j] for i, j in enumerate(order)):
            return [int(j) for j in order]
    # One context may fill more than half of the items: then no order parts all, and others are drawn with replacement.
    differing = [[j for j, other in enumerate(contexts) if other != own] for own in contexts]
    return [int(rng.choice(choices)) for choices in differing]


def mean_interval(
    values: np.ndarray, clusters: Sequence[Any], n_boot: int, level: float, seed: int
) -> tuple[float, float, float]:
    """Mean, low and high over items by the bootstrap over clusters; no interval for one cluster, NaN for no number."""
    if not np.isfinite(values).all():
        return (float("nan"),) * 3
    if len(set(clusters)) < 2:
        return float(values.mean()), float("nan"), float("nan")
    found = cluster_mean_interval(
        values.astype(float), clusters, n_boot=n_boot, level=level, method="percentile", seed=seed
    )
    return found.estimate, found.low, found.high


def checked_clusters(clusters: Sequence[Any] | None, n_items: int) -> list[Any]:
    """One label an item; by default each item is a cluster of its own."""
    if clusters is None:
        return list(range(n_items))
    if len(clusters) != n_items:
        raise ValueError(f"got {len(clusters)} cluster labels for {n_items} items, expected one an item")
    return list(clusters)


def _tokens(wrapped: WrappedModel, text: Given, where: str) -> Text:
    if isinstance(text, str):
        if wrapped.tokenizer is None:
            raise ValueError(f"{where} is a text, but the model has no tokenizer; give token ids")
        found = tuple(int(t) for t in wrapped.tokenizer(text, add_special_tokens=False)["input_ids"])
    else:
        found = tuple(int(t) for t in text)
    if not found:
        lacks = "without a context there is no update" if where.startswith("context") else "there is no last token"
        raise ValueError(f"{where} is empty: {lacks}; give at least one token")
    if outside := [t for t in found if not 0 <= t < wrapped.d_vocab]:
        raise ValueError(f"{where} has the token id {outside[0]}, expected 0 to {wrapped.d_vocab - 1}")
    return found
