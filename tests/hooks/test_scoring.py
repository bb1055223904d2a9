"""Scoring against the plainest oracle: one sequence at a time through the model's own forward pass."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks import log_probs, wrap
from mechicl.hooks.scoring import score

ARCHITECTURES = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native", "hooked"]
CONTEXTS = ["", "A doctor brought a file to a guest.", "The king gave the queen the ring.", "A doctor brought a ring."]
CONTINUATIONS = [" The nurse threw the ball to me.", " The nurse threw me the ball.", " An actor.", " The nurse baked."]


def alone(model: Any, tokens: list[int], start: int) -> np.ndarray:
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens), dtype=torch.long))
    found = logits[0].log_softmax(-1)
    return np.array([found[i - 1, tokens[i]].item() for i in range(start, len(tokens))])


def requests(model: Any, seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Contexts and continuations of few different tokens, so that many prefixes are shared."""
    rng = np.random.default_rng(seed)
    draw = lambda low, high: [int(t) for t in rng.integers(5, 8, size=rng.integers(low, high))]  # noqa: E731
    contexts = [draw(0, 6) for _ in range(30)]
    continuations = [draw(1, 5) for _ in range(30)]
    return contexts, continuations


@pytest.mark.core
@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.filterwarnings("ignore:shared prefixes are computed again")
def test_equals_one_sequence_at_a_time(tiny_model: Callable[..., Any], kind: str, share: bool) -> None:
    model = tiny_model(kind).eval()
    contexts, continuations = requests(model)
    contexts = [[3, *context] for context in contexts]
    found = score(
        model, contexts, continuations, prepend_bos=False, per_token=True, share_prefixes=share, progress=False,
        memory_budget=1 << 20,
    )  # fmt: skip
    for context, continuation, values in zip(contexts, continuations, found, strict=True):
        expected = alone(model, context + continuation, len(context))
        np.testing.assert_allclose(values, expected, atol=1e-5)
    assert np.std([values[0] for values in found]) > 0.1  # the model minds its context: agreement is not trivial


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"])
def test_these_architectures_take_prefix_trees(tiny_model: Callable[..., Any], kind: str) -> None:
    wrapped = wrap(tiny_model(kind))
    with wrapped.evaluating():
        assert log_probs.check_causality_and_trees(wrapped)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["llama", "hooked"])
@pytest.mark.filterwarnings("ignore:shared prefixes are computed again")
def test_order_batch_and_padding_side_do_not_matter(tiny_model: Callable[..., Any], kind: str) -> None:
    model = tiny_model(kind)
    pairs = [(c, k) for c in CONTEXTS for k in CONTINUATIONS]
    contexts, continuations = [c for c, _ in pairs], [k for _, k in pairs]
    first = score(model, contexts, continuations, progress=False)
    back = score(model, contexts[::-1], continuations[::-1], progress=False, memory_budget=1)[::-1]
    model.tokenizer.padding_side = "right"
    right = score(model, contexts, continuations, progress=False)
    model.tokenizer.padding_side = "left"
    one_by_one = [score(model, [c], [k], progress=False)[0] for c, k in pairs]
    for other in (back, right, one_by_one):
        np.testing.assert_allclose(first, other, atol=1e-5)


@pytest.mark.core
def test_texts_are_cut_where_the_continuation_begins(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    context, continuation = "A doctor brought a file.", " The nurse threw me the ball."
    tokenizer = model.tokenizer
    whole = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    n_context = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    (found,) = score(model, [context], [continuation], per_token=True, progress=False)
    np.testing.assert_allclose(found, alone(model, [0, *whole], 1 + n_context), atol=1e-5)
    by_ids = score(model, [whole[:n_context]], [whole[n_context:]], progress=False)
    np.testing.assert_allclose(by_ids, [found.sum()], atol=1e-5)
    # the probability of a text is the product of its parts
    unprimed = score(model, "", [context, context + continuation], progress=False)
    np.testing.assert_allclose(unprimed[1], unprimed[0] + found.sum(), atol=1e-4)


def test_hooks_of_the_user_act_and_stay(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    contexts, continuations = requests(model)
    contexts = [[3, *context] for context in contexts]
    plain = score(model, contexts, continuations, prepend_bos=False, progress=False)
    model.add_hook("blocks.1.attn.hook_z", lambda z, hook: z * 0)
    with pytest.warns(UserWarning, match="hooks of yours"):
        ablated = score(model, contexts, continuations, prepend_bos=False, progress=False)
    assert np.abs(plain - ablated).max() > 0.01
    expected = [alone(model, c + k, len(c)).sum() for c, k in zip(contexts, continuations, strict=True)]
    np.testing.assert_allclose(ablated, expected, atol=1e-4)
    assert wrap(model).has_hooks()


@pytest.mark.core
@pytest.mark.parametrize("kind", ["gemma3_text", "hooked"])
@pytest.mark.filterwarnings("ignore:shared prefixes are computed again")
def test_the_model_is_left_as_it_was(tiny_model: Callable[..., Any], kind: str) -> None:
    model = tiny_model(kind)
    model.train()
    modules = list(model.modules())
    modules[-1].eval()  # a mixed state must come back mixed
    before = (wrap(model).checksum(), [m.training for m in modules], torch.is_grad_enabled())
    score(model, CONTEXTS, CONTINUATIONS, progress=False)
    assert (wrap(model).checksum(), [m.training for m in modules], torch.is_grad_enabled()) == before
    assert not wrap(model).has_hooks()
    model.eval()


def test_a_long_text_under_a_sliding_window_is_scored_exactly(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gemma3_text")
    assert wrap(model).window == 16
    rng = np.random.default_rng(0)
    contexts = [[int(t) for t in rng.integers(5, 60, size=n)] for n in (3, 25, 30)]
    with pytest.warns(UserWarning, match="window of 16"):
        found = score(model, contexts, [[7, 8]] * 3, prepend_bos=False, progress=False)
    expected = [alone(model, [*c, 7, 8], len(c)).sum() for c in contexts]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_half_precision_is_close_to_single(tiny_folder: Callable[..., Any]) -> None:
    import mechicl

    single, half = (mechicl.load(tiny_folder("llama"), device="cpu", dtype=d) for d in ("float32", "bfloat16"))
    gap = score(single, CONTEXTS, CONTINUATIONS, progress=False) - score(half, CONTEXTS, CONTINUATIONS, progress=False)
    assert 0 < np.abs(gap).max() < 0.5


def test_token_ids_of_any_kind_are_the_same_ids(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    plain = score(model, [[5, 6], [7]], [[8, 9], [5]], progress=False)
    arrays = score(model, [np.array([5, 6]), np.array([7])], [np.array([8, 9]), np.array([5])], progress=False)
    tensors = score(model, [torch.tensor([5, 6]), torch.tensor([7])], [torch.tensor([8, 9]), [5]], progress=False)
    assert np.array_equal(plain, arrays) and np.array_equal(plain, tensors)
    one_context = score(model, np.array([5, 6]), [[8, 9], [8]], progress=False)
    assert one_context[0] == pytest.approx(plain[0], abs=1e-5)
