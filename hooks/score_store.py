"""Finished log-probabilities on disk, so that an interrupted run loses nothing and a second one repeats nothing."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors.numpy import load_file, save_file

from mechicl.hooks.prefix_tree import Continuation

_FACTS = "scores.json"


class ScoreStore:
    """Per-token log-probabilities by the key of a request (see `request_key`).

    `facts` name what the numbers depend on beyond the request: the weights' checksum, dtype and device. A folder with
    the scores of other facts is refused, since its numbers are another model's. New scores are kept in memory until
    `flush`, which adds one file; files are never rewritten, so a kill at any moment leaves the earlier ones whole.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known: dict[bytes, np.ndarray] = {}
        self._new: dict[bytes, np.ndarray] = {}
        self._claim(dict(facts))
        for shard in sorted(self.folder.glob("scores-*.safetensors")):
            self._read(shard)

    def __len__(self) -> int:
        """How many requests are known."""
        return len(self._known)

    def get(self, key: bytes) -> np.ndarray | None:
        """The log-probabilities of a request, or None."""
        return self._known.get(key)

    def put(self, key: bytes, values: Float[np.ndarray, " pos"]) -> None:
        """Remember the log-probabilities of a request."""
        self._known[key] = self._new[key] = values

    def flush(self) -> None:
        """Write what is new, as one more file."""
        if not self._new:
            return
        values = list(self._new.values())
        number = len(list(self.folder.glob("scores-*.safetensors")))
        target = self.folder / f"scores-{number:05d}-{os.getpid()}.safetensors"
        partial = target.with_suffix(".partial")
        save_file(
            {
                "key": np.frombuffer(b"".join(self._new), dtype=np.uint8).reshape(-1, 16).copy(),
                "length": np.array([len(v) for v in values], dtype=np.int64),
                "log_prob": np.concatenate(values),
            },
            partial,
        )
        os.replace(partial, target)
        self._new.clear()

    def _claim(self, facts: dict[str, str]) -> None:
        path = self.folder / _FACTS
        if not path.is_file():
            path.write_text(json.dumps(facts, indent=2), encoding="utf-8")
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        if found != facts:
            different = ", ".join(
                f"{k}: {found.get(k)} there, {facts[k]} now" for k in facts if found.get(k) != facts[k]
            )
            raise ValueError(
                f"{self.folder} holds the scores of another run ({different}); give this run a folder of its own, "
                "or remove that one"
            )

    def _read(self, shard: Path) -> None:
        content = load_file(shard)
        ends = np.cumsum(content["length"])
        for key, end, length in zip(content["key"], ends, content["length"], strict=True):
            self._known[key.tobytes()] = content["log_prob"][end - length : end]


def request_key(content: bytes) -> bytes:
    """The key of a request: a digest of all that its numbers depend on beyond the store's facts."""
    return hashlib.blake2b(content, digest_size=16).digest()


def continuation_key(continuation: Continuation) -> bytes:
    """The key of a continuation: its tokens and where scoring starts."""
    return request_key(np.asarray((continuation.start, *continuation.tokens), dtype=np.int64).tobytes())
