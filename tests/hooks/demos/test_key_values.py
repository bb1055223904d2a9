"""Keys and values handed on: a plain cache as oracle, every place once, and bad input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks.demos.key_values import visit_key_values
from mechicl.hooks.wrapper import wrap

TEXTS = [(0, 9, 8, 7, 30), (0, 11, 12), (0, 21, 22, 23, 24, 25, 26), (0, 5)]
PLACES = [(0, 1), (2, 6), (1, 2), (0, 4), (2, 3), (0, 1)]


def collect(model: Any, **options: Any) -> dict[tuple[int, str, int], np.ndarray]:
    found: dict[tuple[int, str, int], np.ndarray] = {}

    def visit(number: torch.Tensor, source: str, layer: int, x: torch.Tensor) -> None:
        assert x.dtype == torch.float64
        for place, vectors in zip(number.tolist(), x, strict=True):
            assert (place, source, layer) not in found
            found[place, source, layer] = vectors.numpy()

    visit_key_values(model, TEXTS, PLACES, visit, **options)
    return found


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gpt_neox", "native"])
def test_equal_a_plain_cache_before_rotation(kind: str, known_model: Callable[..., Any]) -> None:
    model = known_model(kind)
    wrapped, found = wrap(model), collect(known_model(kind))
    assert len(found) == len(PLACES) * 2 * wrapped.n_layers
    for (place, source, layer), vectors in found.items():
        text, position = PLACES[place]
        with torch.no_grad():
            _, cache = model.run_with_cache(torch.tensor([TEXTS[text]]))
        plain = cache[f"blocks.{layer}.attn.hook_{source[0]}"][0, position].numpy()
        assert vectors.shape == (wrapped.n_kv_heads, wrapped.d_head)
        np.testing.assert_allclose(vectors.ravel(), plain.ravel(), atol=1e-5)


def test_equal_tokens_have_equal_keys_at_all_positions_of_a_rotary_model(known_model: Callable[..., Any]) -> None:
    # in layer 0, where a token knows nothing of its context: after rotation these would differ
    seen: dict[int, np.ndarray] = {}

    def visit(number: torch.Tensor, source: str, layer: int, x: torch.Tensor) -> None:
        seen.update(zip(number.tolist(), x.numpy(), strict=True))

    visit_key_values(known_model("llama"), [(0, 9, 8, 9)], [(0, 1), (0, 3), (0, 2)], visit, layers=[0], sources=["key"])
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)
    assert np.abs(seen[0] - seen[2]).max() > 0.01


def test_batches_and_choices_do_not_matter(known_model: Callable[..., Any]) -> None:
    model = known_model("llama")
    whole, before = collect(model), wrap(model).checksum()
    one_by_one = collect(model, memory_budget=1)
    assert whole.keys() == one_by_one.keys()
    for key, vectors in whole.items():
        np.testing.assert_allclose(vectors, one_by_one[key], atol=1e-5)
    some = collect(model, layers=[2], sources=["value"])
    assert set(some) == {(place, "value", 2) for place in range(len(PLACES))}
    assert wrap(model).checksum() == before and not wrap(model).has_hooks()


def test_bad_input(known_model: Callable[..., Any]) -> None:
    model, visit = known_model("llama"), lambda *_: None
    with pytest.raises(ValueError, match="no places"):
        visit_key_values(model, TEXTS, [], visit)
    with pytest.raises(ValueError, match=r"place \(1, 3\)"):
        visit_key_values(model, TEXTS, [(1, 3)], visit)
    with pytest.raises(ValueError, match="place"):
        visit_key_values(model, TEXTS, [(9, 0)], visit)
    with pytest.raises(ValueError, match="source"):
        visit_key_values(model, TEXTS, PLACES, visit, sources=["query"])
    with pytest.raises(ValueError, match="context window"):
        visit_key_values(model, [(0,) * 500], [(0, 1)], visit)
