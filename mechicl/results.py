"""What a result is: a frozen dataclass that knows where its numbers come from and that a folder can keep bit for bit.

    @dataclass(frozen=True)
    class SlopeResult(Result):
        slopes: pd.DataFrame
        provenance: Provenance

    result.save("runs/slopes")
    same = results.load("runs/slopes")      # or SlopeResult.load("runs/slopes"); same == result

A saved result is two files: `result.safetensors` (arrays and numeric columns) and `result.json` (the rest, and the
checksum of the first). No pickle. The JSON file is written last, so a folder without it holds no result.
"""

import hashlib
import importlib
import json
import os
import re
import tempfile
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import safetensors.torch
from torch import Tensor

from mechicl.provenance import Provenance, library_versions
from mechicl.storage import Record, Tensors, class_name, pack_record, unpack

FORMAT = 1
JSON_NAME, TENSORS_NAME = "result.json", "result.safetensors"
__all__ = ["Provenance", "Result", "library_versions", "load"]
R = TypeVar("R", bound="Result")


class Result(Record):
    """Mixin for frozen dataclasses: save, load, a short repr, and equality bit for bit (NaN equals NaN).

    Fields may be str, int, float, bool, None, tuples, lists, dicts, numpy arrays, torch tensors, pandas frames and
    other results. Tensors come back on the CPU.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """Puts repr and equality into the class, where @dataclass leaves them: its own cannot compare frames."""
        super().__init_subclass__(**options)
        for name in ("__repr__", "__eq__"):
            if name not in cls.__dict__:
                setattr(cls, name, getattr(cls, name))

    def __repr__(self) -> str:
        """The fields, with shapes for what is large."""
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{name}={_brief(getattr(self, name))}' for name in names)})"

    def __eq__(self, other: object) -> bool:
        """Whether both would be saved as the same bytes."""
        if type(other) is not type(self):
            return NotImplemented
        return _bytes_of(self) == _bytes_of(other)  # type: ignore[arg-type]

    __hash__ = None  # type: ignore[assignment]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Writes the result into a folder (made if need be) and returns the folder. Other files in it stay.

        Raises ValueError where the folder already holds a result, unless `overwrite`; for a field that cannot be kept.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file, expected a folder or a new path")
        finished = folder / JSON_NAME
        if finished.exists() and not overwrite:
            raise ValueError(
                f"{folder} already holds a result; choose another folder, or pass overwrite=True to replace it"
            )
        text, raw = _bytes_of(self)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as staging:
            (Path(staging) / TENSORS_NAME).write_bytes(raw)
            (Path(staging) / JSON_NAME).write_text(text, encoding="utf-8")
            finished.unlink(missing_ok=True)  # an interruption from here on leaves no result, never a mixed one
            os.replace(Path(staging) / TENSORS_NAME, folder / TENSORS_NAME)
            os.replace(Path(staging) / JSON_NAME, finished)
        return folder

    @classmethod
    def load(cls: type[R], folder: str | Path) -> R:
        """The result that `save` wrote, of this class.

        Raises ValueError where there is no result, or one of another class, or a damaged one.
        """
        found = _read(Path(folder), own=cls)
        if not isinstance(found, cls):
            raise ValueError(
                f"{folder} holds a {type(found).__name__}, expected a {cls.__name__}; use mechicl.results.load"
            )
        return found


def load(folder: str | Path) -> Any:
    """The result in a folder, whatever its class, if the class is part of mechicl; raises ValueError if not."""
    return _read(Path(folder), own=Result)


def _bytes_of(result: Result) -> tuple[str, bytes]:
    """The contents of both files."""
    if not is_dataclass(result):
        raise ValueError(f"{type(result).__name__} is not a dataclass; decorate it with @dataclass(frozen=True)")
    tensors: Tensors = {}
    record = pack_record(result, tensors)
    raw = safetensors.torch.save(tensors)
    content = {"format": FORMAT, "tensors_sha256": hashlib.sha256(raw).hexdigest(), "result": record}
    return json.dumps(content, indent=1, allow_nan=False), raw


def _read(folder: Path, own: type) -> Any:
    if not (folder / JSON_NAME).is_file() or not (folder / TENSORS_NAME).is_file():
        raise ValueError(f"{folder} holds no finished result ({JSON_NAME} and {TENSORS_NAME} expected); check the path")
    try:
        content = json.loads((folder / JSON_NAME).read_text(encoding="utf-8"))
        form, checksum, record = content["format"], content["tensors_sha256"], content["result"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / JSON_NAME} is not the file of a result ({error}); compute the result again"
        ) from error
    if form != FORMAT:
        raise ValueError(
            f"{folder} has format {form}, expected {FORMAT}; load it with the version of mechicl that wrote it"
        )
    raw = (folder / TENSORS_NAME).read_bytes()
    if hashlib.sha256(raw).hexdigest() != checksum:
        raise ValueError(
            f"{folder / TENSORS_NAME} is not the file that {JSON_NAME} describes; compute the result again"
        )
    tensors = safetensors.torch.load(raw)
    return unpack(record, tensors, lambda name: own if name == class_name(own) else _find_class(name))


def _find_class(name: str) -> type:
    """The record class of this name. Only modules of mechicl are imported: a file must not choose what code runs."""
    module, _, attribute = name.rpartition(".")
    if not re.fullmatch(r"mechicl(\.\w+)+", module):
        raise ValueError(
            f"got a result of class {name}, expected one of the package mechicl; load it by its class's own load()"
        )
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"this version of mechicl has no {name}; load it with the version that wrote it") from error
    if not (isinstance(kind, type) and issubclass(kind, Record) and is_dataclass(kind)) or class_name(kind) != name:
        raise ValueError(f"{name} is not a result of mechicl; the file is damaged or foreign")
    return kind


def _brief(value: Any) -> str:
    """A value in a few words: shapes for what is large."""
    if isinstance(value, pd.DataFrame):
        return f"<{len(value)} rows x {value.shape[1]} columns>"
    if isinstance(value, (np.ndarray, Tensor)):
        return f"<{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}>"
    if isinstance(value, (list, tuple, dict)) and len(repr(value)) > 80:
        return f"<{type(value).__name__} of {len(value)}>"
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
