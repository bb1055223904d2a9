"""Organisms: small models whose mechanism was planted by hand, or which were trained on data whose law is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.lazy import lazy_names

if TYPE_CHECKING:
    from mechicl.organisms.classifiers import CLASSIFIERS, classifier_card, load_classifier
    from mechicl.organisms.kernel_model import PlantedKernel, planted_kernel
    from mechicl.organisms.planted import Planted, planted_decoys, planted_ife, planted_null, planted_priming
    from mechicl.organisms.recipes import RECIPES, Recipe, Size
    from mechicl.organisms.regressors import REGRESSORS, load_regressor, regressor_card
    from mechicl.organisms.shipped import ORGANISMS, load_organism, organism_card, organism_folder
    from mechicl.organisms.training import train_organism

# imported when first asked for: most of them bring torch along
_HOME = {
    "CLASSIFIERS": "classifiers",
    "classifier_card": "classifiers",
    "load_classifier": "classifiers",
    "Planted": "planted",
    "PlantedKernel": "kernel_model",
    "planted_kernel": "kernel_model",
    "planted_decoys": "planted",
    "planted_ife": "planted",
    "planted_null": "planted",
    "planted_priming": "planted",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "Size": "recipes",
    "REGRESSORS": "regressors",
    "load_regressor": "regressors",
    "regressor_card": "regressors",
    "ORGANISMS": "shipped",
    "load_organism": "shipped",
    "organism_card": "shipped",
    "organism_folder": "shipped",
    "train_organism": "training",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
