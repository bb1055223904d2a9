"""The forward passes behind `read_demonstrations`: a batch of prompts with its hooks, and the queries of reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from mechicl.hooks.demos.alone import AloneRuns, prediction_kernel, texts_alone
from mechicl.hooks.demos.attention import DemoAttention
from mechicl.hooks.demos.similarity import KINDS, state_kernels, state_salience
from mechicl.hooks.demos.spans import DemoSpans
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.length_batches import batches_of_length
from mechicl.hooks.wrapper import Hook, WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt

PLACES = ("ask", "text", "alone")  # in this order they are kept
See = Callable[[int, str, Float[Tensor, "batch demo_and_query d_model"]], None]


@dataclass(frozen=True)
class References:
    """Queries of some prompts, with which demonstrations of others are compared.

    rows: the queries' rows of the task's frame. states: by place. said: what the model predicts after each of them
    alone, as probabilities; empty where "alone" is no place.
    """

    rows: list[int]
    states: dict[str, Float[Tensor, "reference layer_and_embedding d_model"]]
    said: Float[Tensor, "reference vocab"]

    @classmethod
    def of(
        cls,
        wrapped: WrappedModel,
        prompts: Sequence[FewShotPrompt],
        places: Sequence[str],
        alone: AloneRuns,
        budget: int,
    ) -> References:
        """By running the prompts."""
        states = {
            place: torch.zeros(len(prompts), wrapped.n_layers + 1, wrapped.d_model, dtype=torch.float64)
            for place in places
            if place != "alone"
        }
        if states:
            for items in batches_of_length(wrapped, [len(one.prompt) for one in prompts], budget):
                spans = DemoSpans.of([prompts[i] for i in items], wrapped.device)

                def keep(number: int, place: str, met: Tensor, items: list[int] = items) -> None:
                    states[place][items, number] = met[:, -1].cpu().double()

                with wrapped.hooked(residual_hooks(wrapped, spans, tuple(states), keep)):
                    wrapped.logits(spans.tokens, torch.zeros(1, dtype=torch.long, device=wrapped.device))
        said = torch.zeros(len(prompts), 0, dtype=torch.float64)
        if "alone" in places and prompts:
            met = alone.read([one.zero_shot.tokens for one in prompts])
            runs = [met[one.zero_shot.tokens] for one in prompts]
            states["alone"] = torch.stack([run.states for run in runs]).double()
            said = torch.stack([run.log_probs for run in runs]).double().exp()
        return cls([one.query for one in prompts], states, said)

    def other(self, prompts: Sequence[FewShotPrompt]) -> Bool[Tensor, "batch demo reference"]:
        """Which of them are neither the prompt's query nor the demonstration itself (if any are left)."""
        rows = torch.tensor(self.rows, dtype=torch.long)
        queries = torch.tensor([one.query for one in prompts])[:, None, None]
        demos = torch.tensor([one.demos if one.demo_task is None else [-1] * len(one.demos) for one in prompts])
        strange = (rows != queries).expand(-1, demos.shape[1], -1)
        apart = strange & (rows != demos[..., None])
        return torch.where(apart.any(-1, keepdim=True), apart, strange)


