"""What the trained regressors are: their sizes, what they were trained on, and how long."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from math import cos, pi

from mechicl.tasks.regression import RegressionTask


@dataclass(frozen=True)
class RegressorRecipe:
    """One regressor: all that its weights depend on, besides the versions of the libraries.

    `kind`: "linear" (`LinearTransformer`) or "softmax" (`RegressionTransformer`); the fields below `kind` that a linear
    one has no use for stay None. `seed` sets the first weights and, with the step, the contexts. `spread`: the standard
    deviation of a linear one's first weights. `stretched`: the share of contexts that are STRETCH times as large. A
    deep linear model is a polynomial of high degree, and without them explodes on one context in many thousands.
    """

    description: str
    kind: str
    task: RegressionTask
    n_layers: int
    d_model: int | None = None
    n_heads: int = 1
    spread: float | None = None
    steps: int = 3000
    batch: int = 1024
    learning_rate: float = 0.01
    warmup: int = 200
    clip: float = 1.0
    stretched: float = 0.0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """The learning rate: a linear rise over `warmup` steps, times half a cosine down to a hundredth."""
        along = (1 + cos(pi * step / self.steps)) / 2
        return self.learning_rate * min((step + 1) / self.warmup, 1.0) * (0.01 + 0.99 * along)


STRETCH = 1.25
UNIFORM = RegressionTask(dim=10, n_demos=10, inputs="uniform", scale=0.5)
NORMAL = RegressionTask(dim=5, n_demos=10, inputs="normal")


def _linear(n_layers: int, what: str, steps: int, clip: float, stretched: float = 0.0) -> RegressorRecipe:
    plural = "layer" if n_layers == 1 else "layers"
    return RegressorRecipe(
        f"{n_layers} {plural} of linear self-attention on 10 points in 10 dimensions: {what}",
        "linear", UNIFORM, n_layers, spread=0.2, steps=steps, clip=clip, stretched=stretched,
    )  # fmt: skip


def _softmax(n_layers: int, steps: int, learning_rate: float = 2e-3, what: str = "") -> RegressorRecipe:
    plural = "layer" if n_layers == 1 else "layers"
    return RegressorRecipe(
        f"{n_layers} {plural} of softmax attention and MLPs on up to 10 points in 5 dimensions{what}",
        "softmax", NORMAL, n_layers, d_model=48, n_heads=4, steps=steps, batch=64, learning_rate=learning_rate,
    )  # fmt: skip


REGRESSOR_RECIPES = {
    "lsa-1": _linear(1, "one step of gradient descent", 3000, 1.0),
    "lsa-2": _linear(2, "better than two steps of gradient descent, as GD++ is", 6000, 1.0),
    "lsa-4": _linear(4, "better than four steps of gradient descent, as GD++ is", 4000, 0.3, stretched=0.125),
    "regression-softmax-1": _softmax(
        1, 10000, what=": too few to join inputs with their labels, which come after them"
    ),
    "regression-softmax-2": _softmax(2, 10000),
    "regression-softmax-4": _softmax(4, 6000),
    "regression-softmax-8": _softmax(8, 4000, learning_rate=1e-3),
}
REGRESSORS = {name: recipe.description for name, recipe in REGRESSOR_RECIPES.items()}


def find_regressor(name: str) -> RegressorRecipe:
    """The recipe of a name of `REGRESSORS`; a ValueError with the nearest name for another."""
    if name not in REGRESSOR_RECIPES:
        near = difflib.get_close_matches(name, REGRESSOR_RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown regressor {name!r}; {hint}there are {', '.join(REGRESSOR_RECIPES)}")
    return REGRESSOR_RECIPES[name]
