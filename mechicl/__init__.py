"""mechicl: by what mechanism does a transformer learn from its context?

Importing this package is quick: torch and TransformerLens are imported by the modules that need them, at first use.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("mechicl")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_HOMES = {"load": "mechicl.models", "KNOWN_MODELS": "mechicl.models", "model_status": "mechicl.models"}

__all__ = ["KNOWN_MODELS", "__version__", "load", "model_status"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'mechicl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