class DemoRun:
    """One batch of prompts: its hooks, and what they have seen."""

    def __init__(
        self, wrapped: WrappedModel, batch: Sequence[FewShotPrompt], places: Sequence[str], references: References
    ) -> None:
        self.batch, self.references, self.places = batch, references, places
        self.other = references.other(batch)
        self.spans = DemoSpans.of(batch, wrapped.device)
        self.attention = DemoAttention(self.spans, wrapped.n_layers, wrapped.n_heads)
        shape = (len(batch), wrapped.n_layers + 1, len(KINDS), self.spans.n_demos)
        inside = [place for place in places if place != "alone"]
        self.own = {place: torch.zeros(*shape, dtype=torch.float64) for place in inside}
        self.salient = {place: torch.zeros(*shape, dtype=torch.float64) for place in inside}

    def read(self, wrapped: WrappedModel, budget: int) -> Float[np.ndarray, "batch label"]:
        """Log-probabilities of the labels; attention and kernels are met on the way."""
        hooks = residual_hooks(wrapped, self.spans, tuple(self.own), self._compare)
        hooks += [("pattern", layer, self._pattern(layer)) for layer in range(wrapped.n_layers)]
        rows = torch.arange(len(self.batch), device=wrapped.device)
        with wrapped.hooked(hooks):
            logits = wrapped.logits(self.spans.tokens, rows * self.spans.tokens.shape[1] + self.spans.last)
        self.attention.check()
        labels = [one.label_tokens for one in self.batch]
        if all(len(label) == 1 for own in labels for label in own):
            log_probs = (logits if logits.dtype == torch.float64 else logits.float()).log_softmax(-1)
            answers = torch.tensor(labels, device=log_probs.device)[..., 0]
            return log_probs.gather(1, answers).double().cpu().numpy()
        return np.stack(label_log_probs(wrapped, [one.prompt for one in self.batch], labels, memory_budget=budget))

    def kernels(self, alone: AloneRuns) -> tuple[Float[np.ndarray, "batch kernel demo"], ...]:
        """Kernels and their salience, by place."""
        both = []
        for found in (self.own, self.salient):
            both.append([found[place].flatten(1, 2) for place in found])
        if "alone" in self.places:
            for parts, whole in zip(both, self._alone(alone), strict=True):
                parts.append(whole)
        return tuple(torch.cat(parts, 1).numpy() for parts in both)

    def _pattern(self, layer: int) -> Hook:
        def hook(pattern: Tensor) -> None:
            self.attention.see(layer, pattern)

        return hook

    def _compare(self, number: int, place: str, states: Tensor) -> None:
        demos = states[:, :-1].cpu()
        self.own[place][:, number] = state_kernels(demos, states[:, -1].cpu())
        self.salient[place][:, number] = state_salience(demos, self.references.states[place][:, number], self.other)

    def _alone(self, alone: AloneRuns) -> tuple[Float[Tensor, "batch kernel demo"], ...]:
        """Of the texts run alone: states layer by layer, and predictions."""
        own = [texts_alone(one) for one in self.batch]
        met = alone.read([text for texts in own for text in texts])
        states = torch.stack([torch.stack([met[text].states for text in texts], 1) for texts in own])
        demos, queries = states[:, :, :-1], states[:, :, -1]
        references = self.references.states["alone"]
        salient = [
            state_salience(demos[:, layer], references[:, layer], self.other) for layer in range(references.shape[1])
        ]
        likely, usual = [], []
        for texts, other in zip(own, self.other, strict=True):
            *said, asked = (met[text].log_probs.double().exp() for text in texts)
            likely.append(prediction_kernel(torch.stack(said), asked[None]))
            usual.append(_mean_of(prediction_kernel(torch.stack(said), self.references.said), other)[None])
        kernels = torch.cat([state_kernels(demos, queries).flatten(1, 2), torch.stack(likely)], 1)
        return kernels, torch.cat([torch.stack(salient, 1).flatten(1, 2), torch.stack(usual)], 1)


def _mean_of(values: Float[Tensor, "reference demo"], chosen: Bool[Tensor, "demo reference"]) -> Float[Tensor, " demo"]:
    """For each demonstration the mean over the references that were chosen for it."""
    return torch.where(chosen.T, values, 0.0).sum(0) / chosen.sum(1)


def residual_hooks(
    wrapped: WrappedModel, spans: DemoSpans, places: Sequence[str], see: See
) -> list[tuple[str, int | None, Hook]]:
    """Hooks that hand `see` the states of demonstrations and query, before the first layer (0) and after each."""

    def hook(number: int) -> Hook:
        def look(x: Tensor) -> None:
            x = x if x.dtype in (torch.float32, torch.float64) else x.float()
            rows = torch.arange(len(x), device=x.device)[:, None]
            for place in places:
                if place == "ask":
                    see(number, place, x[rows, spans.ask])
                else:
                    inside = spans.text.to(x)
                    total = einsum(inside, x, "batch own pos, batch pos d_model -> batch own d_model")
                    see(number, place, total / inside.sum(-1, keepdim=True))

        return look

    before = [("resid_pre", layer, hook(layer)) for layer in range(wrapped.n_layers)]
    return [*before, ("resid_post", wrapped.n_layers - 1, hook(wrapped.n_layers))]
