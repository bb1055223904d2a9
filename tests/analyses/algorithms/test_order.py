"""Order: none for batch descent by construction, a known amount for learners that read in turn."""

from functools import partial

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mechicl import results
from mechicl.analyses.algorithms.order import online_descent, order_sensitivity, weighted_descent
from mechicl.organisms.gradient_constructions import descending_transformer
from mechicl.organisms.regression_transformer import RegressionTransformer, SoftmaxConfig
from mechicl.predictors.gradient import gradient_descent
from mechicl.tasks.regression import RegressionTask

TASK = RegressionTask(3, 6, inputs="normal")
CONTEXTS = TASK.sample(300, seed=5)
GIVEN = CONTEXTS.x, CONTEXTS.y, CONTEXTS.query
QUICK = {"n_orders": 6, "n_boot": 200}


def test_online_descent_is_a_plain_loop() -> None:
    expected = []
    for x, y, query in zip(*GIVEN, strict=True):
        w = np.zeros(3)
        for one, label in zip(x, y, strict=True):
            w = w + 0.2 * (label - w @ one) * one
        expected.append(w @ query)
    np.testing.assert_allclose(online_descent(*GIVEN, rate=0.2), expected, atol=1e-12)


def test_weighted_descent_weighs_by_place() -> None:
    strength = 0.5 ** np.array([5, 4, 3, 2, 1, 0])
    w = 0.7 / 6 * np.einsum("n,bnd,bn->bd", strength / strength.mean(), CONTEXTS.x, CONTEXTS.y)
    np.testing.assert_allclose(weighted_descent(*GIVEN, rate=0.7, decay=0.5), (w * CONTEXTS.query).sum(-1), atol=1e-12)
    np.testing.assert_allclose(
        weighted_descent(*GIVEN, rate=0.7, decay=1.0), gradient_descent(*GIVEN, rate=0.7), atol=1e-12
    )


def test_a_descending_model_does_not_see_the_order() -> None:
    found = order_sensitivity(descending_transformer(3, rate=0.4), CONTEXTS, **QUICK)
    rows = found.frame.set_index("predictor")
    assert rows["spread"]["model"] < 1e-25 and rows["spread"]["gradient_descent"] < 1e-25
    assert rows["spread"]["online_descent"] > 1e-3
    assert rows["agreement"].isna().all()  # with nothing to agree on
    assert found.parameters["weighted_descent"]["decay"] == pytest.approx(1.0)
    assert found.parameters["gradient_descent"]["rate"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("predict", "name"),
    [
        (partial(online_descent, rate=0.2), "online_descent"),
        (partial(weighted_descent, rate=0.6, decay=0.6), "weighted_descent"),
    ],
)
def test_learners_that_read_in_turn_are_found(predict, name) -> None:
    found = order_sensitivity(predict, CONTEXTS, **QUICK)
    rows = found.frame.set_index("predictor")
    assert rows["agreement"][name] > 0.98
    assert rows["agreement"][name] == rows["agreement"].max()
    assert abs(rows["by_chance"][name]) < 0.15
    assert rows["low"]["model"] > 0.005
    assert rows["spread"][name] == pytest.approx(rows["spread"]["model"], rel=0.25)


def test_the_spread_is_what_the_formula_says() -> None:
    """Two demonstrations have two orders; half of the random draws are of either."""
    two = RegressionTask(2, 2, inputs="normal").sample(400, seed=0)
    predict = partial(online_descent, rate=0.3)
    found = order_sensitivity(predict, two, n_orders=400, n_boot=100)
    rows = np.random.default_rng(0).permutation(400)[200:]
    ways = np.stack([predict(two.x[rows][:, o], two.y[rows][:, o], two.query[rows]) for o in ([0, 1], [1, 0])])
    expected = ways.var(0).sum() / (ways**2).mean(0).sum()
    assert found.frame["spread"].iloc[0] == pytest.approx(expected, rel=0.02)


def test_an_untrained_model_depends_on_order_without_agreeing(tmp_path) -> None:
    model = RegressionTransformer(SoftmaxConfig(3, 6, 2, d_model=16, n_heads=2, d_mlp=16))
    model.randomise(seed=1)
    found = order_sensitivity(model, CONTEXTS, **QUICK)
    rows = found.frame.set_index("predictor")
    assert rows["spread"]["untrained"] > 1e-6
    assert abs(rows["agreement"]["online_descent"]) < 0.3
    assert found.verdict.startswith("model: spread ")
    plt.switch_backend("agg")
    assert found.plot().has_data()
    plt.close("all")
    found.save(tmp_path / "order")
    assert results.load(tmp_path / "order") == found


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="n_orders=1"):
        order_sensitivity(gradient_descent, CONTEXTS, n_orders=1)
    with pytest.raises(ValueError, match="demonstration"):
        order_sensitivity(gradient_descent, RegressionTask(2, 1).sample(40, seed=0))
