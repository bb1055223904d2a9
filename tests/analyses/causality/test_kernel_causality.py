"""Replaced attention: a model that is a kernel regression, closed forms of the measures, controls, and bad input."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mechicl.analyses.causality.random_heads import nearest_weights, random_sets
from mechicl.analyses.causality.replaced_attention import KernelCausality, kernel_causality
from mechicl.analyses.causality.tables import Outcomes, measure
from mechicl.hooks.wrapper import wrap
from mechicl.organisms.kernel_model import PlantedKernel, planted_kernel
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts

QUICK: dict[str, Any] = {"n_boot": 200, "progress": False}


@pytest.fixture(scope="module")
def planted() -> PlantedKernel:
    return planted_kernel(n_items=40, heads=("rbf", "recency", "uniform"), dtype="float64")


@pytest.fixture(scope="module")
def prompts(planted: PlantedKernel) -> list[FewShotPrompt]:
    return fewshot_prompts(planted.task, 5, 16, tokenizer=planted.tokenizer, seed=0, balanced=False)


@pytest.fixture(scope="module")
def found(planted: PlantedKernel, prompts: list[FewShotPrompt]) -> KernelCausality:
    head, weights = planted.heads["rbf"], planted.attention(prompts)
    return kernel_causality(
        planted.model, prompts, {head: weights["rbf"]}, nuisance={head: weights["recency"]}, **QUICK
    )


def value(
    found: KernelCausality, what: str, condition: str = "kernel", control: str = "none", column: str = "estimate"
) -> float:
    """One number of the table, against uniform attention where it is against something."""
    reference = "clean" if what in ("agreement", "moved") else "uniform"
    rows = found.frame.query("measure == @what and condition == @condition and control == @control")
    rows = rows[rows["reference"] == reference]
    assert len(rows) == 1
    return float(rows[column].iloc[0])


def votes(planted: PlantedKernel, prompts: list[FewShotPrompt], weights: np.ndarray) -> np.ndarray:
    """Log-odds of the second label of a model whose writing head has these weights."""
    second = np.array([[label == one.labels[1] for label in one.demo_labels] for one in prompts])
    return planted.circuit.gain * (weights * np.where(second, 1, -1)).sum(1)


def test_the_planted_kernel_is_faithful(
    planted: PlantedKernel, prompts: list[FewShotPrompt], found: KernelCausality
) -> None:
    for what in ("faithfulness", "slope", "correlation", "agreement"):
        assert value(found, what) == pytest.approx(1, abs=1e-9)
    assert value(found, "moved") < 1e-9 and found.identity_error < 1e-9
    # permuted weights are as good as none, and the difference is certain
    assert value(found, "faithfulness", control="permuted weights") < 0.3
    assert value(found, "faithfulness", control="permuted weights", column="diff_low") > 0.5
    assert value(found, "faithfulness", control="nuisance weights", column="diff_low") > 0.5


def test_outcomes_are_those_of_the_weights_in_closed_form(
    planted: PlantedKernel, prompts: list[FewShotPrompt], found: KernelCausality
) -> None:
    weights = planted.attention(prompts)
    odds = found.log_probs[0, ..., 1] - found.log_probs[0, ..., 0]
    for name, own in (("kernel", weights["rbf"]), ("nuisance", weights["recency"]), ("uniform", np.full((16, 5), 0.2))):
        np.testing.assert_allclose(odds[found.conditions.index(name)], votes(planted, prompts, own), atol=1e-6)
    np.testing.assert_allclose(odds[found.conditions.index("knocked out")], 0, atol=1e-6)  # it reads nothing else
    np.testing.assert_allclose(found.clean, planted.label_log_probs(prompts), atol=1e-6)
    clean, uniform, recency = (
        votes(planted, prompts, w) for w in (weights["rbf"], np.full((16, 5), 0.2), weights["recency"])
    )
    moved = np.sqrt(((uniform - clean) ** 2).mean())
    assert value(found, "moved", condition="uniform") == pytest.approx(moved, abs=1e-6)
    expected = 1 - ((recency - clean) ** 2).sum() / ((uniform - clean) ** 2).sum()
    assert value(found, "faithfulness", condition="nuisance") == pytest.approx(expected, abs=1e-6)
    expected = ((recency - uniform) * (clean - uniform)).sum() / ((uniform - clean) ** 2).sum()
    assert value(found, "slope", condition="nuisance") == pytest.approx(expected, abs=1e-6)


def test_heads_that_write_nothing_move_nothing(found: KernelCausality) -> None:
    assert value(found, "moved", condition="uniform", control="random heads") < 1e-9
    assert value(found, "agreement", control="random heads") == 1
    assert np.isnan(value(found, "faithfulness", control="random heads"))
    assert any("random heads" in note and "undefined" in note for note in found.notes)


def test_one_of_two_writing_heads_is_a_part_of_the_story() -> None:
    both = planted_kernel(n_items=40, heads=("rbf", "recency", "uniform"), writes=("rbf", "recency"), dtype="float64")
    prompts = fewshot_prompts(both.task, 5, 10, tokenizer=both.tokenizer, seed=1, balanced=False)
    weights = both.attention(prompts)
    sets = {name: [both.heads[name]] for name in ("rbf", "recency")}
    # the kernel's weights in both heads: right for one, wrong for the other
    found = kernel_causality(
        both.model, prompts, {head: weights["rbf"] for head in both.heads.values()}, sets=sets, n_random=0, **QUICK
    )
    rows = found.frame.query("measure == 'faithfulness' and condition == 'kernel' and control == 'none'")
    rows = rows[rows["reference"] == "uniform"].set_index("set")["estimate"]
    assert rows["rbf"] == pytest.approx(1, abs=1e-9) and rows["recency"] < 0.9


def test_measures_equal_naive_loops() -> None:
    rng = np.random.default_rng(0)
    log_probs, clean = rng.normal(size=(2, 4, 6, 3)), rng.normal(size=(6, 3))
    outcomes = Outcomes.of(log_probs, clean)
    sums = outcomes.sums(([0, 1], [2]), 1).sum(0)
    odds = lambda x: np.array([x[..., a] - x[..., b] for a in range(3) for b in range(a)])  # noqa: E731
    away = np.mean([((odds(log_probs[s, 2]) - odds(clean)) ** 2).mean(0).sum() for s in range(2)])
    change = np.mean([((odds(log_probs[s, 1]) - odds(clean)) ** 2).mean(0).sum() for s in range(2)])
    assert measure("moved", sums) == pytest.approx(np.sqrt(away / 6))
    assert measure("faithfulness", sums) == pytest.approx(1 - away / change)
    same = np.mean([log_probs[s, 2].argmax(-1) == clean.argmax(-1) for s in range(2)])
    assert measure("agreement", sums) == pytest.approx(same)
    product = np.mean([((odds(log_probs[s, 2]) - odds(log_probs[s, 1])) * (odds(clean) - odds(log_probs[s, 1]))
                        ).mean(0).sum() for s in range(2)])  # fmt: skip
    assert measure("slope", sums) == pytest.approx(product / change)
    tied = Outcomes.of(np.zeros((1, 1, 1, 2)), np.array([[0.0, 1.0]]))
    assert measure("agreement", tied.sums(([0], [0]), None).sum(0)) == 0.5


def test_random_sets_are_matched_by_layer_and_leave_named_heads_out() -> None:
    own = [(0, 1), (0, 2), (2, 0)]
    sets = random_sets(own, [*own, (1, 1)], 3, 6, 20, np.random.default_rng(0))
    assert len(sets) == len(set(sets)) == 20
    for one in sets:
        assert not {*own, (1, 1)} & set(one) and [layer for layer, _ in one] == [0, 0, 2]
    assert len(random_sets([(0, 0)], [(0, 0)], 1, 3, 10, np.random.default_rng(0))) == 2  # there are no more
    assert random_sets([(0, 0), (0, 1)], [(0, 0), (0, 1)], 1, 3, 10, np.random.default_rng(0)) == []
    crowded = random_sets([(0, 0), (0, 1)], [(0, 0), (0, 1)], 2, 2, 1, np.random.default_rng(0))
    assert crowded == [((1, 0), (1, 1))]
    weights = {(0, 1): np.full((2, 3), 1.0), (5, 0): np.full((2, 3), 2.0)}
    taken = nearest_weights([(0, 1), (2, 3), (3, 0), (5, 0)], weights, 2, 3)
    assert taken[0, :, 0].tolist() == [1, 1, 2, 2]


def test_a_tiny_model_with_its_own_weights_repeats_and_saves(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Any
) -> None:
    model = tiny_model("llama", 128)
    texts = [f"{a} {b}" for a in ("old", "new", "king", "ball") for b in ("ring", "cake", "file")]
    frame = pd.DataFrame({"text": texts, "label": ["good" if i % 2 else "bad" for i in range(12)]})
    prompts = fewshot_prompts(
        FewShotTask("letters", frame, template="{text}\n{label}\n\n"), 2, 6, tokenizer=tiny_tokenizer, seed=0
    )
    before = wrap(model).checksum()
    weights = {(1, 2): np.ones((6, 2)), (2, 0): np.ones((6, 2))}
    found = kernel_causality(model, prompts, weights, span="label", seed=3, n_random=3, **QUICK)
    assert wrap(model).checksum() == before and not wrap(model).has_hooks()
    # uniform weights given as the kernel are the uniform condition, and permuting them changes nothing
    kernel, uniform, drawn = (found.conditions.index(name) for name in ("kernel", "uniform", "permuted 0"))
    np.testing.assert_allclose(found.log_probs[:, kernel], found.log_probs[:, uniform], atol=1e-5)
    np.testing.assert_allclose(found.log_probs[:, kernel], found.log_probs[:, drawn], atol=1e-5)
    assert value(found, "faithfulness") == pytest.approx(0, abs=0.01)
    again = kernel_causality(model, prompts, weights, span="label", seed=3, n_random=3, **QUICK)
    assert again.frame.equals(found.frame)
    assert KernelCausality.load(found.save(tmp_path / "found")) == found


def test_pictures(found: KernelCausality) -> None:
    from mechicl.views.causality import plot_faithfulness_of_kernels, plot_followed_changes

    labels = [text.get_text() for text in found.plot().get_legend().get_texts()]
    assert labels[0].startswith("kernel weights: 1.00 [1.00, 1.00]")
    assert not any("random heads" in label for label in labels)  # undefined here
    points = plot_followed_changes(found).lines[-1]
    np.testing.assert_allclose(points.get_xdata(), points.get_ydata(), atol=1e-9)
    with pytest.raises(ValueError, match="expected one of"):
        plot_faithfulness_of_kernels(found, reference="own")
    with pytest.raises(ValueError, match="condition"):
        plot_followed_changes(found, condition="none")


def test_bad_input(planted: PlantedKernel, prompts: list[FewShotPrompt]) -> None:
    head, good = planted.heads["rbf"], np.ones((16, 5))

    def run(weights: Any = None, own: Any = prompts, **options: Any) -> Any:
        return kernel_causality(planted.model, own, {head: good} if weights is None else weights, **QUICK, **options)

    with pytest.raises(ValueError, match="no head"):
        run({})
    with pytest.raises(ValueError, match="shape"):
        run({head: good[:, :3]})
    with pytest.raises(ValueError, match="exponentiated"):
        run({head: -good})
    with pytest.raises(ValueError, match="no weights"):
        run(sets={"other": [(1, 1)]})
    with pytest.raises(ValueError, match="has no heads"):
        run(sets={"empty": []})
    with pytest.raises(ValueError, match="has no head"):
        run({(7, 0): good})
    with pytest.raises(ValueError, match="span"):
        run(span="query")
    with pytest.raises(ValueError, match="different query"):
        run({head: good[:2]}, [prompts[0], prompts[0]])
    with pytest.raises(ValueError, match="equally many"):
        run(own=[*prompts[:15], replace(prompts[15], demos=prompts[15].demos[:4])])
    alike = replace(prompts[0], label_tokens=((9, 1), (9, 2)))
    with pytest.raises(ValueError, match="begin with the same token"):
        run(own=[alike, *prompts[1:]])
