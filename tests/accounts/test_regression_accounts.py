"""Accounts of regression against the predictors of the package, hand-built transformers, and sums written out."""

from dataclasses import replace

import numpy as np
import pytest

from mechicl.accounts.contexts import Contexts
from mechicl.accounts.distances import account_distances
from mechicl.accounts.fitting import fit_account
from mechicl.accounts.regression import KIND, LIMIT, RegressionExamples, regression_accounts
from mechicl.organisms.gradient_constructions import descending_transformer, plus_transformer
from mechicl.predictors import pooled_regression
from mechicl.predictors.gradient import gradient_descent, gradient_descent_plus, ridge
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.regression import RegressionTask

TASK = RegressionTask(dim=4, n_demos=6, inputs="normal", noise=0.5, weight_scale=2.0)
DRAWN = TASK.sample(40, seed=0)
EXAMPLES = RegressionExamples(DRAWN.x, DRAWN.y, DRAWN.query, None, 0.25, 4.0)
POOLED = PooledRegressionTask(dim=3, context=7, diversity=5)


def account(name, of=EXAMPLES):
    return {one.name: one for one in regression_accounts(of)}[name]


def said(name, of=EXAMPLES, **parameters):
    found = account(name, of).predict(of, **parameters)
    assert found.shape == (len(of), 1)
    return found[:, 0]


def pooled_examples(n_demos=6):
    batch = POOLED.sample(30, step=(1, 0))
    own = RegressionExamples(
        batch.x[:, :n_demos], batch.y[:, :n_demos], batch.x[:, n_demos], POOLED.pool, POOLED.noise_variance, 1.0
    )
    return batch, own


def contexts_of(model, examples):
    predicted = model.predict(examples.x, examples.y, examples.query)[:, None]
    return Contexts(examples.x.shape[1], examples, predicted, None, predicted, np.arange(len(examples)))


@pytest.mark.parametrize(("loss", "many"), [("mean", 1), ("sum", 6)])
def test_descents_are_those_of_the_predictors(loss, many):
    exact = gradient_descent(DRAWN.x, DRAWN.y, DRAWN.query, rate=0.05 * many, steps=3)
    assert said("gradient descent", steps=3, loss=loss, rate=0.05) == pytest.approx(exact, rel=1e-10)
    plus = gradient_descent_plus(DRAWN.x, DRAWN.y, DRAWN.query, rate=0.05 * many, gamma=0.02 * many / 6, steps=3)
    assert said("GD++", steps=3, loss=loss, rate=0.05, gamma=0.02) == pytest.approx(plus, rel=1e-10)
    assert not np.allclose(exact, plus)


@pytest.mark.parametrize("n_demos", [3, 6])
def test_a_transformer_that_descends_is_predicted_to_rounding_at_every_length(n_demos):
    few = RegressionExamples(DRAWN.x[:, :n_demos], DRAWN.y[:, :n_demos], DRAWN.query, None, 0.25, 4.0)
    model = descending_transformer(4, rate=0.2, steps=2)
    apart = account_distances(
        account("gradient descent"), contexts_of(model, few), {"steps": 2, "loss": "mean", "rate": 0.2}
    )
    assert apart.max() < 1e-20
    plus = plus_transformer(4, 6, rate=0.2, gamma=0.05, steps=2)
    found = {"steps": 2, "loss": "mean", "rate": 0.2, "gamma": 0.05 * 6}
    assert account_distances(account("GD++"), contexts_of(plus, few), found).max() < 1e-20


def test_fitting_finds_the_steps_and_the_rate_of_a_transformer_that_descends():
    model = descending_transformer(4, rate=0.2, steps=2)
    lengths = [RegressionExamples(DRAWN.x[:, :n], DRAWN.y[:, :n], DRAWN.query, None, 0.25, 4.0) for n in (3, 6)]
    few = replace(account("gradient descent"), choices={"steps": (1, 2), "loss": ("mean", "sum")})
    found = fit_account(few, [contexts_of(model, one) for one in lengths])
    assert (found["steps"], found["loss"]) == (2, "mean")
    assert found["rate"] == pytest.approx(0.2, rel=1e-3)


