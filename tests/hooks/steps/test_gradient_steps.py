"""Steps as outer products are those of torch.optim.SGD on a copy of the model; the model itself keeps no trace."""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mechicl
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.steps.gradient_steps import check_learners, low_rank_steps
from mechicl.hooks.steps.updated_scoring import updated_log_probs
from mechicl.hooks.steps.weight_updates import Products, Rows, Vectors, WeightUpdates
from mechicl.hooks.wrapper import WrappedModel, wrap

ORACLE = runpy.run_path(str(Path(__file__).with_name("torch_steps.py")))
ARCHITECTURES = ["gpt2", "llama", "gpt_neox", "qwen2", "gemma3_text"]
RATE = 0.05


@pytest.fixture(scope="module")
def pair(
    tiny_folder: Callable[..., Path], tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[WrappedModel, Any]]:
    """The same random weights, float64, as a wrapped model and as copies for torch."""
    made: dict[tuple[str, bool], tuple[WrappedModel, Any]] = {}

    def make(kind: str, tied: bool = False) -> tuple[WrappedModel, Any]:
        if (kind, tied) not in made:
            folder = ORACLE["saved"](tiny_folder(kind), tmp_path_factory.mktemp(kind), tiny_tokenizer, tied)
            model = mechicl.load(folder, device="cpu", dtype="float64")
            made[kind, tied] = wrap(model), ORACLE["TorchLearners"](folder)
        return made[kind, tied]

    return make


def text(length: int, start: int = 1, seed: int = 0) -> Continuation:
    """Random tokens after BOS; no padding token."""
    return Continuation((0, *np.random.default_rng(seed).integers(2, 320, length - 1).tolist()), start)


# Texts of several lengths, scored from several places; targets that share beginnings.
LEARNERS = [[text(7, seed=1), text(5, 2, 2)], [text(4, seed=3), text(9, seed=4)], [text(8, 3, 5), text(6, seed=6)]]
STEM = text(4, seed=7).tokens
TARGETS = [[Continuation((*STEM, *text(4, seed=s).tokens[1:]), 3), Continuation((*STEM, 9 + s, 8), 4), text(5, seed=s)]
           for s in (8, 9, 10)]  # fmt: skip


