"""Where the demonstrations of few-shot prompts lie, as tensors for a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt

ELSEWHERE = ("start", "between", "query")  # what a token belongs to that is part of no demonstration


@dataclass(frozen=True)
class DemoSpans:
    """A batch of few-shot prompts, padded on the right.

    segment: the demonstration that each token belongs to; above that, in the order of `ELSEWHERE`: what stands before
    the first one, separators and padding, the query. label: which tokens are a demonstration's label. ask: the token
    from which each demonstration's label is predicted, and last the query's. text: which tokens are those of
    each text, the query's last. last: where the query's label is predicted.
    """

    tokens: Int[Tensor, "batch pos"]
    segment: Int[Tensor, "batch pos"]
    label: Bool[Tensor, "batch pos"]
    ask: Int[Tensor, "batch demo_and_query"]
    text: Bool[Tensor, "batch demo_and_query pos"]
    last: Int[Tensor, " batch"]

    @property
    def n_demos(self) -> int:
        """Demonstrations of a prompt."""
        return self.ask.shape[1] - 1

    @classmethod
    def of(cls, prompts: Sequence[FewShotPrompt], device: torch.device) -> DemoSpans:
        """From the prompts' roles."""
        n_demos, width = len(prompts[0].demos), max(len(one.prompt) for one in prompts)
        tokens = torch.zeros(len(prompts), width, dtype=torch.long)
        segment = torch.full((len(prompts), width), n_demos + ELSEWHERE.index("between"))
        label = torch.zeros(len(prompts), width, dtype=torch.bool)
        ask = torch.zeros(len(prompts), n_demos + 1, dtype=torch.long)
        text = torch.zeros(len(prompts), n_demos + 1, width, dtype=torch.bool)
        for row, one in enumerate(prompts):
            roles, length = one.prompt.roles, len(one.prompt)
            tokens[row, :length] = torch.tensor(one.prompt.tokens)
            segment[row, : roles["demo[0]"][0]] = n_demos + ELSEWHERE.index("start")
            segment[row, slice(*roles["query"])] = n_demos + ELSEWHERE.index("query")
            for demo in range(n_demos):
                segment[row, slice(*roles[f"demo[{demo}]"])] = demo
                start, stop = roles[f"demo[{demo}].label"]
                label[row, start:stop] = True
                ask[row, demo] = start - 1
            ask[row, n_demos] = length - 1
            for number, role in enumerate([*(f"demo[{demo}].text" for demo in range(n_demos)), "query.text"]):
                start, stop = roles[role]
                text[row, number, start:stop] = True
        last = ask[:, -1]
        return cls(*(part.to(device) for part in (tokens, segment, label, ask, text, last)))


def check_fewshot(wrapped: WrappedModel, prompts: Sequence[FewShotPrompt]) -> int:
    """The number of demonstrations, the same in every prompt; refuses (ValueError) what cannot be read together."""
    if not prompts:
        raise ValueError("got no prompts; make some with mechicl.tasks.fewshot_prompts")
    counts = sorted({len(one.demos) for one in prompts})
    if len(counts) != 1 or counts[0] < 2:
        raise ValueError(f"got prompts with {counts} demonstrations; expected the same number, at least 2, in each")
    sizes = sorted({len(one.labels) for one in prompts})
    if len(sizes) != 1:
        raise ValueError(f"got prompts with {sizes} labels to choose from; give all as many with n_candidates")
    for number, one in enumerate(prompts):
        length = len(one.prompt) + max(map(len, one.label_tokens)) - 1
        if length > wrapped.n_ctx:
            raise ValueError(
                f"prompt {number} has {length} tokens with its label, but the model's context window holds "
                f"{wrapped.n_ctx}; use fewer demonstrations"
            )
    return counts[0]
