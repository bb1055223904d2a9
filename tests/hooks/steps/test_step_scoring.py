"""Targets after gradient steps: both ways of stepping agree with torch, interrupted work goes on, trouble is named."""

import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn

import mechicl
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.score_store import ScoreStore
from mechicl.hooks.steps import step_scoring
from mechicl.hooks.steps.step_scoring import StepOptions, score_after_steps
from mechicl.hooks.steps.step_support import way_to_step
from mechicl.hooks.wrapper import WrappedModel, wrap

ORACLE = runpy.run_path(str(Path(__file__).with_name("torch_steps.py")))
RATE = 0.05


@pytest.fixture(scope="module")
def pair(tiny_folder: Callable[..., Path]) -> Callable[..., tuple[WrappedModel, Any]]:
    """The same random weights, float64, as a wrapped model (a new one where asked) and as copies for torch."""
    made: dict[str, tuple[WrappedModel, Any]] = {}

    def make(kind: str, new: bool = False) -> tuple[WrappedModel, Any]:
        if new or kind not in made:
            folder = tiny_folder(kind)
            found = wrap(mechicl.load(folder, device="cpu", dtype="float64")), ORACLE["TorchLearners"](folder)
            if new:
                return found
            made[kind] = found
        return made[kind]

    return make


def text(length: int, start: int = 1, seed: int = 0) -> Continuation:
    return Continuation((0, *np.random.default_rng(seed).integers(2, 320, length - 1).tolist()), start)


LEARNERS = [[text(6 + i, 1 + i % 2, i), text(9 - i, 1, 10 + i)] for i in range(3)]
TARGETS = [[text(7, 3, 20 + j) for j in range(1 + i)] for i in range(3)]
ONCE = [learner[:1] for learner in LEARNERS]
FILLERS = (text(5, seed=30), text(9, 4, seed=31))


def scored(model: Any, learners: Any = ONCE, targets: Any = TARGETS, rate: float = RATE, **options: Any) -> Any:
    extra = {name: options.pop(name) for name in ("store", "memory_budget") if name in options}
    return score_after_steps(model, learners, targets, StepOptions(rate, **options), progress=False, **extra)


def off(found: Any, expected: Any) -> float:
    """Largest difference of scores and of losses."""
    scores, losses = expected
    gaps = [np.abs(np.asarray(a) - b).max() for a, b in zip(found.log_probs, scores, strict=True)]
    return max(*gaps, np.abs(found.losses - np.asarray(losses)).max())


def weights(wrapped: WrappedModel) -> list[Any]:
    return [(p.detach().clone(), p.requires_grad, p.grad) for p in wrapped.model.parameters()]


def unchanged(wrapped: WrappedModel, before: list[Any]) -> bool:
    return not wrapped.has_hooks() and all(
        torch.equal(a, p) and flag == p.requires_grad and grad is p.grad
        for (a, flag, grad), p in zip(before, wrapped.model.parameters(), strict=True)
    )


