"""What every layer's attention does at the last token of a prompt: its output, its scores, and what it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.prompts import Prompt


@runtime_checkable
class Learned(Protocol):
    """Changed weights of several learners, such as `mechicl.hooks.steps.weight_updates.WeightUpdates`."""

    @property
    def n_learners(self) -> int:
        """How many."""

    def taken(self, rows: Int[Tensor, " row"]) -> Learned:
        """For a batch in which row i is learner rows[i]."""

    def applied(self) -> AbstractContextManager[None]:
        """Within it the model runs every row of a batch with its learner's weights."""


@dataclass(frozen=True)
class AttentionStates:
    """Attention at the last token of one prompt, layer by layer.

    output: what the attention block adds to the residual stream there. scores: before the softmax, from there to every
    token of the prompt; None for models whose hook point gives them after it. inputs: what attention reads, after the
    norm, at every token; None if not asked for.
    """

    prompt: Prompt
    output: Float[np.ndarray, "layer d_model"]
    scores: Float[np.ndarray, "layer head pos"] | None
    inputs: Float[np.ndarray, "layer pos d_model"] | None

    def scores_of(self, roles: Sequence[str]) -> Float[np.ndarray, "layer head own"]:
        """The scores of the tokens of these roles, in their order."""
        if self.scores is None:
            raise ValueError("this model gives no attention scores before the softmax; leave out what needs them")
        return self.scores[..., token_numbers(self.prompt, roles)]


def attention_states(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    updates: Learned | None = None,
    inputs: bool = False,
    memory_budget: int = 1 << 30,
) -> list[AttentionStates]:
    """Run the prompts and keep what attention does at the last token of each.

    updates: prompt i runs with the weights of learner i. The numbers are those of one prompt at a time, without
    padding (1e-5 in float32). Raises `ValueError` for no prompts, more prompts than learners, a prompt longer than the
    context window, and an architecture without these activations.
    """
    wrapped = wrap(model)
    _check(wrapped, prompts, updates)
    found: list[AttentionStates] = []
    with wrapped.evaluating():
        start = 0
        while start < len(prompts):
            size = max(1, memory_budget // wrapped.bytes_of_row(max(map(len, prompts[start:]))))
            batch = prompts[start : start + size]
            rows = torch.arange(start, start + len(batch), device=wrapped.device)
            with updates.taken(rows).applied() if updates is not None else nullcontext():
                found += _run(wrapped, batch, inputs)
            start += size
    return found


def token_numbers(prompt: Prompt, roles: Sequence[str]) -> list[int]:
    """The positions of the tokens of several roles, in their order; `ValueError` for a role that is not there."""
    for role in roles:
        prompt.part(role)
    return [place for role in roles for place in range(*prompt.roles[role])]


def _run(wrapped: WrappedModel, batch: Sequence[Prompt], inputs: bool) -> list[AttentionStates]:
    width = max(map(len, batch))
    tokens = torch.zeros(len(batch), width, dtype=torch.long)
    for row, prompt in enumerate(batch):
        tokens[row, : len(prompt)] = torch.tensor(prompt.tokens)
    last = torch.tensor([len(prompt) - 1 for prompt in batch], device=wrapped.device)
    each = torch.arange(len(batch), device=wrapped.device)
    # By layer: a HookedTransformer norms one stream three times, for queries, keys and values.
    met: dict[str, dict[int, Tensor]] = {"output": {}, "scores": {}, "inputs": {}}

    def keep(name: str, layer: int, part: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
        return lambda x: met[name].__setitem__(layer, part(x).clone())  # a clone lets go of the whole activation

    with ExitStack() as stack:
        for layer in range(wrapped.n_layers):
            scores = wrapped.model.hook_dict[f"blocks.{layer}.attn.hook_attn_scores"]
            stack.enter_context(_seen(wrapped.point("attn_out", layer), keep("output", layer, lambda x: x[each, last])))
            stack.enter_context(_seen(scores, keep("scores", layer, lambda x: x[each, :, last])))
            if inputs:
                stack.enter_context(_seen(_input_point(wrapped, layer), keep("inputs", layer, lambda x: x)))
        # One logit a row, unwanted: under updates a row must stay a row up to the end.
        wrapped.row_logits(tokens.to(wrapped.device), torch.zeros_like(last)[:, None])
    whole = {
        name: torch.stack([parts[layer] for layer in range(wrapped.n_layers)], 1).double().cpu().numpy()
        for name, parts in met.items()
        if parts
    }
    return [
        AttentionStates(
            prompt,
            whole["output"][row],
            _before_softmax(whole["scores"][row, ..., : len(prompt)]),
            whole["inputs"][row, :, : len(prompt)] if inputs else None,
        )
        for row, prompt in enumerate(batch)
    ]


@contextmanager
def _seen(point: torch.nn.Module, keep: Callable[[Tensor], None]) -> Iterator[None]:
    """Hand what passes a hook point to `keep`, after the user's own hooks there."""

    def look(module: Any, args: Any, out: Tensor) -> None:
        keep(out.detach())

    handle = point.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


def _input_point(wrapped: WrappedModel, layer: int) -> torch.nn.Module:
    """After the norm with its gain and bias; the residual stream itself in models without norms."""
    points = wrapped.model.hook_dict
    name = f"blocks.{layer}.ln1.hook_normalized"
    return points[name] if name in points else wrapped.point("resid_pre", layer)


def _before_softmax(scores: Float[np.ndarray, "layer head pos"]) -> Float[np.ndarray, "layer head pos"] | None:
    """None where they are shares already: TransformerBridge's native attention names its pattern so."""
    shares = (scores >= 0).all() and np.allclose(scores.sum(-1), 1, atol=1e-3)
    return None if shares else scores


def _check(wrapped: WrappedModel, prompts: Sequence[Prompt], updates: Learned | None) -> None:
    if not prompts:
        raise ValueError("no prompts to run; give at least one")
    if updates is not None and updates.n_learners != len(prompts):
        raise ValueError(f"got {len(prompts)} prompts and {updates.n_learners} learners; give one prompt to each")
    for number, prompt in enumerate(prompts):
        if len(prompt) > wrapped.n_ctx:
            raise ValueError(
                f"prompt {number} has {len(prompt)} tokens, but the model's context window holds {wrapped.n_ctx}; "
                "use fewer demonstrations"
            )
    if "blocks.0.attn.hook_attn_scores" not in wrapped.model.hook_dict:
        raise ValueError("this model has no hook point for attention scores; its attention cannot be compared")
