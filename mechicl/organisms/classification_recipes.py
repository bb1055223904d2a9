"""What the trained classifiers are: their sizes, what they were trained on, and how long."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from math import cos, pi

from mechicl.tasks.classification import ClassificationTask


@dataclass(frozen=True)
class ClassifierRecipe:
    """One classifier: all that its weights depend on, besides the versions of the libraries.

    `seed` sets the first weights; the task has seeds of its own for the pool, the contexts and the noise.
    """

    description: str
    task: ClassificationTask
    n_layers: int = 1
    d_model: int = 64
    n_heads: int = 1
    d_mlp: int = 256
    rotary: float = 0.25
    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100
    clip: float = 1.0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """The learning rate: a linear rise over `warmup` steps, times half a cosine down to a hundredth."""
        along = (1 + cos(pi * step / self.steps)) / 2
        return self.learning_rate * min((step + 1) / self.warmup, 1.0) * (0.01 + 0.99 * along)


GENERAL = ClassifierRecipe(
    "compares the query with the context: trained on a pool of 1024 items, more than it can learn by heart",
    ClassificationTask(diversity=1024),
)
MEMORY = replace(
    GENERAL,
    description="knows the items by heart: trained on a pool of 8 items",
    task=ClassificationTask(diversity=8),
)
CLASSIFIER_RECIPES = {"classifier-general": GENERAL, "classifier-memory": MEMORY}
CLASSIFIERS = {name: recipe.description for name, recipe in CLASSIFIER_RECIPES.items()}


def find_classifier(name: str) -> ClassifierRecipe:
    """The recipe of a name of `CLASSIFIERS`; a ValueError with the nearest name for another."""
    if name not in CLASSIFIER_RECIPES:
        near = difflib.get_close_matches(name, CLASSIFIER_RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown classifier {name!r}; {hint}there are {', '.join(CLASSIFIER_RECIPES)}")
    return CLASSIFIER_RECIPES[name]
