"""What a language model says of a query alone after one real gradient step on a prompt's demonstrations.

    W <- W - rate * sum_i grad of  -1/n sum over the n tokens of label i of log P(token | text i, tokens before it)

Every demonstration is written alone, and all are learned in one step from the model's own weights. The step is linear
in the rate and in the demonstrations: gradients of a demonstration are taken once, for every prompt that shows it and
every rate. A demonstration's order plays no part. Steps one after another, each from the weights that the last one
left, differ in second order of the rate (`mechicl.analyses.resemblance`).

Rates are best counted in what they do: 1 is the rate at which a step on one demonstration lowers its own loss by one
nat to first order, 1 / |gradient|^2, in the median over some demonstrations (`unit_rate`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.analyses.resemblance.variants import learner_of
from mechicl.analyses.rivals.fewshot.gradients import DemoGradients
from mechicl.hooks.attention_readings import Learned
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.score_store import ScoreStore, request_key
from mechicl.hooks.scoring import stored_facts
from mechicl.hooks.steps.moved_weights import DenseUpdate, apart, dense_update
from mechicl.hooks.steps.sites import Choice, weight_sites
from mechicl.hooks.steps.step_support import way_to_step
from mechicl.hooks.steps.weight_updates import WeightUpdates
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt

N_TYPICAL = 8  # demonstrations whose gradients give the unit of rates


class DemoSteps:
    """Steps on demonstrations of one model; use again, so that gradients are taken once.

    parameters: the weights that move. memory_budget: bytes of gradients that are remembered; up to as much again is in
    use at a time. store: a folder for finished prompts, from which an interrupted run goes on.
    """

    def __init__(
        self,
        wrapped: WrappedModel,
        *,
        parameters: Choice = "all",
        memory_budget: int = 1 << 30,
        store: str | Path | None = None,
    ) -> None:
        if store is not None and callable(parameters):
            raise ValueError("a store cannot tell one function of parameters from another; pass store=None")
        self.wrapped, self.parameters, self.budget = wrapped, parameters, memory_budget
        self.kept = None if store is None else ScoreStore(store, stored_facts(wrapped))
        self._single: DemoGradients | None = None

    def unit_rate(self, prompts: Sequence[FewShotPrompt]) -> float:
        """The rate at which a step on one demonstration lowers its loss by a nat, to first order; in the median.

        Raises `ValueError` where the loss of half of the demonstrations does not depend on these weights.
        """
        texts = list(dict.fromkeys(text for one in prompts for text in learner_of(one)))[:N_TYPICAL]
        key = request_key(repr(("unit", texts, self.parameters)).encode())
        known = None if self.kept is None else self.kept.get(key)
        if known is not None:
            return float(known[0])
        squared = float(np.median(self._squared_sizes(texts)))
        if not squared > 0:
            raise ValueError(
                f"the loss on labels does not depend on the weights {self.parameters!r}: no step moves them; choose "
                "others, or leave out the gradient step with rates=()"
            )
        if self.kept is not None:
            self.kept.put(key, np.array([1 / squared]))
        return 1 / squared

    def log_probs(
        self, prompts: Sequence[FewShotPrompt], rates: Sequence[float], *, progress: bool = True
    ) -> list[Float[np.ndarray, "step label"]]:
        """For every prompt the log-probability, nats, of each label after its query alone, a row a rate.

        Prompts may have different numbers of demonstrations. Numbers that are not finite are left as they are. The
        model is left as it was.
        """
        keys = [self._key(one, rates) for one in prompts]
        found = [None if self.kept is None else self.kept.get(key) for key in keys]
        todo = [number for number, own in enumerate(found) if own is None]
        bar = tqdm(
            total=len(prompts), initial=len(prompts) - len(todo), desc="gradient steps", unit="prompt",
            disable=not progress,
        )  # fmt: skip
        with bar:
            for numbers, updates in self._updates(prompts, todo):
                own = [prompts[i] for i in numbers]
                read = [self._read(own, scaled(updates, rate)) for rate in rates]
                for place, i in enumerate(numbers):
                    found[i] = values = np.concatenate([each[place] for each in read])
                    if self.kept is not None:
                        self.kept.put(keys[i], values)
                if self.kept is not None:
                    self.kept.flush()
                bar.update(len(numbers))
        return [own.reshape(len(rates), -1) for own in found if own is not None]

    def _read(self, prompts: Sequence[FewShotPrompt], updates: Learned) -> list[np.ndarray]:
        alone, labels = [one.zero_shot for one in prompts], [one.label_tokens for one in prompts]
        return label_log_probs(self.wrapped, alone, labels, updates=updates, memory_budget=self.budget)

    def _updates(self, prompts: Sequence[FewShotPrompt], todo: Sequence[int]) -> Iterator[tuple[list[int], Learned]]:
        """The change of weights that each prompt makes at a rate of 1, some prompts at a time."""
        if todo and self._is_dense:
            for number in todo:
                yield [number], self._dense(learner_of(prompts[number]))
            return
        start = 0
        while start < len(todo):
            # as many prompts as fit by what the next one takes, a row for each label that begins in its own way
            first = prompts[todo[start]]
            size = self.single.size(learner_of(first)) * len({label[:-1] for label in first.label_tokens})
            numbers = list(todo[start : start + max(1, self.budget // 2 // size)])
            yield numbers, self.single.step([learner_of(prompts[i]) for i in numbers])
            start += len(numbers)

    @property
    def single(self) -> DemoGradients:
        """The gradients of single demonstrations."""
        if self._single is None:
            self._single = DemoGradients(self.wrapped, weight_sites(self.wrapped, self.parameters), self.budget)
        return self._single

    @property
    def _is_dense(self) -> bool:
        return way_to_step(self.wrapped, self.parameters) == "dense"

    def _squared_sizes(self, texts: Sequence[Continuation]) -> list[float]:
        if self._is_dense:
            changes = [self._dense([text]).changes.values() for text in texts]
            return [sum(float(one.double().pow(2).sum()) for one in own) for own in changes]
        return self.single.squared_sizes(texts)

    def _dense(self, texts: Sequence[Continuation]) -> DenseUpdate:
        total: dict[str, Tensor] = {}
        for text in texts:
            with torch.inference_mode(False):
                found = dense_update(self.wrapped, [text], learning_rate=1.0, parameters=self.parameters)
            for name, change in found.changes.items():
                total[name] = total[name] + change if name in total else change
        return DenseUpdate(self.wrapped, {name: total[name] for name in apart(self.wrapped, list(total))})

    def _key(self, one: FewShotPrompt, rates: Sequence[float]) -> bytes:
        texts = sorted((text.start, *text.tokens) for text in learner_of(one))
        asked = (one.zero_shot.tokens, one.label_tokens, texts, list(rates), self.parameters)
        return request_key(repr(asked).encode())


def scaled(updates: Learned, rate: float) -> Learned:
    """Those of another rate: a step is linear in it."""
    if isinstance(updates, DenseUpdate):
        return DenseUpdate(updates.wrapped, {name: change * rate for name, change in updates.changes.items()})
    if isinstance(updates, WeightUpdates):
        return _Whole(updates.scaled(rate))
    raise ValueError(f"got {type(updates).__name__}; expected changes of weights that can be scaled")


@dataclass(frozen=True)
class _Whole:
    """Changes of which a batch takes all as they are, without a copy."""

    updates: WeightUpdates

    @property
    def n_learners(self) -> int:
        """How many."""
        return self.updates.n_learners

    def taken(self, rows: Int[Tensor, " row"]) -> Learned:
        """For a batch in which row i is learner rows[i]."""
        whole = len(rows) == self.n_learners and bool((rows.cpu() == torch.arange(len(rows))).all())
        return self if whole else self.updates.taken(rows)

    def applied(self) -> AbstractContextManager[None]:
        """Within it the model runs every row of a batch with its learner's weights."""
        return self.updates.applied()
