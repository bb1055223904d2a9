"""What attention may follow without a kernel, column by column, against the prompts themselves."""

from typing import Any

import numpy as np
import pytest

from mechicl.analyses.kernels.nuisances import MANY_LABELS, demo_nuisances
from mechicl.tasks.facts import capitals_task, sentiment_task
from mechicl.tasks.fewshot import FewShotPrompt, fewshot_prompts
from mechicl.tasks.fewshot_prompt import shown_numbers


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    return fewshot_prompts(sentiment_task(), 4, 6, tokenizer=tiny_tokenizer, seed=0, balanced=False)


def test_columns_are_what_their_blocks_say(prompts: list[FewShotPrompt]) -> None:
    found = demo_nuisances(prompts)
    assert found.names == ("position", "label", "length", "overlap")
    assert found.columns.shape == (6, len(found.blocks), 4)
    for number, one in enumerate(prompts):
        for i in range(4):
            start, stop = one.prompt.roles[f"demo[{i}]"]
            place = [float(i == k) for k in (1, 2, 3)]
            distance = np.log(len(one.prompt) - (stop - 1))  # its last token to the next one, 1 for the very last
            np.testing.assert_allclose(found.of("position")[number, :, i], [*place, distance])
            second, often = one.demo_labels[i] == one.labels[1], one.demo_labels.count(one.demo_labels[i]) / 4
            np.testing.assert_allclose(found.of("label")[number, :, i], [second, often])
            size = len(one.prompt.part(f"demo[{i}].text"))
            np.testing.assert_allclose(found.of("length")[number, :, i], np.log([stop - start, size]))
            texts = [set(one.prompt.part(role)) for role in ("query.text", f"demo[{i}].text")]
            share = len(texts[0] & texts[1]) / len(texts[0] | texts[1])
            np.testing.assert_allclose(found.of("overlap")[number, :, i], [share])


def test_labels_are_numbers_of_the_prompts_own(tiny_tokenizer: Any) -> None:
    """Many labels have no column each; a label that may not be answered is none of the candidates."""
    task = capitals_task()
    made = fewshot_prompts(task, 3, 5, tokenizer=tiny_tokenizer, seed=1, n_candidates=2)
    labels = shown_numbers(made)
    for one, own in zip(made, labels, strict=True):
        for shown, number in zip(one.demo_labels, own, strict=True):
            assert (one.labels[number] == shown) if number >= 0 else (shown not in one.labels)
    assert (labels == -1).any() and (labels >= 0).any()
    often = [[one.demo_labels.count(shown) / 3 for shown in one.demo_labels] for one in made]
    np.testing.assert_allclose(demo_nuisances(made).of("label"), np.array(often)[:, None])
    assert len({one.labels for one in made}) > 1 and len(task.labels) > MANY_LABELS


def test_flipped_labels_are_as_frequent(prompts: list[FewShotPrompt], tiny_tokenizer: Any) -> None:
    task = sentiment_task()
    flipped = fewshot_prompts(task, 4, 6, tokenizer=tiny_tokenizer, seed=0, balanced=False, labels="flipped")
    np.testing.assert_array_equal(shown_numbers(flipped), 1 - shown_numbers(prompts))
    np.testing.assert_allclose(demo_nuisances(flipped).of("label")[:, -1], demo_nuisances(prompts).of("label")[:, -1])
