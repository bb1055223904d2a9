"""What does each layer know? Ridge probes from the residual stream at the query to what algorithms predict.

One probe a layer and target, fitted on one half of the contexts and judged on the other by

    r2 = 1 - sum (target - probe)^2 / sum (target - mean)^2,    1: all of it can be read linearly, 0 or below: nothing

Targets are the predictions of k steps of gradient descent and of Newton's iteration, and of least squares; and the
vectors X^T y / n ("moment") and the least-squares weights ("weights"), all components together. Layer 0 is the
embedding of the query, which knows nothing of the context. Controls: `shuffled`, the same with targets of other
contexts in fitting, and `untrained`, the same model with its weights in random order.

`best` says which number of steps each layer matches best; its interval is that of the best number over a bootstrap of
contexts. What can be read from a layer need not be used by the next. Papers report that layers of softmax transformers
match Newton's steps one by one and gradient descent's at an exponential pace (arXiv:2310.17086); probes as in
arXiv:2211.15661.

Caveats:
- Steps of different algorithms go along with each other, and late steps hardly differ: the best number of steps is a
  description of pace.
- With few contexts probes of wide states fit noise, and r2 sinks: give many times more contexts than dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mechicl.analyses.algorithms.regressor_calls import facts_of, halves, owner_of, untrained_of
from mechicl.predictors.gradient import least_squares, least_squares_weights
from mechicl.predictors.spectral import decompose, descent_share, newton_share
from mechicl.provenance import Provenance
from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result
from mechicl.tasks.regression import Regressions

DESCENT_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NEWTON_STEPS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12)
STEPPED = ("gradient_descent", "newton")
PENALTIES = np.geomspace(1e-4, 1e4, 17)
READABLE = 0.05  # r2 below which no number of steps is named
Targets = dict[tuple[str, int], Float[np.ndarray, "batch _"]]  # algorithm, steps (0: none)


@dataclass(frozen=True)
class LayerProbes(Result):
    """What can be read from each layer.

    frame: one row a layer, target ("gradient_descent", "newton", "least_squares", "moment", "weights") and steps (0
        where there are none): r2, low, high, shuffled, untrained (NaN without that control).
    best: one row a layer and algorithm with steps: steps, steps_low, steps_high, r2, untrained.
    rate: gradient descent's; by default the largest at which it never overshoots on these contexts.
    """

    frame: pd.DataFrame
    best: pd.DataFrame
    rate: float
    level: float
    provenance: Provenance

    @property
    def verdict(self) -> str:
        """The best number of steps of each layer after the embedding, in words."""
        words = []
        for name in STEPPED:
            rows = self.best[(self.best["target"] == name) & (self.best["layer"] > 0)]
            steps = [
                f"{row['steps']} [{row['steps_low']}, {row['steps_high']}] (r2 {row['r2']:.2f})"
                if row["r2"] >= READABLE
                else "none (nothing to read)"
                for _, row in rows.iterrows()
            ]
            words.append(f"{name}, steps that layers 1 to {len(rows)} match best: {', '.join(steps)}")
        return ". ".join(words) + "."

    def to_frame(self) -> pd.DataFrame:
        """The probes."""
        return self.frame.copy()

    def plot(self, ax: Any = None, target: str = "newton") -> Any:
        """r2 over the number of steps, a line a layer; returns matplotlib Axes."""
        from mechicl.views.algorithms import plot_probes

        return plot_probes(self.frame, target=target, ax=ax)


def probe_layers(
    model: Any,
    contexts: Regressions,
    *,
    descent_steps: Sequence[int] = DESCENT_STEPS,
    newton_steps: Sequence[int] = NEWTON_STEPS,
    rate: float | None = None,
    untrained: Any = None,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
) -> LayerProbes:
    """Fit and judge the probes; see the head of this file.

    model: anything with `states(x, y, query)`, the residual stream at the query [layer, batch, d_model]. Give some
    thousand contexts: probes of d_model numbers are fitted to half of them. Raises ValueError for a model without
    states, steps below 1, too few bootstrap draws and too few contexts.
    """
    check_level(level)
    own = owner_of(model)
    if not hasattr(own, "states"):
        raise ValueError(f"got a {type(own).__name__} without `states`; expected a regressor of mechicl.organisms")
    if min([*descent_steps, *newton_steps], default=0) < 1 or n_boot < MIN_BOOT:
        raise ValueError(f"got steps below 1, or n_boot={n_boot}; expected 1 or more, and {MIN_BOOT} draws or more")
    train, test = halves(contexts, seed=seed, least=32)
    if rate is None:
        largest = float(np.linalg.norm(contexts.x, ord=2, axis=(-2, -1)).max()) ** 2
        rate = contexts.x.shape[-2] / largest
    steps = tuple(sorted(set(descent_steps))), tuple(sorted(set(newton_steps)))
    targets = [_targets(half, *steps, rate) for half in (train, test)]
    control = untrained_of(own, untrained, seed=seed)
    residuals, totals, shuffled = _probe(own, (train, test), targets, seed)
    floor = None if control is None else _probe(control, (train, test), targets, None)[0]
    counts = np.random.default_rng(seed).multinomial(len(test), np.full(len(test), 1 / len(test)), size=n_boot)
    below = counts @ totals  # [boot, target]
    rows, best = [], []
    names, tails = list(targets[0]), [(1 - level) / 2, (1 + level) / 2]
    for layer in range(len(residuals)):
        draws = 1 - counts @ residuals[layer] / below
        r2, ends = 1 - residuals[layer].sum(0) / totals.sum(0), np.quantile(draws, tails, axis=0)
        nothing = np.full(len(names), np.nan) if floor is None else 1 - floor[layer].sum(0) / totals.sum(0)
        for at, (name, k) in enumerate(names):
            row = (r2[at], ends[0, at], ends[1, at], shuffled[layer, at], nothing[at])
            rows.append((layer, name, k, *(float(value) for value in row)))
        for name in STEPPED:
            own_columns = [at for at, (one, _) in enumerate(names) if one == name]
            tried = np.array([names[at][1] for at in own_columns])
            chosen = own_columns[int(np.argmax(r2[own_columns]))]
            low, high = np.quantile(tried[np.argmax(draws[:, own_columns], axis=1)], tails, method="nearest")
            best.append((layer, name, names[chosen][1], int(low), int(high), float(r2[chosen]), float(nothing[chosen])))
    return LayerProbes(
        frame=pd.DataFrame(rows, columns=["layer", "target", "steps", "r2", "low", "high", "shuffled", "untrained"]),
        best=pd.DataFrame(
            best, columns=["layer", "target", "steps", "steps_low", "steps_high", "r2", "untrained"]
        ),
        rate=rate,
        level=level,
        provenance=Provenance.of(
            facts_of(model), seeds={"split, control and bootstrap": seed}, options={"n_contexts": len(contexts)}
        ),
    )  # fmt: skip


def _targets(
    contexts: Regressions, descent_steps: tuple[int, ...], newton_steps: tuple[int, ...], rate: float
) -> Targets:
    """What probes are to predict, as columns."""
    x, y, query = contexts.x, contexts.y, contexts.query
    spectrum = decompose(x, y, query)
    found: Targets = {}
    for k in descent_steps:
        found["gradient_descent", k] = spectrum.predict(descent_share(spectrum, rates=[rate] * k))[:, None]
    for k in newton_steps:
        found["newton", k] = spectrum.predict(newton_share(spectrum, steps=k))[:, None]
    found["least_squares", 0] = least_squares(x, y, query)[:, None]
    found["moment", 0] = (y[:, None] @ x)[:, 0] / x.shape[1]
    found["weights", 0] = least_squares_weights(x, y)
    return found


def _probe(
    model: Any, halves_: tuple[Regressions, Regressions], targets: Sequence[Targets], seed: int | None
) -> tuple[Float[np.ndarray, "layer batch target"], Float[np.ndarray, "batch target"], np.ndarray]:
    """Squared residuals and squared deviations from the mean of the held-out contexts, and r2 with shuffled targets."""
    states = [model.states(half.x, half.y, half.query) for half in halves_]
    train, test = (np.concatenate(list(part.values()), axis=1) for part in targets)
    widths = [part.shape[1] for part in targets[0].values()]
    starts = np.cumsum([0, *widths[:-1]])
    totals = np.add.reduceat((test - train.mean(0)) ** 2, starts, axis=1)
    order = None if seed is None else np.random.default_rng(seed).permutation(len(train))
    residuals: list[np.ndarray] = []
    shuffled: list[np.ndarray] = []
    for layer in range(len(states[0])):
        for goal, kept in ((train, residuals), (None if order is None else train[order], shuffled)):
            if goal is not None:
                probe = make_pipeline(StandardScaler(), RidgeCV(PENALTIES, alpha_per_target=True))
                found = probe.fit(states[0][layer], goal).predict(states[1][layer])
                kept.append(np.add.reduceat((test - found) ** 2, starts, axis=1))
    by_chance = [1 - part.sum(0) / totals.sum(0) for part in shuffled]
    return np.stack(residuals), totals, np.array(by_chance)
