"""What models of numeric tasks say at several lengths, against the models asked one by one and exact predictors."""

from typing import Any

import numpy as np
import pytest
import torch

from mechicl.accounts.distances import ceiling_distance, prediction_distance
from mechicl.accounts.regression import regression_accounts
from mechicl.analyses.rivals.numeric import read_numeric, reordered
from mechicl.organisms import load_classifier, load_regressor
from mechicl.organisms.classification_recipes import find_classifier
from mechicl.organisms.gradient_constructions import descending_transformer
from mechicl.organisms.grid import grid_model_folder, load_grid_model, read_point
from mechicl.organisms.grid.vector_model import RotaryRegressor, RotaryRegressorConfig
from mechicl.predictors import classification, urns
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.regression import RegressionTask
from mechicl.tasks.urns import UrnTask

TASK = RegressionTask(dim=3, n_demos=8, inputs="normal", noise=0.1, weight_scale=2.0)
URNS = UrnTask(dim=4, context=16, diversity=5)
QUICK: dict[str, Any] = {"n_contexts": 20, "n_orders": 4}


def counting(balls):
    """Add-one counts of urns: the same in every order."""
    return urns.generalising(np.column_stack([balls, np.zeros(len(balls), int)]), 4)[:, -1]


def last_ball(balls):
    return 0.6 * np.eye(4)[balls[:, -1]] + 0.1


@pytest.fixture(scope="module")
def urn_model():
    return load_grid_model("urns-general"), read_point(grid_model_folder("urns-general")).task


def test_a_transformer_of_urns_is_asked_for_the_next_ball(urn_model):
    model, task = urn_model
    model.train()  # a flag that must survive
    found: list[Any] = read_numeric(model, task, lengths=(2, 9), n_contexts=12, n_orders=3, seed=1)
    assert model.training
    model.eval()
    for one in found:
        tokens = np.column_stack([np.full(12, task.dim), one.examples.balls])
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens), attention_mask=torch.ones(12, one.length + 1, dtype=torch.int64))
        exact = logits[:, -1, : task.dim].double().softmax(-1).numpy()
        assert one.model == pytest.approx(exact, abs=1e-6)
        assert one.orders.shape == (3, 12, task.dim)
        assert np.array_equal(one.orders[0], one.model)
        assert not np.allclose(one.orders[1], one.model, atol=1e-9)
        assert one.orders[1] == pytest.approx(one.model, abs=0.1)  # it has learned that order is nothing


def test_beginnings_of_one_sequence_share_their_cluster():
    short, long = read_numeric(counting, URNS, lengths=(5, 3), **QUICK)
    assert (short.length, long.length) == (3, 5)
    assert np.array_equal(short.examples.balls, long.examples.balls[:, :3])
    assert np.array_equal(short.cluster, long.cluster)
    assert np.array_equal(short.truth, np.eye(4)[long.examples.balls[:, 3]])


def test_order_costs_nothing_where_it_is_not_read():
    for one in read_numeric(counting, URNS, **QUICK):
        assert ceiling_distance(one) == pytest.approx(0, abs=1e-15)
    by_last = read_numeric(last_ball, URNS, lengths=(10,), **QUICK)[0]
    assert ceiling_distance(by_last).mean() > 0.05


def test_other_orders_have_the_same_demonstrations():
    examples = read_numeric(counting, URNS, lengths=(7,), **QUICK)[0].examples
    other = reordered(examples, np.random.default_rng(0))
    assert np.array_equal(np.sort(other.balls), np.sort(examples.balls))
    assert (other.balls != examples.balls).any(axis=-1).sum() > 10
    pairs = read_numeric(lambda x, y, q: q[..., 0], TASK, lengths=(6,), **QUICK)[0].examples
    moved = reordered(pairs, np.random.default_rng(0))
    for row in range(20):
        place = [int(np.flatnonzero(pairs.y[row] == y)[0]) for y in moved.y[row]]
        assert sorted(place) == list(range(6))
        assert np.array_equal(moved.x[row], pairs.x[row][place])
    assert np.array_equal(moved.query, pairs.query)


def test_chains_have_no_other_order():
    task = ChainTask(dim=4, context=9, diversity=3)
    found = read_numeric(lambda states: np.full((len(states), 4), 0.25), task, **QUICK)
    assert [one.length for one in found] == [2, 3, 4, 6, 8]
    assert all(one.orders is None and not ceiling_distance(one).any() for one in found)
    assert found[0].examples.kind == "chains"


def test_regressors_read_the_first_demonstrations():
    model = load_regressor("regression-softmax-2")
    task = RegressionTask(dim=5, n_demos=10, inputs="normal")
    short, long = read_numeric(model, task, lengths=(3, 10), **QUICK)
    x, y, query = long.examples.x[:, :3], long.examples.y[:, :3], long.examples.query
    assert short.model[:, 0] == pytest.approx(model.predict(x, y, query), abs=1e-5)
    assert long.truth[:, 0] == pytest.approx(task.sample(20, seed=(0, 1, 1000)).target)
    assert (long.examples.noise_variance, long.examples.weight_variance) == (0.0, 1.0)


