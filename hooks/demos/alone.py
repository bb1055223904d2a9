"""Texts run alone: the model's next-token distribution at a text's end, and the residual streams there.

The kernel of the theory compares inputs as such, not as they stand in a context. A text that serves several prompts is
run once while there is room to remember it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.length_batches import batches_of_length
from mechicl.hooks.wrapper import Hook, WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt

Text = tuple[int, ...]


@dataclass(frozen=True)
class Alone:
    """log_probs: of the token that follows. states: the residual stream at the last token, before and after layers."""

    log_probs: Float[Tensor, " vocab"]
    states: Float[Tensor, "layer_and_embedding d_model"]


def texts_alone(one: FewShotPrompt) -> list[Text]:
    """The demonstrations of a prompt, each alone and up to its label, and last its query."""
    demos = [example.tokens[: example.roles["label"][0]] for example in one.examples]
    return [*demos, one.zero_shot.tokens]


class AloneRuns:
    """Runs texts alone, and remembers as many as `memory` bytes hold."""

    def __init__(self, wrapped: WrappedModel, *, memory: int, budget: int) -> None:
        self.wrapped, self.budget = wrapped, budget
        self.most = max(1, memory // (4 * (wrapped.d_vocab + (wrapped.n_layers + 1) * wrapped.d_model)))
        self.known: OrderedDict[Text, Alone] = OrderedDict()
        self.n_runs = 0

    def read(self, texts: Sequence[Text]) -> dict[Text, Alone]:
        """What the model says of each text."""
        wanted = list(dict.fromkeys(texts))
        new = [text for text in wanted if text not in self.known]
        found = {text: self.known[text] for text in wanted if text in self.known}
        for numbers in batches_of_length(self.wrapped, [len(text) for text in new], self.budget):
            batch = [new[i] for i in numbers]
            found |= dict(zip(batch, self._run(batch), strict=True))
        for text in wanted:
            self.known[text] = found[text]
            self.known.move_to_end(text)
        while len(self.known) > self.most:
            self.known.popitem(last=False)
        return found

    def _run(self, texts: Sequence[Text]) -> list[Alone]:
        wrapped, width = self.wrapped, max(map(len, texts))
        tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts], device=wrapped.device)
        rows = torch.arange(len(texts), device=wrapped.device)
        last = torch.tensor([len(text) - 1 for text in texts], device=wrapped.device)
        states: dict[int, Tensor] = {}

        def keep(number: int) -> Hook:
            def hook(x: Tensor) -> None:
                states[number] = _float(x[rows, last]).cpu()

            return hook

        hooks: list[tuple[str, int | None, Hook]] = [
            ("resid_pre", layer, keep(layer)) for layer in range(wrapped.n_layers)
        ]
        hooks.append(("resid_post", wrapped.n_layers - 1, keep(wrapped.n_layers)))
        with wrapped.hooked(hooks):
            logits = _float(wrapped.logits(tokens, rows * width + last))
        self.n_runs += len(texts)
        log_probs = logits.log_softmax(-1).cpu()
        whole = torch.stack([states[number] for number in range(wrapped.n_layers + 1)], 1)
        return [Alone(log_probs[row].clone(), whole[row].clone()) for row in range(len(texts))]


def prediction_kernel(
    demos: Float[Tensor, "demo vocab"], queries: Float[Tensor, "reference vocab"]
) -> Float[Tensor, "reference demo"]:
    """log sum_o P(o | x_i) P(o | x): how alike two texts' predictions are (arXiv 2305.12766, section 4).

    From probabilities in float64, in which no product of two that a model gives is 0.
    """
    return (queries @ demos.T).log()


def _float(x: Tensor) -> Tensor:
    return x if x.dtype in (torch.float32, torch.float64) else x.float()
