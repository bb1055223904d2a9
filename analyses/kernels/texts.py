"""Kernels between whole texts, from which answers are rebuilt without any attention head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mechicl.analyses.kernels.rebuilt import Answers, fitted_scale
from mechicl.hooks.demos.readings import DemoReadings
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.similarity import similarities


def text_kernels(
    prompts: Sequence[FewShotPrompt],
    readings: DemoReadings,
    answers: Answers,
    selection: Bool[np.ndarray, " item"],
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
) -> dict[str, Float[np.ndarray, "item demo"]]:
    """Logarithms of kernels between each query and its demonstrations, without scale.

    words: cosine of TF-IDF vectors. states: cosine of the residual streams of the texts run alone, at the layer that
    serves best on the prompts for selection. predictions: of arXiv 2305.12766. embedding: cosine of `embed`'s vectors.
    Those of texts run alone are left out where these were not read.
    """
    texts = [[*one.demo_texts, one.query_text] for one in prompts]
    found = {"words": _cosines(texts, "tfidf")}
    if embed is not None:
        found["embedding"] = _cosines(texts, embed)
    table = readings.kernel_table
    cosines = np.flatnonzero((table["place"] == "alone") & (table["kind"] == "cosine"))
    if len(cosines):
        serves = [fitted_scale(readings.kernels[:, number], answers, selection)[1] for number in cosines]
        found["states"] = readings.kernels[:, cosines[int(np.argmax(serves))]]
        found["predictions"] = readings.kernels[:, np.flatnonzero(table["kind"] == "prediction")[0]]
    return found


def _cosines(texts: Sequence[Sequence[str]], by: Any) -> Float[np.ndarray, "item demo"]:
    """Of every prompt's query, its last text, with its demonstrations; each different text is embedded once."""
    different = list(dict.fromkeys(text for own in texts for text in own))
    number = {text: i for i, text in enumerate(different)}
    queries = [number[own[-1]] for own in texts]
    whole = similarities(different, queries, different, by)
    return np.stack([whole[row, [number[text] for text in own[:-1]]] for row, own in enumerate(texts)])
