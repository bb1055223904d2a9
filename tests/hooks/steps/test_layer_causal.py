"""Layer-causal steps: each layer's gradient is that of its own loss, by dense autograd and by differences."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import low_rank_steps
from mechicl.hooks.steps.layer_causal import layer_causal_steps, layer_losses
from mechicl.hooks.steps.matched_noise import change_norms, random_updates
from mechicl.hooks.steps.moved_weights import moved_by
from mechicl.hooks.steps.updated_scoring import updated_log_probs
from mechicl.hooks.steps.weight_updates import Products, WeightUpdates
from mechicl.hooks.wrapper import WrappedModel, wrap

TEXTS = [Continuation((0, 5, 6, 7), 3), Continuation((0, 8, 9, 10, 11, 12), 4)]
KINDS = ["gpt2", "llama", "gpt_neox", "gemma3_text", "native"]


def losses(wrapped: WrappedModel, text: Continuation) -> torch.Tensor:
    with wrapped.evaluating():
        return layer_losses(wrapped, [text], WeightUpdates(1, []))[:, 0]


def dense(change: Products) -> torch.Tensor:
    return (change.left[0].mT @ change.right[0]).contiguous()


@pytest.mark.parametrize("kind", KINDS)
def test_each_layer_follows_its_own_loss(kind: str, known_model: Callable[..., Any]) -> None:
    """By central differences: a matrix's change is minus its own layer's slope, whatever other layers lose."""
    wrapped = wrap(known_model(kind, double=True))
    updates = layer_causal_steps(wrapped, [[TEXTS[0]]], learning_rate=1.0)
    assert len(updates.changes) == 3 * wrapped.n_layers
    # Some norms compute in float32 whatever the weights are.
    step, tolerance = (1e-3, 2e-3) if kind in ("llama", "gemma3_text") else (1e-6, 1e-6)
    generator = torch.Generator().manual_seed(0)
    for name, (change,) in updates.changes.items():
        assert isinstance(change, Products)
        layer = next(i for i in range(wrapped.n_layers) if f".{i}." in name)
        own = dense(change)
        way = torch.randn(own.shape, generator=generator, dtype=torch.float64)
        slope = torch.zeros(())
        for sign in (1, -1):
            with moved_by(wrapped, {name: sign * step * way}):
                slope = slope + sign * losses(wrapped, TEXTS[0])[layer] / (2 * step)
        assert float((own * way).sum()) == pytest.approx(-float(slope), abs=tolerance, rel=1e-4)


def test_later_steps_start_where_earlier_ones_end(known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("llama", double=True))
    both = layer_causal_steps(wrapped, [TEXTS], learning_rate=0.3)
    first = layer_causal_steps(wrapped, [TEXTS[:1]], learning_rate=0.3)
    with moved_by(wrapped, {name: dense(change) for name, (change,) in first.changes.items()}):
        second = layer_causal_steps(wrapped, [TEXTS[1:]], learning_rate=0.3)
    for name, (_, later) in both.changes.items():
        torch.testing.assert_close(dense(later), dense(second.changes[name][0]), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(both.losses[1], second.losses[0])


def test_learners_do_not_meet(known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("gpt2", double=True))
    together = layer_causal_steps(wrapped, [[TEXTS[0]], [TEXTS[1]]], learning_rate=0.3)
    for i, text in enumerate(TEXTS):
        alone = layer_causal_steps(wrapped, [[text]], learning_rate=0.3)
        own = together.taken(torch.tensor([i]))
        for name, (change,) in alone.changes.items():
            torch.testing.assert_close(dense(own.changes[name][0]), dense(change), atol=1e-12, rtol=1e-9)


def test_steps_lower_the_losses_and_leave_the_model(known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("llama"))
    before, flags = wrapped.checksum(), [p.requires_grad for p in wrapped.model.parameters()]
    found = layer_causal_steps(wrapped, [[TEXTS[0]] * 4], learning_rate=0.05)
    taken = torch.stack(found.losses)[:, 0]
    assert (taken.diff() < 0).all()
    assert wrapped.checksum() == before and flags == [p.requires_grad for p in wrapped.model.parameters()]
    assert all(p.grad is None for p in wrapped.model.parameters()) and not wrapped.has_hooks()


def test_a_rate_that_diverges_is_named(known_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="not finite at step"):
        layer_causal_steps(wrap(known_model("gpt2")), [[TEXTS[0]] * 3], learning_rate=1e30)


@pytest.mark.parametrize("parameters", ["key_value", "all"])
def test_random_changes_have_the_norms_and_nothing_else(parameters: Any, known_model: Callable[..., Any]) -> None:
    wrapped = wrap(known_model("gpt2"))
    own = low_rank_steps(wrapped, [TEXTS, TEXTS[::-1]], learning_rate=0.1, parameters=parameters)
    drawn = random_updates(own, seed=1)
    assert drawn.changes.keys() == own.changes.keys()
    for name, changes in own.changes.items():
        if all(isinstance(change, Products) for change in changes):
            whole = sum(c.left.mT @ c.right for c in changes)
            (other,) = drawn.changes[name]
            made = other.left.mT @ other.right
            torch.testing.assert_close(made.norm(dim=(1, 2)), whole.norm(dim=(1, 2)), rtol=1e-3, atol=1e-7)
            overlap = (made * whole).sum((1, 2)) / whole.norm(dim=(1, 2)) ** 2
            assert overlap.abs().max() < 0.5
    targets = [[TEXTS[0]], [TEXTS[0]]]
    learned, moved = (updated_log_probs(wrapped, u, targets, trees=False) for u in (own, drawn))
    assert abs(learned[0] - moved[0]).max() > 1e-3
    again = random_updates(own, seed=1)
    for name, changes in drawn.changes.items():
        for one, other in zip(changes, again.changes[name], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


def test_norms_of_rows_that_repeat() -> None:
    from mechicl.hooks.steps.weight_updates import Rows

    right = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [0.0, 5.0]]])
    assert change_norms(Rows(torch.tensor([[3, 3, 1]]), right)).item() == pytest.approx(34**0.5)
