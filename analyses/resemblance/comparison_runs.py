"""The runs behind a comparison with gradient descent: the model's own, and one for every control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from mechicl.analyses.resemblance.gradient_controls import MODELS, control_learners, control_model
from mechicl.analyses.resemblance.gradient_table import Measured, measure
from mechicl.analyses.resemblance.readings import Change, Readings, dual_ranks, read, read_tuned
from mechicl.analyses.resemblance.variants import FineTuning, learner_of, random_like
from mechicl.hooks.attention_readings import Learned
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.steps.gradient_steps import Learner
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.prompts import Prompt

DIVERGENCE = ["variant", "condition", "learning_rate", "prompt", "reason", "loss_before", "loss_after"]


class Conditions:
    """Runs conditions one after another; keeps ICL and zero shot of the model, which most of them share.

    divergence: one row a prompt and condition; notes: what could not be measured.
    """

    def __init__(
        self,
        wrapped: WrappedModel,
        prompts: Sequence[FewShotPrompt],
        other_task: Sequence[FewShotPrompt] | None,
        memory_budget: int,
        seed: int,
    ) -> None:
        """Runs the model with and without demonstrations."""
        self.wrapped, self.prompts, self.other_task = wrapped, prompts, other_task
        self.memory_budget, self.seed = memory_budget, seed
        self.learners: list[Learner] = [learner_of(prompt) for prompt in prompts]
        self.base = self._base(wrapped)
        self.notes: list[str] = []
        if self.base[2] is None:
            self.notes.append("SimAM and Kendall: this model gives no attention scores before the softmax")
        self._rows: list[tuple[str, str, float, int, str, float, float]] = []

    @property
    def divergence(self) -> pd.DataFrame:
        """Prompts whose descent diverged, by condition."""
        return pd.DataFrame(self._rows, columns=DIVERGENCE)

    def own(self, tuning: FineTuning, rate: float) -> Measured:
        """The prompts' own demonstrations, learned by the model itself."""

        def watch(found: Learned, numbers: Sequence[int]) -> Learned:
            before, after = self._losses(numbers, None), self._losses(numbers, found)
            for i, old, new in zip(numbers, before, after, strict=True):
                if np.isfinite(new) and new > old:
                    self._rows.append((tuning.name, "none", rate, i, "loss grew", float(old), float(new)))
            return found

        return self._measured(self.base, self._tuned(self.wrapped, tuning, self.learners, rate, "none", watch))

    def control(self, control: str, tuning: FineTuning, rate: float) -> Measured:
        """One control of `CONTROLS`."""
        if control in MODELS:
            copied = wrap(control_model(self.wrapped.model, control, seed=self.seed))
            base = self._base(copied)
            return self._measured(base, self._tuned(copied, tuning, self.learners, rate, control))
        if control == "random update":
            change: Change = lambda found, numbers: random_like(found, seed=self.seed + numbers[0])  # noqa: E731
            tuned = self._tuned(self.wrapped, tuning, self.learners, rate, control, change)
        else:
            learners = control_learners(self.wrapped, self.prompts, control, other_task=self.other_task, seed=self.seed)
            tuned = self._tuned(self.wrapped, tuning, learners, rate, control)
        icl, zero_shot, _ = self.base
        return measure(icl, zero_shot, tuned, None)  # no control of the steps changes the attention they imply

    def other_query(self) -> dict[str, Measured]:
        """Kendall's tau with what the steps imply for another query."""
        ranks = self.base[2]
        return {} if ranks is None else {"other query": Measured({"Kendall": ranks[1]})}

    def _base(self, wrapped: WrappedModel) -> tuple[Readings, Readings, tuple[np.ndarray, np.ndarray] | None]:
        icl, in_context = read(wrapped, self.prompts, zero_shot=False, memory_budget=self.memory_budget)
        zero_shot, alone = read(wrapped, self.prompts, zero_shot=True, memory_budget=self.memory_budget)
        ranks = dual_ranks(wrapped, self.prompts, in_context, alone, memory_budget=self.memory_budget)
        return icl, zero_shot, ranks

    def _measured(
        self, base: tuple[Readings, Readings, tuple[np.ndarray, np.ndarray] | None], tuned: Readings
    ) -> Measured:
        icl, zero_shot, ranks = base
        return measure(icl, zero_shot, tuned, None if ranks is None else ranks[0])

    def _tuned(
        self,
        wrapped: WrappedModel,
        tuning: FineTuning,
        learners: Sequence[Learner],
        rate: float,
        condition: str,
        change: Change | None = None,
    ) -> Readings:
        tuned = read_tuned(
            wrapped, self.prompts, tuning, learners, rate, memory_budget=self.memory_budget, change=change
        )
        for i in np.flatnonzero(~tuned.finite):
            self._rows.append((tuning.name, condition, rate, int(i), "not finite", np.nan, np.nan))
        return tuned

    def _losses(self, numbers: Sequence[int], updates: Learned | None) -> Float[np.ndarray, "item"]:
        """Mean loss over each prompt's own demonstrations, nats a label; with updates, number i's are learner i's."""
        texts = [(place, text) for place, i in enumerate(numbers) for text in self.learners[i]]
        owners = torch.tensor([place for place, _ in texts], device=self.wrapped.device)
        found = label_log_probs(
            self.wrapped,
            [Prompt(text.tokens[: text.start], {}) for _, text in texts],
            [[text.tokens[text.start :]] for _, text in texts],
            updates=None if updates is None else updates.taken(owners),
            memory_budget=self.memory_budget,
        )
        return -np.concatenate(found).reshape(len(numbers), -1).mean(1)