def test_an_exact_descent_is_predicted_at_every_length_and_order():
    model = descending_transformer(3, rate=0.1, steps=2)
    found = read_numeric(model, TASK, lengths=(2, 8), **QUICK)
    descent = {one.name: one for one in regression_accounts(TASK)}["gradient descent"]
    for one in found:
        said = descent.predict(one.examples, steps=2, loss="mean", rate=0.1)
        assert prediction_distance(one.model, said).max() < 1e-20
        assert ceiling_distance(one).max() < 1e-20
        assert (one.examples.noise_variance, one.examples.weight_variance) == (pytest.approx(0.01), 4.0)


def test_models_of_one_length_are_read_at_that_alone():
    assert [one.length for one in read_numeric(descending_transformer(3, rate=0.1), TASK, **QUICK)] == [8]
    assert [one.length for one in read_numeric(lambda x, y, q: q[..., 0], TASK, **QUICK)] == [2, 3, 4, 6, 8]


def test_pooled_regression_is_asked_for_the_next_label():
    task = PooledRegressionTask(dim=3, context=6, diversity=4)
    model = RotaryRegressor(RotaryRegressorConfig(3, 5, 1, d_model=8, n_heads=1, d_mlp=8), dtype=torch.float64)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    found = read_numeric(model, task, lengths=(2, 5), **QUICK)
    batch = task.sample(20, step=(1, 1000, 0))
    for one in found:
        k = one.length
        after_each = model.after_each(*model.tensors(batch.x[:, :k], batch.y[:, :k], batch.x[:, k]))
        assert one.model[:, 0] == pytest.approx(after_each[:, -1].detach().numpy())
        assert one.truth[:, 0] == pytest.approx((task.pool[batch.task] * batch.x[:, k]).sum(-1))
        assert np.array_equal(one.examples.pool, task.pool)
    fresh = read_numeric(model, task, lengths=(2,), fresh=True, **QUICK)[0]
    assert fresh.truth[:, 0] == pytest.approx(task.sample(20, step=(1, 1000, 0), fresh=True).y[:, 2])


def test_queries_of_classification_are_among_the_pairs():
    """Without noise the query is one of the pairs, whose label is the truth."""
    task = ClassificationTask(dim=4, n_pairs=6, diversity=50, noise=1e-9)
    found = read_numeric(lambda x, y, q: np.full((len(q), 2), 0.5), task, lengths=(1, 2, 6), **QUICK)
    assert len(np.unique(np.concatenate([one.cluster for one in found]))) == 60
    for one in found:
        assert np.array_equal(one.examples.nearest, one.truth)
        apart = np.linalg.norm(one.examples.x - one.examples.query[:, None], axis=-1).min(-1)
        assert apart.max() < 1e-3
        assert one.examples.x.shape == (20, one.length, 4)
    assert not np.array_equal(found[1].examples.query, found[2].examples.query)


def test_classifiers_are_read_as_they_are():
    model, task = load_classifier("classifier-general"), find_classifier("classifier-general").task
    (one,) = read_numeric(model, task, **QUICK)
    assert one.length == task.n_pairs
    assert np.array_equal(one.model, model.probabilities(one.examples.x, one.examples.y, one.examples.query))
    fresh = read_numeric(model, task, lengths=(31,), n_contexts=150, n_orders=0, fresh=True)[0]
    assert fresh.orders is None
    general = classification.generalising(fresh.examples.query, fresh.examples.x, fresh.examples.y)
    memory = classification.memorising(fresh.examples.query, task.pool, task.pool_labels)
    apart = [prediction_distance(fresh.model, other).mean() for other in (general, memory)]
    assert apart[0] < 0.1 < apart[1]  # of items that it never saw it can know nothing


def test_contexts_are_a_pure_function_of_the_seed():
    first, again, other = (read_numeric(last_ball, URNS, lengths=(6,), seed=seed, **QUICK)[0] for seed in (1, 1, 2))
    assert first.orders is not None and again.orders is not None
    assert np.array_equal(first.orders, again.orders)
    assert not np.array_equal(first.examples.balls, other.examples.balls)


@pytest.mark.parametrize(
    ("model", "task", "options", "match"),
    [
        (counting, URNS, {"n_contexts": 7}, "n_contexts=7"),
        (counting, URNS, {"lengths": (3, 16)}, "from 1 to 15"),
        (counting, URNS, {"lengths": (0,)}, "from 1 to 15"),
        (counting, URNS, {"lengths": ()}, "from 1 to 15"),
        (counting, UrnTask(dim=4, context=1), {}, "context=2 or more"),
        (lambda balls: np.full((len(balls), 3), 1 / 3), URNS, {}, "gave shape"),
        (3, URNS, {}, "expected a TransformerLens model"),
        (descending_transformer(4, rate=0.1), TASK, {}, "dimension 3 for a model that reads 4"),
        (3, ClassificationTask(), {}, "probabilities"),
    ],
)
def test_errors(model, task, options, match):
    with pytest.raises(ValueError, match=match):
        read_numeric(model, task, **options)


def test_models_made_for_other_tasks(urn_model):
    with pytest.raises(ValueError, match="9 tokens for a task of 4 outcomes"):
        read_numeric(urn_model[0], URNS)
    with pytest.raises(ValueError, match="reads 65 tokens"):
        read_numeric(urn_model[0], UrnTask(dim=8, context=80))
    with pytest.raises(ValueError, match="made for 10 demonstrations"):
        read_numeric(load_regressor("regression-softmax-1"), RegressionTask(dim=5, n_demos=12))
    with pytest.raises(TypeError, match="RegressionTask"):
        read_numeric(urn_model[0], "urns")
