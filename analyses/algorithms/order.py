"""Does the order of the demonstrations matter, and does it matter as it does to a learner that reads them in turn?

Each context is read in several random orders. With v the variance over orders of one context's predictions,

    spread      sum v / sum yhat^2 (over contexts; yhat^2 is the mean over orders): 0: order does not matter, 1: it is
                all that matters
    agreement   correlation over all contexts and orders of the model's and the algorithm's deviations from their own
                mean over orders, -1 to 1; NaN where the algorithm has none. `by_chance`: the same with the deviations
                of the next context

Batch gradient descent has spread 0 by construction, and so have linear transformers. Beside it stand one pass of online
gradient descent in the order given, and a gradient step that weighs the demonstration i places before the last by
decay^i (below 1: recent ones count more). Their rates and the decay are those whose predictions come nearest to the
model's on half of the contexts. An untrained model is the control: positions alone make order matter.
Compare arXiv:2310.08540, where order is what sets language models and gradient descent apart.

Caveats:
- A spread above 0 says that order matters, not that the model reads in turn: `agreement` with online descent says that.
- A small spread may be nothing to explain: positions make one in any model, and training on contexts whose order means
  nothing only lessens it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.analyses.algorithms.regressor_calls import facts_of, halves, predict_all, predictions, untrained_of
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.predictors.examples import checked_examples
from mechicl.predictors.gradient import gradient_descent
from mechicl.provenance import Provenance
from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result
from mechicl.tasks.regression import Regressions
from mechicl.wording import number, with_interval

RATES = np.geomspace(0.01, 3.0, 40)  # in units of 1 / the mean of ||x||^2
DECAYS = np.geomspace(0.3, 1 / 0.3, 41)
NOTHING = 1e-12  # a spread below is rounding, of float32 too


@dataclass(frozen=True)
class OrderSensitivity(Result):
    """Spread over orders.

    frame: one row a predictor ("model" first): spread, low, high, agreement, agreement_low, agreement_high, by_chance.
    parameters: rates and decay of the algorithms.
    """

    frame: pd.DataFrame
    parameters: dict[str, dict[str, float]]
    n_orders: int
    level: float
    provenance: Provenance

    @property
    def verdict(self) -> str:
        """What came out, in words."""
        rows = self.frame.set_index("predictor")
        words = [
            f"{name}: spread {with_interval(row['spread'], row['low'], row['high'])}"
            + ("" if np.isnan(row["agreement"]) else f", agreement with the model {number(row['agreement'], 2)}")
            for name, row in rows.iterrows()
        ]
        return "; ".join(words) + "."

    def to_frame(self) -> pd.DataFrame:
        """The predictors."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """The spread of every predictor; returns matplotlib Axes."""
        from mechicl.views.algorithms import plot_conditions

        rows = self.frame.rename(columns={"predictor": "condition", "spread": "estimate"})
        return plot_conditions(rows, label="Spread over orders (share of squared predictions)", ax=ax)


def order_sensitivity(
    model: Any,
    contexts: Regressions,
    *,
    n_orders: int = 12,
    untrained: Any = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> OrderSensitivity:
    """How far predictions depend on the order of the demonstrations; see the head of this file.

    Raises ValueError for fewer than 2 orders, and for contexts of one demonstration.
    """
    check_level(level)
    if n_orders < 2 or contexts.y.shape[-1] < 2 or n_boot < MIN_BOOT:
        raise ValueError(
            f"got n_orders={n_orders}, contexts of {contexts.y.shape[-1]} demonstration(s) and n_boot={n_boot}; "
            f"expected 2 or more orders and demonstrations, and {MIN_BOOT} draws or more"
        )
    choice, held_out = halves(contexts, seed=seed)
    parameters = _fitted(choice, predict_all(model, choice))
    orders = np.random.default_rng(seed).permuted(
        np.tile(np.arange(held_out.y.shape[-1]), (n_orders, len(held_out), 1)), axis=-1
    )
    control = untrained_of(model, untrained, seed=seed)
    predictors = {"model": model} | ({} if control is None else {"untrained": control})
    found = {name: _over_orders(one, held_out, orders) for name, one in predictors.items()}
    for name, function in (("gradient_descent", gradient_descent), ("online_descent", online_descent),
                           ("weighted_descent", weighted_descent)):  # fmt: skip

        def run(x: np.ndarray, y: np.ndarray, query: np.ndarray, name: str = name, f: Any = function) -> np.ndarray:
            return np.asarray(f(x, y, query, **parameters[name]))

        found[name] = _over_orders(run, held_out, orders)
    return OrderSensitivity(
        frame=_table(found, n_boot, level, seed),
        parameters=parameters,
        n_orders=n_orders,
        level=level,
        provenance=Provenance.of(
            facts_of(model), seeds={"split, orders and bootstrap": seed}, options={"n_contexts": len(contexts)}
        ),
    )


def online_descent(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    rate: float,
) -> Float[np.ndarray, "*batch"]:
    """Prediction after one pass over the demonstrations in order: w <- w + rate (y_i - w^T x_i) x_i, from w = 0."""
    x, y, query = checked_examples(x, y, query)
    weights = np.zeros_like(query)
    for i in range(x.shape[-2]):
        error = y[..., i] - (weights * x[..., i, :]).sum(-1)
        weights = weights + rate * error[..., None] * x[..., i, :]
    return np.asarray((weights * query).sum(-1))


def weighted_descent(
    x: Float[np.ndarray, "*batch demo dim"],
    y: Float[np.ndarray, "*batch demo"],
    query: Float[np.ndarray, "*batch dim"],
    *,
    rate: float,
    decay: float,
) -> Float[np.ndarray, "*batch"]:
    """One gradient step, w = (rate / n) sum_i c_i y_i x_i, c_i = decay^(n - i) over its mean; decay 1: unweighted."""
    x, y, query = checked_examples(x, y, query)
    strength = decay ** np.arange(x.shape[-2])[::-1].astype(float)
    weighted = y * strength / strength.mean()
    return gradient_descent(x, weighted, query, rate=rate)


def _fitted(choice: Regressions, goal: Float[np.ndarray, " batch"]) -> dict[str, dict[str, float]]:
    """The parameters with which each algorithm comes nearest to the model."""
    given = choice.x, choice.y, choice.query
    found = {}
    steps = {decay: weighted_descent(*given, rate=1.0, decay=decay) for decay in (1.0, *DECAYS)}
    rates = {decay: max(float((p * goal).sum() / (p**2).sum()), 0.0) for decay, p in steps.items()}
    decay = min(DECAYS, key=lambda one: float(((rates[one] * steps[one] - goal) ** 2).sum()))
    found["gradient_descent"] = {"rate": rates[1.0]}
    found["weighted_descent"] = {"rate": rates[decay], "decay": float(decay)}
    unit = 1 / float((choice.x**2).sum(-1).mean())
    online = min(
        (float(r) * unit for r in RATES),
        key=lambda rate: float(((online_descent(*given, rate=rate) - goal) ** 2).sum()),
    )
    found["online_descent"] = {"rate": online}
    return found


def _over_orders(
    model: Any, contexts: Regressions, orders: Int[np.ndarray, "order batch demo"]
) -> Float[np.ndarray, "order batch"]:
    rows = np.arange(len(contexts))[:, None]
    x, y = contexts.x[rows, orders], contexts.y[rows, orders]
    return predictions(model, x, y, np.broadcast_to(contexts.query, (len(orders), *contexts.query.shape)))


def _table(found: dict[str, np.ndarray], n_boot: int, level: float, seed: int) -> pd.DataFrame:
    found = {name: np.asarray(part) for name, part in found.items()}
    deviations = {name: part - part.mean(0) for name, part in found.items()}
    above = np.stack([(part**2).mean(0) for part in deviations.values()], axis=1)
    below = np.stack([(part**2).mean(0) for part in found.values()], axis=1)
    items = np.arange(len(above))
    spread = ratio_intervals(above, below, items, n_boot=n_boot, level=level, seed=seed)
    counts = np.random.default_rng(seed).multinomial(len(items), np.full(len(items), 1 / len(items)), size=n_boot)
    tails = [(1 - level) / 2, (1 + level) / 2]
    rows = []
    for at, (name, own) in enumerate(deviations.items()):
        agreement = [np.nan] * 4
        if name != "model" and np.nan_to_num(spread[0][[0, at]]).min() > NOTHING:
            products = np.stack([(deviations["model"] * own).mean(0), above[:, 0], above[:, at]], axis=1)
            draws = counts @ products
            ends = np.quantile(draws[:, 0] / np.sqrt(draws[:, 1] * draws[:, 2]), tails)
            size = np.sqrt(above[:, 0].sum() * above[:, at].sum())
            chance = (deviations["model"] * np.roll(own, 1, axis=1)).mean(0).sum() / size
            agreement = [float(products[:, 0].sum() / size), *(float(end) for end in ends), float(chance)]
        rows.append((name, *(float(part[at]) for part in spread), *agreement))
    columns = ["predictor", "spread", "low", "high", "agreement", "agreement_low", "agreement_high", "by_chance"]
    return pd.DataFrame(rows, columns=columns)
