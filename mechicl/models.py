"""Load a pretrained model, by name or folder, as a TransformerLens model.

Nothing is folded, centred or otherwise processed: logits equal those of the plain transformers model.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechicl.packaged import KNOWN_MODELS, cache_folder, converted_folder, is_converted

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelStatus:
    """Whether a known model can be loaded now. `command` is what makes it ready (empty when it is)."""

    name: str
    title: str
    licence: str
    ready: bool
    detail: str
    command: str


def model_status(cache_dir: str | Path | None = None) -> list[ModelStatus]:
    """One row for each known model: is it converted, only installed, or absent?"""
    rows = []
    for model in KNOWN_MODELS.values():
        if is_converted(model, cache_folder(model, cache_dir)):
            ready, detail, command = True, "converted, loads offline", ""
        elif not model.missing():
            ready, detail, command = True, "installed, converted at first use (about half a minute)", ""
        else:
            ready, detail, command = False, f"missing package {', '.join(model.missing())}", model.install
        rows.append(ModelStatus(model.name, model.title, model.licence, ready, detail, command))
    return rows


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "float32",
    cache_dir: str | Path | None = None,
) -> Any:
    """A pretrained model as a `TransformerBridge`, in evaluation mode, its weights as they were published.

    `name` is a known name (see `KNOWN_MODELS` or the command `mechicl models`), a local folder that transformers can
    read (model and tokenizer), or the id of a model on the Hugging Face hub. `device` defaults to CUDA where there is
    one, else the CPU; `dtype` is a torch dtype or its name. Converted models lie under `cache_dir` (by default
    `$MECHICL_CACHE`, else `~/.cache/mechicl`).

    Raises `ValueError` for an unknown name, device or dtype, a missing weights package (with the command that installs
    it) and for weights that fail their checksum.
    """
    torch_device, torch_dtype = _parse_device(device), _parse_dtype(dtype)
    if str(name) in KNOWN_MODELS:
        model = KNOWN_MODELS[str(name)]
        return _boot(str(converted_folder(model, cache_dir)), torch_device, torch_dtype, title=model.name)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise ValueError(
                f"the folder {str(name)!r} holds no config.json; save a model there first with "
                "model.save_pretrained(FOLDER) and tokenizer.save_pretrained(FOLDER)"
            )
        return _boot(str(name), torch_device, torch_dtype, title=Path(name).resolve().name)
    return _boot_from_hub(str(name), torch_device, torch_dtype)


def _boot(source: str, device: torch.device, dtype: torch.dtype, *, title: str) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(source, device=str(device), dtype=dtype)
    model.eval()
    model.cfg.model_name = title  # what provenance shows: a name, not a path of this machine
    return model


def _boot_from_hub(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    known = ", ".join(KNOWN_MODELS)
    if "/" not in name and (close := difflib.get_close_matches(name, KNOWN_MODELS, n=1, cutoff=0.7)):
        raise ValueError(f"unknown model {name!r}; did you mean {close[0]!r}? Known names: {known}")
    try:
        return _boot(name, device, dtype, title=name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"cannot load {name!r}: it is no known name ({known}), no local folder, and the Hugging Face hub did not "
            f"give it ({type(error).__name__}: {str(error).splitlines()[0]}). "
            "Check the spelling, go online, or pass a folder."
        ) from error


def _parse_device(device: str | torch.device | None) -> torch.device:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        parsed = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}; use 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    if parsed.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} was asked for, but torch sees no CUDA device; use device='cpu'")
    return parsed


def _parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    import torch

    parsed = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(parsed, torch.dtype) or not parsed.is_floating_point:
        raise ValueError(f"unknown dtype {dtype!r}; use 'float32', 'bfloat16', 'float16' or 'float64'")
    return parsed
