"""Attention over similarity: how log attention rises with a head's kernel, in bins of equal size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.analyses.kernels.head_kernels import Regressed

BINS = 12


def kernel_curves(
    data: Regressed,
    chosen: Int[np.ndarray, " head"],
    heads: pd.DataFrame,
    named: Sequence[tuple[int, int]],
    kernel_names: Sequence[str],
) -> pd.DataFrame:
    """One row a named head and bin of its kernel: means of the kernel's and attention's logarithms, both less their
    prompt's mean, the standard error of the latter, demonstrations clustered by prompt, and n. Nuisances are left in.
    """
    rows = []
    place = {(layer, head): i for i, (layer, head) in enumerate(zip(heads["layer"], heads["head"], strict=True))}
    for head in named:
        number = place[head]
        kernel = int(chosen[number])
        if kernel < 0:
            continue
        pair = (data.kernels[:, kernel], data.response[:, number])
        x, y = ((values - values.mean(-1, keepdims=True)).ravel() for values in pair)
        edges = np.quantile(x, np.linspace(0, 1, BINS + 1))
        prompt = np.repeat(np.arange(len(data.queries)), len(x) // len(data.queries))
        bins = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, BINS - 1)
        for own in np.unique(bins):
            inside = y[bins == own]
            error = _clustered(inside, prompt[bins == own])
            at = float(x[bins == own].mean())
            rows.append((*head, kernel_names[kernel], at, float(inside.mean()), error, len(inside)))
    return pd.DataFrame(rows, columns=["layer", "head", "kernel", "log_kernel", "log_attention", "se", "n"])


def _clustered(values: Float[np.ndarray, " row"], prompt: Int[np.ndarray, " row"]) -> float:
    """The standard error of a mean whose values vary together within prompts; NaN with a single prompt."""
    sums = np.bincount(np.unique(prompt, return_inverse=True)[1], values - values.mean())
    n = len(sums)
    return float(np.sqrt((sums**2).sum() * n / (n - 1)) / len(values)) if n > 1 else float("nan")