def test_kernels_are_averages_of_labels_by_hand():
    gaussian, dot = (
        np.array([np.exp(log(q, x) - log(q, x).max()) @ y / np.exp(log(q, x) - log(q, x).max()).sum()
                  for x, y, q in zip(DRAWN.x, DRAWN.y, DRAWN.query, strict=True)])
        for log in (lambda q, x: -((x - q) ** 2).sum(-1) / (2 * 0.7**2), lambda q, x: x @ q / 1.3)
    )  # fmt: skip
    assert said("Gaussian kernel", bandwidth=0.7, shrinkage=1.0) == pytest.approx(gaussian, rel=1e-10)
    assert said("dot-product kernel", temperature=1.3, shrinkage=0.5) == pytest.approx(dot / 2, rel=1e-10)
    assert said("Gaussian kernel", bandwidth=1e-2, shrinkage=0.8) == pytest.approx(
        said("nearest neighbour", shrinkage=0.8)
    )
    assert said("Gaussian kernel", bandwidth=1e6, shrinkage=1.0) == pytest.approx(said("mean label", shrinkage=1.0))


def test_baselines():
    assert not said("zero").any()
    assert said("last label", shrinkage=0.5) == pytest.approx(DRAWN.y[:, -1] / 2)
    assert said("mean label", shrinkage=0.5) == pytest.approx(DRAWN.y.mean(-1) / 2)


def test_bayesian_accounts_are_those_of_the_predictors():
    exact = ridge(DRAWN.x, DRAWN.y, DRAWN.query, penalty=0.25 / 4.0)
    assert said("generalising") == pytest.approx(exact, rel=1e-9)
    noisier = ridge(DRAWN.x, DRAWN.y, DRAWN.query, penalty=3.0)
    assert said("ridge", penalty=3.0) == pytest.approx(noisier, rel=1e-9)
    batch, examples = pooled_examples()
    noise = POOLED.noise_variance
    memory = pooled_regression.memorising(batch.x, batch.y, POOLED.pool, noise_variance=noise)[:, -1]
    general = pooled_regression.generalising(batch.x, batch.y, noise_variance=noise)[:, -1]
    assert said("memorising", examples) == pytest.approx(memory, rel=1e-9)
    assert said("generalising", examples) == pytest.approx(general, rel=1e-9)
    mixed = (3 * memory + general) / 4
    assert said("mixture of strategies", examples, log_odds=np.log(3.0)) == pytest.approx(mixed, rel=1e-9)


def test_only_the_last_label_depends_on_the_order():
    order = np.array([3, 0, 5, 1, 4, 2])
    other = RegressionExamples(DRAWN.x[:, order], DRAWN.y[:, order], DRAWN.query, None, 0.25, 4.0)
    for one in regression_accounts(EXAMPLES):
        parameters = {name: values[1] for name, values in one.choices.items()} | {f.name: f.at(0.4) for f in one.free}
        same = np.allclose(one.predict(EXAMPLES, **parameters), one.predict(other, **parameters), rtol=1e-8)
        assert same == (one.name != "last label"), one.name


def test_a_descent_that_diverges_is_bounded():
    found = said("gradient descent", steps=64, loss="sum", rate=9.0)
    assert np.isfinite(found).all()
    bound = LIMIT * np.sqrt(4.0 * (DRAWN.query**2).sum(-1) + 0.25)
    assert np.abs(found) == pytest.approx(bound)
    assert (np.abs(said("gradient descent", steps=8, loss="mean", rate=0.1)) < bound).all()


def test_ranges_follow_the_spread_of_inputs():
    wide, narrow = (
        {one.name: one for one in regression_accounts(RegressionTask(4, 6, "normal", scale))} for scale in (2.0, 1.0)
    )
    assert wide["gradient descent"].free[0].low == pytest.approx(narrow["gradient descent"].free[0].low / 4)
    assert wide["Gaussian kernel"].free[0].low == pytest.approx(narrow["Gaussian kernel"].free[0].low * 2)
    assert "memorising" not in wide and "memorising" in {one.name for one in regression_accounts(POOLED)}
    assert KIND == "regression"


def test_some_of_the_contexts():
    rows = np.array([5, 5, 2])
    few = EXAMPLES.take(rows)
    assert len(few) == 3
    assert said("generalising", few) == pytest.approx(said("generalising")[rows])


def test_errors():
    with pytest.raises(ValueError, match="weight_variance"):
        RegressionExamples(DRAWN.x, DRAWN.y, DRAWN.query, None, 0.25, 0.0)
    with pytest.raises(ValueError, match="no demonstrations"):
        RegressionExamples(DRAWN.x[:, :0], DRAWN.y[:, :0], DRAWN.query, None, 0.25, 4.0)
    with pytest.raises(ValueError, match="no pool"):
        _ = EXAMPLES.memorising
    with pytest.raises(ValueError, match="all 0"):
        regression_accounts(RegressionExamples(0 * DRAWN.x, DRAWN.y, DRAWN.query, None, 0.25, 4.0))
    with pytest.raises(ValueError, match="expected RegressionExamples"):
        regression_accounts(3)
