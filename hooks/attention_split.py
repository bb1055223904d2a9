"""What attention at one token takes from parts of the context, split exactly while the forward pass runs.

With attention a_j from the query to token j and values v_j, a head's output is z = sum_j a_j v_j. Let the context be
some tokens (the demonstrations, a prime), alpha its attention, A_C the attention-weighted mean of its values, and A_x
that of all other tokens. At fixed queries, keys and values

    z = alpha A_C + (1 - alpha) A_x,     z without the context = A_x,     dz = alpha (A_C - A_x) = sum_i a_i (V_i - A_x)

where demonstration i has the attention a_i and the mean value V_i. So dz is the update of the head's output by the
context, and a sum over demonstrations. Where a model's attention does not sum to 1 (a sink outside the text), it is
what is left after the rest was scaled up to the same sum. Source of the split: arXiv:2304.14767's knockout, and the
dual form of attention, arXiv:2212.10559.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from tqdm.auto import tqdm

from mechicl.hooks.attention_spans import SpanReader
from mechicl.hooks.context_masks import Demos, demo_masks, query_positions
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.prompts import Prompt

_STREAMS = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


@dataclass(frozen=True)
class AttentionParts:
    """Attention of every head from one query token a prompt (an item), by demonstration.

    mass: a_i, from 0 to 1. output: a_i V_i. rest_mass, rest_output: the same of all tokens outside the context.
    """

    mass: Float[np.ndarray, "item layer head demo"]
    output: Float[np.ndarray, "item layer head demo d_head"]
    rest_mass: Float[np.ndarray, "item layer head"]
    rest_output: Float[np.ndarray, "item layer head d_head"]

    @property
    def alpha(self) -> Float[np.ndarray, "item layer head"]:
        """Attention to the whole context; a head that looks everywhere alike gives its share of the tokens."""
        return self.mass.sum(-1)

    @property
    def context_mean(self) -> Float[np.ndarray, "item layer head d_head"]:
        """A_C; 0 where the context gets no attention."""
        return _mean(self.output.sum(-2), self.alpha)

    @property
    def rest_mean(self) -> Float[np.ndarray, "item layer head d_head"]:
        """A_x; 0 where nothing outside the context gets attention (such a head would then write nothing)."""
        return _mean(self.rest_output, self.rest_mass)

    @property
    def without_context(self) -> Float[np.ndarray, "item layer head d_head"]:
        """z with the context's tokens masked: A_x, times the sum of the attention where that is not 1."""
        return self.rest_mean * (self.alpha + self.rest_mass)[..., None]

    @property
    def contributions(self) -> Float[np.ndarray, "item layer head demo d_head"]:
        """a_i (V_i - A_x); the sum over demonstrations is the update."""
        return self.output - self.mass[..., None] * self.rest_mean[..., None, :]

    @property
    def update(self) -> Float[np.ndarray, "item layer head d_head"]:
        """dz = alpha (A_C - A_x): z minus z without the context."""
        return self.contributions.sum(-2)

    @property
    def shares(self) -> Float[np.ndarray, "item layer head demo"]:
        """<dz_i, dz> / ||dz||^2 of each demonstration: they sum to 1, and below 0 works against the others.

        NaN where there is no update.
        """
        own = self.contributions
        along = (own * own.sum(-2, keepdims=True)).sum(-1)
        total = along.sum(-1, keepdims=True)
        return np.divide(along, total, out=np.full_like(along, np.nan), where=total > 0)


@dataclass(frozen=True)
class AttentionCapture:
    """parts: by name of the context. residuals: stream -> the residual stream (or what is added) at the query."""

    parts: dict[str, AttentionParts]
    residuals: dict[str, Float[np.ndarray, "item layer d_model"]]


def attention_parts(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    contexts: Mapping[str, Demos],
    query: str = "last",
    streams: Sequence[str] = (),
    memory_budget: int = 1 << 30,
    progress: bool = False,
) -> AttentionCapture:
    """Split the attention of every head at the last token of the role `query`, for one or more ideas of the context.

    contexts: name -> demonstrations, as roles that all prompts have, or as one boolean mask a prompt, [pos] or
    [demo pos]. Whatever is not named, BOS among it, belongs to the rest; to ask for BOS, make it a context of its own.
    All contexts, and the `streams` at the query ("resid_post", "mlp_out", ...), come from one forward pass of the text
    up to the query. Reduced inside the hooks: memory grows with demonstrations, not with tokens squared. Under
    grouped-query attention a head reads the values of its key-value head. Numbers are float32, or float64 of a float64
    model.

    Raises `ValueError`, before any forward pass, for no prompts, an empty context or demonstration, unequal numbers of
    demonstrations, demonstrations that overlap or hold the query or what follows it, masks of another length than the
    text, and texts longer than the context window; and for models whose z is not their pattern times their values.
    """
    wrapped = wrap(model)
    for stream in streams:
        if stream not in _STREAMS:
            raise ValueError(f"unknown stream {stream!r}; known are {', '.join(_STREAMS)}")
    ends = query_positions(wrapped, prompts, query)
    masks = {name: demo_masks(prompts, ends, demos, name) for name, demos in contexts.items()}
    texts = [prompt.tokens[: end + 1] for prompt, end in zip(prompts, ends, strict=True)]
    # Each context's demonstrations, and then its rest, which is not got by subtraction: it may be tiny.
    spans = [np.concatenate([_with_rest(own[i]) for own in masks.values()] or [_none(texts[i])])
             for i in range(len(texts))]  # fmt: skip
    found = SpanReader(wrapped, texts, spans, tuple(streams))
    with wrapped.evaluating(), tqdm(total=len(prompts), desc="attention", unit="text", disable=not progress) as bar:
        for items in found.batches(memory_budget):
            found.read(items)
            bar.update(len(items))
    parts, start = {}, 0
    for name, own in masks.items():
        stop = start + len(own[0])
        mass, output = found.mass, found.output
        parts[name] = AttentionParts(
            mass[..., start:stop], output[..., start:stop, :], mass[..., stop], output[..., stop, :]
        )
        start = stop + 1
    return AttentionCapture(parts, found.residuals)


def _mean(output: np.ndarray, mass: np.ndarray) -> np.ndarray:
    return np.divide(output, mass[..., None], out=np.zeros_like(output), where=mass[..., None] > 0)


def _with_rest(demos: Bool[np.ndarray, "demo pos"]) -> Bool[np.ndarray, "_ pos"]:
    return np.concatenate([demos, ~demos.any(0, keepdims=True)])


def _none(text: tuple[int, ...]) -> Bool[np.ndarray, "1 pos"]:
    return np.zeros((1, len(text)), dtype=bool)
