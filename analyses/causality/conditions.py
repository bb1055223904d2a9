"""What attention is replaced by: the conditions of a causal test of a kernel, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from mechicl.analyses.causality.random_heads import nearest_weights
from mechicl.hooks.demos.outputs import Weights
from mechicl.hooks.head_sets import Head


def attention_conditions(
    heads: Sequence[Head],
    weights: Mapping[Head, Float[np.ndarray, "item demo"]],
    nuisance: Mapping[Head, Float[np.ndarray, "item demo"]] | None,
    n_items: int,
    n_demos: int,
    n_permuted: int,
    rng: np.random.Generator,
) -> dict[str, Weights]:
    """The weights of each condition; those of the kernel are permuted alike for all heads of a prompt."""
    kernel = nearest_weights(heads, weights, n_items, n_demos)
    found: dict[str, Weights] = {"own": "own", "knocked out": "knocked out", "uniform": np.ones_like(kernel)}
    found["kernel"] = kernel
    if nuisance is not None:
        found["nuisance"] = nearest_weights(heads, nuisance, n_items, n_demos)
    for draw in range(n_permuted):
        orders = rng.permuted(np.tile(np.arange(n_demos), (n_items, 1)), axis=1)
        found[f"permuted {draw}"] = np.take_along_axis(kernel, orders[:, None], axis=2)
    return found


def condition_numbers(names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Where each condition stands; all draws of permuted weights are one condition."""
    found: dict[str, tuple[int, ...]] = {}
    for number, name in enumerate(names):
        kind = "permuted" if name.startswith("permuted") else name
        found[kind] = (*found.get(kind, ()), number)
    return found
