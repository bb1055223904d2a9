"""Training that can be stopped at any moment and ends with the same weights, bit for bit, as if it had not been.

Batches are a pure function of the recipe's seed and the step, and a checkpoint holds weights, the optimiser's moments
and the number of steps done. Equal on the same machine with the same number of threads.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm.auto import tqdm

CHECKPOINT, CARD = "checkpoint.safetensors", "card.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


class ResumableTraining(ABC):
    """A model, its optimiser (of Adam's kind) and the number of steps done; `save` and `resume` keep all of it."""

    recipe: Any
    model: Any
    optimizer: torch.optim.Optimizer
    done: int = 0

    @abstractmethod
    def step(self) -> float:
        """One step on fresh data; returns its loss."""

    def descend(self, loss: Float[torch.Tensor, ""], *, clip: float) -> float:
        """The step on a loss: the recipe's rate for it, gradients clipped to a norm."""
        self.optimizer.param_groups[0]["lr"] = self.recipe.rate_at(self.done)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        self.done += 1
        return float(loss.detach())

    def save(self, path: Path) -> None:
        """Weights, moments and step in one safetensors file, which is replaced at once or not at all."""
        tensors = {}
        for name, weight in self.model.named_parameters():
            moments = self.optimizer.state[weight]
            tensors[f"weight.{name}"] = weight.detach()
            tensors |= {f"{key}.{name}": moments[key] for key in MOMENTS if key in moments}
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
                    moments = {key: file.get_tensor(f"{key}.{name}") for key in MOMENTS}
                    self.optimizer.state[weight] = {"step": torch.tensor(float(self.done)), **moments}


T = TypeVar("T", bound=ResumableTraining)


def train_in_folder(
    name: str,
    recipe: Any,
    folder: str | Path,
    start: Callable[[], T],
    finish: Callable[[T, Path], dict[str, Any]],
    *,
    checkpoint_every: int,
    progress: bool,
) -> Path:
    """Train by a recipe into a folder; `finish` writes the model there and returns its card, which comes last.

    A folder with the finished model is left as it is; a checkpoint of the same recipe is gone on from.

    Raises ValueError for a folder that holds a model or a checkpoint of another recipe.
    """
    folder = Path(folder)
    if checkpoint_every < 1:
        raise ValueError(f"got checkpoint_every={checkpoint_every}; expected 1 or more steps")
    if (folder / CARD).exists():
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        if card.get("recipe") != json.loads(recipe_json(recipe)):
            raise ValueError(f"{folder} holds a model of another recipe; remove it, or choose another folder")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    training = start()
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
    card = finish(training, folder)
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return folder


def recipe_json(recipe: Any) -> str:
    """A recipe as JSON: what a checkpoint must share with the run that goes on from it."""
    return json.dumps(asdict(recipe), sort_keys=True)
