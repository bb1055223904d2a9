"""Open a trained model of a grid as a TransformerLens model, so that hooks and all analyses work on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.store import checkpoint_steps, read_checkpoint, read_point

if TYPE_CHECKING:
    import torch

__all__ = ["checkpoint_steps", "open_checkpoint"]


def open_checkpoint(
    folder: str | Path,
    step: int | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> Any:
    """A model of a grid after a step of its training, in evaluation mode; by default after the last.

    folder: a point's, `RUN/<point.name>`; `checkpoint_steps` says which steps were kept. A model of tokens (balls and
    urns, Markov chains) is a TransformerBridge with a tokenizer, as `mechicl.load` gives it: BOS is the start token,
    and balls are colours. Classification opens as a `ClassificationTransformer`, whose prediction is the log-odds of
    label 1, and linear regression as a `RotaryRegressor`. Outputs are those of training (1e-5; 1e-6 in float64 for
    tokens, since transformers keeps angles in float32).

    Errors (ValueError): a folder that holds no model of a grid, a step that was not kept (the nearest is named), a
    torn file, a dtype other than float32 and float64.

        model = open_checkpoint("runs/urns/" + point.name, 1000)
        tokens = torch.from_numpy(point.task.sample(8, step=(1, 0)).tokens)[:, :-1]
        logits, cache = model.run_with_cache(tokens)
    """
    import torch

    chosen = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float32, torch.float64):
        raise ValueError(f"got dtype={dtype!r}; expected 'float32' or 'float64'")
    point = read_point(folder)
    weights = read_checkpoint(folder, step)
    if not point.config.vectors:
        return _token_model(weights, point, device, chosen)
    from mechicl.organisms.grid.vector_model import vector_model

    model = vector_model(weights, point.config, dtype=chosen).to(device)
    model.name = point.name
    return model


def _token_model(
    weights: Mapping[str, torch.Tensor], point: GridPoint, device: str | torch.device, dtype: torch.dtype
) -> Any:
    """By a folder that is gone afterwards: TransformerLens takes a tokenizer from nowhere else."""
    from mechicl.models import load
    from mechicl.organisms.grid.neox import token_words, write_neox

    with TemporaryDirectory() as scratch, _without_bar():
        place = Path(scratch) / point.name
        write_neox(weights, point.config, place, words=token_words(point.setting, point.dim))
        return load(place, device=device, dtype=dtype)


@contextmanager
def _without_bar() -> Iterator[None]:
    """No bar of transformers over the few weights of one checkpoint; those who open open many."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
