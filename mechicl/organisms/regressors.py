"""The trained regressors that come with the package: transformers that learn linear laws in context.

What the best predictor does is known in closed form, so an analysis that says which algorithm a model runs can be held
against it. How near each came to the algorithms stands in its card (`regressor_card`). Retrain them with
`make regressors`.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechicl.organisms.regression_recipes import REGRESSORS, RegressorRecipe, find_regressor

if TYPE_CHECKING:
    import torch

    from mechicl.organisms.hooked_regressor import HookedRegressor

__all__ = ["REGRESSORS", "load_regressor", "open_regressor", "regressor_card", "regressor_folder"]
WEIGHTS = Path(__file__).parent / "weights"


def load_regressor(
    name: str, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "float32"
) -> HookedRegressor:
    """A trained regressor, in evaluation mode; `REGRESSORS` has the names, `regressor_card` what each can do.

    Raises ValueError that names the nearest regressor for an unknown name, and for a dtype without enough digits.

        model = load_regressor("lsa-1")
        contexts = RegressionTask(dim=10, n_demos=10, scale=0.5).sample(1000, seed=0)
        model.predict(contexts.x, contexts.y, contexts.query)
    """
    model = open_regressor(regressor_folder(name), device=device, dtype=dtype)
    model.name = name  # provenance tells it
    return model


def open_regressor(
    folder: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype = "float32"
) -> HookedRegressor:
    """The regressor in a folder that training wrote: model.safetensors and config.json."""
    import torch
    from safetensors.torch import load_file

    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.float64):
        raise ValueError(f"got dtype={dtype!r}; expected 'float32' or 'float64'")
    folder = Path(folder)
    if not (folder / "model.safetensors").is_file() or not (folder / "config.json").is_file():
        raise ValueError(f"{folder} holds no regressor (model.safetensors and config.json expected); check the path")
    model = model_of(json.loads((folder / "config.json").read_text(encoding="utf-8")), dtype=chosen)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.to(device).eval() if device is not None else model.eval()


def model_of(config: dict[str, Any], *, dtype: torch.dtype) -> HookedRegressor:
    """A model by its sizes, as config.json has them; its weights are not set yet."""
    from mechicl.organisms.linear_transformer import LinearConfig, LinearTransformer
    from mechicl.organisms.regression_transformer import RegressionTransformer, SoftmaxConfig

    sizes = dict(config)
    kind = sizes.pop("kind", None)
    if kind == "linear":
        return LinearTransformer(LinearConfig(**sizes), dtype=dtype)
    if kind == "softmax":
        return RegressionTransformer(SoftmaxConfig(**sizes), dtype=dtype)
    raise ValueError(f"got a regressor of kind {kind!r}; expected 'linear' or 'softmax'")


def new_regressor(recipe: RegressorRecipe) -> HookedRegressor:
    """An untrained regressor, the control for a trained one: the first weights of its recipe."""
    import torch

    from mechicl.organisms.linear_transformer import LinearConfig, LinearTransformer
    from mechicl.organisms.regression_transformer import RegressionTransformer, SoftmaxConfig

    task = recipe.task
    if recipe.kind == "linear":
        linear = LinearTransformer(LinearConfig(task.dim, recipe.n_layers, recipe.n_heads), dtype=torch.float32)
        linear.randomise(seed=recipe.seed, spread=recipe.spread or 0.2)
        return linear.eval()
    width = recipe.d_model or 32
    sizes = SoftmaxConfig(
        task.dim, task.n_demos, recipe.n_layers, d_model=width, n_heads=recipe.n_heads, d_mlp=4 * width
    )
    softmax = RegressionTransformer(sizes, dtype=torch.float32)
    softmax.randomise(seed=recipe.seed)
    return softmax.eval()


def config_of(model: HookedRegressor) -> dict[str, Any]:
    """The sizes of a model as config.json has them."""
    return asdict(model.cfg)


def regressor_folder(name: str) -> Path:
    """Where a regressor's files lie: model.safetensors, config.json, card.json."""
    find_regressor(name)
    folder = WEIGHTS / name
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"the weights of {name!r} are not in {folder}; install the package anew, or retrain it there")
    return folder


def regressor_card(name: str) -> dict[str, Any]:
    """What a regressor was trained on, how, and how close it comes to each algorithm on contexts it never saw."""
    card: dict[str, Any] = json.loads((regressor_folder(name) / "card.json").read_text(encoding="utf-8"))
    return card
