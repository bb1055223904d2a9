"""Ways to learn, readings and controls of the comparison with gradient descent: each against a plain way."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechicl.analyses.resemblance.gradient_comparison import compare_to_gradient
from mechicl.analyses.resemblance.gradient_controls import control_learners, trained_embeddings_only
from mechicl.analyses.resemblance.readings import read, read_tuned
from mechicl.analyses.resemblance.variants import FineTuning, fine_tuning, learned, learner_of
from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.steps.moved_weights import dense_update
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts
from mechicl.tasks.prompts import Prompt


def task(name: str = "letters") -> FewShotTask:
    texts = [f"{a} {b}" for a in ("old", "new", "king", "ball") for b in ("ring", "cake", "file")]
    labels = ["good" if i % 2 else "bad" for i in range(len(texts))]
    return FewShotTask(name, pd.DataFrame({"text": texts, "label": labels}), template="{text}\n{label}\n\n")


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    return fewshot_prompts(task(), 2, 8, tokenizer=tiny_tokenizer, seed=0)


@pytest.fixture(scope="module")
def others(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    return fewshot_prompts(task("others"), 2, 8, tokenizer=tiny_tokenizer, seed=5)


@pytest.fixture(scope="module")
def wrapped(tiny_model: Callable[..., Any]) -> WrappedModel:
    return wrap(tiny_model("llama", 128))


def test_the_dense_fallback_agrees(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    tuning = fine_tuning(wrapped, "key_value")
    learners = [learner_of(one) for one in prompts[:3]]
    slow = FineTuning(
        "dense", lambda w, own, rate: dense_update(w, own[0], learning_rate=rate, parameters="key_value"), at_once=1
    )
    before = wrapped.checksum()
    fast, dense = (
        read_tuned(wrapped, prompts[:3], way, learners, 0.05, memory_budget=1 << 30) for way in (tuning, slow)
    )
    np.testing.assert_allclose(fast.output, dense.output, atol=1e-4)
    np.testing.assert_allclose(fast.log_odds, dense.log_odds, atol=1e-4)
    assert wrapped.checksum() == before
    update = dense_update(wrapped, learners[0], learning_rate=0.05, parameters="key_value")
    for name, change in update.random_like(0).changes.items():
        assert float(change.norm()) == pytest.approx(float(update.changes[name].norm()), rel=1e-4)


def test_readings_are_those_of_plain_runs(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    icl, _ = read(wrapped, prompts, zero_shot=False, memory_budget=1 << 30)
    for i, one in enumerate(prompts[:3]):
        odds = []
        for label in one.label_tokens:
            tokens = (*one.prompt.tokens, *label)
            with torch.no_grad():
                logits = wrapped.model(torch.tensor([tokens]), return_type="logits")[0].log_softmax(-1)
            at = range(len(one.prompt), len(tokens))
            odds.append(sum(float(logits[p - 1, tokens[p]]) for p in at))
        gap = odds[one.answer] - odds[1 - one.answer]
        assert icl.log_odds[i] == pytest.approx(gap, abs=1e-4)
        assert icl.right[i] == (gap > 0) and icl.loss[i] == pytest.approx(-odds[one.answer], abs=1e-4)


def test_labels_that_share_a_beginning_are_scored_whole(wrapped: WrappedModel) -> None:
    prompt = Prompt((0, 5, 6), {})
    labels = [(7, 8), (7, 9, 10), (11,), (7,)]
    (found,) = label_log_probs(wrapped, [prompt], [labels])
    for label, value in zip(labels, found, strict=True):
        tokens = (*prompt.tokens, *label)
        with torch.no_grad():
            logits = wrapped.model(torch.tensor([tokens]), return_type="logits")[0].log_softmax(-1)
        assert value == pytest.approx(sum(float(logits[p - 1, tokens[p]]) for p in range(3, len(tokens))), abs=1e-4)


def test_controls_change_what_they_say(
    wrapped: WrappedModel, prompts: list[FewShotPrompt], others: list[FewShotPrompt]
) -> None:
    own = [learner_of(one) for one in prompts]
    made = {
        name: control_learners(wrapped, prompts, name, other_task=others, seed=0)
        for name in ("shuffled labels", "permuted order", "other task")
    }
    for i, texts in enumerate(own):
        assert made["permuted order"][i] == texts[::-1]
        shuffled = made["shuffled labels"][i]
        assert [t.tokens[: t.start] for t in shuffled] == [t.tokens[: t.start] for t in texts]
        assert [t.tokens[t.start :] for t in shuffled] == [t.tokens[t.start :] for t in texts][::-1]
        assert made["other task"][i] == learner_of(others[i])
    copied = wrap(trained_embeddings_only(wrapped.model, seed=1))
    for (name, a), (_, b) in zip(wrapped.model.named_parameters(), copied.model.named_parameters(), strict=True):
        assert torch.equal(a, b) == (a.ndim < 2 or "layers" not in name), name


def test_the_rate_is_the_one_that_answers_best(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    rates = (1e-4, 0.01, 0.1, 3e38)
    found = compare_to_gradient(wrapped, prompts, controls=(), learning_rates=rates, held_out=0.5, n_boot=100, seed=3)
    table = found.rates.set_index("learning_rate")
    assert table["chosen"].sum() == 1 and table.loc[3e38, "n_diverged"] == 4
    best = table["loss"].drop(index=[0.0]).idxmin()
    assert table.loc[best, "chosen"] and found.provenance.options["rates"] == {"key_value": best}
    assert len(found.items) == 4
    queries = set(found.items["query"])
    held = [one for one in prompts if one.query not in queries]
    after = read_tuned(
        wrapped, held, fine_tuning(wrapped, "key_value"), [learner_of(one) for one in held], best, memory_budget=1 << 30
    )
    assert table.loc[best, "loss"] == pytest.approx(after.loss.mean(), abs=1e-6)


def test_other_errors_are_not_taken_for_divergence(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("no such parameter")

    with pytest.raises(ValueError, match="no such parameter"):
        list(learned(wrapped, FineTuning("broken", broken), [learner_of(prompts[0])], 0.1))
