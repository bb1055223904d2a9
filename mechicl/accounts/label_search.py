"""Choices and curved numbers of an account of labels: tried on a grid, all at once, and refined from the best.

Within each trial the link's sharpness and biases are at their own optimum (`mechicl.accounts.label_link`), so the
search is over what is left: which head, kernel or learning rate, and one or two numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize, minimize_scalar

from mechicl.accounts.account import Free
from mechicl.accounts.fitting import folded
from mechicl.accounts.label_link import LogLinear, fit_log_linear

# from a choice and values of the free numbers, for each trial, to what the link is linear in
Features = Callable[[Sequence[tuple[int, tuple[float, ...]]]], Float[np.ndarray, "set batch label _"]]
N_KEPT, N_REFINED = 24, 2  # choices that a coarse grid leaves; of them, those from which the search goes on
_COARSE = (0.25, 0.75)
_Trial = tuple[float, int, tuple[float, ...]]  # distance, choice, place within the ranges


@dataclass(frozen=True, eq=False)
class LinkSearch:
    """What an account is fitted to: the model's probabilities of labels.

    features: of trials, see above. free: the numbers that are searched for. with_bias: does the link have biases?
    """

    features: Features
    free: tuple[Free, ...]
    target: Float[np.ndarray, "batch label"]
    allowed: Bool[np.ndarray, "batch label"]
    with_bias: bool

    def best(self, n_choices: int) -> tuple[int, dict[str, float], LogLinear]:
        """The choice, the numbers and the link of least distance. Of equals the first."""
        kept = list(range(n_choices))
        if n_choices > N_KEPT and self.free:
            coarse = self._tried(kept, [_COARSE] * len(self.free))
            kept = list(dict.fromkeys(choice for _, choice, _ in coarse))[:N_KEPT]
        grid = [tuple(float(share) for share in np.linspace(0, 1, one.n_grid)) for one in self.free]
        trials = self._tried(kept, grid)
        first = {choice: (distance, choice, at) for distance, choice, at in reversed(trials)}
        found = sorted(first.values(), key=lambda trial: trial[0])
        if self.free:
            found = sorted(map(self._refined, found[:N_REFINED]), key=lambda trial: trial[0])
        _, choice, at = found[0]
        return choice, self._values(at), self._fit([(choice, at)])

    def _values(self, at: Sequence[float]) -> dict[str, float]:
        return {one.name: one.at(share) for one, share in zip(self.free, at, strict=True)}

    def _fit(self, trials: Sequence[tuple[int, tuple[float, ...]]]) -> LogLinear:
        given = [(choice, tuple(self._values(at).values())) for choice, at in trials]
        return fit_log_linear(self.features(given), self.target, self.allowed, with_bias=self.with_bias)

    def _tried(self, choices: Sequence[int], grid: Sequence[Sequence[float]]) -> list[_Trial]:
        """Every choice at every place of the grid, nearest first."""
        trials = [(choice, at) for choice in choices for at in product(*grid)]
        distances = self._fit(trials).distance
        return [(float(distances[i]), *trials[i]) for i in np.argsort(distances, kind="stable")]

    def _refined(self, trial: _Trial) -> _Trial:
        """The nearest place around one of the grid; the place itself where none is nearer."""
        distance, choice, at = trial

        def objective(place: Any) -> float:
            shares = tuple(float(share) for share in folded(np.atleast_1d(place)))
            return float(self._fit([(choice, shares)]).distance[0])

        sides = [1 / (one.n_grid - 1) for one in self.free]
        if len(at) == 1:
            bounds = (max(at[0] - sides[0], 0.0), min(at[0] + sides[0], 1.0))
            found: Any = minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-6})
        else:
            away = np.diag([-side if share > 0.5 else side for share, side in zip(at, sides, strict=True)])
            corners = np.vstack([at, np.array(at) + away])
            options = {"initial_simplex": corners, "xatol": 1e-5, "fatol": 1e-12, "maxfev": 80}
            found = minimize(objective, at, method="Nelder-Mead", options=options)
        if not found.fun < distance:
            return trial
        return float(found.fun), choice, tuple(float(share) for share in folded(np.atleast_1d(found.x)))
