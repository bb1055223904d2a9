"""Phenomena beside kernel accounts: a model that is a kernel regression, recounted tables, controls, and bad input."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Float

from mechicl.analyses.phenomena.conditions import Condition, standard_conditions
from mechicl.analyses.phenomena.experiments import KernelPhenomena, kernel_phenomena
from mechicl.hooks.scoring import score
from mechicl.organisms.kernel_model import PlantedKernel, planted_kernel
from mechicl.predictors.votes import label_votes
from mechicl.results import load
from mechicl.tasks.facts import sentiment_task
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts
from mechicl.tasks.fewshot_prompt import shown_numbers

mpl.use("Agg")
QUICK: dict[str, Any] = {"n_boot": 100, "n_permutations": 200, "progress": False}
# the conditions that single-token items allow without changing a word
NAMES = ("zero shot", "random", "flipped labels", "random labels", "order")
BY_LIKENESS = [
    Condition("similar", {"demonstrations": "similar"}),
    Condition("dissimilar", {"demonstrations": "dissimilar"}),
]


def true_votes(planted: PlantedKernel) -> Any:
    """The kernel that the model is made of, and the same for another prompt's query."""

    def votes(prompts: Sequence[FewShotPrompt]) -> Mapping[str, Float[np.ndarray, "item label"]]:
        x = planted.vectors
        queries, demos = x[[one.query for one in prompts]], x[[one.demos for one in prompts]]
        found = {}
        for name, asked in (("true kernel", queries), ("other query", np.roll(queries, 1, axis=0))):
            weights = np.exp(-((demos - asked[:, None]) ** 2).sum(-1) / (2 * planted.bandwidth**2))
            found[name] = label_votes(weights, shown_numbers(prompts), len(prompts[0].labels))
        return found

    return votes


@pytest.fixture(scope="module")
def planted() -> PlantedKernel:
    return planted_kernel(n_items=80, seed=1)


@pytest.fixture(scope="module")
def found(planted: PlantedKernel) -> KernelPhenomena:
    x = planted.vectors
    return kernel_phenomena(
        planted.model, planted.task, n_demos=6, n_queries=40, conditions=[*NAMES, *BY_LIKENESS], n_orders=3,
        votes=true_votes(planted), similarity=-((x[:, None] - x[None]) ** 2).sum(-1), **QUICK,
    )  # fmt: skip


def rows(frame: pd.DataFrame, predictor: str) -> pd.DataFrame:
    return frame[frame["predictor"] == predictor].set_index("condition")


def test_the_kernel_that_the_model_is_accounts_for_all(found: KernelPhenomena) -> None:
    own, model = rows(found.frame, "true kernel"), rows(found.frame, "ICL")
    asked = own.drop(index="zero shot")
    assert (asked["agreement"] == 1).all()
    np.testing.assert_allclose(asked["accuracy"], model.loc[asked.index, "accuracy"])
    account = rows(found.accounts, "true kernel").drop(index="zero shot")
    assert (account["gap"].abs() < 1e-12).all() and (account["p"] == 1).all()
    correlation = found.correlations.set_index("predictor")["correlation"]
    assert correlation["true kernel"] > 1 - 1e-9


def test_the_kernel_of_another_query_does_not(found: KernelPhenomena) -> None:
    other = rows(found.frame, "other query").drop(index="zero shot")
    assert (abs(other["agreement"] - other["agreement_chance"]) < 0.3).all() and (other["agreement"] < 0.8).all()
    assert abs(other.loc["random", "accuracy"] - 0.5) < 0.25


def test_what_is_known_of_this_model(found: KernelPhenomena) -> None:
    model, verdicts = rows(found.frame, "ICL"), rows(found.accounts, "true kernel")["verdict"]
    assert found.chance == 0.5 and model.loc["zero shot", "accuracy"] == 0.5
    assert model.loc["random", "low"] > 0.5
    # balanced demonstrations: with both labels exchanged every answer is the other one
    assert model.loc["flipped labels", "accuracy"] == pytest.approx(1 - model.loc["random", "accuracy"])
    assert model.loc["flipped labels", "changed"] == 1 and model.loc["flipped labels", "p_holm"] < 0.05
    assert verdicts["flipped labels"] == "both change" and verdicts["zero shot"] == "no account"
    assert rows(found.accounts, "majority").loc["flipped labels", "verdict"] == "only the model changes"


def test_order_is_nothing_to_a_kernel(found: KernelPhenomena) -> None:
    orders = found.orders.set_index("predictor")
    assert (orders["n_orders"] == 3).all()
    for name in ("ICL", "true kernel", "majority"):
        assert orders.loc[name, "disagreement"] == 0 and orders.loc[name, "accuracy_sd"] == 0
        assert rows(found.frame, name).loc["order", "changed"] == 0
    assert 0.3 < orders.loc["recency", "disagreement"] < 0.7  # three of six labels are the other one: 18 of 30 pairs
    assert orders.loc["recency", "low"] > 0.1


def test_a_model_that_goes_by_recency() -> None:
    planted = planted_kernel(n_items=40, writes=["recency"], decay=0.2, seed=0)
    found = kernel_phenomena(planted.model, planted.task, n_demos=4, n_queries=20, conditions=["order"], **QUICK)
    assert (rows(found.frame, "recency")["agreement"] == 1).all()
    orders = found.orders.set_index("predictor")
    assert orders.loc["ICL", "disagreement"] == orders.loc["recency", "disagreement"] > 0.3
    np.testing.assert_array_equal(
        found.items.query("predictor == 'ICL'")["right"], found.items.query("predictor == 'recency'")["right"]
    )


