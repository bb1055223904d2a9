"""The tables of one seed and one diversity, summed over the items of each cluster: what `profiles` is built from.

With rho = p / G = 1 - w + w M / G the mixture's part of KL(h, p) is -sum_y h_y log rho_y: one array log rho over items,
labels and nodes serves all checkpoints, and the distances of the mixture as well. It is made for a few clusters at a
time.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

Block = dict[str, np.ndarray]
_CELLS = 4_000_000  # numbers of a working array: 32 MB
FLOOR = 1e-12  # a transformer's probability inside a logarithm


def probability_block(
    predictions: Float[np.ndarray, "step item label"],
    memorising: Float[np.ndarray, "item label"],
    generalising: Float[np.ndarray, "item label"],
    offsets: Float[np.ndarray, " item"],
    members: Int[np.ndarray, "batch _"],
    grid: Float[np.ndarray, " weight"],
) -> Block:
    """Tables of distributions. members: the items of each cluster, -1 where it has fewer than others."""
    n_items, n_labels = memorising.shape
    width = members.shape[1] * n_labels
    parts = []
    size = max(1, _CELLS // (width * max(len(grid), len(predictions))))
    for start in range(0, len(members), size):
        chosen = members[start : start + size]
        columns = np.where(chosen[..., None] >= 0, chosen[..., None] * n_labels + np.arange(n_labels), -1)
        columns = columns.reshape(len(chosen), width)
        flat = [values.reshape(-1, n_items * n_labels) for values in (predictions, memorising, generalising)]
        h, m, g = (_gathered(values, columns, n_labels) for values in flat)
        odds = np.where(chosen >= 0, offsets[chosen], 0.0)[..., None] + grid
        parts.append(_probability_chunk(h, m[:, 0], g[:, 0], odds, columns >= 0))
    return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in _FLAT} | {
        name: np.concatenate([part[name] for part in parts], axis=-2) for name in _CURVED
    }


_FLAT = ("to_memorising", "to_generalising", "between")
_CURVED = ("profiles", "model_to_memorising", "model_to_generalising")


def _gathered(values: np.ndarray, columns: np.ndarray, n_labels: int) -> np.ndarray:
    """Distributions as [cluster, step, item and label], in double precision, of sum 1; 0 where there is no item."""
    found = np.moveaxis(values[:, columns], 0, 1).astype(np.float64, order="C")
    found *= (columns >= 0)[:, None]
    by_item = found.reshape(*found.shape[:2], -1, n_labels)
    sums = by_item.sum(-1, keepdims=True)
    by_item /= np.where(sums == 0, 1.0, sums)
    return found


def _probability_chunk(
    h: Float[np.ndarray, "batch step _"],
    m: Float[np.ndarray, "batch _"],
    g: Float[np.ndarray, "batch _"],
    odds: Float[np.ndarray, "batch item weight"],
    present: np.ndarray,
) -> Block:
    # absent items have h = m = g = 0, and a ratio of 1
    log_m, log_g = (np.log(np.where(present, part, 1.0)) for part in (m, g))
    log_ratio = log_m - log_g
    ratio = np.exp(log_ratio).reshape(*odds.shape[:2], -1)
    rho = expit(odds)[..., None, :] * ratio[..., None]
    rho += expit(-odds)[..., None, :]
    rho = rho.reshape(*m.shape, odds.shape[-1])
    log_rho = np.log(rho)
    fixed = np.stack([log_m, log_g, np.ones_like(m)], axis=-1)
    mixed = np.matmul(h, log_rho)
    with_m, with_g, _ = np.moveaxis(np.matmul(h, fixed), -1, 0)
    log_h = np.log(np.maximum(h, FLOOR))
    entropy = np.einsum("bsk,bsk->bs", h, log_h)
    h_in_m, h_in_g = np.moveaxis(np.matmul(log_h, np.stack([m, g], axis=-1)), -1, 0)
    own_m, own_g = (m * log_m).sum(-1)[:, None], (g * log_g).sum(-1)[:, None]

    rho *= g[..., None]  # now p
    p_log_rho = np.einsum("bkw,bkw->bw", rho, log_rho)
    p_log_ratio = np.matmul(log_ratio[:, None], rho)[:, 0]
    m_log_rho, g_log_rho = np.moveaxis(np.matmul(np.stack([m, g], axis=1), log_rho), 1, 0)
    return {
        "profiles": np.moveaxis((entropy - with_g)[..., None] - mixed, 1, 0),
        "to_memorising": (entropy - with_m - h_in_m + own_m).T / 2,
        "to_generalising": (entropy - with_g - h_in_g + own_g).T / 2,
        "between": ((m - g) * log_ratio).sum(-1) / 2,
        # (p - m)(log rho - log ratio) / 2 and (p - g) log rho / 2, summed
        "model_to_memorising": (p_log_rho - m_log_rho - p_log_ratio + (m * log_ratio).sum(-1)[:, None]) / 2,
        "model_to_generalising": (p_log_rho - g_log_rho) / 2,
    }


def mean_block(
    predictions: Float[np.ndarray, "step item label"],
    memorising: Float[np.ndarray, "item label"],
    generalising: Float[np.ndarray, "item label"],
    offsets: Float[np.ndarray, " item"] | None,
    members: Int[np.ndarray, "batch _"],
    grid: Float[np.ndarray, " weight"],
) -> Block:
    """Tables of means: coefficients of 1, w and w^2, or, with offsets, values at the nodes."""
    h, m, g = (values.astype(np.float64) for values in (predictions, memorising, generalising))
    gap = m - g
    squares = {
        "to_memorising": ((h - m) ** 2).mean(-1),
        "to_generalising": ((h - g) ** 2).mean(-1),
        "between": (gap**2).mean(-1),
    }
    along = ((h - g) * gap).mean(-1)
    if offsets is None:
        weights = np.eye(3)[:, None]  # of 1, w and w^2: one row for all items
    else:
        weight = expit(offsets[:, None] + grid)
        weights = np.stack([np.ones_like(weight), weight, weight**2])
    one, first, second = (_gather(np.broadcast_to(rows, (len(m), rows.shape[-1])), members) for rows in weights)
    sums = {name: _gather(values[..., None], members)[..., 0] for name, values in squares.items()}
    away = _gather(squares["to_generalising"][..., None], members)
    lean = _gather(along[..., None], members)
    apart = _gather(squares["between"][..., None], members)
    tables = {
        "profiles": (away * one - 2 * lean * first + apart * second).sum(-2),
        "model_to_memorising": (apart * (one - 2 * first + second)).sum(-2),
        "model_to_generalising": (apart * second).sum(-2),
    }
    return {name: values.sum(-1) for name, values in sums.items()} | tables


def _gather(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Values [..., item, one] as [..., cluster, place, one], 0 where a cluster has no such item."""
    return np.asarray(values[..., members, :] * (members >= 0)[..., None])
