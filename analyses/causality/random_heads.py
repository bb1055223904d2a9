"""Random heads to set beside named ones, and the weights that they take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mechicl.hooks.head_sets import Head


def random_sets(
    own: Sequence[Head],
    excluded: Collection[Head],
    n_layers: int,
    n_heads: int,
    n: int,
    rng: np.random.Generator,
) -> list[tuple[Head, ...]]:
    """Sets of as many heads as `own` in each layer, none of them excluded; different sets where there are as many.

    Where a layer has too few others, the rest are drawn from all layers; no sets at all where there are too few heads.
    """
    free = [head for head in ((a, b) for a in range(n_layers) for b in range(n_heads)) if head not in set(excluded)]
    wanted = Counter(layer for layer, _ in set(own))
    if len(free) < sum(wanted.values()):
        return []
    found: list[tuple[Head, ...]] = []
    for _ in range(10 * n):  # few sets may be possible
        chosen: list[Head] = []
        for layer, number in wanted.items():
            there = [head for head in free if head[0] == layer]
            chosen += [there[i] for i in rng.permutation(len(there))[:number]]
        others = [head for head in free if head not in chosen]
        chosen += [others[i] for i in rng.permutation(len(others))[: sum(wanted.values()) - len(chosen)]]
        if tuple(sorted(chosen)) not in found:
            found.append(tuple(sorted(chosen)))
        if len(found) == n:
            break
    return found[:n]


def nearest_weights(
    heads: Sequence[Head], weights: Mapping[Head, Float[np.ndarray, "item demo"]], n_items: int, n_demos: int
) -> Float[np.ndarray, "item head demo"]:
    """The weights of each head, or of the head nearest in depth (the lower, and the first, of equals) that has some.

    Raises `ValueError`, with the head, for weights of another shape, below 0, not finite, or all 0 in a prompt.
    """
    for head, own in weights.items():
        if own.shape != (n_items, n_demos):
            raise ValueError(f"the weights of head {head} have the shape {own.shape}; expected {(n_items, n_demos)}")
        good = (np.isfinite(own) & (own >= 0)).all(1) & (np.nan_to_num(own).sum(1) > 0)
        if not good.all():
            item = int(np.argmin(good))
            raise ValueError(
                f"the weights of head {head} in prompt {item} are {own[item]}; expected finite numbers of at least 0, "
                "not all 0 (a log-kernel must be exponentiated first)"
            )
    donor = {head: head if head in weights else min(weights, key=lambda own: (abs(own[0] - head[0]), own))
             for head in heads}  # fmt: skip
    return np.stack([weights[donor[head]].astype(float) for head in heads], axis=1)