@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text"])
def test_scores_and_losses_are_those_of_torch(pair: Callable[..., Any], kind: str) -> None:
    wrapped, oracle = pair(kind)
    exact = 1e-5 if kind == "gemma3_text" else 1e-10  # Gemma's norms compute in float32
    before = weights(wrapped)
    for learners, rate, name, tolerance, budgets in (
        (ONCE, RATE, "SGD", exact, [1 << 30]),
        (LEARNERS, RATE, "SGD", exact, [1 << 30, 1]),  # all learners at once, one at a time
        (LEARNERS[:2], 0.003, "Adam", 100 * exact, [1 << 30]),  # Adam divides by gradients near 0
    ):
        targets = TARGETS[: len(learners)]
        expected = oracle.after(learners, targets, rate, optimizer=name)
        for budget in budgets:
            found = scored(wrapped, learners, targets, rate, optimizer=name.lower(), memory_budget=budget)
            assert off(found, expected) < tolerance
        assert unchanged(wrapped, before)
        moved = [np.abs(np.subtract(a, b)).max() for a, b in zip(expected[0], oracle.before(targets), strict=True)]
        assert min(moved) > 0.01


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text", "native"])
def test_the_fast_way_is_taken_where_it_is_exact(
    pair: Callable[..., Any], tiny_model: Any, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    wrapped = wrap(tiny_model("native").double()) if kind == "native" else pair(kind)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [way_to_step(wrapped, name) for name in ("all", "attention", "mlp")] == ["low rank"] * 3
        fast = [scored(wrapped, LEARNERS[:2], TARGETS[:2], parameters=name) for name in ("all", "key_value")]
    monkeypatch.setattr(step_scoring, "way_to_step", lambda *_: "dense")
    slow = [scored(wrapped, LEARNERS[:2], TARGETS[:2], parameters=name) for name in ("all", "key_value")]
    assert max(off(a, (b.log_probs, b.losses)) for a, b in zip(fast, slow, strict=True)) < 1e-5
    assert off(fast[0], (fast[1].log_probs, fast[1].losses)) > 0.01  # the two choices differ


class Slope(nn.Module):
    """An activation with a weight of its own: no linear layer, embedding or norm."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.full((48,), 1.5, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(x * self.slope)


class Doubled(nn.Linear):
    """Says that it is a linear layer, but is none in its weight."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight * self.weight.abs() * 4)


@pytest.mark.parametrize("case", ["another kind of module", "no linear function of its weight"])
def test_other_layers_take_the_dense_way_with_one_warning(pair: Callable[..., Any], case: str) -> None:
    wrapped, oracle = pair("llama", new=True)
    mine, theirs = wrapped.model.blocks[1].mlp.original_component, oracle.model.model.layers[1].mlp
    if case == "another kind of module":
        mine.act_fn, theirs.act_fn = Slope(), Slope()
        message = "Slope with"
    else:
        theirs.down_proj.__class__ = Doubled
        mine.down_proj.original_component.__class__ = Doubled
        message = "miss this model's own steps by"
    for _ in range(2):
        with pytest.warns(UserWarning, match=message) as caught:
            found = scored(wrapped)
        assert len([w for w in caught if "gradient steps move the weights" in str(w.message)]) == 1
        assert off(found, oracle.after(ONCE, TARGETS, RATE)) < 1e-5
    # Where the layer is not among what is chosen, a step is exact as before.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (
            off(scored(wrapped, parameters="key_value"), oracle.after(ONCE, TARGETS, RATE, parameters="key_value"))
            < 1e-5
        )


def test_hooks_of_the_user_are_part_of_the_model(pair: Callable[..., Any]) -> None:
    wrapped, oracle = pair("gpt2", new=True)
    plain = oracle.after(ONCE, TARGETS, RATE)
    handle = oracle.model.transformer.h[0].mlp.register_forward_hook(lambda module, args, out: out * 0.25)
    expected = oracle.after(ONCE, TARGETS, RATE)
    with wrapped.hooked([("mlp_out", 0, lambda x: x * 0.25)]):
        assert off(scored(wrapped), expected) < 1e-10
        assert wrapped.has_hooks()
    handle.remove()
    assert off(scored(wrapped), plain) < 1e-10 and off(scored(wrapped), expected) > 0.01


def test_what_hooks_made_of_a_model_is_forgotten_with_them(pair: Callable[..., Any]) -> None:
    wrapped, _ = pair("gpt2", new=True)
    with wrapped.hooked([("resid_post", 0, lambda x: x * (1 if len(x) == 1 else 0))]), pytest.warns(UserWarning):
        assert way_to_step(wrapped) == "dense"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert way_to_step(wrapped) == "low rank"


