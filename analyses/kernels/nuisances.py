"""What attention to demonstrations may follow without any kernel: their place, label, length and words.

Each is a block of columns in the regression of `mechicl.kernel_fit`, and is also regressed alone, so that a head that
attends to what came last, or to one of the labels, is named as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechicl.tasks.fewshot_prompt import FewShotPrompt, shown_numbers

MANY_LABELS = 10  # with more labels, or labels that differ by prompt, a column for each would fit anything


@dataclass(frozen=True)
class Nuisances:
    """columns: one each. blocks: the block that each belongs to.

    position: one column a demonstration's number but the first (whatever form the preference for places has), and the
    logarithm of its distance in tokens. label: which label it shows, and how frequent that is in the prompt. length:
    logarithm of its tokens, and of its text's. overlap: which share of the two texts' tokens they have in common.
    """

    columns: Float[np.ndarray, "item nuisance demo"]
    blocks: tuple[str, ...]

    def of(self, block: str) -> Float[np.ndarray, "item nuisance demo"]:
        """The columns of one block."""
        return self.columns[:, [own == block for own in self.blocks]]

    @property
    def names(self) -> tuple[str, ...]:
        """The blocks, each once."""
        return tuple(dict.fromkeys(self.blocks))


def demo_nuisances(prompts: Sequence[FewShotPrompt]) -> Nuisances:
    """The nuisances of every demonstration of every prompt; all prompts have as many."""
    labels = shown_numbers(prompts)
    n_items, n_demos = labels.shape
    columns: list[tuple[str, np.ndarray]] = []
    for number in range(1, n_demos):
        columns.append(("position", np.broadcast_to(np.arange(n_demos) == number, labels.shape)))
    spans = np.array([[one.prompt.roles[f"demo[{i}]"] for i in range(n_demos)] for one in prompts])
    texts = np.array([[one.prompt.roles[f"demo[{i}].text"] for i in range(n_demos)] for one in prompts])
    ends = np.array([len(one.prompt) for one in prompts])[:, None]
    columns.append(("position", np.log(ends - spans[..., 1] + 1)))
    same = {one.labels for one in prompts}
    if len(same) == 1 and len(prompts[0].labels) <= MANY_LABELS:
        columns += [("label", labels == number) for number in range(1, len(prompts[0].labels))]
    # by the labels themselves: those that may not be answered all have the number -1
    shown = np.array([[one.demo_labels.index(label) for label in one.demo_labels] for one in prompts])
    columns.append(("label", (shown[:, :, None] == shown[:, None, :]).mean(-1)))
    columns.append(("length", np.log(spans[..., 1] - spans[..., 0])))
    columns.append(("length", np.log(texts[..., 1] - texts[..., 0])))
    columns.append(("overlap", _overlap(prompts)))
    values = np.stack([np.asarray(column, dtype=np.float64) for _, column in columns], 1)
    return Nuisances(values.reshape(n_items, len(columns), n_demos), tuple(block for block, _ in columns))


def _overlap(prompts: Sequence[FewShotPrompt]) -> Float[np.ndarray, "item demo"]:
    """Tokens in common over tokens in either, each counted once; 0 to 1."""
    found = []
    for one in prompts:
        query = set(one.prompt.part("query.text"))
        demos = [set(one.prompt.part(f"demo[{i}].text")) for i in range(len(one.demos))]
        found.append([len(query & demo) / len(query | demo) for demo in demos])
    return np.array(found)
