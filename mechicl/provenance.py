"""Where a number comes from: the model, the library versions, the seeds and the options behind a result."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

from mechicl.storage import Record, pack

PACKAGES = ("mechicl", "torch", "transformer-lens", "transformers", "numpy", "scipy", "pandas")
FACTS = ("model", "family", "n_params", "weights_sha256", "wrapper", "device", "dtype", "prepend_bos", "processed")


@dataclass(frozen=True)
class Provenance(Record):
    """Everything needed to repeat a number. A fact about the model is None where no model was run, or when unknown."""

    model: str | None
    family: str | None
    n_params: int | None
    weights_sha256: str | None
    wrapper: str | None
    device: str | None
    dtype: str | None
    prepend_bos: bool | None
    processed: bool | None  # were weights folded or centred
    versions: dict[str, str]
    seeds: dict[str, int]
    options: dict[str, Any]
    created: str  # ISO 8601, UTC

    @classmethod
    def of(
        cls,
        model_facts: Mapping[str, Any] | None = None,
        *,
        seeds: Mapping[str, int] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> "Provenance":
        """Fills in library versions and the time. Paths in `options` become strings.

        Raises ValueError for a model fact that is not a field, or an option that a result cannot hold.
        """
        facts = dict(model_facts or {})
        if unknown := sorted(set(facts) - set(FACTS)):
            raise ValueError(f"got model facts {unknown}, expected some of {list(FACTS)}; put others into options")
        plain = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in (options or {}).items()}
        pack(plain, {}, "options")  # now rather than after hours of work
        return cls(
            **{name: facts.get(name) for name in FACTS},  # type: ignore[arg-type]
            versions=library_versions(),
            seeds=dict(seeds or {}),
            options=plain,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )

    def __repr__(self) -> str:
        """In one line: the model and when; the fields hold the rest."""
        known = {name: value for name, value in self.model_facts().items() if value is not None}
        known.pop("weights_sha256", None)
        content = ", ".join(f"{name}={value!r}" for name, value in (known | {"created": self.created}).items())
        return f"Provenance({content})"

    def model_facts(self) -> dict[str, Any]:
        """The facts about the model, as `of` takes them: an analysis of a result hands them on."""
        return {name: getattr(self, name) for name in FACTS}


def library_versions() -> dict[str, str]:
    """The versions of Python and of the libraries that numbers depend on; one that is not installed is left out."""
    return {"python": platform.python_version()} | {name: v for name in PACKAGES if (v := _version(name)) is not None}


@cache  # reading a package's metadata takes milliseconds, and analyses run in loops
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
