"""Bad input to scoring is named before any work; interrupted work is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mechicl.hooks import log_probs, wrap
from mechicl.hooks.scoring import score


@pytest.mark.parametrize(
    ("contexts", "continuations", "message"),
    [
        (["a", "b"], [" c"], "2 contexts and 1 continuations"),
        ([], [], "nothing to score"),
        ("a", "b", "nothing to score"),
        (["a"], [""], "empty continuation"),
        (["a" * 20], [" b" * 60], "context window holds 64"),
        (["A doc"], ["tor brought"], "straddles"),
        ([[1, 2]], [[9999]], "outside 0 to"),
    ],
)
def test_bad_requests_are_refused(
    tiny_model: Callable[..., Any], contexts: Any, continuations: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        score(tiny_model("llama"), contexts, continuations, progress=False)


def test_the_first_token_needs_something_before_it(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="prepend_bos=True"):
        score(tiny_model("llama"), "", ["A doctor"], prepend_bos=False, progress=False)


@pytest.mark.core
def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a TransformerLens model"):
        score(torch.nn.Linear(2, 2), "a", ["b"])


def test_a_model_without_tokenizer_needs_ids(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="pass token ids"):
        score(tiny_model("native"), "a", [" b"], prepend_bos=False, progress=False)


def test_a_model_that_says_it_is_not_causal_is_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("native")
    model.cfg.attention_dir = "bidirectional"
    with pytest.raises(ValueError, match="not causal"):
        wrap(model)


@pytest.mark.core
def test_a_model_that_behaves_not_causally_is_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    model.add_hook("blocks.0.hook_resid_post", lambda x, hook: x + x.mean(1, keepdim=True))
    with pytest.raises(ValueError, match="not causal"):
        score(model, "A", [" b"], progress=False)


@pytest.mark.core
@pytest.mark.filterwarnings("ignore:shared prefixes are computed again")
def test_nan_is_named_and_leaves_no_hook(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        next(iter(model.parameters()))[:] = float("nan")
    with pytest.raises(ValueError, match="not finite for item 0"):
        score(model, ["A", "The"], [" b", " c"], progress=False)
    assert not wrap(model).has_hooks()
    assert torch.is_grad_enabled()


def test_an_interrupted_run_goes_on_where_it_was(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama")
    rng = np.random.default_rng(0)
    contexts = [[int(t) for t in rng.integers(5, 60, size=9)] for _ in range(40)]
    ask = {"continuations": [[7, 8]] * 40, "prepend_bos": False, "progress": False}
    whole = score(model, contexts, **ask)
    passes = {"n": 0}
    read = log_probs._read

    def stop_at_fourth(*args: Any, **options: Any) -> Any:
        passes["n"] += 1
        if passes["n"] == 4:  # after the two of the trial
            raise KeyboardInterrupt
        return read(*args, **options)

    monkeypatch.setattr(log_probs, "NODES_PER_ROW", 64)
    monkeypatch.setattr(log_probs, "_read", stop_at_fourth)
    with pytest.raises(KeyboardInterrupt):
        score(model, contexts, store=tmp_path, memory_budget=1, **ask)
    assert not wrap(model).has_hooks()

    scored: list[int] = []

    def counting(wrapped: Any, rows: Any, *args: Any, **options: Any) -> Any:
        scored.extend(item for row in rows for item in row.read_item)
        return read(wrapped, rows, *args, **options)

    monkeypatch.setattr(log_probs, "_read", counting)
    resumed = score(model, contexts, store=tmp_path, **ask)
    np.testing.assert_allclose(resumed, whole, atol=1e-5)
    assert 0 < len(set(scored[8:])) < 40  # without the trial's readings: fewer than all were computed again
    scored.clear()
    assert np.array_equal(score(model, contexts, store=tmp_path, **ask), resumed)
    assert scored == []


def test_scores_of_another_model_are_refused(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    score(tiny_model("llama"), "A", [" b"], store=tmp_path, progress=False)
    with pytest.raises(ValueError, match="scores of another run"):
        score(tiny_model("qwen2"), "A", [" b"], store=tmp_path, progress=False)


def test_scores_under_hooks_are_not_stored(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.add_hook("blocks.1.attn.hook_z", lambda z, hook: z * 0)
    with pytest.raises(ValueError, match="reset_hooks"):
        score(model, "A", [" b"], store=tmp_path, progress=False)
