"""ICL against gradient steps: engines whose answer is known, the plain way as oracle, controls, and bad input."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mechicl.analyses.resemblance.gradient_comparison import GradientComparison, compare_to_gradient
from mechicl.analyses.resemblance.gradient_controls import CONTROLS
from mechicl.analyses.resemblance.variants import FineTuning, fine_tuning, learner_of, random_like
from mechicl.hooks.attention_readings import attention_states
from mechicl.hooks.steps.sites import chosen_parameters
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts

QUICK: dict[str, Any] = {"n_boot": 100, "learning_rate": 0.05, "progress": False}
quiet = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def task(name: str = "letters") -> FewShotTask:
    texts = [f"{a} {b}" for a in ("old", "new", "king", "ball") for b in ("ring", "cake", "file")]
    labels = ["good" if i % 2 else "bad" for i in range(len(texts))]
    return FewShotTask(name, pd.DataFrame({"text": texts, "label": labels}), template="{text}\n{label}\n\n")


@pytest.fixture(scope="module")
def prompts(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    return fewshot_prompts(task(), 2, 8, tokenizer=tiny_tokenizer, seed=0)


@pytest.fixture(scope="module")
def others(tiny_tokenizer: Any) -> list[FewShotPrompt]:
    return fewshot_prompts(task("others"), 2, 8, tokenizer=tiny_tokenizer, seed=5)


@pytest.fixture(scope="module")
def wrapped(tiny_model: Callable[..., Any]) -> WrappedModel:
    return wrap(tiny_model("llama", 128))


@pytest.fixture(scope="module")
def compared(wrapped: WrappedModel, prompts: list[FewShotPrompt], others: list[FewShotPrompt]) -> GradientComparison:
    with np.errstate(all="ignore"):
        return compare_to_gradient(wrapped, prompts, other_task=others, **QUICK)


@dataclass(frozen=True)
class Copied:
    """Not gradient descent at all: attention outputs at the last token are those of the prompt, or away from them."""

    wrapped: WrappedModel
    prompts: Sequence[FewShotPrompt]
    sign: float

    @property
    def n_learners(self) -> int:
        return len(self.prompts)

    def taken(self, rows: torch.Tensor) -> "Copied":
        return replace(self, prompts=[self.prompts[i] for i in rows.tolist()])

    @contextmanager
    def applied(self) -> Iterator[None]:
        with_demos = attention_states(self.wrapped, [one.prompt for one in self.prompts])
        alone = attention_states(self.wrapped, [one.zero_shot for one in self.prompts])

        def put(layer: int) -> Callable[[torch.Tensor], torch.Tensor]:
            def hook(x: torch.Tensor) -> torch.Tensor:
                for row, (one, icl, zero) in enumerate(zip(self.prompts, with_demos, alone, strict=True)):
                    step = self.sign * (icl.output[layer] - zero.output[layer])
                    x[row, len(one.zero_shot) - 1] = torch.as_tensor(zero.output[layer] + step)
                return x

            return hook

        with self.wrapped.hooked([("attn_out", layer, put(layer)) for layer in range(self.wrapped.n_layers)]):
            yield


@quiet
@pytest.mark.parametrize("sign", [1, -1])
def test_an_engine_that_copies_icl_has_cosine_one(sign: float, wrapped: WrappedModel, tiny_tokenizer: Any) -> None:
    one_token = replace(task(), label_words={"good": "g", "bad": "b"})
    prompts = fewshot_prompts(one_token, 2, 8, tokenizer=tiny_tokenizer, seed=0)
    assert all(len(label) == 1 for one in prompts for label in one.label_tokens)
    engine = FineTuning("copy", lambda w, learners, rate: Copied(w, prompts, sign))
    found = compare_to_gradient(wrapped, prompts, fine_tune=[engine], controls=(), **QUICK)
    rows = found.frame[found.frame["measure"] == "SimAOU"]
    np.testing.assert_allclose(rows[["estimate", "low", "high"]].to_numpy(float), sign, atol=1e-4)
    if sign == 1:  # the same token and the same attention in every layer: the same logits
        correlation = found.frame[found.frame["measure"] == "effect correlation"].iloc[0]
        assert correlation["estimate"] > 0.99
        np.testing.assert_allclose(found.items["tuned_effect"], found.items["icl_effect"], atol=1e-3)


@quiet
def test_random_weights_for_a_step_have_no_alignment(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    def drawn(w: WrappedModel, learners: Any, rate: float) -> Any:
        found = fine_tuning(w, "key_value").learn(w, learners, rate)
        return random_like(found, seed=len(learners))

    engine = FineTuning("drawn", drawn)
    found = compare_to_gradient(wrapped, prompts, fine_tune=[engine], controls=(), **QUICK)
    row = found.frame[(found.frame["measure"] == "SimAOU") & (found.frame["layer"] == "all")].iloc[0]
    assert abs(row["estimate"]) < 0.25 and row["low"] < 0.1 and row["high"] > -0.1


@quiet
@pytest.mark.parametrize("variant", ["key_value", "all"])
def test_the_plain_way_gives_the_same_numbers(
    variant: str, wrapped: WrappedModel, prompts: list[FewShotPrompt]
) -> None:
    """A deep copy of the model and torch.optim.SGD, a demonstration a step: the same measures."""

    def plain(w: WrappedModel, learners: Any, rate: float) -> Any:
        own = wrap(copy.deepcopy(w.model))
        chosen = chosen_parameters(own, variant)  # type: ignore[arg-type]
        optimizer = torch.optim.SGD(chosen.values(), lr=rate)
        for text in learners[0]:
            logits = own.model(torch.tensor([text.tokens[:-1]]), return_type="logits")[0].log_softmax(-1)
            at = torch.arange(text.start, len(text.tokens))
            optimizer.zero_grad()
            (-logits[at - 1, torch.tensor(text.tokens)[at]].mean()).backward()
            optimizer.step()
        return dense_from(w, {name: p.detach() for name, p in chosen.items()})

    engine = FineTuning(variant, plain, at_once=1)
    slow = compare_to_gradient(wrapped, prompts[:4], fine_tune=[engine], controls=(), **QUICK)
    fast = compare_to_gradient(wrapped, prompts[:4], fine_tune=[variant], controls=(), **QUICK)
    pd.testing.assert_frame_equal(slow.items, fast.items, atol=1e-4)
    columns = ["measure", "layer", "control", "estimate"]
    pd.testing.assert_frame_equal(slow.frame[columns], fast.frame[columns], atol=1e-3)


def dense_from(wrapped: WrappedModel, after: dict[str, torch.Tensor]) -> Any:
    before = dict(wrapped.model.named_parameters())
    from mechicl.hooks.steps.moved_weights import DenseUpdate

    return DenseUpdate(wrapped, {name: new - before[name].detach() for name, new in after.items()})


def test_every_measure_stands_beside_its_controls(compared: GradientComparison) -> None:
    frame = compared.frame
    for name in ("SimAOU", "SimAM"):
        rows = frame[(frame["measure"] == name) & (frame["layer"] == "all")]
        assert rows["control"].tolist() == ["none", *CONTROLS]
        own = rows.iloc[0]
        assert np.isnan(own["difference"]) and own["low"] <= own["estimate"] <= own["high"]
        for _, row in rows.iloc[1:].iterrows():
            assert row["difference"] == pytest.approx(own["estimate"] - row["estimate"])
            assert row["diff_low"] <= row["difference"] <= row["diff_high"]
        assert set(frame.loc[frame["measure"] == name, "layer"]) == {"all", "0", "1", "2"}
    assert set(frame.loc[frame["measure"] == "Kendall", "control"]) == {
        "none", "random init", "trained embeddings only", "other query"
    }  # fmt: skip
    assert "other queries" in set(frame.loc[frame["measure"] == "Rec2FTP", "control"])
    assert {"effect correlation", "effect correlation within labels"} < set(frame["measure"])
    assert compared.accuracy().between(0, 1).all() and len(compared.items) == 8


def test_a_result_comes_back(compared: GradientComparison, tmp_path: Path) -> None:
    compared.save(tmp_path / "r")
    assert GradientComparison.load(tmp_path / "r") == compared
    assert compared.provenance.options["rates"] == {"key_value": 0.05}


@quiet
def test_divergence_is_named(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    with pytest.raises(ValueError, match="diverges at every learning rate"):
        compare_to_gradient(wrapped, prompts, controls=(), learning_rates=[3e38], n_boot=100)
    found = compare_to_gradient(wrapped, prompts, controls=(), learning_rate=20.0, n_boot=100)
    grown = found.divergence[found.divergence["reason"] == "loss grew"]
    assert len(grown) and (grown["loss_after"] > grown["loss_before"]).all()

    def one_fails(w: WrappedModel, learners: Any, rate: float) -> Any:
        if learner_of(prompts[2]) in list(learners):
            raise ValueError("the loss of learner 0 is not finite")
        return fine_tuning(w, "key_value").learn(w, learners, rate)

    found = compare_to_gradient(wrapped, prompts, fine_tune=[FineTuning("f", one_fails)], controls=(), **QUICK)
    lost = found.divergence[found.divergence["reason"] == "not finite"]
    assert lost["prompt"].tolist() == [2] and np.isnan(found.items["tuned_effect"][2])
    assert found.frame["n"].iloc[0] == 7 and np.isfinite(found.frame["estimate"].iloc[0])


@quiet
def test_the_model_is_left_as_it_was(tiny_model: Callable[..., Any], prompts: list[FewShotPrompt]) -> None:
    model = tiny_model("gpt2", 128)
    model.train()
    model(torch.tensor([[0, 5]]))  # transformers puts hooks of its own on at the first pass
    before, flags = wrap(model).checksum(), [p.requires_grad for p in model.parameters()]
    hooks = [len(m._forward_hooks) for m in model.modules()]
    compare_to_gradient(model, prompts[:4], controls=("random update", "permuted order"), **QUICK)
    assert wrap(model).checksum() == before and flags == [p.requires_grad for p in model.parameters()]
    assert hooks == [len(m._forward_hooks) for m in model.modules()] and model.training
    assert all(p.grad is None for p in model.parameters())


@quiet
def test_a_model_without_scores_says_so(tiny_model: Callable[..., Any], prompts: list[FewShotPrompt]) -> None:
    found = compare_to_gradient(tiny_model("native"), prompts, controls=("permuted order",), **QUICK)
    assert "SimAM" not in set(found.frame["measure"]) and "SimAM and Kendall" in found.notes[0]


@quiet
def test_layer_causal_steps_run(wrapped: WrappedModel, prompts: list[FewShotPrompt]) -> None:
    found = compare_to_gradient(wrapped, prompts, fine_tune=["layer_causal"], controls=("random update",), **QUICK)
    assert np.isfinite(found.frame.loc[found.frame["measure"] == "SimAOU", "estimate"]).all()


def test_bad_input_is_refused(
    wrapped: WrappedModel, prompts: list[FewShotPrompt], tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    with pytest.raises(ValueError, match="at least 3 to compare"):
        compare_to_gradient(wrapped, prompts[:3])
    with pytest.raises(ValueError, match="got fine_tune='lora'"):
        compare_to_gradient(wrapped, prompts, fine_tune=["lora"])
    with pytest.raises(ValueError, match="expected a sequence of variants"):
        compare_to_gradient(wrapped, prompts, fine_tune="all")
    with pytest.raises(ValueError, match="got the control 'magic'"):
        compare_to_gradient(wrapped, prompts, controls=["magic"])
    with pytest.raises(ValueError, match="expected positive numbers"):
        compare_to_gradient(wrapped, prompts, learning_rate=-1.0)
    more = fewshot_prompts(task(), 3, 4, tokenizer=tiny_tokenizer, seed=0)
    with pytest.raises(ValueError, match=r"with \[2, 3\] demonstrations"):
        compare_to_gradient(wrapped, [*prompts, *more])
    with pytest.raises(ValueError, match="must have 2 demonstrations each"):
        compare_to_gradient(wrapped, prompts, other_task=more)
    with pytest.raises(ValueError, match="context window holds 8"):
        compare_to_gradient(tiny_model("llama", 8), prompts)
    with pytest.raises(ValueError, match="no method random_like"):
        random_like(Copied(wrapped, prompts, 1.0), seed=0)
