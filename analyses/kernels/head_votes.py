"""Votes of demonstrations weighed by one head's attention, for prompts that come later."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mechicl.hooks.demos.readings import DemoReadings, read_demonstrations
from mechicl.hooks.wrapper import WrappedModel
from mechicl.predictors.votes import label_votes
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.fewshot_prompt import shown_numbers


class HeadVotes:
    """For `kernel_phenomena`: votes by a head's attention, and the model's answers from the same forward passes.

    aggregate: how the attention to a demonstration's tokens is taken together. Readings of prompts are remembered, in
    `store` also beyond this object.
    """

    def __init__(
        self,
        wrapped: WrappedModel,
        layer: int,
        head: int,
        aggregate: str,
        memory_budget: int = 1 << 30,
        store: str | Path | None = None,
    ) -> None:
        self.wrapped, self.layer, self.head, self.aggregate = wrapped, layer, head, aggregate
        self.memory_budget, self.store = memory_budget, store
        self._met: dict[tuple[int, ...], tuple[Sequence[FewShotPrompt], DemoReadings]] = {}

    @property
    def name(self) -> str:
        """Such as "L24H4"."""
        return f"L{self.layer}H{self.head}"

    def __call__(self, prompts: Sequence[FewShotPrompt]) -> dict[str, Float[np.ndarray, "item label"]]:
        """The votes, under the head's name."""
        weights = self._read(prompts).attention[self.aggregate][:, self.layer, self.head]
        return {self.name: label_votes(weights, shown_numbers(prompts), len(prompts[0].labels))}

    def log_probs(self, prompts: Sequence[FewShotPrompt]) -> Float[np.ndarray, "item label"]:
        """The model's log-probabilities of the labels, nats."""
        return self._read(prompts).label_log_probs

    def _read(self, prompts: Sequence[FewShotPrompt]) -> DemoReadings:
        key = tuple(id(one) for one in prompts)  # the prompts are kept beside it, so that no other can have their ids
        if key not in self._met:
            found = read_demonstrations(
                self.wrapped, prompts, places=(), memory_budget=self.memory_budget, store=self.store, progress=False
            )
            self._met[key] = (prompts, found)
        return self._met[key][1]
