"""How well does a regressor predict, and which algorithm does it resemble? What its card says.

Every algorithm of `mechicl.predictors.spectral`, and the mean of 3 nearest neighbours, is held against the model twice,
each time with parameters (rates, gammas, a penalty, steps of Newton) that were chosen on contexts of their own:

    half_mse   E (y - yhat)^2 / 2 of algorithm and model, parameters chosen for the least of it
    distance   E (yhat_model - yhat_algorithm)^2, parameters chosen for the least of it; 0: the same predictions

in units of y^2, with 95% intervals (normal, over contexts). `cosine` is the mean over contexts of the cosine between
the slopes d yhat / d x_q of model and algorithm, with the parameters of `distance`: 1 where they point the same way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float
from scipy.optimize import minimize, minimize_scalar

from mechicl.organisms.hooked_regressor import HookedRegressor
from mechicl.predictors.closed_forms import least_squares
from mechicl.predictors.gradient import best_rate, gradient_descent
from mechicl.predictors.neighbours import nearest_neighbours
from mechicl.predictors.spectral import Spectrum, decompose, descent_share, newton_share, ridge_share
from mechicl.tasks.regression import Regressions, RegressionTask

CHOICE, HELD_OUT = 10**9, 10**9 + 1  # steps that no training reaches: seeds of contexts to choose on, and to judge by
N_CHOICE, N_HELD_OUT, N_SLOPES = 5000, 50_000, 4000
HUGE = 1e9  # where a deep linear model explodes
PENALTIES = tuple((10.0**power,) for power in np.arange(-5, 2.01, 0.25))
Parameters = tuple[float, ...]


@dataclass(frozen=True)
class Family:
    """An algorithm by the share that it takes along each eigenvector (`mechicl.predictors.spectral`).

    `starts`: parameters to take the best of, or, where `free`, to search on from.
    """

    name: str
    share: Callable[[Spectrum, Parameters], np.ndarray]
    starts: tuple[Parameters, ...] = ((),)
    free: bool = False


def families(task: RegressionTask, n_layers: int) -> list[Family]:
    """The algorithms to compare with a model of so many layers: those that take steps get one, two and four a layer."""
    scale = float(np.trace(task.input_covariance)) / task.dim
    rate, gamma = 1 / (scale * (1 + task.dim / task.n_demos)), 1 / (4 * scale * (task.n_demos + task.dim))

    def descent(steps: int) -> Family:
        starts = tuple((factor * rate,) for factor in (0.01, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5))
        return Family(
            f"gradient_descent({steps})", lambda s, p: descent_share(s, rates=[p[0]] * steps), starts, free=True
        )

    def plus(s: Spectrum, p: Parameters) -> np.ndarray:
        return descent_share(s, rates=[p[0]] * n_layers, gammas=[p[1]] * n_layers)

    def each_plus(s: Spectrum, p: Parameters) -> np.ndarray:
        return descent_share(s, rates=p[:n_layers], gammas=p[n_layers:])

    found = [Family("zero", lambda s, _: np.zeros_like(s.values))]
    found += [descent(steps) for steps in sorted({1, n_layers, 2 * n_layers, 4 * n_layers})]
    if n_layers > 1:
        starts = tuple((f * rate, g * gamma) for f in (0.25, 0.5, 1.0, 2.0, 3.0, 4.0) for g in (0.25, 0.5, 1.0, 1.5))
        found.append(Family(f"gradient_descent_plus({n_layers})", plus, starts, free=True))
    if 1 < n_layers <= 4:
        each = tuple(
            (*(f * rate * growth**k for k in range(n_layers)), *[g * gamma] * n_layers)
            for f in (0.5, 1.0, 2.0, 3.0)
            for g in (0.5, 1.0, 1.5)
            for growth in (1.0, 2.0, 4.0)
        )
        found.append(Family(f"gradient_descent_plus({n_layers}, own rates)", each_plus, each, free=True))
    return [
        *found,
        Family(f"newton({n_layers})", lambda s, _: newton_share(s, steps=n_layers)),
        Family("newton", lambda s, p: newton_share(s, steps=int(p[0])), tuple((float(k),) for k in range(21))),
        Family("ridge", lambda s, p: ridge_share(s, penalty=task.n_demos * scale * p[0]), PENALTIES),
        Family("least_squares", lambda s, _: ridge_share(s, penalty=0.0)),
    ]


def judge(
    model: HookedRegressor, task: RegressionTask, *, seed: int, n_choice: int = N_CHOICE, n_held_out: int = N_HELD_OUT
) -> dict[str, Any]:
    """What the card says of a model: see the head of this file. `by_demos`: half_mse after fewer demonstrations.

    Parameters in the card: of descent the rates, then gammas; of Newton the steps; of ridge the penalty as a share of
    the expected n variance.
    """
    choice, held_out = (task.sample(n, seed=(seed, at)) for n, at in ((n_choice, CHOICE), (n_held_out, HELD_OUT)))
    spectra = [decompose(c.x, c.y, c.query) for c in (choice, held_out)]
    at_choice, by_model = (model.predict(c.x, c.y, c.query) for c in (choice, held_out))
    error = (by_model - held_out.target) ** 2 / 2
    slopes = model.sensitivity(*(part[:N_SLOPES] for part in (choice.x, choice.y, choice.query)))
    accuracy: dict[str, Any] = {
        "model": {"half_mse": interval(error), "half_mse_controlled": controlled(error, held_out, task)}
    }
    likeness: dict[str, Any] = {}
    for family in families(task, len(model.blocks)):
        best, near = (fitted(family, spectra[0], goal) for goal in (choice.target, at_choice))
        own = (spectra[1].predict(family.share(spectra[1], best)) - held_out.target) ** 2 / 2
        accuracy[family.name] = {
            "half_mse": interval(own), "model_minus": interval(error - own), "parameters": _short(best)
        }  # fmt: skip
        apart = (spectra[1].predict(family.share(spectra[1], near)) - by_model) ** 2
        weights = spectra[0].weights(family.share(spectra[0], near))[:N_SLOPES]
        likeness[family.name] = {
            "distance": interval(apart), "cosine": _cosine(slopes, weights), "parameters": _short(near)
        }  # fmt: skip
    accuracy["nearest_neighbours"] = {"half_mse": interval((_neighbours(held_out) - held_out.target) ** 2 / 2)}
    likeness["nearest_neighbours"] = {"distance": interval((_neighbours(held_out) - by_model) ** 2)}
    return {"half_mse": accuracy, "distance": likeness, "by_demos": by_demos(model, task, seed=seed)}


def fitted(family: Family, spectrum: Spectrum, goal: Float[np.ndarray, "batch"]) -> Parameters:
    """The parameters whose predictions are nearest to the goal in squared error."""

    def loss(parameters: Any) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            found = float(((spectrum.predict(family.share(spectrum, tuple(parameters))) - goal) ** 2).mean())
        return min(found, HUGE) if np.isfinite(found) else HUGE  # diverged

    start = np.array(min(family.starts, key=loss))
    if not family.free:
        return tuple(start.tolist())
    unit = np.abs(start)  # rates and gammas differ by orders of magnitude
    if len(start) == 1:
        factor = minimize_scalar(lambda p: loss(p * unit), bounds=(0.5, 2.0), method="bounded").x
        return (float(factor * start[0]),)
    method = "Nelder-Mead" if len(start) == 2 else "BFGS"
    best = minimize(lambda p: loss(p * unit), start / unit, method=method, options={"maxiter": 150}).x
    return tuple(float(p) for p in best * unit)


def controlled(error: Float[np.ndarray, "batch"], contexts: Regressions, task: RegressionTask) -> list[float] | None:
    """half_mse with less noise: that of one best step of descent, known in closed form, plus the difference to it.

    The errors of both on the same contexts rise and fall together. None where the closed form does not hold.
    """
    if task.covariance is not None or task.noise:
        return None
    variance, fourth = task.moments
    rate, loss = best_rate(task.dim, task.n_demos, variance=variance, fourth_moment=fourth)
    step = (gradient_descent(contexts.x, contexts.y, contexts.query, rate=rate) - contexts.target) ** 2 / 2
    return interval(error - step + task.weight_scale**2 * loss / 2)


def by_demos(model: HookedRegressor, task: RegressionTask, *, seed: int) -> dict[str, list[float]]:
    """half_mse after 1, 2, ... demonstrations: of the model, and of the shortest least squares solution.

    A linear model learned from contexts of one length alone, and shows it here.
    """
    few = task.sample(N_SLOPES, seed=(seed, HELD_OUT + 1))
    found: dict[str, list[float]] = {"model": [], "least_squares": []}
    for n_demos in range(1, task.n_demos + 1):
        part = few.x[:, :n_demos], few.y[:, :n_demos], few.query
        for name, predict in (("model", model.predict), ("least_squares", least_squares)):
            found[name].append(float(f"{min(((predict(*part) - few.target) ** 2).mean() / 2, HUGE):.4g}"))
    return found


def interval(values: Float[np.ndarray, "batch"]) -> list[float]:
    """Mean, low, high."""
    margin = scipy.stats.norm.ppf(0.975) * values.std(ddof=1) / np.sqrt(len(values))
    return [float(f"{v:.5g}") for v in (values.mean(), values.mean() - margin, values.mean() + margin)]


def _neighbours(contexts: Regressions) -> np.ndarray:
    return nearest_neighbours(contexts.x, contexts.y, contexts.query, k=min(3, contexts.y.shape[1]))


def _cosine(a: Float[np.ndarray, "batch dim"], b: Float[np.ndarray, "batch dim"]) -> float:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    found = np.divide((a * b).sum(-1), norms, out=np.zeros_like(norms), where=norms > 0)
    return round(float(found.mean()), 5)


def _short(parameters: Parameters) -> list[float]:
    return [float(f"{p:.5g}") for p in parameters]
