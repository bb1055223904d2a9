"""Attention of a model of in-context classification, regressed onto kernels between inputs; the ideal one is known.

The best predictor that knows no item of the task is a Gaussian kernel regression of known bandwidth
(`mechicl.predictors.classification`). A trained one-layer model has but one head to do it with: how near does its
attention come to that kernel, and which kernel is it nearest to? Inputs are compared, not residual streams: there is no
text between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.kernel_fit import fit_kernels
from mechicl.predictors.classification import bandwidth
from mechicl.provenance import Provenance
from mechicl.results import Result

KERNELS = ("ideal", "rbf", "dot", "cosine")


@dataclass(frozen=True)
class ClassifierKernels(Result):
    """Held-out R^2 of log attention, kernel by kernel.

    frame: one row a head and kernel: r2 alone; unique_r2 beyond place, label, and what a pair draws from any query;
        joint_r2 of all; slope alone, fitted bandwidth in units of the inputs (ideal and rbf; `known` for the ideal
        one), p_fwe over heads and kernels. "ideal": the kernel of the generalising predictor, of bandwidth `known`;
        "rbf": without its shrinkage of the context's items; "dot", "cosine".
    """

    model: str
    n_contexts: int
    frame: pd.DataFrame
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The kernels."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """R^2 of each kernel, alone and beyond nuisances."""
        from mechicl.views.theorem import plot_classifier_kernels

        return plot_classifier_kernels(self, ax=ax)


def classifier_kernels(
    model: Any,
    task: Any,
    *,
    name: str = "custom",
    n_contexts: int = 200,
    n_folds: int = 5,
    n_permutations: int = 500,
    step: int = 10_000_000,
    seed: int = 0,
) -> ClassifierKernels:
    """Regress the query's attention to the pairs of its context onto kernels between inputs.

    model: with `query_attention(x, y, query)`, such as `mechicl.organisms.load_classifier` gives; task: its
    `ClassificationTask`. step: which contexts are drawn; training uses those below.

    Raises `ValueError` for too few contexts to fold.
    """
    if n_contexts < 2 * n_folds:
        raise ValueError(f"got n_contexts={n_contexts}; expected at least {2 * n_folds}, two a fold")
    contexts = task.sample(n_contexts, step=step)
    attention = model.query_attention(contexts.x, contexts.y, contexts.query)
    own, salient = (
        np.stack([_log_kernels(contexts.x, query, task.noise) for query in queries]).mean(0)
        for queries in ([contexts.query], [np.roll(contexts.query, shift, axis=0) for shift in range(1, 9)])
    )
    n_pairs = contexts.y.shape[1]
    places = np.broadcast_to(np.eye(n_pairs)[1:], (n_contexts, n_pairs - 1, n_pairs))
    nuisance = np.concatenate([places, contexts.y[:, None].astype(np.float64)], 1)
    fits = fit_kernels(
        np.log(attention),
        own,
        nuisance,
        folds=np.random.default_rng(seed).permutation(n_contexts) % n_folds,
        salience=salient,
        n_permutations=n_permutations,
        seed=seed,
    )
    known = bandwidth(task.dim, noise=task.noise)
    rows = [
        {
            "head": head, "kernel": kernel,
            **{field: float(getattr(fits, field)[head, number])
               for field in ("r2", "unique_r2", "joint_r2", "slope", "p_fwe")},
            "bandwidth": float(fits.slope[head, number] ** -0.5)
            if kernel in KERNELS[:2] and fits.slope[head, number] > 0 else np.nan,
            "known": known if kernel == "ideal" else np.nan,
        }
        for head in range(attention.shape[1])
        for number, kernel in enumerate(KERNELS)
    ]  # fmt: skip
    return ClassifierKernels(
        model=name,
        n_contexts=n_contexts,
        frame=pd.DataFrame(rows),
        provenance=Provenance.of(
            {"model": name},
            seeds={"folds and permutations": seed, "contexts": step},
            options={"n_contexts": n_contexts, "n_folds": n_folds, "n_permutations": n_permutations},
        ),
    )


def _log_kernels(
    x: Float[np.ndarray, "batch demo dim"], query: Float[np.ndarray, "batch dim"], noise: float
) -> Float[np.ndarray, "batch kernel demo"]:
    """In the order of `KERNELS`, without scale."""
    asked = query[:, None]
    dot = (x * asked).sum(-1)
    cosine = dot / (np.linalg.norm(x, axis=-1) * np.linalg.norm(asked, axis=-1))
    ideal, plain = (-((asked - centre) ** 2).sum(-1) / 2 for centre in (x / (1 + noise), x))
    return np.stack([ideal, plain, dot, cosine], 1)
