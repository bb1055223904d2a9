"""The three parameters that bring the model of training closest to a transformer: L-BFGS-B with exact gradients.

Minimised is the mean profile (`mechicl.strategies.profiles`) of the fitted cells at the model's log odds, seeds
weighing alike. Searched over alpha, beta and, in place of log gamma, the log of the evidence's scale at a middle step:
gamma and alpha pull together, this and alpha hardly. Starts: the three of 2506.17859, and the best of a coarse grid on
which the transition of some diversity falls on some checkpoint. The lowest end is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize

from mechicl.strategies.curves import Curves, Parabolas
from mechicl.strategies.posterior_odds import NAMES, OddsParameters, OddsTerms

PUBLISHED = (OddsParameters(0.6, 0.2, 0.85), OddsParameters(0.65, 0.3, 0.01), OddsParameters(0.8, 0.12, 1.5))
ALPHA, BETA = (0.0, 0.99), (0.0, 2.0)
EVIDENCE = (1e-6, 1e12)  # nats at a middle step
_N_GRID = 3  # starts taken from the coarse grid
_EDGE = 1e-3
_FLAT = 1e-4  # slope at which an end counts as one, for a loss of about 1


@dataclass(frozen=True)
class OddsFit:
    """Where a search ended. bounds: "lower" or "upper" for a parameter at its bound, "" for others."""

    parameters: OddsParameters
    loss: float
    converged: bool
    bounds: dict[str, str]


class Objective:
    """The loss as a function of the parameters. cells: which steps and diversities; weights: of the seeds.

    order: which cell's profile stands at each cell [step and diversity], for controls; None: each cell's own.
    """

    def __init__(
        self,
        terms: OddsTerms,
        profiles: Curves | Parabolas,
        cells: Bool[np.ndarray, "step diversity"],
        *,
        weights: Float[np.ndarray, " seed"] | None = None,
        order: Int[np.ndarray, " _"] | None = None,
    ) -> None:
        n_seeds = terms.shape[0]
        rows = np.arange(cells.size) if order is None else order
        rows = np.arange(n_seeds)[:, None] * cells.size + rows[cells.ravel()]
        share = np.ones(n_seeds) if weights is None else weights
        self.terms, self.cells = terms, cells
        self.profiles = profiles.pick(rows.ravel())
        self.weights = np.repeat(share / share.sum(), rows.shape[1]) / rows.shape[1]
        used = terms.steps[cells.any(1) & (terms.steps > 0)]
        self.middle = float(np.exp(np.log(used).mean())) if len(used) else 1.0
        gaps = np.abs(terms.advantage[:, cells.any(0)])
        self.advantage = float(np.median(gaps)) or 1.0
        low, high = (self.profiles.at(np.full(self.weights.shape, end))[0] for end in self.profiles.range)
        self.scale = float(self.weights @ np.abs(high - low)) or 1.0  # so that slopes mean the same everywhere

    def at(self, log_odds: Float[np.ndarray, " _"]) -> float:
        """The mean profile at log odds of every cell."""
        return float(self.weights @ self.profiles.at(log_odds)[0])

    def loss(self, parameters: OddsParameters) -> float:
        """The mean profile at the model's log odds."""
        return self.at(self.terms.log_odds(parameters)[:, self.cells].ravel())

    def gradient(self, parameters: OddsParameters) -> tuple[float, Float[np.ndarray, " _"]]:
        """The loss and its derivatives with respect to alpha, beta and log gamma."""
        odds = self.terms.log_odds(parameters)[:, self.cells].ravel()
        by_parameter = self.terms.log_odds_gradient(parameters)[:, :, self.cells].reshape(3, -1)
        value, slope = self.profiles.at(odds)
        return float(self.weights @ value), by_parameter @ (self.weights * slope)

    def to_point(self, parameters: OddsParameters) -> Float[np.ndarray, " _"]:
        """The point of the search that has these parameters."""
        log_evidence = np.log(parameters.gamma * self.advantage) + (1 - parameters.alpha) * np.log(self.middle)
        return np.array([parameters.alpha, parameters.beta, log_evidence])

    def to_parameters(self, point: Float[np.ndarray, " _"]) -> OddsParameters:
        """The parameters of a point of the search."""
        log_gamma = point[2] - (1 - point[0]) * np.log(self.middle) - np.log(self.advantage)
        return OddsParameters(float(point[0]), float(point[1]), float(np.exp(log_gamma)))


