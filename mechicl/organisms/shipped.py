"""The trained organisms that come with the package: small transformers that read speakers who adapt, or do not.

What each learned from is known exactly (`mechicl.tasks.speakers`), so an analysis can be held against the truth. How
well each learned it stands in its card (`organism_card`). Retrain them with `make organisms`.

Look at sizes, not only at p-values. A model answers without noise, so that over many items the small slopes that its
training left (about .001 in boost-medium, beside .26 in the delta speakers) differ from 0 beyond chance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechicl.organisms.recipes import RECIPES, find_recipe

if TYPE_CHECKING:
    import torch

WEIGHTS = Path(__file__).parent / "weights"
ORGANISMS = {name: recipe.description for name, recipe in RECIPES.items()}


def load_organism(name: str, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "float32") -> Any:
    """A trained organism as a TransformerLens model, with its tokenizer; `ORGANISMS` has the names.

    It reads texts of `mechicl.tasks.mini_language`, with BOS in front, up to 37 tokens (6 sentences).
    `mechicl.tasks.speaker_pairs.speaker_corpus` makes a priming corpus of such texts. Errors as of `mechicl.load`; a
    ValueError that names the nearest organism for an unknown name.

        measure_priming(load_organism("delta-medium"), speaker_corpus(seed=1))
    """
    from mechicl.models import load

    return load(organism_folder(name), device=device, dtype=dtype)


def organism_folder(name: str) -> Path:
    """Where an organism's files lie: model.safetensors, config.json, the tokenizer's, card.json."""
    find_recipe(name)
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"the weights of {name!r} are not in {folder}; install the package anew, or retrain it there")
    return folder


def organism_card(name: str) -> dict[str, Any]:
    """What an organism was trained on, how, and how close it came to the truth."""
    card: dict[str, Any] = json.loads((organism_folder(name) / "card.json").read_text(encoding="utf-8"))
    return card
