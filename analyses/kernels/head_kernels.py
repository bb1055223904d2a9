"""The kernel of each head: chosen on one half of the prompts, judged on the other.

On the prompts for selection every kernel is cross-validated and the one with the largest unique R^2 is kept, with its
coefficients; the prompts for evaluation say what these explain. So neither the choice among hundreds of kernels nor
the fit can flatter a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from mechicl.analyses.kernels.nuisances import Nuisances
from mechicl.held_out_r2 import Shares, explained_shares
from mechicl.kernel_fit import KernelFits, fit_kernels

_NOTHING = 1e-9  # less is rounding
_COLLINEAR = 1e-10  # places and their distances are, where all texts are equally long; rounding must not be fitted
NAMED = 0.1  # from this R^2 on a head is named after what it follows


@dataclass(frozen=True)
class Regressed:
    """What is regressed: log attention of heads, kernels with their salience, nuisances; and which query each is on."""

    response: Float[np.ndarray, "item head demo"]
    kernels: Float[np.ndarray, "item kernel demo"]
    salience: Float[np.ndarray, "item kernel demo"]
    nuisances: Nuisances
    queries: Int[np.ndarray, " item"]

    @property
    def finite(self) -> Bool[np.ndarray, " head"]:
        """Which heads attend to every demonstration, if ever so little: log 0 cannot be regressed."""
        return np.asarray(np.isfinite(self.response).all((0, 2)))

    def taken(self, items: Bool[np.ndarray, " item"]) -> Regressed:
        """Some of the prompts."""
        nuisances = Nuisances(self.nuisances.columns[items], self.nuisances.blocks)
        return Regressed(
            self.response[items], self.kernels[items], self.salience[items], nuisances, self.queries[items]
        )


def query_folds(queries: Int[np.ndarray, " item"], n_folds: int, seed: int) -> Int[np.ndarray, " item"]:
    """Folds of prompts; those with one query are in one fold."""
    names, codes = np.unique(queries, return_inverse=True)
    if len(names) < n_folds:
        raise ValueError(f"got {len(names)} different queries for {n_folds} folds; give more prompts")
    return np.random.default_rng(seed).permutation(len(names))[codes] % n_folds


def fit_all(data: Regressed, *, n_folds: int, n_permutations: int, seed: int) -> KernelFits:
    """Every head on every kernel."""
    return fit_kernels(
        data.response,
        data.kernels,
        data.nuisances.columns,
        folds=query_folds(data.queries, n_folds, seed),
        salience=data.salience,
        groups=data.queries,
        n_permutations=n_permutations,
        seed=seed,
    )


def readable_kernels(table: pd.DataFrame, n_layers: int, n_heads: int) -> Bool[np.ndarray, "head kernel"]:
    """Which kernels a head could compute: those of streams that exist when it attends, not of later ones.

    A later stream may hold what the head itself has written, and be alike where it looked. The similarity of
    predictions, of texts run alone, is no stream and open to all.
    """
    layer = np.repeat(np.arange(n_layers), n_heads)
    return np.asarray(table["layer"].to_numpy()[None, :] <= layer[:, None])


def chosen_kernels(
    fits: KernelFits, readable: Bool[np.ndarray, "head kernel"] | None = None
) -> Int[np.ndarray, " head"]:
    """The kernel of each head: of those that add to nuisances and salience at least half of what any kernel adds, the
    one with which the whole fits best. -1 where none adds anything.

    What a kernel adds alone would decide for those that have little salience to subtract. Slopes are to be positive: a
    negative one is attention to what is unlike the query, no kernel regression. readable: those that a head may have.
    """
    adds = (fits.slope_beyond > 0) & (fits.unique_r2 > _NOTHING)
    unique = np.where(adds if readable is None else adds & readable, fits.unique_r2, -np.inf)
    most = unique.max(1)
    able = np.where(unique >= most[:, None] / 2, fits.joint_r2, -np.inf)
    return np.where(np.isfinite(most), able.argmax(1), -1)


def judged(train: Regressed, test: Regressed, chosen: Int[np.ndarray, " head"], **boot: Any) -> pd.DataFrame:
    """One row a head: R^2 of its chosen kernel, alone and beside nuisances, on the prompts of `test`."""
    around = _sums(_centred(test.response))
    predicted = predictions(train, test, chosen)
    errors = {name: _sums(_centred(test.response) - log) for name, log in predicted.items()}
    parts: dict[str, Shares] = {
        "r2": explained_shares(errors["kernel"], around, around, test.queries, **boot),
        "unique_r2": explained_shares(errors["joint"], errors["without"], around, test.queries, **boot),
        "joint_r2": explained_shares(errors["joint"], around, around, test.queries, **boot),
        "nuisance_r2": explained_shares(errors["nuisance"], around, around, test.queries, **boot),
    }
    columns: dict[str, np.ndarray] = {}
    for name, found in parts.items():
        columns |= {name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}
    columns["share_r2"] = _share_r2(softmax(test.response), softmax(predicted["joint"]))
    frame = pd.DataFrame(columns)
    of_kernel = [column for column in columns if not column.startswith("nuisance")]
    frame.loc[chosen < 0, of_kernel] = np.nan
    frame.loc[~(train.finite & test.finite)] = np.nan
    return frame


def predictions(
    train: Regressed, test: Regressed, chosen: Int[np.ndarray, " head"]
) -> dict[str, Float[np.ndarray, "item head demo"]]:
    """Log attention of the prompts of `test`, centred, with coefficients of `train`.

    "kernel": of the chosen kernel alone; "nuisance": of the nuisances; "without": of nuisances and the kernel's
    salience; "joint": of all.
    """
    n_items, n_heads, n_demos = test.response.shape
    found = {name: np.zeros((n_items, n_heads, n_demos)) for name in ("kernel", "nuisance", "without", "joint")}
    response, extra = _rows(train.response), _rows(train.nuisances.columns)
    new_extra = _rows(test.nuisances.columns)
    groups = {int(kernel): np.flatnonzero(chosen == kernel) for kernel in np.unique(chosen)}
    for kernel, heads in groups.items():
        own = np.nan_to_num(response[:, heads], posinf=0.0, neginf=0.0)
        designs = {name: ([extra], [new_extra]) for name in ("nuisance", "without", "joint")}
        if kernel >= 0:
            one, new = _rows(train.kernels[:, [kernel]]), _rows(test.kernels[:, [kernel]])
            salient, new_salient = _rows(train.salience[:, [kernel]]), _rows(test.salience[:, [kernel]])
            designs |= {
                "kernel": ([one], [new]),
                "without": ([extra, salient], [new_extra, new_salient]),
                "joint": ([extra, salient, one], [new_extra, new_salient, new]),
            }
        for name, (fitted, used) in designs.items():
            coefficients = np.linalg.pinv(np.concatenate(fitted, 1), rcond=_COLLINEAR) @ own
            rows = np.concatenate(used, 1) @ coefficients
            found[name][:, heads] = rows.reshape(n_items, n_demos, len(heads)).transpose(0, 2, 1)
    return found


def block_shares(
    train: Regressed, test: Regressed
) -> tuple[dict[str, Float[np.ndarray, " head"]], Float[np.ndarray, " head"]]:
    """Held-out R^2 of each block of nuisances alone; and the correlation of log attention with the demonstration's
    number: above 0 for recency, below for primacy."""
    response, target = _rows(train.response), _rows(test.response)
    around = (target**2).sum(0)
    found = {}
    for block in train.nuisances.names:
        fitted, used = _rows(train.nuisances.of(block)), _rows(test.nuisances.of(block))
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = target - used @ (np.linalg.pinv(fitted, rcond=_COLLINEAR) @ response)
            found[block] = np.where(around > 0, 1 - (errors**2).sum(0) / around, np.nan)
    number = np.arange(test.response.shape[-1], dtype=np.float64)
    number = np.tile(number - number.mean(), len(test.response))
    with np.errstate(divide="ignore", invalid="ignore"):
        recency = number @ target / np.sqrt((number**2).sum() * around)
    return found, recency


def softmax(log_weights: Float[np.ndarray, "*head demo"]) -> Float[np.ndarray, "*head demo"]:
    """Shares of the demonstrations, which sum to 1."""
    weights = np.exp(log_weights - np.nan_to_num(log_weights.max(-1, keepdims=True), neginf=0.0))
    return weights / weights.sum(-1, keepdims=True)


def follows_kernel(row: Any, alpha: float) -> bool:
    """Is a head's attention a kernel's, beyond nuisances and salience? By p over all heads and kernels, and by the
    interval on the prompts that chose nothing."""
    return bool(row["p_fwe"] <= alpha and row["unique_r2_low"] > 0)


def head_kind(row: Any, blocks: Sequence[str]) -> str:
    """What a head's attention to demonstrations follows most: a kernel, or a block of nuisances; "other" if neither."""
    if np.isnan(row["position_r2"]):
        return "constant"
    shares = {block: row[f"{block}_r2"] for block in blocks}
    if row["follows_kernel"]:
        shares["kernel"] = row["unique_r2"]
    best = max(shares, key=lambda name: shares[name])
    if shares[best] < NAMED:
        return "other"
    if best == "position":
        return "recency" if row["recency"] > 0 else "primacy"
    return best


def _share_r2(
    attention: Float[np.ndarray, "item head demo"], predicted: Float[np.ndarray, "item head demo"]
) -> Float[np.ndarray, " head"]:
    """R^2 of the shares themselves, not of their logarithms; against equal shares."""
    around = ((attention - 1 / attention.shape[-1]) ** 2).sum((0, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(around > 0, 1 - ((attention - predicted) ** 2).sum((0, 2)) / around, np.nan)


def _centred(values: Float[np.ndarray, "item column demo"]) -> Float[np.ndarray, "item column demo"]:
    with np.errstate(invalid="ignore"):  # heads that are not finite, of which nothing is said
        return values - values.mean(-1, keepdims=True)


def _rows(values: Float[np.ndarray, "item column demo"]) -> Float[np.ndarray, "row column"]:
    return _centred(values).transpose(0, 2, 1).reshape(-1, values.shape[1])


def _sums(errors: Float[np.ndarray, "item head demo"]) -> Float[np.ndarray, "item head"]:
    return (errors**2).sum(-1)
