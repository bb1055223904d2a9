"""The plain way to step: torch's optimisers on the weights, which come back bit for bit whatever happens."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mechicl
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.dense_steps import DenseSteps, filler_penalty, text_loss
from mechicl.hooks.steps.moved_weights import dense_update
from mechicl.hooks.wrapper import WrappedModel, wrap

ORACLE = runpy.run_path(str(Path(__file__).with_name("torch_steps.py")))


@pytest.fixture(scope="module")
def pair(
    tiny_folder: Callable[..., Path], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[WrappedModel, Any]]:
    """The same random weights, float64, as a wrapped model and as copies for torch."""
    made: dict[str, tuple[WrappedModel, Any]] = {}

    def make(kind: str) -> tuple[WrappedModel, Any]:
        if kind not in made:
            folder = ORACLE["saved"](tiny_folder(kind), tmp_path_factory.mktemp(kind), tiny_tokenizer, True)
            model = mechicl.load(folder, device="cpu", dtype="float64")
            made[kind] = wrap(model), ORACLE["TorchLearners"](folder)
        return made[kind]

    return make


def text(length: int, start: int = 1, seed: int = 0) -> Continuation:
    return Continuation((0, *np.random.default_rng(seed).integers(2, 320, length - 1).tolist()), start)


LEARNER = [text(6, seed=1), text(5, 2, 2), text(8, seed=3)]
TARGETS = [text(6, 2, 4), text(5, seed=5)]


def scores(wrapped: WrappedModel) -> list[float]:
    with wrapped.evaluating():
        return [-text_loss(wrapped, [t]).item() * (len(t.tokens) - t.start) for t in TARGETS]


def state(model: torch.nn.Module) -> list[tuple[torch.Tensor, bool, Any, Any]]:
    return [(p.detach().clone(), p.requires_grad, p.grad, None if p.grad is None else p.grad.clone())
            for p in model.parameters()]  # fmt: skip


def same(before: Any, after: Any) -> bool:
    return all(
        torch.equal(a[0], b[0]) and a[1] == b[1] and a[2] is b[2] and (a[3] is None or torch.equal(a[3], b[3]))
        for a, b in zip(before, after, strict=True)
    )


@pytest.mark.parametrize(("optimizer", "name", "rate"), [("sgd", "SGD", 0.05), ("adam", "Adam", 0.003)])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox"])
def test_learning_is_that_of_torch(pair: Callable[..., Any], kind: str, optimizer: str, name: str, rate: float) -> None:
    wrapped, oracle = pair(kind)
    tolerance = 1e-5 if kind == "llama" else 1e-9  # llama's norms compute in float32
    for parameters in ("all", "mlp"):
        expected, losses = oracle.after([LEARNER], [TARGETS], rate, parameters=parameters, optimizer=name)
        with DenseSteps(wrapped, parameters) as steps:
            for _ in range(2):  # a second learner begins where the first began
                found = steps.learn(LEARNER, learning_rate=rate, optimizer=optimizer)
                assert np.abs(found.numpy() - losses[0][:-1]).max() < tolerance
                assert np.abs(np.array(scores(wrapped)) - expected[0]).max() < tolerance
                steps.restore()
        assert np.abs(np.array(scores(wrapped)) - expected[0]).max() > 0.05


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_weights_flags_and_gradients_come_back(tiny_model: Callable[..., Any], error: Any) -> None:
    wrapped = wrap(tiny_model("gpt2").train())
    weights = list(wrapped.model.parameters())
    for i, weight in enumerate(weights):
        weight.requires_grad_(i % 3 > 0)
        if i % 2:
            weight.grad = torch.full_like(weight, float(i))
    before = state(wrapped.model)

    def broken(model: WrappedModel) -> torch.Tensor:
        assert not same(before, state(model.model))  # weights have moved when it breaks
        raise error("in the middle of the work")

    with pytest.raises(KeyError if error is None else error), DenseSteps(wrapped, "mlp") as steps:
        steps.learn(LEARNER, learning_rate=0.1)
        if error is None:
            raise KeyError("after a step")
        steps.learn(LEARNER, learning_rate=0.1, penalty=broken)
    assert same(before, state(wrapped.model))
    assert all(module.training for module in wrapped.model.modules()) and not wrapped.has_hooks()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_dense_update_is_the_step_that_it_was_taken_from(pair: Callable[..., Any], kind: str) -> None:
    """A GPT-2's queries, keys and values are in the model twice; the change must not be."""
    wrapped, oracle = pair(kind)
    expected, _ = oracle.after([LEARNER], [TARGETS], 0.05)
    with dense_update(wrapped, LEARNER, learning_rate=0.05).applied():
        assert np.abs(np.array(scores(wrapped)) - expected[0]).max() < (1e-9 if kind == "gpt2" else 1e-5)


