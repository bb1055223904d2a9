"""Train organisms: small transformers that read speakers' documents.

    python -m mechicl.organisms.training --name delta-medium      into organisms/delta-medium
    python -m mechicl.organisms.training                          all of them, one after another

A run that was stopped goes on from its last checkpoint when the same command is given again, and ends with the same
weights, bit for bit, as one that was not (on the same machine with the same number of threads): documents are a pure
function of the seed and the step, and the checkpoint holds the state of the optimiser too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from mechicl.organisms.judging import closeness, one_prime
from mechicl.organisms.recipes import RECIPES, Recipe, find_recipe
from mechicl.organisms.resumable import CARD, ResumableTraining, recipe_json, train_in_folder
from mechicl.provenance import library_versions
from mechicl.tasks.mini_language import PAD, TOKEN, mini_tokenizer

HELD_OUT = 10**9  # a step that no training reaches: the seed of documents to judge by


class Training(ResumableTraining):
    """A Llama that reads the documents of a recipe's speaker."""

    def __init__(self, recipe: Recipe) -> None:
        """First weights from the recipe's seed; torch's own random state is left as it was."""
        from transformers import LlamaForCausalLM

        self.recipe = recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model: Any = LlamaForCausalLM(recipe.size.config(recipe.n_ctx)).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay
        )

    def step(self) -> float:
        """One step on fresh documents; returns its loss, in nats a token (tokens after verbs count more).

        After a verb the loss is the expectation over what the speaker may say next, by his true probabilities, and not
        only over what he says. In the mean that is the same, but a single draw says little about its probability: its
        noise alone makes models take a verb for a sign of what comes after.
        """
        recipe = self.recipe
        documents = recipe.speaker.documents(
            recipe.batch, n_sentences=recipe.n_sentences, seed=(recipe.seed, self.done)
        )
        tokens, verb_at = torch.as_tensor(documents.tokens), torch.as_tensor(documents.verb_at)
        log_probs = self.model(input_ids=tokens[:, :-1]).logits.log_softmax(-1)
        losses = -log_probs.gather(2, tokens[:, 1:, None])[..., 0]
        counts = (tokens[:, 1:] != TOKEN[PAD]).to(losses.dtype).scatter(1, verb_at, 0.0)
        probs = torch.as_tensor(recipe.speaker.after_verb(documents), dtype=losses.dtype)
        at_verbs = log_probs.gather(1, verb_at[..., None].expand(-1, -1, log_probs.shape[-1]))
        after_verbs = -(probs * at_verbs).sum()
        weight = recipe.structure_weight
        loss = ((losses * counts).sum() + weight * after_verbs) / (counts.sum() + weight * verb_at.numel())
        return self.descend(loss, clip=1.0)


def train_organism(
    name: str, recipe: Recipe, folder: str | Path, *, checkpoint_every: int = 250, progress: bool = True
) -> Path:
    """Train by a recipe into a folder that `mechicl.load` opens: model, tokenizer, card.json.

    A folder with the finished organism is left as it is; a checkpoint of the same recipe is gone on from.

    Raises ValueError for a folder that holds an organism or a checkpoint of another recipe.
    """
    return train_in_folder(
        name,
        recipe,
        folder,
        lambda: Training(recipe),
        lambda training, target: _finished(name, training, target),
        checkpoint_every=checkpoint_every,
        progress=progress,
    )


def _finished(name: str, training: Training, folder: Path) -> dict[str, Any]:
    training.model.eval().save_pretrained(folder)
    mini_tokenizer().save_pretrained(folder)
    return _card(name, training)


def _card(name: str, training: Training) -> dict[str, Any]:
    """What a reader should know of an organism."""
    recipe = training.recipe
    held_out = (recipe.seed, HELD_OUT)
    return {
        "name": name,
        "description": recipe.description,
        "data": f"fresh documents of {recipe.n_sentences} sentences by {recipe.speaker.learner} speakers "
        "(mechicl.tasks.speakers), never the same twice; loss: cross-entropy of the next token, where the token "
        f"after a verb counts {recipe.structure_weight:g} times and is averaged over the speaker's true probabilities",
        "command": f"python -m mechicl.organisms.training --name {name}",
        "n_params": sum(weight.numel() for weight in training.model.parameters()),
        "steps": training.done,
        "documents": training.done * recipe.batch,
        "seed": recipe.seed,
        "closeness_by_sentence": closeness(
            training.model, recipe.speaker, n_sentences=recipe.n_sentences, seed=held_out
        ),
        "one_prime": one_prime(training.model, recipe.speaker),
        "one_prime_ideal": _ideal(recipe),
        "recipe": json.loads(recipe_json(recipe)),
        "versions": library_versions(),
    }


def _ideal(recipe: Recipe) -> dict[str, float]:
    rate = recipe.speaker.rate if recipe.speaker.learner == "delta" else 0.0
    slopes = {"slope_PD": -rate, "slope_DO": -rate, "slope_neutral": 0.0, "common_shift_from_neutral": rate}
    return {"priming": recipe.speaker.ideal_priming(), **slopes}


def _main(name: str | None = None, out: Path = Path("organisms"), checkpoint_every: int = 250) -> None:
    """Train one organism or all, or go on with them; finished ones are left as they are.

    Args:
        name: which one, e.g. delta-medium; all where it is left out. A wrong name lists them.
        out: where each gets a folder of its name, with the model, its tokenizer and its card.
        checkpoint_every: steps between checkpoints.
    """
    torch.set_num_threads(1)  # enough for such small models, and the same sums everywhere
    chosen = list(RECIPES) if name is None else [name]
    recipes = [find_recipe(one) for one in chosen]
    for one, recipe in zip(chosen, recipes, strict=True):
        folder = train_organism(one, recipe, out / one, checkpoint_every=checkpoint_every)
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        print(json.dumps({key: card[key] for key in ("name", "closeness_by_sentence", "one_prime")}, indent=1))


if __name__ == "__main__":
    import tyro

    tyro.cli(_main)