@pytest.mark.parametrize("squared", [False, True])
def test_fillers_hold_the_steps_back(pair: Callable[..., Any], squared: bool) -> None:
    wrapped, oracle = pair("gpt2")
    before, known = weights(wrapped), np.mean([ORACLE["text_loss"](oracle.model, f).item() for f in FILLERS])

    def penalty(model: Any) -> torch.Tensor:
        change = sum(ORACLE["text_loss"](model, f) for f in FILLERS) / len(FILLERS) - known
        return 0.6 * (change**2 if squared else change)

    options: dict[str, Any] = {"fillers": FILLERS, "filler_weight": 0.6, "filler_squared": squared}
    for learners, parameters, budget in ((ONCE, "all", 1 << 30), (ONCE, "mlp", 1), (LEARNERS, "all", 1 << 30)):
        expected = oracle.after(learners, TARGETS, RATE, penalty=penalty, parameters=parameters)
        found = scored(wrapped, learners, parameters=parameters, memory_budget=budget, **options)
        assert off(found, expected) < 1e-10
        difference = off(scored(wrapped, learners, parameters=parameters), expected)
        # A squared penalty has its least value, 0, before the first step.
        assert difference < 1e-10 if squared and learners is ONCE else difference > 1e-4
    assert unchanged(wrapped, before)


