"""Finished readings of prompts on disk, so that an interrupted reading goes on where it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mechicl.hooks.score_store import ScoreStore, request_key
from mechicl.hooks.scoring import stored_facts
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt


class ReadingStore:
    """The arrays of a reading, a row a prompt: what is known is filled in, what is new is written.

    A prompt is known by its content, the places that are compared, and the prompts of reference.
    """

    def __init__(
        self,
        wrapped: WrappedModel,
        folder: str | Path,
        prompts: Sequence[FewShotPrompt],
        places: Sequence[str],
        references: Sequence[FewShotPrompt],
    ) -> None:
        self.scores = ScoreStore(folder, stored_facts(wrapped))
        shared = repr((tuple(places), tuple(_content(one) for one in references)))
        self.keys = [request_key(f"{_content(one)}{shared}".encode()) for one in prompts]

    def fill(self, arrays: Sequence[Float[np.ndarray, "item ..."]]) -> list[int]:
        """Put known rows into the arrays; the numbers of the prompts that are not known."""
        missing = []
        for number, key in enumerate(self.keys):
            known = self.scores.get(key)
            if known is None:
                missing.append(number)
                continue
            start = 0
            for array in arrays:
                size = array[number].size
                array[number] = known[start : start + size].reshape(array[number].shape)
                start += size
        return missing

    def keep(self, numbers: Sequence[int], arrays: Sequence[Float[np.ndarray, "item ..."]]) -> None:
        """Write these prompts' rows."""
        for number in numbers:
            self.scores.put(self.keys[number], np.concatenate([array[number].ravel() for array in arrays]))
        self.scores.flush()


def _content(one: FewShotPrompt) -> str:
    """All that a reading depends on."""
    parts = [one.prompt, one.zero_shot, *one.examples]
    return repr([[part.tokens, sorted(part.roles.items())] for part in parts] + [one.label_tokens, one.query])
