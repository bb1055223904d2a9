"""Stacked transformers: a stack is its models run alone, and each is Hugging Face's GPT-NeoX."""

from dataclasses import replace

import pytest
import torch

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.stack import Stack, StackConfig, run, views

TOKENS = StackConfig(5, 4, 7, n_layers=2, d_model=16, n_heads=2, d_mlp=24, rotary=0.5)
VECTORS = replace(TOKENS, d_in=3, vectors=True)


def random_stack(cfg, n_models, seed=0):
    stack = Stack(cfg, n_models)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        stack.weights.copy_(0.5 * torch.randn(stack.weights.shape, generator=generator))
    return stack


def random_inputs(cfg, n_models, batch=3):
    generator = torch.Generator().manual_seed(9)
    if cfg.vectors:
        return torch.randn(n_models, batch, cfg.n_ctx, cfg.d_in, generator=generator)
    return torch.randint(0, cfg.d_in, (n_models, batch, cfg.n_ctx), generator=generator)


@pytest.mark.parametrize("cfg", [TOKENS, VECTORS])
def test_a_model_says_the_same_alone_and_in_a_stack(cfg):
    stack, inputs = random_stack(cfg, 3), random_inputs(cfg, 3)
    together = run(stack.named, inputs, cfg, stack.rotation)  # as on a GPU, all at once
    assert torch.allclose(stack(inputs), together, atol=1e-5)
    alone = Stack(cfg, 1)
    for at in range(3):
        alone.set_model(0, stack.model_weights(at))
        assert torch.equal(alone(inputs[at : at + 1])[0], stack(inputs)[at])


def test_models_differ_and_read_no_position_after_their_own():
    stack, inputs = random_stack(TOKENS, 2), random_inputs(TOKENS, 1).repeat(2, 1, 1)
    out = stack(inputs)
    assert (out[0] - out[1]).abs().max() > 0.1
    changed = inputs.clone()
    changed[..., -1] = (changed[..., -1] + 1) % TOKENS.d_in
    assert torch.equal(stack(changed)[:, :, :-1], out[:, :, :-1])
    assert (stack(changed)[:, :, -1] - out[:, :, -1]).abs().max() > 0.1


@pytest.mark.parametrize("cfg", [TOKENS, VECTORS, replace(VECTORS, n_layers=1)])
def test_reading_the_last_position_alone_gives_what_reading_all_does(cfg):
    stack, inputs = random_stack(cfg, 2), random_inputs(cfg, 2)
    alone = run(stack.named, inputs, replace(cfg, last_only=True), stack.rotation)
    assert alone.shape[2] == 1
    assert torch.allclose(alone, stack(inputs)[:, :, -1:], atol=1e-5)


def test_gradients_lie_in_one_row_and_are_those_of_each_model_alone():
    stack, inputs = random_stack(TOKENS, 2), random_inputs(TOKENS, 2)
    for part in stack.parts:
        stack.run(part, inputs[part.rows]).square().sum().backward()
    free = {name: weight.detach().clone().requires_grad_() for name, weight in stack.named.items()}
    run(free, inputs, TOKENS, stack.rotation).square().sum().backward()
    for name, slot in views(stack.gradient, TOKENS.shapes, 2).items():
        assert torch.allclose(slot, free[name].grad, rtol=1e-4, atol=1e-3 * float(free[name].grad.abs().max()))
        assert slot.abs().max() > 0


def test_first_weights_depend_on_a_models_own_seed_alone():
    one, other = Stack(TOKENS, 2), Stack(TOKENS, 3)
    state = torch.get_rng_state()
    one.randomise([4, 5], spread=0.02)
    other.randomise([7, 5, 4], spread=0.02)
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in one.model_weights(0).items():
        assert torch.equal(weight, other.model_weights(2)[name])
    assert not torch.equal(one.model_weights(0)["embed.W"], one.model_weights(1)["embed.W"])
    drawn = torch.cat([w.flatten() for n, w in other.named.items() if n.rpartition(".")[2].startswith("W")])
    assert abs(float(drawn.std()) - 0.02) < 0.001
    assert all((w == 1).all() for n, w in other.named.items() if n.endswith(".w"))
    assert all((w == 0).all() for n, w in other.named.items() if n.rpartition(".")[2].startswith("b"))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"d_mlp": 0}, "d_mlp=0"), ({"n_heads": 3}, "share it evenly"), ({"rotary": 1.5}, "rotary=1.5")],
)
def test_sizes_that_cannot_be_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(TOKENS, **change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"setting": "urns"}, "balls_and_urns"), ({"diversity": 0}, "diversity=0"), ({"context": 0}, "context=0"),
        ({"diversity": 10**6}, "a pool holds"), ({"steps": 0}, "steps=0"), ({"learning_rate": 0.0}, "learning_rate"),
        ({"seed": -1}, "seed=-1"), ({"setting": "classification", "context": 1}, "a pair and the query"),
    ],
)  # fmt: skip
def test_points_that_cannot_be_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        GridPoint(**{"setting": "balls_and_urns", "diversity": 4} | change)


def test_checkpoints_are_linear_in_the_root_of_the_step():
    point = GridPoint("balls_and_urns", 4, steps=10_000, n_checkpoints=100)
    assert point.schedule == tuple(k**2 for k in range(1, 101))
    assert GridPoint("balls_and_urns", 4, steps=100, n_checkpoints=1).schedule == (100,)
    assert [point.rate_at(step) / 5e-4 for step in (0, 124, 249, 9_999)] == pytest.approx([1 / 250, 0.5, 1, 1])
