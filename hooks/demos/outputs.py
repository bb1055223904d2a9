"""What would a model answer if heads spread their attention over the demonstrations differently?

At the last token a head's output is z = z_rest + sum_i out_i, where out_i is what it takes from demonstration i and a_i
the attention that it pays it. With weights w (each at least 0, summing to 1) in place of its own a_i / sum_j a_j

    z' = z_rest + (sum_j a_j) sum_i w_i out_i / a_i

so the head looks at the demonstrations as much as before, and within each as before; only how it divides its attention
among them changes. Everything on the right is of the clean run: what stands before the last token does not change in a
causal model, and queries, masses and z_rest of later heads are held where they were. All heads of a set get their z' at
once, all that follows is computed anew, and the labels' log-probabilities are read at the last token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.attention_split import attention_parts
from mechicl.hooks.head_sets import Head, checked_sets
from mechicl.hooks.hook_loop import loop_log_probs
from mechicl.hooks.patch_items import LAST, PatchItem, check_items
from mechicl.hooks.patch_rows import Source
from mechicl.hooks.patch_support import way_to_patch
from mechicl.hooks.patch_sweep import Plan, sweep
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.prompts import Prompt

# Weights over demonstrations by item and head (normalised here), or one of two conditions that need none.
Weights = Float[np.ndarray, "item head demo"] | Literal["own", "knocked out"]
_UNSEEN = float(np.finfo(np.float32).tiny)  # attention below it has lost its digits


@dataclass(frozen=True)
class Redistributed:
    """Log-probabilities, nats, of the labels' first tokens after each prompt.

    log_probs: by set of heads and condition, in the order of `sets` and `conditions`; clean: the model as it is.
    """

    sets: tuple[tuple[Head, ...], ...]
    conditions: tuple[str, ...]
    log_probs: Float[np.ndarray, "set condition item label"]
    clean: Float[np.ndarray, "item label"]


@dataclass(frozen=True)
class DemoOutputs:
    """A replacement for the patching engine: z' of some heads at the last token, by item and condition.

    An item's label is its number, and its prompts are, condition by condition, the same text before each of `n_labels`
    labels. Demonstrations that a head does not see at all (outside its window) get nothing from it; the weights of the
    others are scaled up. A head that sees none keeps its output.
    """

    prompts: Sequence[Prompt]
    demos: tuple[str, ...]
    heads: tuple[Head, ...]
    weights: tuple[Weights, ...]
    n_labels: int
    budget: int

    def source(self, item: PatchItem, prompt: int, position: int, role: str, offset: int) -> Source:
        """Item and condition."""
        return int(item.label), prompt // self.n_labels

    def values(self, wrapped: WrappedModel, sources: Sequence[Any]) -> Float[Tensor, "patched layer head d_head"]:
        """z' of the heads; zeros for heads that no set holds."""
        items = sorted({item for item, _ in sources})
        parts = attention_parts(
            wrapped, [self.prompts[i] for i in items], contexts={"demos": self.demos}, memory_budget=self.budget
        ).parts["demos"]
        layer, head = np.array(self.heads).T
        mass, output = parts.mass[:, layer, head].astype(float), parts.output[:, layer, head].astype(float)
        rest = parts.rest_output[:, layer, head].astype(float)
        masked = parts.without_context[:, layer, head].astype(float)
        means = np.divide(output, mass[..., None], out=np.zeros_like(output), where=mass[..., None] > _UNSEEN)
        new = np.zeros((len(sources), wrapped.n_layers, wrapped.n_heads, wrapped.d_head))
        for row, (item, condition) in enumerate(sources):
            at, chosen = items.index(item), self.weights[condition]
            if isinstance(chosen, str):
                z = masked[at] if chosen == "knocked out" else rest[at] + output[at].sum(1)
            else:
                shares = self._shares(chosen[item], mass[at])
                z = rest[at] + (shares[..., None] * means[at]).sum(1) * mass[at].sum(1, keepdims=True)
            new[row, layer, head] = z
        return torch.as_tensor(new).to(wrapped.device, wrapped.dtype)

    def fingerprint(self) -> bytes:
        """The weights."""
        return b"|".join(w.encode() if isinstance(w, str) else w.tobytes() for w in self.weights)

    @staticmethod
    def _shares(
        weights: Float[np.ndarray, "head demo"], mass: Float[np.ndarray, "head demo"]
    ) -> Float[np.ndarray, "head demo"]:
        """Weights of the demonstrations that are seen, summing to 1; the head's own where it would see none."""
        kept = np.where(mass > _UNSEEN, weights, 0.0)
        kept = np.where(kept.sum(1, keepdims=True) > 0, kept, mass)
        total = kept.sum(1, keepdims=True)
        return np.divide(kept, total, out=np.zeros_like(kept), where=total > 0)


