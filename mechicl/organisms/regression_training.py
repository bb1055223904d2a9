"""Train regressors: transformers that learn linear laws in context.

    python -m mechicl.organisms.regression_training lsa-1 lsa-2      into regressors/lsa-1 and regressors/lsa-2
    python -m mechicl.organisms.regression_training                  all of them, one after another

A run that was stopped goes on from its last checkpoint when the same command is given again, and ends with the same
weights, bit for bit, as one that was not (on the same machine with the same number of threads): contexts are a pure
function of the seed and the step, and the checkpoint holds the state of the optimiser too.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

from mechicl.organisms.regression_judging import judge
from mechicl.organisms.regression_recipes import REGRESSOR_RECIPES, STRETCH, RegressorRecipe, find_regressor
from mechicl.organisms.regression_transformer import RegressionTransformer
from mechicl.organisms.regressors import config_of, new_regressor
from mechicl.provenance import library_versions
from mechicl.tasks.regression import Regressions

CHECKPOINT, CARD, MODEL = "checkpoint.safetensors", "card.json", "model.safetensors"


class RegressorTraining:
    """A model, its optimiser and the number of steps done; `step` does one, `save` and `resume` keep all of it."""

    def __init__(self, recipe: RegressorRecipe) -> None:
        """First weights from the recipe's seed; torch's own random state is left as it was."""
        self.recipe, self.done = recipe, 0
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
        self.optimizer.param_groups[0]["lr"] = recipe.rate_at(self.done)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.clip)
        self.optimizer.step()
        self.done += 1
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Weights, moments and step in one safetensors file, which is replaced at once or not at all."""
        tensors = {}
        for name, weight in self.model.named_parameters():
            moments = self.optimizer.state[weight]
            tensors[f"weight.{name}"] = weight.detach()
            tensors |= {f"{key}.{name}": moments[key] for key in ("exp_avg", "exp_avg_sq") if key in moments}
        partial = path.with_suffix(".partial")
        save_file(tensors, partial, metadata={"done": str(self.done), "recipe": recipe_json(self.recipe)})
        os.replace(partial, path)

    @torch.no_grad()
    def resume(self, path: Path) -> None:
        """Go on from what `save` wrote; a ValueError where it is of another recipe."""
        with safe_open(path, framework="pt") as file:
            head = file.metadata()
            if head.get("recipe") != recipe_json(self.recipe):
                raise ValueError(f"{path} is of another recipe; remove it, or choose another folder")
            self.done = int(head["done"])
            for name, weight in self.model.named_parameters():
                weight.copy_(file.get_tensor(f"weight.{name}"))
                if self.done:
                    moments = {key: file.get_tensor(f"{key}.{name}") for key in ("exp_avg", "exp_avg_sq")}
                    self.optimizer.state[weight] = {"step": torch.tensor(float(self.done)), **moments}


def train_regressor(
    name: str, recipe: RegressorRecipe, folder: str | Path, *, checkpoint_every: int = 500, progress: bool = True
) -> Path:
    """Train by a recipe into a folder that `open_regressor` opens: model.safetensors, config.json, card.json.

    A folder with the finished regressor is left as it is; a checkpoint of the same recipe is gone on from.

    Raises ValueError for a folder that holds a regressor or a checkpoint of another recipe.
    """
    folder = Path(folder)
    if checkpoint_every < 1:
        raise ValueError(f"got checkpoint_every={checkpoint_every}; expected 1 or more steps")
    if (folder / CARD).exists():
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if card.get("recipe") != json.loads(recipe_json(recipe)):
            raise ValueError(f"{folder} holds a regressor of another recipe; remove it, or choose another folder")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    training = RegressorTraining(recipe)
    if (folder / CHECKPOINT).exists():
        training.resume(folder / CHECKPOINT)
    with tqdm(total=recipe.steps, initial=training.done, desc=name, unit="step", disable=not progress) as bar:
        while training.done < recipe.steps:
            loss = training.step()
            bar.update()
            if training.done % checkpoint_every == 0:
                bar.set_postfix(loss=f"{loss:.4f}")
                training.save(folder / CHECKPOINT)
    training.save(folder / CHECKPOINT)  # so that a stop while the card is made costs no training
    save_file({key: value.contiguous() for key, value in training.model.state_dict().items()}, folder / MODEL)
    (folder / "config.json").write_text(json.dumps(config_of(training.model), indent=1) + "\n", encoding="utf-8")
    (folder / CARD).write_text(json.dumps(_card(name, training), indent=1) + "\n", encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return folder


def stretched(contexts: Regressions, n_contexts: int) -> Regressions:
    """The same, with inputs of the first few contexts STRETCH times as large, and labels with them."""
    factor = np.where(np.arange(len(contexts)) < n_contexts, STRETCH, 1.0)
    x, query = contexts.x * factor[:, None, None], contexts.query * factor[:, None]
    return Regressions(x, contexts.y * factor[:, None], query, contexts.target * factor, contexts.weights)


def recipe_json(recipe: RegressorRecipe) -> str:
    """A recipe as JSON: what a checkpoint must share with the run that goes on from it."""
    return json.dumps(asdict(recipe), sort_keys=True)


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
