"""Attention on repeated random tokens: a naive loop, and patterns that are known in closed form."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.head_scores import attention_scores
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted import planted_null

NAMES = ("induction", "duplicate_token", "previous_token")


def naive(model: Any, period: int, bos: int | None, seed: int, n_sequences: int) -> np.ndarray:
    """Query by query from the model's own cache."""
    wrapped = wrap(model)
    draw = np.random.default_rng(seed).integers(0, wrapped.d_vocab, size=(n_sequences, period)).tolist()
    start = 0 if bos is None else 1
    found = np.zeros((3, wrapped.n_layers, wrapped.n_heads))
    for sequence in draw:
        tokens = torch.tensor([[*([] if bos is None else [bos]), *sequence, *sequence]])
        _, cache = model.run_with_cache(tokens)
        for layer in range(wrapped.n_layers):
            pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0]
            for head in range(wrapped.n_heads):
                second = range(start + period, start + 2 * period)
                places = [
                    [(q, q - period + 1) for q in second],
                    [(q, q - period) for q in second],
                    [(q, q - 1) for q in range(start + 1, start + 2 * period)],
                ]
                for place, pairs in enumerate(places):
                    mean = np.mean([float(pattern[head, q, k]) for q, k in pairs])
                    found[place, layer, head] += mean / n_sequences
    return found


@pytest.mark.core
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3_text", "hooked"])
@pytest.mark.parametrize("prepend_bos", [True, False])
def test_scores_equal_a_loop(kind: str, prepend_bos: bool, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind)
    found = attention_scores(model, period=6, n_sequences=3, prepend_bos=prepend_bos, seed=7)
    wanted = naive(model, 6, 0 if prepend_bos else None, 7, 3)
    for name, values in zip(NAMES, wanted, strict=True):
        np.testing.assert_allclose(getattr(found, name), values, atol=1e-6)
    assert np.ptp(wanted) > 1e-3


def test_a_previous_token_head_and_heads_that_attend_everywhere() -> None:
    planted = planted_null(n_verbs=4, n_persons=4, n_things=2)
    found = attention_scores(planted.model, period=10, n_sequences=2)
    (carrier,) = planted.heads["carrier"]
    assert found.previous_token[carrier] == pytest.approx(1, abs=1e-6)
    assert found.induction[carrier] == pytest.approx(0, abs=1e-6)
    assert found.duplicate_token[carrier] == pytest.approx(0, abs=1e-6)
    for head in planted.heads["idle"]:  # all weights are 0: query q spreads over q + 1 tokens
        for name, queries in zip(NAMES, (range(11, 21), range(11, 21), range(2, 21)), strict=True):
            assert getattr(found, name)[head] == pytest.approx(np.mean([1 / (q + 1) for q in queries]), abs=1e-6)


def test_an_induction_head_and_a_duplicate_token_head() -> None:
    """Attention written by hand in place of a head's own."""
    planted = planted_null(n_verbs=4, n_persons=4, n_things=2)
    wrapped, period = wrap(planted.model), 10

    def look_back(pattern: torch.Tensor) -> torch.Tensor:
        for head, back in ((1, period - 1), (2, period)):
            pattern[:, head] = torch.eye(pattern.shape[-1]).roll(-back, 1).tril()
        return pattern

    with wrapped.hooked([("pattern", 1, look_back)]):
        found = attention_scores(planted.model, period=period)
    np.testing.assert_allclose(found.induction[1, 1:3], [1, 0], atol=1e-6)
    np.testing.assert_allclose(found.duplicate_token[1, 1:3], [0, 1], atol=1e-6)
    np.testing.assert_allclose(found.previous_token[1, 1:3], 0, atol=1e-6)


def test_the_seed_decides_and_nothing_is_left_behind(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2")
    one, same, other = (attention_scores(model, period=5, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.induction, same.induction)
    assert not np.array_equal(one.induction, other.induction)
    assert not wrap(model).has_hooks()


def test_two_periods_must_fit(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gpt2", n_ctx=21)
    attention_scores(model, period=10, n_sequences=1)
    with pytest.raises(ValueError, match="two periods of 11 tokens do not fit into the context window of 21"):
        attention_scores(model, period=11)
