"""mechicl: by what mechanism does a transformer learn from its context?

Importing this package is quick: torch and TransformerLens are imported by the modules that need them, at first use.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from mechicl.lazy import lazy_names

try:
    __version__ = version("mechicl")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

_HOME = {"load": "models", "KNOWN_MODELS": "packaged", "model_status": "models"}
__all__ = ["KNOWN_MODELS", "__version__", "load", "model_status"]
__getattr__, __dir__ = lazy_names(__name__, _HOME)
