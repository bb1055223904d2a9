"""Attention of many heads regressed onto many kernels at once.

If a head computes kernel regression, its attention to demonstration i of a prompt is a_i = K_i / sum_j K_j, so that

    log a_i = beta log k_i + gamma . z_i + constant of the prompt + error

where k is a candidate kernel without its scale and z are nuisances (position, label, length). For a Gaussian kernel
log k = -d^2 / 2 and beta = 1 / h^2 gives the bandwidth h. The constant is the softmax's normaliser: everything is
centred within its prompt, so a head that treats all demonstrations alike has nothing to explain.

A kernel may fit because some demonstrations draw attention from every query (a large norm will do). Its salience, its
value for the mean of other queries, is therefore a nuisance of its own: what a kernel explains beyond it is that this
query is like this demonstration, which is what kernel regression claims.

R^2 is held out: coefficients from the other folds, errors on this fold, so that 0 is what uniform attention explains
and below 0 is worse. From one set of sums a fold all heads, kernels and folds are solved at once (Frisch and Waugh:
residuals on the nuisances, then the kernel's coefficient on those); it agrees with scikit-learn's LinearRegression.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from mechicl.kernel_grams import Grams
from mechicl.kernel_permutations import kernel_null

_CONSTANT = 1e-10  # a spread below this share of the values' own size is rounding
_ALIKE = 1e-5  # log attention that varies less within every prompt is that of a head that treats all alike


@dataclass(frozen=True)
class KernelFits:
    """How well candidate kernels explain the attention of heads.

    r2: held-out R^2 of a kernel alone. joint_r2: of nuisances, salience and kernel; unique_r2: what the kernel adds to
    the other two, held out, or to nothing where these explain less than nothing. nuisance_r2: of the nuisances alone.
    All at most 1; chance is slightly below 0. slope: beta of a kernel alone, and slope_beyond of it beside the others,
    over all prompts. partial_r: correlation of attention and kernel beyond nuisances and salience. p, p_fwe: two-sided,
    of the kernel's part beyond these, against kernels that belong to other prompts; p_fwe holds for all heads and
    kernels together (largest correlation). NaN where attention or kernel does not vary within any prompt, or is not
    finite: `defined` tells of which heads.
    """

    r2: Float[np.ndarray, "head kernel"]
    joint_r2: Float[np.ndarray, "head kernel"]
    unique_r2: Float[np.ndarray, "head kernel"]
    slope: Float[np.ndarray, "head kernel"]
    slope_beyond: Float[np.ndarray, "head kernel"]
    partial_r: Float[np.ndarray, "head kernel"]
    p: Float[np.ndarray, "head kernel"]
    p_fwe: Float[np.ndarray, "head kernel"]
    nuisance_r2: Float[np.ndarray, " head"]
    defined: Bool[np.ndarray, " head"]


def fit_kernels(
    response: Float[np.ndarray, "item head demo"],
    kernels: Float[np.ndarray, "item kernel demo"],
    nuisance: Float[np.ndarray, "item nuisance demo"],
    *,
    folds: Int[np.ndarray, " item"],
    salience: Float[np.ndarray, "item kernel demo"] | None = None,
    groups: Int[np.ndarray, " item"] | None = None,
    n_permutations: int = 1_000,
    seed: int = 0,
) -> KernelFits:
    """Regress every head's log attention onto every kernel, alone and beside the nuisances.

    folds: the fold of each prompt; prompts that share a query belong in one. salience: a nuisance of each kernel's
    own, the kernel's value for other queries. groups: the query of each prompt, whose prompts are permuted together;
    None: each its own. n_permutations: 0 leaves p undefined.

    Raises `ValueError` for a single fold, fewer than 2 demonstrations, and nuisances that are not finite.
    """
    _check(response, nuisance, folds)
    heads, defined = _columns(response, least=_ALIKE)
    features, usable = _columns(kernels)
    salient, _ = _columns(np.zeros_like(kernels) if salience is None else salience)
    extra, _ = _columns(nuisance)
    n_demos = response.shape[-1]
    names, fold = np.unique(folds, return_inverse=True)
    row_fold = np.repeat(fold, n_demos)
    own = [
        Grams.of(*(columns[row_fold == number] for columns in (heads, features, salient, extra)))
        for number in range(len(names))
    ]
    total = own[0]
    for gram in own[1:]:
        total = total + gram
    errors = [gram.held_out(total - gram) for gram in own]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = lambda name: 1 - sum(getattr(error, name) for error in errors) / total.rr  # noqa: E731
        nuisance_r2, without, alone, joint = (share(name) for name in ("nuisance", "without", "alone", "joint"))
        left = total.beyond(total)
        remains = np.where(left.rr > _CONSTANT * total.rr, left.rr, np.nan)
        partial_r = left.kr / np.sqrt(left.kk[:, None] * remains)
    units = np.arange(len(response)) if groups is None else groups
    p, p_fwe = _p_values((heads, features, salient, extra), units, n_demos, n_permutations, seed)
    gaps = ~(defined[:, None] & usable)
    cells = {
        "r2": alone.T,
        "joint_r2": joint.T,
        "unique_r2": (joint - np.maximum(without, 0)).T,
        "slope": total.slopes().T,
        "slope_beyond": total.slopes_beyond().T,
        "partial_r": partial_r.T,
        "p": p,
        "p_fwe": p_fwe,
    }
    known = {name: np.where(gaps, np.nan, values) for name, values in cells.items()}
    return KernelFits(**known, nuisance_r2=np.where(defined, nuisance_r2, np.nan), defined=defined)


def _columns(
    values: Float[np.ndarray, "item column demo"], *, least: float = 0.0
) -> tuple[Float[np.ndarray, "row column"], np.ndarray]:
    """Centred within each prompt, one row a demonstration; and which columns vary and are finite (others are 0)."""
    finite = np.isfinite(values).all((0, 2))
    kept = np.where(finite[None, :, None], values, 0.0)
    centred = kept - kept.mean(-1, keepdims=True)
    varies = np.abs(centred).max((0, 2)) > np.maximum(_CONSTANT * np.abs(kept).max((0, 2)), least)
    centred[:, ~varies] = 0.0
    rows = centred.transpose(0, 2, 1).reshape(len(values) * values.shape[2], values.shape[1])
    return rows, finite & varies


def _p_values(
    columns: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    groups: np.ndarray,
    n_demos: int,
    n_permutations: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """p and p_fwe of what heads and kernels share beyond the nuisances."""
    heads, features, salient, extra = columns
    if n_permutations == 0:
        unknown = np.full((heads.shape[1], features.shape[1]), np.nan)
        return unknown, unknown
    basis = _basis(extra)
    rest, beyond, salient = (each - basis @ (basis.T @ each) for each in (heads, features, salient))
    squared = (salient**2).sum(0)
    on = np.divide((salient * beyond).sum(0), squared, out=np.zeros_like(squared), where=squared > 0)
    left = []
    for whole, part in ((heads, rest), (features, beyond - on * salient)):
        size, before = np.sqrt((part**2).sum(0)), np.sqrt((whole**2).sum(0))
        part = np.divide(part, size, out=np.zeros_like(part), where=size > np.sqrt(_CONSTANT) * before)
        left.append(part.reshape(-1, n_demos, part.shape[1]))
    return kernel_null(left[0], left[1], basis, groups, n_permutations=n_permutations, seed=seed)


def _basis(columns: Float[np.ndarray, "row column"]) -> Float[np.ndarray, "row rank"]:
    """Orthonormal columns that span these, which may be collinear."""
    u, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, sizes > _CONSTANT * sizes.max(initial=0.0)])


def _check(response: np.ndarray, nuisance: np.ndarray, folds: np.ndarray) -> None:
    if response.shape[-1] < 2:
        raise ValueError("got prompts with one demonstration; attention to several is compared, give at least 2")
    if len(np.unique(folds)) < 2:
        raise ValueError("got a single fold; give at least 2, so that errors are those of prompts not fitted")
    if not np.isfinite(nuisance).all():
        number = int(np.flatnonzero(~np.isfinite(nuisance).all((0, 2)))[0])
        raise ValueError(f"nuisance {number} is not finite; drop it or fill its gaps")
