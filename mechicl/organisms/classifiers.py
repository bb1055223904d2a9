"""The trained classifiers that come with the package: one that compares, one that knows its items by heart.

What each predictor gives is known exactly (`mechicl.predictors.classification`), and that of the comparing one is a
kernel regression with a known bandwidth: the trained ground truth of the kernel account, and the two ends of training
that the Bayesian account explains. How near each came stands in its card (`classifier_card`). Retrain them with
`make classifiers`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechicl.organisms.classification_recipes import CLASSIFIERS, ClassifierRecipe, find_classifier

if TYPE_CHECKING:
    import torch

    from mechicl.organisms.classification_transformer import ClassificationTransformer

__all__ = ["CLASSIFIERS", "classifier_card", "classifier_folder", "load_classifier", "open_classifier"]
WEIGHTS = Path(__file__).parent / "weights"


def load_classifier(
    name: str, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "float32"
) -> ClassificationTransformer:
    """A trained classifier, in evaluation mode; `CLASSIFIERS` has the names, `classifier_card` what each can do.

    Raises ValueError that names the nearest classifier for an unknown name, and for a dtype without enough digits.

        model = load_classifier("classifier-general")
        contexts = find_classifier("classifier-general").task.sample(1000, step=10**9)
        model.probabilities(contexts.x, contexts.y, contexts.query)
    """
    model = open_classifier(classifier_folder(name), device=device, dtype=dtype)
    model.name = name  # provenance tells it
    return model


def open_classifier(
    folder: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "float32"
) -> ClassificationTransformer:
    """The classifier in a folder that training wrote: model.safetensors and config.json."""
    import torch
    from safetensors.torch import load_file

    from mechicl.organisms.classification_transformer import ClassificationTransformer, ClassifierConfig

    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.float64):
        raise ValueError(f"got dtype={dtype!r}; expected 'float32' or 'float64'")
    folder = Path(folder)
    if not (folder / "model.safetensors").is_file() or not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no classifier (model.safetensors and config.json expected); check the path")
    sizes = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if sizes.get("kind") != "classifier":
        raise ValueError(f"got a model of kind {sizes.get('kind')!r} in {folder}; expected 'classifier'")
    model = ClassificationTransformer(ClassifierConfig(**sizes), dtype=chosen)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.to(device).eval() if device is not None else model.eval()


def new_classifier(recipe: ClassifierRecipe) -> ClassificationTransformer:
    """An untrained classifier, the control for a trained one: the first weights of its recipe."""
    import torch

    from mechicl.organisms.classification_transformer import ClassificationTransformer, ClassifierConfig

    sizes = ClassifierConfig(
        recipe.task.dim,
        recipe.task.n_pairs,
        recipe.n_layers,
        d_model=recipe.d_model,
        n_heads=recipe.n_heads,
        d_mlp=recipe.d_mlp,
        rotary=recipe.rotary,
    )
    model = ClassificationTransformer(sizes, dtype=torch.float32)
    model.randomise(seed=recipe.seed)
    return model.eval()


def config_of(model: ClassificationTransformer) -> dict[str, Any]:
    """The sizes of a model as config.json has them."""
    return asdict(model.cfg)


def classifier_folder(name: str) -> Path:
    """Where a classifier's files lie: model.safetensors, config.json, card.json."""
    find_classifier(name)
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"the weights of {name!r} are not in {folder}; install the package anew, or retrain it there")
    return folder


def classifier_card(name: str) -> dict[str, Any]:
    """What a classifier was trained on, how, and how close it comes to each predictor on contexts it never saw."""
    card: dict[str, Any] = json.loads((classifier_folder(name) / "card.json").read_text(encoding="utf-8"))
    return card
