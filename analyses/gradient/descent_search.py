"""The rates and gammas with which gradient descent and GD++ come nearest to given predictions.

A coarse grid finds the valley, a trust-region search its floor: predictions are polynomials in rate and gamma, and can
have several valleys. Parameters at which descent diverges are passed over. All on eigenvalues
(`mechicl.predictors.spectral`), so that a trial costs a few products.
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
Found = tuple[tuple[float, ...], float]  # parameters, mean squared distance
StepsOf = Callable[[list[float]], tuple[Sequence[float], Sequence[float] | None]]  # parameters to rates, gammas


def best_descent(spectrum: Spectrum, goal: Float[np.ndarray, " batch"], steps: int) -> Found:
    """(rate,) of gradient descent, and the mean squared distance that is left."""
    unit = spectrum.n_demos / _largest(spectrum)
    return _search(spectrum, goal, lambda p: ([p[0]] * steps, None), [(r * unit,) for r in RATES])


def best_plus(spectrum: Spectrum, goal: Float[np.ndarray, " batch"], steps: int) -> Found:
    """(rate, gamma) of GD++ with the same of both at every step."""
    largest = _largest(spectrum)
    starts = [(r * spectrum.n_demos / largest, g / largest) for r, g in product(RATES[9::3], GAMMAS)]
    return _search(spectrum, goal, lambda p: ([p[0]] * steps, [p[1]] * steps), starts, n_starts=2)


def best_plus_each(spectrum: Spectrum, goal: Float[np.ndarray, " batch"], steps: int, start: Sequence[float]) -> Found:
    """The rates, then the gammas, of GD++ with its own for each step; `start`: (rate, gamma) of `best_plus`.

    The last gamma has nothing left to act on, and stays 0.
    """
    rate, gamma = start
    tilts = (np.ones(steps), np.linspace(0.6, 1.4, steps), np.linspace(1.4, 0.6, steps))
    starts = [(*(rate * tilt), *(gamma * tilt[:-1])) for tilt in tilts]
    found, error = _search(spectrum, goal, lambda p: (p[:steps], [*p[steps:], 0.0]), starts, n_starts=2)
    return (*found, 0.0), error


def _largest(spectrum: Spectrum) -> float:
    return float(np.median(spectrum.values[..., -1])) or 1.0


def _search(
    spectrum: Spectrum, goal: np.ndarray, steps_of: StepsOf, starts: Sequence[tuple[float, ...]], *, n_starts: int = 1
) -> Found:
    """The best end of searches from the best starts among the first contexts, brought to the end on all of them."""
    some = Spectrum(*(part[:FEW] for part in _arrays(spectrum)), spectrum.n_demos)
    distance = _distances(some, goal[:FEW], steps_of)
    ranked = sorted((_loss(distance, start), start) for start in starts)[:n_starts]
    ends = [_descend(distance, start) for _, start in ranked]
    on_all = _distances(spectrum, goal, steps_of)
    best = _descend(on_all, min(ends, key=lambda end: _loss(distance, end)))
    return best, _loss(on_all, best) * float((goal**2).mean())


def _distances(spectrum: Spectrum, goal: np.ndarray, steps_of: StepsOf) -> Callable[[Sequence[float]], np.ndarray]:
    """Distances to the goal in units of its root mean square, as a function of parameters."""
    unit = float(np.sqrt((goal**2).mean())) or 1.0

    def distances(parameters: Sequence[float]) -> np.ndarray:
        rates, gammas = steps_of([float(p) for p in parameters])
        with np.errstate(over="ignore", invalid="ignore"):
            found = (spectrum.predict(descent_share(spectrum, rates=rates, gammas=gammas)) - goal) / unit
        return np.where(np.isfinite(found), np.clip(found, -HUGE, HUGE), HUGE)

    return distances


def _descend(distances: Callable[[Sequence[float]], np.ndarray], start: tuple[float, ...]) -> tuple[float, ...]:
    """Where a search from the start ends. Rates and gammas below 0 would climb, so that their size alone counts."""
    unit = np.abs(np.array(start))
    end = least_squares(
        lambda p: distances(np.abs(p) * unit), np.ones(len(unit)), ftol=1e-10, xtol=1e-12, gtol=1e-15, max_nfev=30
    )
    found = tuple(float(p) for p in np.abs(end.x) * unit)
    return found if _loss(distances, found) < _loss(distances, start) else start


def _loss(distances: Callable[[Sequence[float]], np.ndarray], parameters: Sequence[float]) -> float:
    return float((distances(parameters) ** 2).mean())


def _arrays(spectrum: Spectrum) -> tuple[np.ndarray, ...]:
    return spectrum.values, spectrum.vectors, spectrum.moments, spectrum.query
