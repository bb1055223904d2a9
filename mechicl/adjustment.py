"""Means of groups that met different blocks: what is left of a group when its blocks' share is taken out.

In a priming corpus no target has its prime's verb. So verbs that lean to PD meet targets that lean to DO, and even
where nothing is primed the mean outcome of a verb falls as its bias rises, by about 1 / (number of verbs - 1). The
two-way additive model takes that out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float


def adjusted_means(
    values: Float[np.ndarray, " item"],
    groups: Sequence[Any] | np.ndarray | pd.Series,
    blocks: Sequence[Any] | np.ndarray | pd.Series,
) -> pd.Series | None:
    """The mean of every group as it would be had all groups met the same blocks, by least squares.

    Fits value = a(group) + b(block), one term a group and one a block, and returns a (in the unit of the values,
    indexed by group, shifted so that their mean is the mean of the groups' plain means). Where every group meets every
    block equally often these are the plain means. None where the design cannot tell the two apart: where groups fall
    into sets that share no block.

    Raises ValueError for lengths that differ and values that are not finite.
    """
    if not len(values) == len(groups) == len(blocks):
        raise ValueError(f"got {len(values)} values, {len(groups)} groups and {len(blocks)} blocks; expected one each")
    if not np.isfinite(values).all():
        raise ValueError(f"got {int((~np.isfinite(values)).sum())} values that are not finite; drop these items first")
    group, names = pd.factorize(np.asarray(groups), sort=True)
    block, labels = pd.factorize(np.asarray(blocks))
    met = np.zeros((len(names), len(labels)))  # how often a group met a block
    np.add.at(met, (group, block), 1.0)
    in_group, in_block = met.sum(1), met.sum(0)
    # The normal equations of the groups' terms, the blocks' terms eliminated: a Laplacian of groups linked by blocks.
    laplacian = np.diag(in_group) - (met / in_block) @ met.T
    if np.linalg.matrix_rank(laplacian, hermitian=True) < len(names) - 1:
        return None
    sums = np.bincount(group, values, len(names))
    block_means = np.bincount(block, values, len(labels)) / in_block
    terms = np.linalg.lstsq(laplacian, sums - met @ block_means, rcond=None)[0]
    plain = sums / in_group
    return pd.Series(terms - terms.mean() + plain.mean(), index=names)
