"""Finished items of a patching sweep on disk, so that an interrupted sweep goes on where it was."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.patch_sweep import Plan
from mechicl.hooks.score_store import ScoreStore, request_key
from mechicl.hooks.scoring import stored_facts
from mechicl.hooks.wrapper import WrappedModel

_FLUSH_SECONDS = 20.0


class PatchStore:
    """Log-probabilities of items under all sets of a plan, by the content of item and plan."""

    def __init__(self, scores: ScoreStore, plan: Plan) -> None:
        self.scores = scores
        shared = repr((plan.roles, plan.sets)).encode() + plan.replacement.fingerprint()
        self.keys = [request_key(_content(item) + shared) for item in plan.items]
        self.n_sets = len(plan.sets)
        self.flushed = time.monotonic()

    @classmethod
    def open(cls, wrapped: WrappedModel, folder: str | Path, plan: Plan) -> PatchStore:
        """The store in a folder; raises `ValueError` where it holds another model's numbers."""
        return cls(ScoreStore(folder, stored_facts(wrapped)), plan)

    def get(self, number: int) -> tuple[Tensor, Tensor] | None:
        """What `put` was given for this item, or None."""
        found = self.scores.get(self.keys[number])
        if found is None:
            return None
        runs = torch.from_numpy(np.asarray(found)).view(self.n_sets + 1, -1)
        return runs[:-1], runs[-1]

    def put(self, number: int, patched: Float[Tensor, "set reading"], clean: Float[Tensor, " reading"]) -> None:
        """Remember an item."""
        self.scores.put(self.keys[number], torch.cat([patched, clean[None]]).flatten().numpy())
        if time.monotonic() - self.flushed > _FLUSH_SECONDS:  # lost at most by a kill that cannot be caught
            self.flush()
            self.flushed = time.monotonic()

    def flush(self) -> None:
        """Write what is new."""
        self.scores.flush()


def _content(item: object) -> bytes:
    return repr(item).encode()