def redistribute_attention(
    model: Any,
    prompts: Sequence[Prompt],
    label_tokens: Sequence[Sequence[int]],
    conditions: Mapping[str, Weights],
    *,
    heads: Sequence[Head],
    demos: Sequence[str],
    sets: Sequence[Collection[Head]] | None = None,
    by_hooks: bool = False,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> Redistributed:
    """Read the labels with the attention of every set of heads divided among the demonstrations as conditions say.

    prompts: with the role `last` at their end. label_tokens: one token a label, equally many for all prompts. demos:
    the roles of the demonstrations. heads: those that weights are for, and that sets are made of; sets: by default all
    of them at once. A condition is an array of weights, "own" (nothing changes, up to rounding) or "knocked out" (no
    attention to the demonstrations, the rest scaled up to the same sum). by_hooks: plain forward passes with hooks:
    slow, and the oracle of the tests. One pass over the shared beginning of a prompt serves all conditions and sets;
    memory does not grow with prompts.

    Raises `ValueError`, before any forward pass, for weights of another shape, below 0, not finite, or all 0 for a head
    and prompt; heads that the model or the weights lack; and what `attention_parts` and `patch_heads` refuse.
    """
    wrapped = wrap(model)
    n_labels = _check_labels(prompts, label_tokens)
    checked_sets(wrapped, [heads])
    chosen = checked_sets(wrapped, [heads] if sets is None else sets)
    if lacking := [head for own in chosen for head in own if head not in set(heads)]:
        raise ValueError(f"a set holds the head {lacking[0]}, for which there are no weights; add it to `heads`")
    for name, weights in conditions.items():
        _check_weights(name, weights, (len(prompts), len(heads), len(demos)))
    items = [_item(i, prompt, labels, len(conditions)) for i, (prompt, labels) in enumerate(zip(
        prompts, label_tokens, strict=True))]  # fmt: skip
    check_items(wrapped, items, [LAST], donors=False)
    new = DemoOutputs(prompts, tuple(demos), tuple(heads), tuple(conditions.values()), n_labels, memory_budget)
    plan = Plan(tuple(items), (LAST,), new, chosen, memory_budget)
    found = np.full((len(chosen), len(conditions), len(items), n_labels), np.nan)
    clean = np.full((len(items), n_labels), np.nan)
    bar = tqdm(total=len(items), desc="attention replaced", unit="prompt", disable=not progress)

    def finish(number: int, patched: Tensor, unpatched: Tensor) -> None:
        found[:, :, number] = patched.double().view(len(chosen), len(conditions), n_labels).numpy()
        clean[number] = unpatched.double().view(len(conditions), n_labels)[0].numpy()
        bar.update()

    with bar, wrapped.evaluating():
        way = "hooks" if by_hooks else way_to_patch(wrapped, items)
        if way == "hooks":
            for number in range(len(items)):
                finish(number, *loop_log_probs(wrapped, plan, number))
        else:
            sweep(wrapped, plan, range(len(items)), finish, cached=way == "cached")
    return Redistributed(chosen, tuple(conditions), found, clean)


def _item(number: int, prompt: Prompt, labels: Sequence[int], n_conditions: int) -> PatchItem:
    """The text before every label, as often as there are conditions: the engine runs what they share once."""
    n = len(prompt)
    roles = {LAST: (n - 1, n), "scored": (n, n + 1)}
    return PatchItem(
        tuple(Prompt((*prompt.tokens, label), roles) for _ in range(n_conditions) for label in labels),
        label=str(number),
    )


def _check_labels(prompts: Sequence[Prompt], label_tokens: Sequence[Sequence[int]]) -> int:
    if not prompts:
        raise ValueError("got no prompts; give at least one")
    sizes = {len(labels) for labels in label_tokens}
    if len(label_tokens) != len(prompts) or len(sizes) != 1 or min(sizes) < 2:
        raise ValueError(
            f"got label tokens of {len(label_tokens)} prompts with {sorted(sizes)} labels for {len(prompts)} prompts; "
            "expected one row a prompt, of equally many labels, at least two"
        )
    for number, prompt in enumerate(prompts):
        if prompt.roles.get(LAST) != (len(prompt) - 1, len(prompt)):
            raise ValueError(f"prompt {number} does not end with its role 'last'; expected the last token to have it")
    return sizes.pop()


def _check_weights(name: str, weights: Weights, shape: tuple[int, int, int]) -> None:
    if isinstance(weights, str):
        if weights not in ("own", "knocked out"):
            raise ValueError(f"got {weights!r} for the condition {name!r}; expected weights, 'own' or 'knocked out'")
        return
    if weights.shape != shape:
        raise ValueError(f"the weights of {name!r} have the shape {weights.shape}; expected (item, head, demo) {shape}")
    if not np.isfinite(weights).all() or (weights < 0).any() or (weights.sum(-1) <= 0).any():
        item, head = np.argwhere(~(np.isfinite(weights) & (weights >= 0)).all(-1) | ~(weights.sum(-1) > 0))[0]
        raise ValueError(
            f"the weights of {name!r} for prompt {item} and head number {head} are {weights[item, head].round(4)}; "
            "expected numbers of at least 0, not all 0"
        )