def test_items_are_what_the_model_answers(planted: PlantedKernel, found: KernelPhenomena) -> None:
    """Recounted prompt by prompt from plain scores."""
    made = fewshot_prompts(
        planted.task, 6, 40, tokenizer=planted.tokenizer, seed=0, labels="random", n_ctx=planted.model.cfg.n_ctx
    )
    own = found.items.query("condition == 'random labels' and predictor == 'ICL'")
    assert own["query"].tolist() == [one.query for one in made]
    for one, (_, row) in zip(made, own.iterrows(), strict=True):
        values = score(
            planted.model, [one.prompt.tokens] * 2, list(one.label_tokens), prepend_bos=False, progress=False
        )
        odds = values[one.answer] - values[1 - one.answer]
        assert row["log_odds"] == pytest.approx(odds, abs=1e-4)
        assert row["right"] == (0.5 if abs(odds) < 1e-9 else float(odds > 0))
    table = rows(found.frame, "ICL")
    assert table.loc["random labels", "accuracy"] == pytest.approx(own["right"].mean())
    difference = own["right"].mean() - found.items.query("condition == 'random' and predictor == 'ICL'")["right"].mean()
    assert table.loc["random labels", "difference"] == pytest.approx(difference)


def test_results_are_kept_and_drawn(found: KernelPhenomena, tmp_path: Any) -> None:
    assert load(found.save(tmp_path / "kept")) == found
    assert found.to_frame().equals(found.frame)
    ax = found.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == list(dict.fromkeys(found.frame["condition"]))
    drawn = {text.get_text() for text in ax.get_legend().get_texts()}
    assert drawn == {"chance", "ICL", "TF-IDF kernel", "nearest neighbour", "majority", "recency", "true kernel"}
    from mechicl.views.phenomena import plot_phenomena

    one = plot_phenomena(found, predictors=["recency"])
    marks = [line for line in one.get_lines() if line.get_marker() != "None" and len(line.get_xdata())]
    shown = sorted(float(x) for line in marks for x in line.get_xdata() if np.isfinite(x))
    expected = found.frame[found.frame["predictor"].isin(["ICL", "recency"])]["accuracy"].dropna()
    np.testing.assert_allclose(shown, sorted(expected))
    with pytest.raises(ValueError, match="Got the predictor 'x'"):
        plot_phenomena(found, predictors=["x"])
    mpl.pyplot.close("all")


@pytest.fixture(scope="module")
def sentences(tiny_model: Any) -> KernelPhenomena:
    """All standard conditions, on a model that knows nothing."""
    frame = sentiment_task().frame.assign(text=lambda x: x["text"].str.split().str[:4].str.join(" "))
    return kernel_phenomena(
        tiny_model("gpt2", 512), FewShotTask("short", frame, template="{text}\n{label}\n\n"), n_demos=2, n_queries=6,
        n_orders=2, **QUICK,
    )  # fmt: skip


def test_all_conditions_run_and_none_is_known_to_a_random_model(sentences: KernelPhenomena) -> None:
    names = [condition.name for condition in standard_conditions(sentiment_task())]
    assert list(dict.fromkeys(sentences.frame["condition"])) == names
    model = rows(sentences.frame, "ICL")
    assert (model["p_holm"].dropna() > 0.05).all()
    kept = ["other words", "other format", "order"]  # a kernel over texts and labels sees none of these
    assert (rows(sentences.frame, "TF-IDF kernel").loc[kept, "changed"] == 0).all()
    assert (model.loc[kept, "changed"] > 0).any()
    notes = "; ".join(sentences.notes)
    assert "unrelated texts: 100% of the demonstrations' texts are changed" in notes
    assert "other task: 100% of the demonstrations show a label that may not be answered: no vote" in notes
    queries = sentences.items.groupby(["condition", "version", "predictor"])["query"].agg(tuple)
    assert set(queries) == {queries.iloc[0]}


def test_what_a_task_does_not_allow_is_a_note(tiny_model: Any) -> None:
    task = FewShotTask(
        "n", pd.DataFrame({"text": list("abcdefgh"), "label": list("xyxyxyxy")}), template="{text}\n{label}\n"
    )
    model = tiny_model("gpt2", 512)
    made = kernel_phenomena(model, task, n_demos=2, n_queries=3, n_orders=1, **QUICK)
    assert any(note.startswith("rare words: left out, the texts hold 0 words") for note in made.notes)
    assert "rare words" not in set(made.frame["condition"]) and made.orders.empty
    with pytest.raises(ValueError, match="the texts hold 0 words"):
        kernel_phenomena(model, task, n_demos=2, n_queries=3, conditions=["rare words"], **QUICK)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"conditions": ["noise"]}, "got the condition 'noise'; expected some of random, zero shot"),
        ({"conditions": "order"}, "expected a sequence of names"),
        ({"conditions": [Condition("a"), Condition("a")]}, "give each a name of its own"),
        ({"conditions": [Condition("random", {"labels": "flipped"})]}, "ask for them by name"),
        ({"n_queries": 2}, "n_queries=2"),
        ({"n_orders": 0}, "n_orders=0"),
        ({"n_boot": 10}, "n_boot=10"),
        ({"level": 1.5}, "level=1.5"),
        ({"n_demos": 60}, r"demonstrations has \d+ tokens, but the context window holds \d+; \d+ of them fit"),
        ({"conditions": [], "votes": lambda prompts: {"majority": np.ones((len(prompts), 2))}}, "two predictors"),
        ({"conditions": [], "votes": lambda prompts: {"mine": np.ones((len(prompts), 3))}}, r"the shape \(5, 3\)"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str, planted: PlantedKernel) -> None:
    with pytest.raises(ValueError, match=message):
        kernel_phenomena(planted.model, planted.task, **{"n_demos": 3, "n_queries": 5, **QUICK, **options})