def off(found: Sequence[Any], expected: Sequence[Any]) -> float:
    return max(np.abs(np.asarray(a) - np.asarray(b)).max() for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_steps_are_those_of_torch(pair: Callable[..., Any], kind: str, tied: bool) -> None:
    wrapped, oracle = pair(kind, tied)
    tolerance = 1e-10 if kind in ("gpt2", "gpt_neox") else 1e-5  # the other's norms compute in float32, whatever comes
    before = oracle.before(TARGETS)
    choices: list[tuple[Any, int]] = [("all", 2)]
    if not tied:  # these leave embeddings alone
        choices += [("key_value", 2), ("attention", 1), ("mlp", 1)]
        choices.append(
            (lambda name: ("mlp" in name and name.endswith("weight")) or "embed" in name or "wte" in name, 1)
        )
    for parameters, steps in choices:
        learners = [learner[:steps] for learner in LEARNERS]
        expected, losses = oracle.after(learners, TARGETS, RATE, parameters=parameters)
        updates = low_rank_steps(wrapped, learners, learning_rate=RATE, parameters=parameters)
        assert off(torch.stack(updates.losses, 1), [own[:-1] for own in losses]) < tolerance
        for trees in (True, False):
            assert off(updated_log_probs(wrapped, updates, TARGETS, trees=trees), expected) < tolerance
        moved = np.abs(np.array(expected) - np.array(before)).max(1)
        assert (moved > 0.02).all()  # of every learner


def test_a_padding_token_in_a_text_is_learned_from_as_torch_does(pair: Callable[..., Any]) -> None:
    learners = [[Continuation((0, 5, 1, 9, 1, 7), 1)]]
    targets = [[Continuation((0, 1, 5, 9), 1)]]
    for kind, tolerance in (
        ("llama", 1e-5),
        ("gpt2", 1e-10),
    ):  # torch gives an embedding's padding row no gradient; GPT-2 has none
        wrapped, oracle = pair(kind)
        updates = low_rank_steps(wrapped, learners, learning_rate=RATE)
        expected, _ = oracle.after(learners, targets, RATE)
        assert off(updated_log_probs(wrapped, updates, targets, trees=False), expected) < tolerance
        assert off(expected, oracle.before(targets)) > 0.1


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_changes_are_those_of_the_weights(pair: Callable[..., Any], kind: str) -> None:
    wrapped, oracle = pair(kind, True)
    updates = low_rank_steps(wrapped, [LEARNERS[0][:1]], learning_rate=RATE)
    after, _ = oracle.learned(LEARNERS[0][:1], RATE)
    names = {name.replace("._original_component", ""): name for name in updates.changes}
    compared = 0
    for name, parameter in oracle.model.named_parameters():
        if name not in names:
            continue  # queries, keys and values that transformers keeps in one matrix
        expected = (after.get_parameter(name) - parameter).detach()
        found = torch.zeros_like(expected)
        for change in updates.changes[names[name]]:
            if isinstance(change, Vectors):
                found += change.shift[0]
            elif isinstance(change, Rows):
                found.index_add_(0, change.ids[0], change.right[0])
            else:
                dense = change.left[0].T @ change.right[0]
                found += dense.T if "c_" in name else dense  # Conv1D keeps its weight transposed
                assert torch.linalg.matrix_rank(dense) <= len(LEARNERS[0][0].tokens) - 1
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if kind == "gpt2" else 1e-6)
        compared += bool(expected.abs().max() > 1e-6)
    assert compared >= 16
    kinds = {type(change) for changes in updates.changes.values() for change in changes}
    assert kinds == {Products, Rows, Vectors}


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "native"])
def test_learners_in_a_batch_are_learners_alone(pair: Callable[..., Any], tiny_model: Any, kind: str) -> None:
    wrapped = wrap(tiny_model("native").double()) if kind == "native" else pair(kind)[0]
    together = low_rank_steps(wrapped, LEARNERS, learning_rate=RATE)
    found = updated_log_probs(wrapped, together, TARGETS, trees=False)
    for i, (learner, own) in enumerate(zip(LEARNERS, TARGETS, strict=True)):
        alone = low_rank_steps(wrapped, [learner], learning_rate=RATE)
        assert off(updated_log_probs(wrapped, alone, [own], trees=False), [found[i]]) < 1e-11
        row = together.taken(torch.tensor([i]))
        assert off(updated_log_probs(wrapped, row, [own], trees=True), [found[i]]) < 1e-11
    swapped = together.taken(torch.tensor([1, 0]))
    crossed = updated_log_probs(wrapped, swapped, TARGETS[:2], trees=False)
    assert min(np.abs(crossed[i] - found[i]).max() for i in (0, 1)) > 0.01  # each has weights of its own


def test_batches_by_memory_and_uneven_targets_change_nothing(pair: Callable[..., Any]) -> None:
    wrapped, _ = pair("gpt2")
    updates = low_rank_steps(wrapped, LEARNERS, learning_rate=RATE)
    targets = [TARGETS[0], [], [*TARGETS[2], *TARGETS[0], *TARGETS[2]]]
    expected = updated_log_probs(wrapped, updates, targets, trees=False)
    assert [len(values) for values in expected] == [3, 0, 9]
    for trees, budget in ((True, 1 << 30), (True, 1), (False, 1), (False, 200_000)):
        found = updated_log_probs(wrapped, updates, targets, trees=trees, memory_budget=budget)
        assert off([v for v in found if len(v)], [v for v in expected if len(v)]) < 1e-11
    with pytest.raises(ValueError, match="targets for 2 learners, but updates of 3"):
        updated_log_probs(wrapped, updates, TARGETS[:2], trees=False)


