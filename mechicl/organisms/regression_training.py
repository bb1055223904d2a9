"""Train regressors: transformers that learn linear laws in context.

    python -m mechicl.organisms.regression_training lsa-1 lsa-2      into regressors/lsa-1 and regressors/lsa-2
    python -m mechicl.organisms.regression_training                  all of them, one after another

A run that was stopped goes on from its last checkpoint when the same command is given again, and ends with the same
weights, bit for bit, as one that was not (on the same machine with the same number of threads): contexts are a pure
function of the seed and the step, and the checkpoint holds the state of the optimiser too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from safetensors.torch import save_file

from mechicl.organisms.regression_judging import judge
from mechicl.organisms.regression_recipes import REGRESSOR_RECIPES, STRETCH, RegressorRecipe, find_regressor
from mechicl.organisms.regression_transformer import RegressionTransformer
from mechicl.organisms.regressors import config_of, new_regressor
from mechicl.organisms.resumable import CARD, ResumableTraining, recipe_json, train_in_folder
from mechicl.provenance import library_versions
from mechicl.tasks.regression import Regressions

MODEL = "model.safetensors"


class RegressorTraining(ResumableTraining):
    """A regressor on fresh contexts of a recipe's task."""

    def __init__(self, recipe: RegressorRecipe) -> None:
        """First weights from the recipe's seed; torch's own random state is left as it was."""
        self.recipe = recipe
        self.model: Any = new_regressor(recipe)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98))

    def step(self) -> float:
        """One step on fresh contexts; returns its loss, half the mean squared error.

        A linear model is judged at the query alone; a softmax one at every x, with the demonstrations before it.
        """
        recipe = self.recipe
        contexts = recipe.task.sample(recipe.batch, seed=(recipe.seed, self.done))
        if recipe.stretched:
            contexts = stretched(contexts, round(recipe.stretched * recipe.batch))
        inputs = self.model.tensors(contexts.x, contexts.y, contexts.query)
        if isinstance(self.model, RegressionTransformer):
            found, true = self.model.after_each(*inputs), np.column_stack([contexts.y, contexts.target])
        else:
            found, true = self.model(*inputs), contexts.target
        loss = ((found - torch.as_tensor(true).to(found.dtype)) ** 2).mean() / 2
        return self.descend(loss, clip=recipe.clip)


def train_regressor(
    name: str, recipe: RegressorRecipe, folder: str | Path, *, checkpoint_every: int = 500, progress: bool = True
) -> Path:
    """Train by a recipe into a folder that `open_regressor` opens: model.safetensors, config.json, card.json.

    A folder with the finished regressor is left as it is; a checkpoint of the same recipe is gone on from.

    Raises ValueError for a folder that holds a regressor or a checkpoint of another recipe.
    """
    return train_in_folder(
        name,
        recipe,
        folder,
        lambda: RegressorTraining(recipe),
        lambda training, target: _finished(name, training, target),
        checkpoint_every=checkpoint_every,
        progress=progress,
    )


def _finished(name: str, training: RegressorTraining, folder: Path) -> dict[str, Any]:
    save_file({key: value.contiguous() for key, value in training.model.state_dict().items()}, folder / MODEL)
    (folder / "config.json").write_text(json.dumps(config_of(training.model), indent=1) + "\n", encoding="utf-8")
    return _card(name, training)


def stretched(contexts: Regressions, n_contexts: int) -> Regressions:
    """The same, with inputs of the first few contexts STRETCH times as large, and labels with them."""
    factor = np.where(np.arange(len(contexts)) < n_contexts, STRETCH, 1.0)
    x, query = contexts.x * factor[:, None, None], contexts.query * factor[:, None]
    return Regressions(x, contexts.y * factor[:, None], query, contexts.target * factor, contexts.weights)


def _card(name: str, training: RegressorTraining) -> dict[str, Any]:
    """What a reader should know of a regressor."""
    recipe = training.recipe
    where = "at the query" if recipe.kind == "linear" else "at every x, from the demonstrations before it"
    return {
        "name": name,
        "description": recipe.description,
        "data": f"fresh contexts of {recipe.task} (mechicl.tasks.regression), never the same twice"
        f"{f', {recipe.stretched:.1%} of them {STRETCH} times as large' if recipe.stretched else ''}; loss: half the "
        f"squared error of the prediction {where}",
        "command": f"python -m mechicl.organisms.regression_training {name}",
        "n_params": sum(weight.numel() for weight in training.model.parameters()),
        "steps": training.done,
        "contexts": training.done * recipe.batch,
        "seed": recipe.seed,
        **judge(training.model, recipe.task, seed=recipe.seed),
        "recipe": json.loads(recipe_json(recipe)),
        "versions": library_versions(),
    }


def _main(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    out: Path = Path("regressors"),
    checkpoint_every: int = 500,
) -> None:
    """Train regressors, or go on with them; finished ones are left as they are.

    Args:
        names: which ones, e.g. lsa-1 lsa-2; all where none is named. A wrong name lists them.
        out: where each gets a folder of its name, with the model, its sizes and its card.
        checkpoint_every: steps between checkpoints.
    """
    torch.set_num_threads(1)  # enough for such small models, and the same sums everywhere
    recipes = {name: find_regressor(name) for name in names or REGRESSOR_RECIPES}
    for name, recipe in recipes.items():
        folder = train_regressor(name, recipe, out / name, checkpoint_every=checkpoint_every)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        print(json.dumps({key: card[key] for key in ("name", "half_mse", "distance")}, indent=1))


if __name__ == "__main__":
    tyro.cli(_main)