def fit_odds(
    objective: Objective,
    *,
    fixed: Mapping[str, float] | None = None,
    starts: Sequence[OddsParameters] | None = None,
) -> OddsFit:
    """The parameters of least loss. fixed: values of parameters that do not move. starts: instead of the usual ones."""
    held = dict(fixed or {})
    if unknown := sorted(set(held) - set(NAMES)):
        raise ValueError(f"got fixed parameters {unknown}; expected some of {list(NAMES)}")
    found = [_search(objective, start, held) for start in (starts or _starts(objective, held))]
    return min(found, key=lambda fit: (fit.loss, not fit.converged))


def _search(objective: Objective, start: OddsParameters, fixed: Mapping[str, float]) -> OddsFit:
    start = OddsParameters(**{name: fixed.get(name, getattr(start, name)) for name in NAMES})
    free = np.array([name not in fixed for name in NAMES])
    bounds = np.array([ALPHA, BETA, np.log(EVIDENCE)])
    whole = objective.to_point(start)
    if not free.any():
        return OddsFit(start, objective.loss(start), True, dict.fromkeys(NAMES, ""))
    log_middle = np.log(objective.middle)

    def parameters(point: np.ndarray) -> OddsParameters:
        values = whole.copy()
        values[free] = point
        if not free[2]:  # gamma stays, so that the evidence follows alpha
            return OddsParameters(float(values[0]), float(values[1]), start.gamma)
        return objective.to_parameters(values)

    def scaled(point: np.ndarray) -> tuple[float, np.ndarray]:
        loss, by = objective.gradient(parameters(point))
        if free[2]:
            by = by + np.array([by[2] * log_middle, 0.0, 0.0])
        return loss / objective.scale, by[free] / objective.scale

    low, high = bounds[free].T
    result = minimize(
        scaled, np.clip(whole[free], low, high), jac=True, method="L-BFGS-B", bounds=bounds[free],
        options={"maxiter": 500, "ftol": 1e-13, "gtol": 1e-9},
    )  # fmt: skip
    slope = result.jac
    downhill = result.x - np.clip(result.x - slope, low, high)
    at = np.where(result.x - low < _EDGE, "lower", np.where(high - result.x < _EDGE, "upper", ""))
    named = dict.fromkeys(NAMES, "") | dict(zip(np.array(NAMES)[free].tolist(), at.tolist(), strict=True))
    converged = bool(np.isfinite(result.fun) and np.abs(downhill).max() < _FLAT)
    return OddsFit(parameters(result.x), float(result.fun * objective.scale), converged, named)


def _starts(objective: Objective, fixed: Mapping[str, float]) -> list[OddsParameters]:
    """The published starts and the best of the coarse grid."""
    terms = objective.terms
    steps = terms.steps[objective.cells.any(1) & (terms.steps > 0)]
    steps = steps[np.linspace(0, len(steps) - 1, 4).astype(int)[1:]] if len(steps) else np.ones(1)
    gaps = terms.advantage.mean(0)
    usable = np.flatnonzero(objective.cells.any(0) & (gaps > 0))
    places = usable[np.linspace(0, len(usable) - 1, 4).astype(int)[1:3]] if len(usable) else usable
    grid = []
    for alpha, beta in product((0.0, 0.4, 0.75), (0.08, 0.2, 0.4)):
        alpha, beta = fixed.get("alpha", alpha), fixed.get("beta", beta)
        against = -terms.prior(beta).mean(0)
        for step, place in product(steps, places):
            if against[place] > 0:
                gamma = fixed.get("gamma", float(against[place] / (gaps[place] * step ** (1 - alpha))))
                grid.append(OddsParameters(alpha, beta, gamma))
    grid.sort(key=objective.loss)
    return [*PUBLISHED, *grid[:_N_GRID]]