@pytest.mark.parametrize("options", [{}, {"fillers": FILLERS}, {"optimizer": "adam"}])
def test_weights_come_back_after_an_interruption(
    pair: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    wrapped, _ = pair("gpt2")
    before = weights(wrapped)

    def broken(*_: Any) -> Any:
        assert options == {} or not unchanged(wrapped, before)  # moved by the fillers' step, or by Adam's
        raise KeyboardInterrupt

    monkeypatch.setattr(step_scoring, "updated_log_probs", lambda *_, **__: broken())
    monkeypatch.setattr(step_scoring, "by_padding", broken)
    with pytest.raises(KeyboardInterrupt):
        scored(wrapped, **options)
    assert unchanged(wrapped, before)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_an_interrupted_run_goes_on(
    pair: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, optimizer: str
) -> None:
    wrapped, _ = pair("gpt2")
    options: dict[str, Any] = {"optimizer": optimizer, "memory_budget": 1}
    expected = scored(wrapped, **options)
    real, finished = step_scoring._together, []

    def counted(*args: Any) -> Any:
        if len(finished) == stop_after:
            raise KeyboardInterrupt
        finished.append(args)
        return real(*args)

    monkeypatch.setattr(step_scoring, "_together", counted)

    def run(**changes: Any) -> Any:
        finished.clear()
        return scored(wrapped, **{**options, "store": tmp_path, **changes})

    stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        run()
    stop_after = 99
    again = run()
    assert len(finished) == 1
    assert all(np.array_equal(a, b) for a, b in zip(again.log_probs, expected.log_probs, strict=True))
    np.testing.assert_array_equal(again.losses, expected.losses)
    run()
    assert len(finished) == 0
    others: list[dict[str, Any]] = [
        {"rate": 0.049}, {"parameters": "mlp"}, {"fillers": FILLERS}, {"targets": TARGETS[::-1]},
        {"learners": [[text(5, seed=40 + i)] for i in range(3)]},
    ]  # fmt: skip
    for changes in others:  # nothing of another question is an answer
        run(**changes)
        assert len(finished) == (2 if "targets" in changes else 3)  # the middle one has the same targets
    with pytest.raises(ValueError, match="cannot tell one function of parameters from another"):
        run(parameters=lambda name: "mlp" in name)


def test_what_is_finished_before_trouble_is_kept(
    pair: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wrapped, _ = pair("gpt2")
    real = step_scoring._together

    def no_number_for_the_third(*args: Any) -> Any:
        return real(*args) * (np.nan if args[-1] == ONCE[2][0] else 1.0)

    monkeypatch.setattr(step_scoring, "_together", no_number_for_the_third)
    with pytest.raises(ValueError, match=r"learner 2 .* not finite"):
        scored(wrapped, store=tmp_path)
    assert len(ScoreStore(tmp_path, step_scoring.stored_facts(wrapped))) == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("learners", [ONCE, LEARNERS])
def test_a_rate_that_diverges_is_named(pair: Callable[..., Any], learners: Any, optimizer: str) -> None:
    wrapped, _ = pair("gpt2")
    before = weights(wrapped)
    # The loss before the first step is finite whatever the rate; what is read after it is no number.
    with (
        wrapped.hooked([("resid_post", 1, lambda x: torch.where(x.abs() > 1e15, torch.nan, x))]),
        pytest.raises(ValueError, match=r"diverges with learning_rate=1e\+20"),
    ):
        scored(wrapped, learners, rate=1e20, optimizer=optimizer)
    assert unchanged(wrapped, before)


def test_a_text_longer_than_the_window_is_read_as_the_model_reads_it(pair: Callable[..., Any]) -> None:
    wrapped, oracle = pair("gemma3_text")
    assert wrapped.window == 16
    learners = [[text(30, seed=1)], [text(6, seed=2)]]
    for targets in ([[text(6, seed=3)], [text(5, seed=4)]], [[text(25, 20, seed=3)], [text(5, seed=4)]]):
        assert off(scored(wrapped, learners, targets), oracle.after(learners, targets, RATE)) < 1e-5


def test_it_works_where_gradients_are_off(pair: Callable[..., Any]) -> None:
    wrapped, oracle = pair("gpt2")
    expected = oracle.after(ONCE, TARGETS, RATE)
    with torch.no_grad():
        assert off(scored(wrapped), expected) < 1e-10
    with torch.inference_mode(), pytest.raises(ValueError, match="inference mode"):
        scored(pair("gpt2", new=True)[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text"])
def test_other_precisions_run(
    tiny_folder: Callable[..., Path], pair: Callable[..., Any], kind: str, dtype: str
) -> None:
    model = mechicl.load(tiny_folder(kind), device="cpu", dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = scored(model, fillers=FILLERS)
    exact = scored(pair(kind)[0], fillers=FILLERS)
    assert found.losses.dtype == np.float64
    assert off(found, (exact.log_probs, exact.losses)) < (1e-3 if dtype == "float32" else 0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learners": []}, "got 0 learners and targets for 3"),
        ({"learners": [], "targets": []}, "there are no learners"),
        ({"targets": TARGETS[:2]}, "got 3 learners and targets for 2"),
        ({"targets": [[], *TARGETS[1:]]}, "learner 0 has no targets; drop it"),
        ({"targets": [[Continuation((0,), 1)], *TARGETS[1:]]}, "a text of 1 tokens"),
        ({"targets": [[text(66)], *TARGETS[1:]]}, "context window holds 64"),
        ({"targets": [[Continuation((0, 9999), 1)], *TARGETS[1:]]}, "outside 0 to"),
        ({"optimizer": "lbfgs"}, "got optimizer='lbfgs', expected one of sgd, adam"),
        ({"rate": 0.0}, "learning_rate=0.0, expected a number above 0"),
        ({"rate": float("nan")}, "learning_rate=nan"),
        ({"parameters": "values"}, "parameters"),
        ({"parameters": lambda name: "lora" in name}, "no parameter of this model is chosen"),
        ({"parameters": lambda name: "attn.qkv" in name}, "does not depend on the chosen parameters"),
        ({"fillers": (Continuation((0,), 1),)}, "a text of 1 tokens"),
        ({"fillers": (text(70),)}, "context window holds 64"),
        ({"fillers": FILLERS, "filler_weight": float("nan")}, "filler_weight=nan"),
    ],
)
def test_bad_input_is_refused_and_leaves_no_trace(
    pair: Callable[..., Any], changes: dict[str, Any], message: str
) -> None:
    wrapped, _ = pair("gpt2")
    before = weights(wrapped)
    with pytest.raises((ValueError, TypeCheckError), match=message):  # types are checked first
        scored(wrapped, **changes)
    assert unchanged(wrapped, before)
