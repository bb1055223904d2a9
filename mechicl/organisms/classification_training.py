"""Train classifiers: transformers that find an item's label in the context, or know it by heart.

    python -m mechicl.organisms.classification_training classifier-memory      into classifiers/classifier-memory
    python -m mechicl.organisms.classification_training                        all of them, one after another

A run that was stopped goes on from its last checkpoint when the same command is given again, and ends with the same
weights, bit for bit, as one that was not (on the same machine with the same number of threads).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from safetensors.torch import save_file
from torch.nn.functional import binary_cross_entropy_with_logits

from mechicl.organisms.classification_judging import judge
from mechicl.organisms.classification_recipes import CLASSIFIER_RECIPES, ClassifierRecipe, find_classifier
from mechicl.organisms.classifiers import config_of, new_classifier
from mechicl.organisms.resumable import CARD, ResumableTraining, recipe_json, train_in_folder
from mechicl.provenance import library_versions

MODEL = "model.safetensors"


class ClassifierTraining(ResumableTraining):
    """A classifier on fresh contexts of a recipe's task."""

    def __init__(self, recipe: ClassifierRecipe) -> None:
        """First weights from the recipe's seed; torch's own random state is left as it was."""
        self.recipe = recipe
        self.model: Any = new_classifier(recipe)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=recipe.learning_rate)

    def step(self) -> float:
        """One step on fresh contexts; returns its loss, the cross-entropy of the query's label in nats."""
        contexts = self.recipe.task.sample(self.recipe.batch, step=self.done)
        found = self.model(*self.model.tensors(contexts.x, contexts.y, contexts.query))
        true = torch.as_tensor(contexts.target).to(found)
        return self.descend(binary_cross_entropy_with_logits(found, true), clip=self.recipe.clip)


def train_classifier(
    name: str, recipe: ClassifierRecipe, folder: str | Path, *, checkpoint_every: int = 500, progress: bool = True
) -> Path:
    """Train by a recipe into a folder that `open_classifier` opens: model.safetensors, config.json, card.json.

    A folder with the finished classifier is left as it is; a checkpoint of the same recipe is gone on from.

    Raises ValueError for a folder that holds a classifier or a checkpoint of another recipe.
    """
    return train_in_folder(
        name,
        recipe,
        folder,
        lambda: ClassifierTraining(recipe),
        lambda training, target: _finished(name, training, target),
        checkpoint_every=checkpoint_every,
        progress=progress,
    )


def _finished(name: str, training: ClassifierTraining, folder: Path) -> dict[str, Any]:
    """Writes the model; returns what a reader should know of it."""
    save_file({key: value.contiguous() for key, value in training.model.state_dict().items()}, folder / MODEL)
    (folder / "config.json").write_text(json.dumps(config_of(training.model), indent=1) + "\n", encoding="utf-8")
    recipe = training.recipe
    return {
        "name": name,
        "description": recipe.description,
        "data": f"fresh contexts of {recipe.task} (mechicl.tasks.classification), never the same twice; loss: the "
        "cross-entropy of the query's label",
        "command": f"python -m mechicl.organisms.classification_training {name}",
        "n_params": sum(weight.numel() for weight in training.model.parameters()),
        "steps": training.done,
        "contexts": training.done * recipe.batch,
        "seed": recipe.seed,
        **judge(training.model, recipe.task),
        "recipe": json.loads(recipe_json(recipe)),
        "versions": library_versions(),
    }


def _main(
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    out: Path = Path("classifiers"),
    checkpoint_every: int = 500,
) -> None:
    """Train classifiers, or go on with them; finished ones are left as they are.

    Args:
        names: which ones, e.g. classifier-memory; all where none is named. A wrong name lists them.
        out: where each gets a folder of its name, with the model, its sizes and its card.
        checkpoint_every: steps between checkpoints.
    """
    torch.set_num_threads(1)  # enough for such small models, and the same sums everywhere
    recipes = {name: find_classifier(name) for name in names or CLASSIFIER_RECIPES}
    for name, recipe in recipes.items():
        folder = train_classifier(name, recipe, out / name, checkpoint_every=checkpoint_every)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        print(json.dumps({key: card[key] for key in ("name", "accuracy", "distance", "attention")}, indent=1))


if __name__ == "__main__":
    tyro.cli(_main)
