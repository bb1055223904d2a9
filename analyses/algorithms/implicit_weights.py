"""What linear law does a regressor apply in a context, and how far is it from an algorithm's?

    SPD    E (yhat_A - yhat_B)^2, the squared difference of predictions, in units of y^2
    ILWD   E ||w_A - w_B||^2, w the least-squares fit, without intercept, to a regressor's predictions for probe queries

Both are 0 for equal predictors and have no upper bound; the row "zero" (the guess 0) says what is large. Where a model
is not linear in its query, w is the nearest linear law: `r2` is the share of its predictions for the probes that w
explains. Probes are queries of other contexts. Source: arXiv:2211.15661, which reports below .01 between large models
and least squares without noise, and one layer near a gradient step, few layers near ridge.

Caveats:
- Where `r2` is well below 1 there is no one linear law, and ILWD compares the nearest one only.
- Many algorithms have nearly the same law on easy contexts: look at differences between rows, not at one small number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.algorithms.regressor_calls import facts_of, predict_all, predictions
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.predictors.gradient import least_squares, ridge
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.regression import Regressions

Predict = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ImplicitWeights(Result):
    """frame: one row an algorithm, and "zero" and "other contexts" as controls: spd, ilwd, each with _low and _high.

    r2: how linear the model is in its query, 1 for a linear one.
    """

    frame: pd.DataFrame
    r2: float
    level: float
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The algorithms."""
        return self.frame.copy()

    def plot(self, ax: Any = None, measure: str = "ilwd") -> Any:
        """One measure of all algorithms beside the controls; returns matplotlib Axes."""
        from mechicl.views.algorithms import plot_conditions

        if measure not in ("spd", "ilwd"):
            raise ValueError(f"got measure={measure!r}; expected 'spd' or 'ilwd'")
        names = {measure: "estimate", f"{measure}_low": "low", f"{measure}_high": "high", "algorithm": "condition"}
        return plot_conditions(
            self.frame.rename(columns=names), label=f"Distance of the model: {measure.upper()}", ax=ax
        )


def compare_weights(
    model: Any,
    contexts: Regressions,
    algorithms: Mapping[str, Predict] | None = None,
    *,
    n_probes: int | None = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> ImplicitWeights:
    """SPD and ILWD between a regressor and algorithms; see the head of this file.

    algorithms: functions (x, y, query) by name, say `{"ridge": partial(ridge, penalty=0.1)}` or the `predict` of
    `AlgorithmFit.algorithm`; by default least squares and ridge with penalty 0.1. n_probes: 4 a dimension by default.
    """
    check_level(level)
    chosen = dict(algorithms or {"least_squares": least_squares, "ridge(penalty=0.1)": _ridge})
    if set(chosen) & {"zero", "other contexts"}:
        raise ValueError("'zero' and 'other contexts' are the controls' names; give the algorithms others")
    count = 4 * contexts.query.shape[-1] if n_probes is None else n_probes
    own, r2 = probe_weights(model, contexts, n_probes=count, seed=seed)
    at_query = predict_all(model, contexts)
    above = []
    for predict in chosen.values():
        found, _ = probe_weights(predict, contexts, n_probes=count, seed=seed)
        above.append(((predict_all(predict, contexts) - at_query) ** 2, ((found - own) ** 2).sum(-1)))
    above.append((at_query**2, (own**2).sum(-1)))
    above.append((_mismatch(at_query), _mismatch(own)))
    frame: dict[str, Any] = {"algorithm": [*chosen, "zero", "other contexts"]}
    for at, measure in enumerate(("spd", "ilwd")):
        values = np.stack([pair[at] for pair in above], axis=1)
        ends = ratio_intervals(
            values, np.ones_like(values), np.arange(len(values)), n_boot=n_boot, level=level, seed=seed
        )
        frame |= dict(zip((measure, f"{measure}_low", f"{measure}_high"), ends, strict=True))
    return ImplicitWeights(
        frame=pd.DataFrame(frame),
        r2=r2,
        level=level,
        provenance=Provenance.of(
            facts_of(model), seeds={"probes and bootstrap": seed}, options={"n_probes": count, "n_boot": n_boot}
        ),
    )


def probe_weights(
    model: Any, contexts: Regressions, *, n_probes: int, seed: int = 0
) -> tuple[Float[np.ndarray, "batch dim"], float]:
    """w of every context, and the share of the predictions for all probes that they explain (1 - residual / total).

    Raises ValueError for fewer probes than dimensions.
    """
    batch, dim = contexts.query.shape
    if n_probes < dim:
        raise ValueError(f"got n_probes={n_probes} in {dim} dimensions; expected at least as many, better 4 times")
    rows = np.random.default_rng(seed).integers(batch, size=(n_probes, batch))
    probes = contexts.query[rows]
    x, y = (np.broadcast_to(part, (n_probes, *part.shape)) for part in (contexts.x, contexts.y))
    found = predictions(model, x, y, probes).T
    at = np.swapaxes(probes, 0, 1)
    weights = (np.linalg.pinv(at) @ found[..., None])[..., 0]
    residual = found - (at @ weights[..., None])[..., 0]
    total = float((found**2).sum())
    return weights, 1 - float((residual**2).sum()) / total if total > 0 else float("nan")


def _ridge(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
    return ridge(x, y, query, penalty=0.1)


def _mismatch(values: np.ndarray) -> np.ndarray:
    """Squared distance to the next context's."""
    apart = (values - np.roll(values, 1, axis=0)) ** 2
    return apart if apart.ndim == 1 else apart.sum(-1)