def test_one_learner_serves_all_rows_and_changes_scale(pair: Callable[..., Any]) -> None:
    for kind in ("gpt2", "gemma3_text"):
        wrapped, _ = pair(kind, True)
        tokens, keep = torch.tensor([text(6, seed=s).tokens for s in (1, 2, 3)]), torch.tensor([[4]] * 3)
        one = low_rank_steps(wrapped, [LEARNERS[0][:1]], learning_rate=RATE)
        with wrapped.evaluating():
            plain = wrapped.row_logits(tokens, keep)
            with one.applied():
                shared = wrapped.row_logits(tokens, keep)
            with one.taken(torch.tensor([0, 0, 0])).applied():
                torch.testing.assert_close(wrapped.row_logits(tokens, keep), shared, rtol=0, atol=1e-6)
            with one.scaled(0.0).applied():
                torch.testing.assert_close(wrapped.row_logits(tokens, keep), plain, rtol=0, atol=1e-5)
            longer = low_rank_steps(wrapped, [LEARNERS[0][:1]], learning_rate=3 * RATE)
            with one.scaled(3.0).applied():
                scaled = wrapped.row_logits(tokens, keep)
            with longer.applied():
                torch.testing.assert_close(wrapped.row_logits(tokens, keep), scaled, rtol=0, atol=1e-5)
        assert (shared - plain).abs().max() > 0.05


def test_weights_that_ask_for_no_gradient_learn_alike(pair: Callable[..., Any]) -> None:
    for kind in ("gpt2", "gemma3_text"):
        wrapped, _ = pair(kind, True)
        expected = low_rank_steps(wrapped, LEARNERS, learning_rate=RATE)
        wrapped.model.requires_grad_(False)
        try:
            with torch.no_grad():
                found = low_rank_steps(wrapped, LEARNERS, learning_rate=RATE)
        finally:
            wrapped.model.requires_grad_(True)
        assert found.changes.keys() == expected.changes.keys()
        for name in found.changes:
            for a, b in zip(found.changes[name], expected.changes[name], strict=True):
                assert all(torch.equal(getattr(a, key), getattr(b, key)) for key in vars(a))


def traces(model: torch.nn.Module) -> Any:
    """All that a step could leave: hooks, overridden forwards, parameters put in place of others, flags, gradients."""
    modules = [
        (module.__dict__.get("forward"), *map(id, module._parameters.values()), *module._forward_hooks, module.training)
        for module in model.modules()
    ]
    weights = [(p.detach().clone(), p.requires_grad, p.grad) for p in model.parameters()]
    return modules, weights


def untouched(before: Any, after: Any) -> bool:
    return before[0] == after[0] and all(
        torch.equal(a, b) and flags == other and grad is same
        for (a, flags, grad), (b, other, same) in zip(before[1], after[1], strict=True)
    )


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("kind", ["gpt2", "gemma3_text"])
def test_no_trace_is_left(tiny_model: Callable[..., Any], kind: str, error: type[BaseException] | None) -> None:
    wrapped = wrap(tiny_model(kind).train())
    with wrapped.evaluating():
        wrapped.model(torch.tensor([[0, 5]]))  # TransformerLens adds hooks of its own in a first pass
    weights = list(wrapped.model.parameters())
    weights[0].grad, _ = torch.ones_like(weights[0]), weights[1].requires_grad_(False)
    before = traces(wrapped.model)
    updates = low_rank_steps(wrapped, LEARNERS, learning_rate=RATE)
    assert untouched(before, traces(wrapped.model)) and not wrapped.has_hooks()
    with updates.applied():
        assert not untouched(before, traces(wrapped.model))
    assert untouched(before, traces(wrapped.model))
    if error is None:
        return

    def broken(_: torch.Tensor) -> None:
        raise error("in the middle of a pass")

    with wrapped.hooked([("mlp_out", 1, broken)]):
        with pytest.raises(error):
            low_rank_steps(wrapped, LEARNERS, learning_rate=RATE)
        with pytest.raises(error):
            updated_log_probs(wrapped, updates, TARGETS, trees=False)
    assert untouched(before, traces(wrapped.model)) and not wrapped.has_hooks()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.2)])
def test_other_precisions_come_close(pair: Callable[..., Any], tiny_folder: Any, dtype: str, tolerance: float) -> None:
    for kind in ("gpt2", "gemma3_text"):
        folder = tiny_folder(kind)
        wrapped, oracle = wrap(mechicl.load(folder, device="cpu", dtype=dtype)), ORACLE["TorchLearners"](folder)
        learners = [learner[:1] for learner in LEARNERS]
        updates = low_rank_steps(wrapped, learners, learning_rate=RATE)
        found = np.array(updated_log_probs(wrapped, updates, TARGETS, trees=False))
        expected, before = (np.array(v) for v in (oracle.after(learners, TARGETS, RATE)[0], oracle.before(TARGETS)))
        assert np.abs(found - expected).mean() < tolerance * np.abs(expected - before).mean()


