"""Shuffled weights: the same entries in another order, in a copy."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mechicl.hooks.wrapper import wrap
from mechicl.organisms.planted import planted_ife
from mechicl.untrained import shuffled_weights

KINDS = ["gpt2", "llama", "gemma3_text", "native", "hooked"]


def entries(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_entries_stay_and_their_order_goes(kind: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter.normal_()  # a fresh model's are constant, and would look the same in any order
    before = entries(model)
    after = entries(shuffled_weights(model, seed=1))
    assert before.keys() == after.keys()
    for name, own in before.items():
        assert torch.equal(own.flatten().sort().values, after[name].flatten().sort().values), name
        if own.ndim < 2:
            assert torch.equal(own, after[name]), name
        elif own.unique().numel() > 1:
            assert not torch.equal(own, after[name]), name


@pytest.mark.core
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_and_torch_are_left_alone(kind: str, tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(kind)
    tokens, before, state = torch.tensor([[0, 5, 6, 7]]), entries(model), torch.get_rng_state()
    with torch.no_grad():
        logits = model(tokens)
        copied = shuffled_weights(model, seed=1)
        assert torch.equal(state, torch.get_rng_state())
        assert not torch.allclose(copied(tokens), logits, atol=1e-3)
        assert torch.equal(model(tokens), logits)
    assert all(torch.equal(own, before[name]) for name, own in entries(model).items())
    addresses = {parameter.data_ptr() for parameter in model.parameters()}
    assert not addresses & {parameter.data_ptr() for parameter in copied.parameters()}
    assert not wrap(model).has_hooks() and model.training == copied.training


def test_the_copy_runs_on_its_own_weights() -> None:
    """A fresh model that is given the shuffled weights says the same."""
    sizes = {"n_verbs": 4, "n_persons": 4, "n_things": 2, "seed": 1}
    copied, fresh = shuffled_weights(planted_ife(**sizes).model), planted_ife(**sizes).model
    fresh.load_state_dict(copied.state_dict())
    tokens = torch.tensor([[0, 8, 6, 12, 4, 9, 3]])
    with torch.no_grad():
        assert torch.equal(copied(tokens), fresh(tokens))


def test_the_seed_decides(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    one, same, other = (wrap(shuffled_weights(model, seed=seed)).checksum() for seed in (1, 1, 2))
    assert one == same != other