def test_only_what_is_chosen_moves(pair: Callable[..., Any]) -> None:
    wrapped, _ = pair("gpt2")
    names = [name for name, _ in wrapped.model.named_parameters()]
    before = state(wrapped.model)
    with DenseSteps(wrapped, lambda name: "ln_f" in name) as steps:
        steps.learn(LEARNER, learning_rate=0.1)
        moved = {name for name, (a, *_), (b, *_) in zip(names, before, state(wrapped.model), strict=True)
                 if not torch.equal(a, b)}  # fmt: skip
        steps.restore()
        assert all(torch.equal(a, p) for (a, *_), p in zip(before, wrapped.model.parameters(), strict=True))
    assert moved == {name for name in names if "ln_f" in name} and len(moved) == 2


@pytest.mark.parametrize("squared", [False, True])
def test_the_penalty_is_the_change_of_the_fillers_loss(pair: Callable[..., Any], squared: bool) -> None:
    wrapped, oracle = pair("gpt2")
    fillers = [text(5, seed=11), text(9, 4, 12)]
    known = np.mean([ORACLE["text_loss"](oracle.model, f).item() for f in fillers])

    def torch_penalty(model: Any) -> torch.Tensor:
        change = sum(ORACLE["text_loss"](model, f) for f in fillers) / 2 - known
        return 0.8 * (change**2 if squared else change)

    expected, losses = oracle.after([LEARNER], [TARGETS], 0.05, penalty=torch_penalty)
    free, _ = oracle.after([LEARNER], [TARGETS], 0.05)
    penalty = filler_penalty(wrapped, fillers, 0.8, squared=squared)
    assert penalty(wrapped).item() == pytest.approx(0, abs=1e-12)
    with DenseSteps(wrapped) as steps:
        found = steps.learn(LEARNER, learning_rate=0.05, penalty=penalty)
        assert np.abs(found.numpy() - losses[0][:-1]).max() < 1e-9  # the texts' own, without the penalty
        assert np.abs(np.array(scores(wrapped)) - expected[0]).max() < 1e-9
        change = np.mean([text_loss(wrapped, [f]).item() for f in fillers]) - known
        assert penalty(wrapped).item() == pytest.approx(0.8 * (change**2 if squared else change))
    assert np.abs(np.array(expected) - free).max() > 1e-3
    with pytest.raises(ValueError, match="no filler texts"):
        filler_penalty(wrapped, [], 0.8)


def test_bad_input_is_refused_before_weights_move(pair: Callable[..., Any]) -> None:
    wrapped, _ = pair("gpt2")
    before = state(wrapped.model)
    with DenseSteps(wrapped) as steps:
        for options, message in (
            ({"learning_rate": 0.1, "optimizer": "lion"}, "got optimizer='lion', expected one of sgd, adam"),
            ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ):
            with pytest.raises(ValueError, match=message):
                steps.learn(LEARNER, **options)
        with pytest.raises(ValueError, match="each must read at least one"):
            steps.learn([], learning_rate=0.1)
        assert all(torch.equal(a, p) for (a, *_), p in zip(before, wrapped.model.parameters(), strict=True))
        with pytest.raises(ValueError, match=r"step 2: gradient descent diverges with learning_rate=1e\+300"):
            steps.learn(LEARNER, learning_rate=1e300)
    assert same(before, state(wrapped.model))
    fused = "attn.qkv"  # a copy that TransformerLens keeps of the weights, and that no pass reads
    with (
        DenseSteps(wrapped, lambda name: fused in name) as steps,
        pytest.raises(ValueError, match="does not depend on"),
    ):
        steps.learn(LEARNER, learning_rate=0.1)
