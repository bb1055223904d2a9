"""How alike a query and each demonstration are as inputs: logarithms of kernels, without their scale.

    words                        cosine of TF-IDF vectors, words weighed by the task's own texts
    states, layer l              cosine of the residual streams before a label after layer l, each text run alone: in
                                 the middle of the model, and at five sixths of the way
    states in context, layer l   the same as the streams are in the prompt, in the middle of the model alone

A kernel compares inputs. In the prompt itself the query's late states hold the answer that the model is about to give,
and those of demonstrations the answer that it would have given there: votes weighed by their likeness repeat the
model's own answer, and would explain nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from mechicl.hooks.demos.alone import AloneRuns, texts_alone
from mechicl.hooks.demos.readings import DemoReadings
from mechicl.hooks.demos.similarity import KINDS, state_kernels
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask
from mechicl.tasks.similarity import WordOverlap

_AT_ONCE = 8  # prompts whose texts are run together


def compared_layers(n_layers: int) -> tuple[int, ...]:
    """A layer in the middle, and one at five sixths of the way."""
    return tuple(dict.fromkeys((max(1, n_layers // 2), max(1, 5 * n_layers // 6))))


def input_kernels(
    wrapped: WrappedModel,
    task: FewShotTask,
    prompts: Sequence[FewShotPrompt],
    alone: AloneRuns,
    readings: DemoReadings,
) -> dict[str, Float[np.ndarray, "item demo"]]:
    """The kernels of prompts with equally many demonstrations; without "words" where no text has a word.

    alone: what runs texts. readings: of these prompts, with the place "ask".
    """
    layers = compared_layers(wrapped.n_layers)
    found: dict[str, np.ndarray] = {}
    try:
        overlap = WordOverlap(task.frame["text"].tolist())
    except ValueError:
        pass
    else:
        found["words"] = np.stack([overlap.cosines([one.query_text], one.demo_texts)[0] for one in prompts])
    cosines = {layer: np.zeros((len(prompts), len(prompts[0].demos))) for layer in layers}
    for start in range(0, len(prompts), _AT_ONCE):
        part = [texts_alone(one) for one in prompts[start : start + _AT_ONCE]]
        met = alone.read([text for own in part for text in own])
        for number, own in enumerate(part, start):
            states = torch.stack([met[text].states for text in own], 1)
            for layer in layers:
                kernels = state_kernels(states[layer, :-1], states[layer, -1])
                cosines[layer][number] = kernels[KINDS.index("cosine")].numpy()
    found |= {f"states, layer {layer}": own for layer, own in cosines.items()}
    number = readings.kernel_names.index(f"cosine ask {layers[0]}")
    return found | {f"states in context, layer {layers[0]}": readings.kernels[:, number]}