def test_a_rate_that_diverges_is_named(pair: Callable[..., Any]) -> None:
    wrapped, _ = pair("llama")
    with pytest.raises(ValueError, match=r"learner 0 is not finite at step 2: .* diverges with learning_rate=1e\+300"):
        low_rank_steps(wrapped, LEARNERS, learning_rate=1e300)


@pytest.mark.parametrize(
    ("learners", "rate", "message"),
    [
        ([], 0.1, "there are no learners"),
        ([[]], 0.1, r"read \[0\] texts; each must read at least one"),
        ([[text(4)], [text(4), text(5)]], 0.1, r"read \[1, 2\] texts"),
        ([[text(4)]], 0.0, "learning_rate=0.0, expected a number above 0"),
        ([[text(4)]], -1.0, "learning_rate=-1.0"),
        ([[text(4)]], float("nan"), "learning_rate=nan"),
        ([[text(4)]], float("inf"), "learning_rate=inf"),
        ([[text(4)], [Continuation((0,), 1)]], 0.1, "learner 1 has a text of 1 tokens scored from number 1 on"),
        ([[Continuation((), 0)]], 0.1, "a text of 0 tokens"),
        ([[Continuation((0, 5, 6), 0)]], 0.1, "scored from number 0 on; pass a text that is not empty, with BOS"),
        ([[Continuation((0, 5, 6), 3)]], 0.1, "3 tokens scored from number 3 on"),
        ([[text(66)]], 0.1, "66 tokens, but the model's context window holds 64"),
        ([[Continuation((0, 5, 9999), 1)]], 0.1, "outside 0 to"),
        ([[Continuation((0, -1, 5), 1)]], 0.1, "outside 0 to"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    pair: Callable[..., Any], learners: Any, rate: float, message: str
) -> None:
    wrapped, _ = pair("llama")
    with pytest.raises(ValueError, match=message):
        check_learners(wrapped, learners, rate)
    with pytest.raises(ValueError, match=message):
        low_rank_steps(wrapped, learners, learning_rate=rate)


def test_changes_of_the_wrong_shape_are_refused(pair: Callable[..., Any]) -> None:
    wrapped, _ = pair("gpt2")
    updates = low_rank_steps(wrapped, LEARNERS[:1], learning_rate=RATE)
    matrix = next(name for name in updates.changes if "c_fc" in name and name.endswith("weight"))
    vector = next(name for name in updates.changes if "ln_1" in name and name.endswith("weight"))
    for name, other, words in ((matrix, vector, "vector was given for a matrix"), (vector, matrix, "matrix was given")):
        wrong = WeightUpdates(1, updates.sites, {name: updates.changes[other]})
        with pytest.raises(ValueError, match=words):
            updated_log_probs(wrapped, wrong, TARGETS[:1], trees=False)


def test_updates_are_not_nested(tiny_model) -> None:
    wrapped = wrap(tiny_model("llama"))
    updates = low_rank_steps(wrapped, [[Continuation((3, 4, 5, 6), 1)]], learning_rate=0.01)
    with updates.applied(), pytest.raises(ValueError, match="add them up with `plus`"), updates.applied():
        pass
    assert not any("forward" in module.__dict__ for module in wrapped.model.modules())


@pytest.mark.parametrize("kind", ["llama", "gemma3_text"])
def test_hooks_behind_norms_see_what_they_should(tiny_model: Callable[..., Any], kind: str) -> None:
    """mlp_out is a norm's output in Gemma: there too a hook sees what the plain model has at small changes."""
    wrapped = wrap(tiny_model(kind))
    tokens = torch.tensor([[0, 5, 9, 7]])
    seen: list[torch.Tensor] = []
    updates = low_rank_steps(wrapped, [LEARNERS[0]], learning_rate=1e-9)
    hooks = [(name, 1, lambda x: seen.append(x.detach().clone())) for name in ("mlp_out", "attn_out")]
    with wrapped.evaluating(), wrapped.hooked(hooks):
        wrapped.model(tokens)
        with updates.applied():
            wrapped.model(tokens)
    torch.testing.assert_close(seen[:2], seen[2:], atol=1e-5, rtol=1e-4)
