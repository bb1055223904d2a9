"""The tables behind `attention_dual`: every head's measures and every demonstration's share, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float

from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.analyses.updates.linear_update import effective_rank
from mechicl.hooks.attention_split import AttentionParts
from mechicl.hooks.wrapper import WrappedModel


def random_spans(
    masks: Sequence[Bool[np.ndarray, "demo _"]], ends: Sequence[int], *, seed: int, first: int = 1
) -> list[Bool[np.ndarray, "demo _"]]:
    """For each prompt spans of its demonstrations' lengths, in random order at random places before the query.

    They do not overlap each other, and lie from the token `first` on; they may overlap the demonstrations.
    """
    rng, found = np.random.default_rng(seed), []
    for mask, end in zip(masks, ends, strict=True):
        lengths = mask.sum(1)
        free = max(end - first - int(lengths.sum()), 0)  # tokens between the spans, shared out at random
        start = min(first, end - int(lengths.sum()))  # a context with BOS in it may need its place
        gaps = np.sort(rng.integers(0, free + 1, size=len(lengths)))
        spans, filled = np.zeros_like(mask), 0
        for gap, row in zip(gaps, rng.permutation(len(lengths)), strict=True):
            at = start + int(gap) + filled
            spans[row, at : at + lengths[row]] = True
            filled += int(lengths[row])
        found.append(spans)
    return found


def written_norm(
    wrapped: WrappedModel, z: Float[np.ndarray, "item layer head d_head"]
) -> Float[np.ndarray, "item layer head"]:
    """||z W_O|| of every head, from the products of W_O's rows: d_model numbers a head are never made."""
    found = np.empty(z.shape[:3])
    for layer in range(wrapped.n_layers):
        out = wrapped.W_O(layer).detach().to("cpu", torch.float64).numpy()
        own = z[:, layer].astype(np.float64)
        squares = np.einsum("ihd,hde,ihe->ih", own, out @ out.transpose(0, 2, 1), own, optimize=True)
        found[:, layer] = np.sqrt(np.maximum(squares, 0))
    return found


def singular_values(parts: AttentionParts) -> Float[np.ndarray, "item layer head rank"]:
    """Of the demonstrations' contributions, largest first."""
    return np.linalg.svd(parts.contributions.astype(np.float64), compute_uv=False)


def heads_table(
    wrapped: WrappedModel, parts: AttentionParts, labels: np.ndarray, draws: dict[str, Any]
) -> pd.DataFrame:
    """One row a layer and head: every measure with its interval."""
    update, without = parts.update, parts.without_context
    one = np.ones(update.shape[:3])
    written, left = written_norm(wrapped, update), written_norm(wrapped, without)
    norms = [np.linalg.norm(x.astype(np.float64), axis=-1) for x in (update, without)]
    rank = effective_rank(singular_values(parts))
    known = np.isfinite(rank)
    measures = {
        "alpha": (parts.alpha.astype(np.float64), one),
        "relative": (norms[0], norms[1]),
        "written": (written, one),
        "written_relative": (written, left),
        "effective_rank": (np.where(known, rank, 0), known.astype(np.float64)),
    }
    n_layers, n_heads = update.shape[1:3]
    columns: dict[str, np.ndarray] = {
        "layer": np.repeat(np.arange(n_layers), n_heads),
        "head": np.tile(np.arange(n_heads), n_layers),
    }
    for name, (above, below) in measures.items():
        columns |= _with_ends(name, above, below, labels, draws)
    return pd.DataFrame(columns)


def demos_table(
    parts: AttentionParts, names: tuple[str, ...], labels: np.ndarray, draws: dict[str, Any]
) -> pd.DataFrame:
    """One row a layer, head and demonstration: its share and its attention, with intervals."""
    shares = parts.shares.astype(np.float64)
    n_layers, n_heads = shares.shape[1:3]
    grid = np.meshgrid(np.arange(n_layers), np.arange(n_heads), np.array(names), indexing="ij")
    columns = {name: axis.ravel() for name, axis in zip(("layer", "head", "demo"), grid, strict=True)}
    known = np.isfinite(shares)
    for name, above, below in (
        ("share", np.where(known, shares, 0), known),
        ("attention", parts.mass, np.ones_like(known)),
    ):
        columns |= _with_ends(name, above, below, labels, draws)
    return pd.DataFrame(columns)


def _with_ends(
    name: str, above: np.ndarray, below: np.ndarray, labels: np.ndarray, draws: dict[str, Any]
) -> dict[str, np.ndarray]:
    over, under = (x.reshape(len(x), -1).astype(np.float64) for x in (above, below))
    return dict(zip((name, f"{name}_low", f"{name}_high"), ratio_intervals(over, under, labels, **draws), strict=True))
