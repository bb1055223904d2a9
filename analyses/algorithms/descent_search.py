"""The rates and gammas with which gradient descent and GD++ come nearest to given predictions.

A coarse grid finds the valley, a trust-region search its floor: predictions are polynomials in rate and gamma, and can
have several valleys. All on eigenvalues (`mechicl.predictors.spectral`), so that a trial costs a few products.

A fit that is not exact may lie where descent is about to diverge, and fail on the next context of larger eigenvalues.
So its parameters are shrunk until no part of an error grows by more than `GROWTH` up to the eigenvalue `largest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
from jaxtyping import Float
from scipy.optimize import least_squares

from mechicl.predictors.spectral import Spectrum, descent_share

RATES = tuple(np.geomspace(1e-3, 4.0, 26))  # in units of 1 / the median over contexts of the largest eigenvalue
GAMMAS = (0.02, 0.06, 0.15, 0.3, 0.6)
FEW = 256  # contexts on which starts are compared
HUGE = 1e100  # what counts as diverged
EXACT, GROWTH = 1e-10, 3.0  # a distance that is rounding; how much a part of an error may grow otherwise
Numbers = Sequence[float] | np.ndarray
Found = tuple[tuple[float, ...], float]  # parameters, mean squared distance
StepsOf = Callable[[list[float]], tuple[Sequence[float], Sequence[float] | None]]  # parameters to rates, gammas


def best_descent(
    spectrum: Spectrum, goal: Float[np.ndarray, " batch"], steps: int, *, largest: float | None = None
) -> Found:
    """(rate,) of gradient descent, and the mean squared distance that is left."""
    unit = spectrum.n_demos / _largest(spectrum)
    return _search(spectrum, goal, lambda p: ([p[0]] * steps, None), [(r * unit,) for r in RATES], largest)


def best_plus(
    spectrum: Spectrum, goal: Float[np.ndarray, " batch"], steps: int, *, largest: float | None = None
) -> Found:
    """(rate, gamma) of GD++ with the same of both at every step."""
    unit = _largest(spectrum)
    starts = [(r * spectrum.n_demos / unit, g / unit) for r, g in product(RATES[9::3], GAMMAS)]
    return _search(spectrum, goal, lambda p: ([p[0]] * steps, [p[1]] * steps), starts, largest, n_starts=2)


def best_plus_each(
    spectrum: Spectrum,
    goal: Float[np.ndarray, " batch"],
    steps: int,
    start: Sequence[float],
    *,
    largest: float | None = None,
) -> Found:
    """The rates, then the gammas, of GD++ with its own for each step; `start`: (rate, gamma) of `best_plus`.

    The last gamma has nothing left to act on, and stays 0.
    """
    rate, gamma = start
    tilts = (np.ones(steps), np.linspace(0.6, 1.4, steps), np.linspace(1.4, 0.6, steps))
    starts = [(*(rate * tilt), *(gamma * tilt[:-1])) for tilt in tilts]
    found, error = _search(spectrum, goal, lambda p: (p[:steps], [*p[steps:], 0.0]), starts, largest, n_starts=2)
    return (*found, 0.0), error


def _largest(spectrum: Spectrum) -> float:
    return float(np.median(spectrum.values[..., -1])) or 1.0


def _search(
    spectrum: Spectrum,
    goal: np.ndarray,
    steps_of: StepsOf,
    starts: Sequence[tuple[float, ...]],
    largest: float | None,
    *,
    n_starts: int = 1,
) -> Found:
    """The best end of searches from the best starts among the first contexts, brought to the end on all of them."""
    values, vectors, moments, query = (
        part[:FEW] for part in (spectrum.values, spectrum.vectors, spectrum.moments, spectrum.query)
    )
    some = Spectrum(values, vectors, moments, query, spectrum.n_demos)
    distance = _distances(some, goal[:FEW], steps_of)
    ranked = sorted((_loss(distance, start), start) for start in starts)[:n_starts]
    ends = [_descend(distance, start) for _, start in ranked]
    on_all = _distances(spectrum, goal, steps_of)
    best = _descend(on_all, min(ends, key=lambda end: _loss(distance, end)))
    if largest is not None and _loss(on_all, best) > EXACT:
        best = _tamed(best, steps_of, largest, spectrum.n_demos)
    return best, _loss(on_all, best) * float((goal**2).mean())


def _tamed(parameters: tuple[float, ...], steps_of: StepsOf, largest: float, n_demos: int) -> tuple[float, ...]:
    """The parameters, shrunk together until what is left of an error along any eigenvalue is at most `GROWTH`."""
    values = np.linspace(0, largest, 400)
    grid = Spectrum(values, np.eye(len(values)), values, values, n_demos)
    for factor in np.geomspace(1, 1e-3, 400):
        found = tuple(float(p * factor) for p in parameters)
        rates, gammas = steps_of(list(found))
        with np.errstate(over="ignore", invalid="ignore"):
            left = np.abs(1 - values * descent_share(grid, rates=rates, gammas=gammas))
        if np.isfinite(left).all() and left.max() <= GROWTH:
            return found
    return found


def _distances(spectrum: Spectrum, goal: np.ndarray, steps_of: StepsOf) -> Callable[[Numbers], np.ndarray]:
    """Distances to the goal in units of its root mean square, as a function of parameters."""
    unit = float(np.sqrt((goal**2).mean())) or 1.0

    def distances(parameters: Numbers) -> np.ndarray:
        rates, gammas = steps_of([float(p) for p in parameters])
        with np.errstate(over="ignore", invalid="ignore"):
            found = (spectrum.predict(descent_share(spectrum, rates=rates, gammas=gammas)) - goal) / unit
        return np.where(np.isfinite(found), np.clip(found, -HUGE, HUGE), HUGE)

    return distances


def _descend(distances: Callable[[Numbers], np.ndarray], start: tuple[float, ...]) -> tuple[float, ...]:
    """Where a search from the start ends. Rates and gammas below 0 would climb, so that their size alone counts."""
    unit = np.abs(np.array(start))
    end = least_squares(
        lambda p: distances(np.abs(p) * unit), np.ones(len(unit)), ftol=1e-10, xtol=1e-12, gtol=1e-15, max_nfev=30
    )
    found = tuple(float(p) for p in np.abs(end.x) * unit)
    return found if _loss(distances, found) < _loss(distances, start) else start


def _loss(distances: Callable[[Numbers], np.ndarray], parameters: Numbers) -> float:
    return float((distances(parameters) ** 2).mean())
