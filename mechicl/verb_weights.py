"""Means and slopes over verbs as weights on items.

The mean over items and the slope of verb means on a verb's bias x are both linear in the items' values y:

    F(y) = sum_i w_i y_i

with weights that depend on the design and on x alone, never on y. So what an intervention does to F is the same weights
on what it does to each item, F(patched) - F(clean) = sum_i w_i dy_i; the gradient of F is the gradient of the items
weighted by w; and another x, such as a permuted one, needs no new forward pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

Labels = Sequence[Any] | np.ndarray | pd.Series
VerbValues = Mapping[Any, float] | pd.Series


def mean_weights(prime_verb: Labels) -> Float[np.ndarray, " item"]:
    """The weights of the mean over items, 1 / n each: weights @ values is the mean, in the unit of the values.

    Raises ValueError where there is no item.
    """
    if len(prime_verb) == 0:
        raise ValueError("got no items, expected at least one")
    return np.full(len(prime_verb), 1 / len(prime_verb))


def slope_weights(
    x: VerbValues, prime_verb: Labels, target: Labels, *, adjusted: bool = True
) -> Float[np.ndarray, " item"]:
    """The weights of the least-squares slope on x of the verbs' mean values, each verb one point.

    weights @ values = sum_v c_v m_v with c_v = (x_v - mean x) / sum_v (x_v - mean x)^2 and m_v the mean of verb v that
    `verb_matrix` gives: weights @ values equals refitting least squares, in units of the values per unit of x. The
    weights sum to 0.

    `x`: verb -> number, for every prime verb (others are ignored). `prime_verb` and `target`: one label an item.

        weights = slope_weights({"give": 0.3, "send": 0.7, "throw": 0.9}, items["prime_verb"], items["target"])
        change = weights @ (patched - clean)        # effect on the slope, for each head where these are matrices

    Raises ValueError for fewer than 3 verbs, x without variation, verbs without a finite x, labels that are missing or
    of unequal number.
    """
    verbs, matrix = verb_matrix(prime_verb, target, adjusted=adjusted)
    return slope_contrast(values_of_verbs(x, verbs)) @ matrix


def verb_matrix(
    prime_verb: Labels, target: Labels, *, adjusted: bool = True
) -> tuple[np.ndarray, Float[np.ndarray, "verb item"]]:
    """The verbs, sorted, and the linear map from items to verb means: matrix @ values are the means. Rows sum to 1.

    With `adjusted` these are the means of `mechicl.adjustment.adjusted_means`, as they would be had all verbs met the
    same targets: least squares for value = a(verb) + b(target). Where the design cannot tell verbs from targets
    (`tells_verbs_from_targets`), and without `adjusted`, they are plain means.

    Raises ValueError for labels that are missing or of unequal number.
    """
    verb, verbs, met_at, met = design_of(prime_verb, target)
    in_verb, in_target = met.sum(1), met.sum(0)
    own = verb == np.arange(len(verbs))[:, None]
    plain = own / in_verb[:, None]
    laplacian = _laplacian(met)
    if not adjusted or not _is_connected(laplacian):
        return verbs, plain
    # a = L+ (S - N D^-1 T) y: sums by verb less what the targets' means predict, by the Laplacian's pseudo-inverse.
    # Its kernel is known, the constant vector; to find it by the size of eigenvalues (pinv) failed on some designs.
    inverse = np.linalg.inv(laplacian + 1 / len(verbs)) - 1 / len(verbs)
    terms = inverse[:, verb] - (inverse @ (met / in_target))[:, met_at]
    return verbs, terms - terms.mean(0) + plain.mean(0)


def tells_verbs_from_targets(prime_verb: Labels, target: Labels) -> bool:
    """Whether shared targets link all verbs, so that means can be adjusted for the targets that each verb met."""
    return _is_connected(_laplacian(design_of(prime_verb, target)[3]))


def design_of(
    prime_verb: Labels, target: Labels
) -> tuple[Int[np.ndarray, " item"], np.ndarray, Int[np.ndarray, " item"], Float[np.ndarray, "verb _target"]]:
    """Each item's verb as a number, the verbs' names (sorted), each item's target, and how often a verb met a target.

    Raises ValueError for labels that are missing or of unequal number.
    """
    if len(prime_verb) != len(target) or len(target) == 0:
        raise ValueError(f"got {len(prime_verb)} prime verbs and {len(target)} targets; expected one each an item")
    verb, verbs = pd.factorize(np.asarray(prime_verb), sort=True)
    met_at, targets = pd.factorize(np.asarray(target))
    if (verb < 0).any() or (met_at < 0).any():
        raise ValueError("a verb or target label is missing; give every item both")
    met = np.zeros((len(verbs), len(targets)))
    np.add.at(met, (verb, met_at), 1.0)
    return verb, np.asarray(verbs), met_at, met


def values_of_verbs(x: VerbValues, verbs: Sequence[Any] | np.ndarray) -> Float[np.ndarray, " verb"]:
    """The numbers of these verbs, in their order; a pandas Series is read by its index.

    Raises ValueError naming the verbs that have no number, or none that is finite.
    """
    table = dict(x.items())
    found = np.array([table.get(verb, np.nan) for verb in verbs], dtype=np.float64)
    if not np.isfinite(found).all():
        without = [str(verb) for verb, value in zip(verbs, found, strict=True) if not np.isfinite(value)]
        raise ValueError(f"x has no finite number for the verbs {without}; give one a verb, or drop their items first")
    return found


def slope_contrast(x: Float[np.ndarray, " verb"]) -> Float[np.ndarray, " verb"]:
    """The weights of a least-squares slope on its points: slope_contrast(x) @ y is the slope of y on x.

    Raises ValueError for fewer than 3 points and x without variation.
    """
    if len(x) < 3:
        raise ValueError(f"slope undefined with {len(x)} verbs; give at least 3")
    if np.ptp(x) == 0:
        raise ValueError(f"slope undefined: x is {x[0]} for all {len(x)} verbs")
    centred = x - x.mean()
    return centred / (centred**2).sum()


def _laplacian(met: Float[np.ndarray, "verb _target"]) -> Float[np.ndarray, "verb verb"]:
    """The normal equations of the verbs' terms, the targets' terms eliminated."""
    return np.diag(met.sum(1)) - (met / met.sum(0)) @ met.T


def _is_connected(laplacian: Float[np.ndarray, "verb verb"]) -> bool:
    return bool(np.linalg.matrix_rank(laplacian, hermitian=True) == len(laplacian) - 1)
