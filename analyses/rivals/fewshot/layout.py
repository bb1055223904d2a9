"""From each prompt's own list of labels to one axis for all: the task's labels, of which some may not be answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import log_softmax

from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.fewshot_prompt import shown_numbers


class LabelLayout:
    """Where the labels of some prompts lie on the axis of all labels."""

    def __init__(self, prompts: Sequence[FewShotPrompt], labels: Sequence[str]) -> None:
        number = {label: i for i, label in enumerate(labels)}
        self.n_labels = len(labels)
        self.places: Int[np.ndarray, "item own"] = np.array([[number[x] for x in one.labels] for one in prompts])
        self.shown: Int[np.ndarray, "item demo"] = shown_numbers(prompts)
        self.answer: Int[np.ndarray, " item"] = np.array([number[one.label] for one in prompts])

    @property
    def mask(self) -> Bool[np.ndarray, "item label"] | None:
        """Which labels may be answered; None where all may be."""
        found = np.zeros((len(self.places), self.n_labels), dtype=bool)
        np.put_along_axis(found, self.places, True, axis=1)
        return None if found.all() else found

    @property
    def truth(self) -> Float[np.ndarray, "item label"]:
        """The right answer, one-hot."""
        return np.eye(self.n_labels)[self.answer]

    @property
    def one_hot(self) -> Float[np.ndarray, "item demo label"]:
        """The labels shown; zeros for one that may not be answered."""
        own = np.take_along_axis(self.places, np.maximum(self.shown, 0), axis=1)
        return np.eye(self.n_labels)[own] * (self.shown >= 0)[..., None]

    def log_probs(self, own: Sequence[Float[np.ndarray, " own"]]) -> Float[np.ndarray, "item label"]:
        """Log-probabilities over the labels that may be answered, summing to 1; of others -inf."""
        found = np.full((len(self.places), self.n_labels), -np.inf)
        np.put_along_axis(found, self.places, log_softmax(np.stack(own).astype(np.float64), axis=-1), axis=1)
        return found

    def probabilities(self, own: Sequence[Float[np.ndarray, " own"]]) -> Float[np.ndarray, "item label"]:
        """The same as probabilities."""
        return np.asarray(np.exp(self.log_probs(own)))
