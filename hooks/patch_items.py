"""What is patched and what is scored: items of prompts, their donors, and which positions meet which.

An item is one measurement, such as the two forms of a target after one prime. Its prompts share a beginning; a metric
turns the log-probabilities of their scored tokens into one number. Donors are other prompts, one for each, whose
activations are put in place of the prompts' own: the same target after the other prime, say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.prompts import Prompt

LAST = "last"  # the role of the token from which the first scored one is predicted; every prompt has it

# The log-probabilities of the scored tokens, one tensor a prompt of the item, to one number. The last axis is tokens;
# axes before it are interventions, all computed at once. Differentiable, if attribution is to use it.
Metric = Callable[[tuple[Float[Tensor, "*set _"], ...]], Float[Tensor, "*set"]]


@dataclass(frozen=True)
class PatchItem:
    """One measurement: prompts with a scored role each, and, for an interchange, a donor for each.

    prompts: what the model reads; each has the role `scored`. donors: same number, same scored tokens; None where
    activations come from elsewhere (means, zeros). label: what kind of item it is (the form of its prime, say); mean
    activations are taken within a label.
    """

    prompts: tuple[Prompt, ...]
    donors: tuple[Prompt, ...] | None = None
    label: str = ""
    scored: str = "scored"

    def shared(self) -> int:
        """How many tokens all prompts have in common at their beginning."""
        if len(self.prompts) == 1:
            return len(self.prompts[0])
        columns = zip(*(prompt.tokens for prompt in self.prompts), strict=False)
        return next((i for i, column in enumerate(columns) if len(set(column)) > 1), min(map(len, self.prompts)))

    def span(self, prompt: int, role: str, *, of_donor: bool = False) -> range:
        """Token positions of a role in a prompt (or its donor)."""
        source = (self.donors or ()) if of_donor else self.prompts
        found = source[prompt]
        if role == LAST and LAST not in found.roles:
            start = found.roles[self.scored][0]
            return range(start - 1, start)
        return range(*found.roles[role])


def span_log_prob(log_probs: tuple[Float[Tensor, "*set _"], ...]) -> Float[Tensor, "*set"]:
    """Log-probability of the scored tokens of an item's only prompt, nats."""
    if len(log_probs) != 1:
        raise ValueError(f"span_log_prob takes items of one prompt, got {len(log_probs)}; use log_odds for two")
    return log_probs[0].sum(-1)


def log_odds(log_probs: tuple[Float[Tensor, "*set _"], ...]) -> Float[Tensor, "*set"]:
    """Log-probability of the first prompt's scored tokens minus the second's, nats.

    For the two forms of a target this is priming's L_s. For two prompts that score one token each, after the same
    context, it is the logit difference: the normaliser is the same and cancels.
    """
    if len(log_probs) != 2:
        raise ValueError(f"log_odds takes items of two prompts, got {len(log_probs)}; use span_log_prob for one")
    return log_probs[0].sum(-1) - log_probs[1].sum(-1)


def checked_metric(found: Float[Tensor, "*run"], runs: int, number: int) -> Float[Tensor, " run"]:
    """What a metric gave for the runs of item `number`; raises `ValueError` for a wrong shape and for no numbers."""
    if found.shape != (runs,):
        raise ValueError(
            f"the metric gave an array of shape {tuple(found.shape)} for {runs} runs of item {number}; it must reduce "
            "the last axis (tokens) and keep the others"
        )
    if not torch.isfinite(found).all():
        raise ValueError(
            f"the metric is not finite for item {number}; check the model's weights and the metric, or load the model "
            "with dtype='float32'"
        )
    return found


def check_items(wrapped: WrappedModel, items: Sequence[PatchItem], roles: Sequence[str], *, donors: bool) -> None:
    """Refuse, with the item's number, what cannot be patched or scored; before any forward pass."""
    if not items:
        raise ValueError("got no items; give at least one")
    if not roles or isinstance(roles, str):
        raise ValueError(f"got roles={roles!r}, expected a list of role names, such as ['target']")
    for number, item in enumerate(items):
        _check_item(wrapped, number, item, roles, donors)


def _check_item(wrapped: WrappedModel, number: int, item: PatchItem, roles: Sequence[str], donors: bool) -> None:
    if not item.prompts:
        raise ValueError(f"item {number} has no prompts; drop it")
    if donors and item.donors is None:
        raise ValueError(f"item {number} has no donors to take activations from; give them, or pass means")
    sides = [("prompt", item.prompts), ("donor", item.donors or ())] if donors else [("prompt", item.prompts)]
    if donors and len(item.donors or ()) != len(item.prompts):
        raise ValueError(f"item {number} has {len(item.prompts)} prompts and {len(item.donors or ())} donors")
    for side, prompts in sides:
        for prompt in prompts:
            _check_prompt(wrapped, f"item {number}, {side}", prompt, item.scored, roles)
    if donors:
        for prompt, donor in zip(item.prompts, item.donors or (), strict=True):
            if prompt.part(item.scored) != donor.part(item.scored):
                raise ValueError(
                    f"item {number}: the donor's scored tokens {donor.part(item.scored)} are not the prompt's "
                    f"{prompt.part(item.scored)}; clean and corrupt prompts must have the same target"
                )


def _check_prompt(wrapped: WrappedModel, where: str, prompt: Prompt, scored: str, roles: Sequence[str]) -> None:
    for role in (scored, *roles):
        if role not in prompt.roles and role != LAST:
            raise ValueError(f"{where} has no role {role!r}; its roles are {', '.join(sorted(prompt.roles))}")
    if prompt.roles[scored][0] == 0:
        raise ValueError(f"{where}: nothing stands before the first scored token; prepend BOS")
    if not all(0 <= token < wrapped.d_vocab for token in prompt.tokens):
        raise ValueError(f"{where} holds token ids outside 0 to {wrapped.d_vocab - 1}; is it another tokenizer's?")
    if len(prompt) > wrapped.n_ctx:
        raise ValueError(f"{where} has {len(prompt)} tokens; the model's context window holds {wrapped.n_ctx}")
