"""The algorithms that a regressor is compared with, each with the parameters that fit given predictions best.

Descent: `gradient_descent` (one rate for all steps), `best_step` (one step at the closed-form best rate, nothing to
fit), `preconditioned_gradient` (a matrix for each step), `gradient_descent_plus` (GD++, a rate and a gamma) and
`gradient_descent_plus_each` (of both one for each step). Solvers: `newton`, `ridge`, `least_squares`. Memory:
`nearest_neighbours`. Baselines: `zero`, and `mean_label`, the mean y of the demonstrations. What each predicts:
`mechicl.predictors.gradient`. Steps, rates and all else are chosen by the least mean squared distance; of choices that
differ by rounding alone the one with fewer steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from mechicl.analyses.algorithms.descent_search import Found, best_descent, best_plus, best_plus_each
from mechicl.analyses.algorithms.preconditioner_fit import choose_preconditioners
from mechicl.predictors import gradient
from mechicl.predictors.spectral import Spectrum, decompose, newton_share, ridge_share
from mechicl.tasks.regression import Regressions, RegressionTask

BASELINES = ("zero", "mean_label")
FAMILIES = (
    "gradient_descent", "best_step", "preconditioned_gradient", "gradient_descent_plus", "gradient_descent_plus_each",
    "newton", "ridge", "least_squares", "nearest_neighbours", *BASELINES,
)  # fmt: skip
STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
MOST_PLUS, MOST_EACH, MOST_MATRICES, MOST_NEWTON = 6, 4, 4, 20  # steps
PENALTIES = np.geomspace(1e-6, 1e2, 65)  # in units of n times the variance of an entry of x
ROUNDING = 1e-12  # of the squared size of what is to be fitted


@dataclass(frozen=True)
class Algorithm:
    """An algorithm with its parameters, as its predictor takes them; `n_free` of their numbers were chosen."""

    family: str
    parameters: dict[str, Any]
    n_free: int

    def predict(
        self,
        x: Float[np.ndarray, "*batch demo dim"],
        y: Float[np.ndarray, "*batch demo"],
        query: Float[np.ndarray, "*batch dim"],
    ) -> Float[np.ndarray, "*batch"]:
        """Its predictions."""
        if self.family == "zero":
            return np.zeros(y.shape[:-1])
        if self.family == "mean_label":
            return np.asarray(y.mean(-1))
        name = {"best_step": "gradient_descent", "gradient_descent_plus_each": "gradient_descent_plus"}
        return np.asarray(getattr(gradient, name.get(self.family, self.family))(x, y, query, **self.parameters))

    @property
    def words(self) -> str:
        """The family with its parameters, short: "gradient_descent(steps=2, rate=5.2)"; matrices by their mean rate."""
        inner = ", ".join(f"{name}={_brief(value)}" for name, value in sorted(self.parameters.items(), reverse=True))
        return f"{self.family}({inner})" if inner else self.family


@dataclass(frozen=True)
class Choice:
    """Contexts to choose on, and the predictions to come near to."""

    contexts: Regressions
    goal: Float[np.ndarray, " batch"]
    spectrum: Spectrum
    steps: tuple[int, ...]
    task: RegressionTask | None
    largest: float
    searched: dict[tuple[bool, int], Found] = field(default_factory=dict)

    def search(self, steps: int, *, plus: bool = False) -> Found:
        """The best rate of descent, or rate and gamma of GD++, and what is left; searched for once."""
        if (plus, steps) not in self.searched:
            self.searched[plus, steps] = (best_plus if plus else best_descent)(
                self.spectrum, self.goal, steps, largest=self.largest
            )
        return self.searched[plus, steps]

    def nearest(self, tried: Iterable[tuple[Any, float]]) -> Any:
        """Of pairs (parameters, mean squared distance) the first that no later one beats by more than rounding."""
        best, least, margin = None, np.inf, ROUNDING * float((self.goal**2).mean())
        for parameters, distance in tried:
            if distance < least - margin:
                best, least = parameters, distance
        return best

    def distance(self, found: Float[np.ndarray, " batch"]) -> float:
        """The mean squared distance of predictions to the goal."""
        return float(((found - self.goal) ** 2).mean())


def fit_families(
    contexts: Regressions,
    goal: Float[np.ndarray, " batch"],
    *,
    families: Sequence[str] = FAMILIES,
    steps: Sequence[int] = STEPS,
    task: RegressionTask | None = None,
    others: Float[np.ndarray, "_ demo dim"] | None = None,
) -> list[Algorithm]:
    """Every family with the parameters whose predictions for the contexts come nearest to `goal`.

    `best_step` needs the task, `preconditioned_gradient` twice as many contexts as it has numbers; a family that cannot
    be fitted is left out. others: inputs that are to be judged later; rates stay where descent does not diverge on them
    (unless the fit is exact). Raises ValueError for an unknown family.
    """
    unknown = [name for name in families if name not in FAMILIES]
    if unknown or not families:
        raise ValueError(f"got the families {unknown or list(families)}; expected some of {', '.join(FAMILIES)}")
    if not steps or min(steps) < 1:
        raise ValueError(f"got steps={list(steps)}; expected numbers of 1 or more")
    spectrum = decompose(contexts.x, contexts.y, contexts.query)
    inputs = contexts.x if others is None else np.concatenate([contexts.x, others])
    largest = float(np.linalg.norm(inputs, ord=2, axis=(-2, -1)).max()) ** 2
    choice = Choice(contexts, goal, spectrum, tuple(sorted(set(steps))), task, largest)
    found = [_FIT[name](choice) if name in _FIT else Algorithm(name, {}, 0) for name in families]
    return [algorithm for algorithm in found if algorithm is not None]


def _descent(choice: Choice) -> Algorithm:
    def tried() -> Iterable[tuple[Any, float]]:
        for steps in choice.steps:
            (rate,), distance = choice.search(steps)
            yield {"rate": rate, "steps": steps}, distance

    return Algorithm("gradient_descent", choice.nearest(tried()), 2)


def _best_step(choice: Choice) -> Algorithm | None:
    task = choice.task
    if task is None or task.covariance is not None:
        return None
    variance, fourth = task.moments
    rate, _ = gradient.best_rate(task.dim, choice.contexts.x.shape[-2], variance=variance, fourth_moment=fourth)
    return Algorithm("best_step", {"rate": rate, "steps": 1}, 0)


def _preconditioned(choice: Choice) -> Algorithm | None:
    c = choice.contexts
    most = min(MOST_MATRICES, choice.steps[-1])
    rates = {k: choice.search(k)[0][0] for k in range(1, most + 1)}
    matrices = choose_preconditioners(c.x, c.y, c.query, choice.goal, rates)
    if matrices is None:
        return None
    return Algorithm("preconditioned_gradient", {"matrices": matrices}, matrices.size + 1)


def _plus(choice: Choice) -> Algorithm | None:
    def tried() -> Iterable[tuple[Any, float]]:
        for steps in _from_two(choice, MOST_PLUS):
            (rate, gamma), distance = choice.search(steps, plus=True)
            yield {"rate": rate, "gamma": gamma, "steps": steps}, distance

    found = choice.nearest(tried())
    return None if found is None else Algorithm("gradient_descent_plus", found, 3)


def _plus_each(choice: Choice) -> Algorithm | None:
    def tried() -> Iterable[tuple[Any, float]]:
        for k in _from_two(choice, MOST_EACH):
            start, _ = choice.search(k, plus=True)
            own, distance = best_plus_each(choice.spectrum, choice.goal, k, start, largest=choice.largest)
            yield {"rate": list(own[:k]), "gamma": list(own[k:]), "steps": k}, distance

    found = choice.nearest(tried())
    return None if found is None else Algorithm("gradient_descent_plus_each", found, 2 * found["steps"])


def _newton(choice: Choice) -> Algorithm:
    spectrum = choice.spectrum
    tried = (
        ({"steps": k}, choice.distance(spectrum.predict(newton_share(spectrum, steps=k))))
        for k in range(1, MOST_NEWTON + 1)
    )
    return Algorithm("newton", choice.nearest(tried), 1)


def _ridge(choice: Choice) -> Algorithm:
    spectrum, unit = choice.spectrum, float((choice.contexts.x**2).mean()) * choice.spectrum.n_demos

    def distance(log_penalty: float) -> float:
        return choice.distance(spectrum.predict(ridge_share(spectrum, penalty=unit * float(np.exp(log_penalty)))))

    grid = np.log(PENALTIES)
    at = int(np.argmin([distance(one) for one in grid]))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    return Algorithm("ridge", {"penalty": unit * float(np.exp(_floor(choice, low, high, unit)))}, 1)


def _floor(choice: Choice, low: float, high: float, unit: float) -> float:
    from scipy.optimize import least_squares

    spectrum = choice.spectrum

    def residual(p: np.ndarray) -> np.ndarray:
        return spectrum.predict(ridge_share(spectrum, penalty=unit * float(np.exp(p[0])))) - choice.goal

    start = [(low + high) / 2]
    return float(least_squares(residual, start, bounds=(low, high), ftol=1e-15, xtol=1e-15, gtol=1e-15).x[0])


def _neighbours(choice: Choice) -> Algorithm:
    c = choice.contexts
    tried = (
        ({"k": k}, choice.distance(gradient.nearest_neighbours(c.x, c.y, c.query, k=k)))
        for k in range(1, c.y.shape[-1] + 1)
    )
    return Algorithm("nearest_neighbours", choice.nearest(tried), 1)


def _from_two(choice: Choice, most: int) -> list[int]:
    """One step of GD++ is one of gradient descent."""
    return [k for k in choice.steps if 2 <= k <= most]


def _brief(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{len(value)} of mean diagonal {', '.join(f'{np.trace(m) / len(m):.3g}' for m in value)}"
    if isinstance(value, list):
        return "[" + ", ".join(f"{one:.3g}" for one in value) + "]"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


_FIT: dict[str, Callable[[Choice], Algorithm | None]] = {
    "gradient_descent": _descent,
    "best_step": _best_step,
    "preconditioned_gradient": _preconditioned,
    "gradient_descent_plus": _plus,
    "gradient_descent_plus_each": _plus_each,
    "newton": _newton,
    "ridge": _ridge,
    "nearest_neighbours": _neighbours,
}
