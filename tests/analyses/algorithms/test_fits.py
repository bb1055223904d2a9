"""Which algorithm predicts a regressor: models made by hand and pure predictors are found, random ones are not."""

from functools import cache, partial

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.optimize import approx_fprime

from mechicl import results
from mechicl.analyses.algorithms.algorithm_families import FAMILIES, fit_families
from mechicl.analyses.algorithms.algorithm_lengths import curves_over_length
from mechicl.analyses.algorithms.descent_search import best_descent
from mechicl.analyses.algorithms.fits import AlgorithmFit, algorithm_fit
from mechicl.analyses.algorithms.preconditioner_fit import fit_preconditioners
from mechicl.organisms.gradient_constructions import (
    descending_transformer,
    plus_transformer,
    preconditioned_transformer,
)
from mechicl.organisms.regression_transformer import RegressionTransformer, SoftmaxConfig
from mechicl.predictors.gradient import (
    best_rate,
    gradient_descent,
    least_squares,
    nearest_neighbours,
    newton,
    preconditioned_gradient,
    ridge,
)
from mechicl.predictors.spectral import decompose
from mechicl.tasks.regression import RegressionTask

DIM, N = 3, 5
TASK = RegressionTask(DIM, N, inputs="normal")
CONTEXTS = TASK.sample(400, seed=1)
QUICK = {"steps": (1, 2, 3, 4), "n_boot": 200}
MATRICES = [np.array([[0.5, 0.1, 0.0], [0.1, 0.3, 0.0], [0.0, 0.0, 0.2]]), np.diag([0.2, 0.4, 0.3])]
BY_HAND = {
    "one step": (lambda: descending_transformer(DIM, rate=0.4), "gradient_descent", 1),
    "three steps": (lambda: descending_transformer(DIM, rate=0.3, steps=3), "gradient_descent", 3),
    "matrices": (lambda: preconditioned_transformer(MATRICES), "preconditioned_gradient", 2),
    "GD++": (lambda: plus_transformer(DIM, N, rate=0.4, gamma=0.02, steps=3), "gradient_descent_plus", 3),
    "GD++ each": (
        lambda: plus_transformer(DIM, N, rate=[0.5, 0.2], gamma=[0.05, 0.0], steps=2),
        "gradient_descent_plus_each",
        2,
    ),
}


@cache
def fit_of(name: str) -> AlgorithmFit:
    return algorithm_fit(BY_HAND[name][0](), CONTEXTS, **QUICK)


def random_model(seed=0):
    model = RegressionTransformer(SoftmaxConfig(DIM, N, 2, d_model=16, n_heads=2, d_mlp=16))
    model.randomise(seed=seed)
    return model


@pytest.mark.parametrize("name", BY_HAND)
def test_a_model_made_by_hand_is_found_with_its_number_of_steps(name) -> None:
    _, family, steps = BY_HAND[name]
    fit = fit_of(name)
    row = fit.frame.set_index("family").loc[family]
    assert fit.best == fit.named == family
    assert row["steps"] == steps
    assert row["score"] < 1e-20 and row["high"] < 1e-20
    assert row["untrained"] > 0.3
    assert fit.verdict.startswith(f"Nearest to the model: {family}")
    # What has no way to be the same is not: solvers, neighbours, baselines.
    others = fit.frame.set_index("family").loc[["newton", "ridge", "least_squares", "nearest_neighbours", "zero"]]
    assert (others["diff_low"] > 1e-3).all()
    np.testing.assert_allclose(
        fit.algorithm.predict(CONTEXTS.x, CONTEXTS.y, CONTEXTS.query),
        BY_HAND[name][0]().predict(CONTEXTS.x, CONTEXTS.y, CONTEXTS.query),
        atol=1e-9,
    )


def test_the_parameters_of_a_hand_made_model_come_back() -> None:
    np.testing.assert_allclose(fit_of("three steps").parameters["gradient_descent"]["rate"], 0.3, rtol=1e-9)
    np.testing.assert_allclose(
        fit_of("matrices").parameters["preconditioned_gradient"]["matrices"], MATRICES, atol=1e-9
    )
    found = fit_of("GD++").parameters["gradient_descent_plus"]
    np.testing.assert_allclose([found["rate"], found["gamma"]], [0.4, 0.02], rtol=1e-8)


def test_of_families_that_can_copy_each_other_the_simplest_is_named() -> None:
    """Three steps at one rate are also three matrices, and GD++ with gamma 0."""
    fit = fit_of("three steps")
    assert set(fit.tied) == {"preconditioned_gradient", "gradient_descent_plus", "gradient_descent_plus_each"}
    assert "Not told apart from it: " in fit.verdict and "gradient_descent_plus" in fit.verdict


@pytest.mark.parametrize(
    ("predict", "family"),
    [
        (partial(ridge, penalty=0.7), "ridge"),
        (partial(newton, steps=4), "newton"),
        (least_squares, "least_squares"),
        (partial(nearest_neighbours, k=2), "nearest_neighbours"),
        (lambda x, y, query: y.mean(-1), "mean_label"),
    ],
)
def test_a_predictor_wins_its_own_family(predict, family) -> None:
    fit = algorithm_fit(predict, CONTEXTS, **QUICK)
    row = fit.frame.set_index("family").loc[family]
    assert fit.best == family
    assert row["score"] < 1e-20
    assert np.isnan(row["untrained"])
    assert (fit.named is None) == (family == "mean_label")
    assert {"newton": 4.0}.get(family, row["steps"]) == row["steps"] or np.isnan(row["steps"])


def test_a_random_model_is_named_as_none() -> None:
    fit = algorithm_fit(random_model(), CONTEXTS, **QUICK)
    assert fit.named is None
    assert fit.verdict.startswith("No algorithm")
    assert fit.frame["score"].min() > 0.5


def test_noise_alone_beats_no_baseline() -> None:
    """Predictions that have nothing to do with their contexts."""
    noise = np.random.default_rng(3)
    fit = algorithm_fit(lambda x, y, query: noise.standard_normal(len(y)), CONTEXTS, **QUICK)
    assert fit.best == "zero" and fit.named is None
    assert fit.verdict.startswith("No algorithm beats the baselines")


def test_scores_are_what_a_plain_computation_gives() -> None:
    fit = fit_of("one step")
    order = np.random.default_rng(0).permutation(400)[200:]
    x, y, query = CONTEXTS.x[order], CONTEXTS.y[order], CONTEXTS.query[order]
    model = gradient_descent(x, y, query, rate=0.4)
    rows = fit.frame.set_index("family")
    apart = ((least_squares(x, y, query) - model) ** 2).sum() / (model**2).sum()
    assert rows["score"]["least_squares"] == pytest.approx(apart)
    assert rows["difference"]["least_squares"] == pytest.approx(apart)
    assert rows["score"]["zero"] == 1
    target = CONTEXTS.target[order]
    assert fit.model_error == pytest.approx(((model - target) ** 2).sum() / (target**2).sum())
    assert (rows["model_error"] == fit.model_error).all()
    assert rows["task_error"]["least_squares"] < 1e-20
    assert fit.frame["score"].is_monotonic_increasing
    held = rows[["low", "score", "high"]].to_numpy()
    assert (np.diff(held, axis=1) >= -1e-12).all()


def test_with_the_task_the_best_step_has_nothing_to_fit() -> None:
    rate, _ = best_rate(DIM, N, variance=1.0, fourth_moment=3.0)
    fit = algorithm_fit(descending_transformer(DIM, rate=rate), CONTEXTS, task=TASK, **QUICK)
    assert fit.best == "best_step"
    assert fit.frame.set_index("family")["score"]["best_step"] < 1e-20


def test_the_best_rate_of_one_step_is_that_of_least_squares() -> None:
    """One step is linear in its rate."""
    c, goal = CONTEXTS, np.tanh(CONTEXTS.target)
    unit = gradient_descent(c.x, c.y, c.query, rate=1.0)
    (rate,), distance = best_descent(decompose(c.x, c.y, c.query), goal, 1)
    assert rate == pytest.approx((unit * goal).sum() / (unit**2).sum(), rel=1e-5)
    assert distance == pytest.approx(((rate * unit - goal) ** 2).mean())


def test_a_fit_that_is_not_exact_stays_where_descent_does_not_diverge() -> None:
    """Many steps towards least squares want the largest rate there is; on a larger input it would explode."""
    c = CONTEXTS
    spectrum = decompose(c.x, c.y, c.query)
    largest = 2 * float(spectrum.values.max())
    (free,), _ = best_descent(spectrum, c.target, 16)
    (held,), _ = best_descent(spectrum, c.target, 16, largest=largest)
    assert abs(1 - free * largest / N) ** 16 > 100
    assert abs(1 - held * largest / N) ** 16 <= 3.0 < abs(1 - 1.02 * held * largest / N) ** 16
    exact = gradient_descent(c.x, c.y, c.query, rate=free, steps=16)
    assert best_descent(spectrum, exact, 16, largest=largest)[0][0] == pytest.approx(free, rel=1e-6)


def test_fitted_matrices_leave_no_slope() -> None:
    c, goal = CONTEXTS, CONTEXTS.target + 0.3 * CONTEXTS.query[:, 0]
    matrices = fit_preconditioners(c.x, c.y, c.query, goal, np.stack([0.3 * np.eye(DIM)] * 2))

    def loss(flat):
        found = preconditioned_gradient(c.x, c.y, c.query, matrices=flat.reshape(2, DIM, DIM))
        return ((found - goal) ** 2).mean()

    assert abs(approx_fprime(matrices.ravel(), loss, 1e-6)).max() < 1e-4
    start = np.stack([0.3 * np.eye(DIM)] * 2).ravel()
    assert abs(approx_fprime(start, loss, 1e-6)).max() > 1e-2 and loss(matrices.ravel()) < loss(start)


def test_families_that_cannot_be_fitted_are_left_out() -> None:
    few = TASK.sample(20, seed=0)
    found = {algorithm.family for algorithm in fit_families(few, few.target, steps=(1,))}
    assert found == set(FAMILIES) - {
        "best_step", "preconditioned_gradient", "gradient_descent_plus", "gradient_descent_plus_each"
    }  # fmt: skip


def test_curves_over_length_are_the_errors_of_the_first_demonstrations() -> None:
    c = CONTEXTS
    zero = {"zero": lambda x, y, query: np.zeros(len(query))}
    curves = curves_over_length(least_squares, c, zero, lengths=(1, 3), n_boot=100)
    rows = curves.frame.set_index(["predictor", "n_demos"])
    short = least_squares(c.x[:, :1], c.y[:, :1], c.query)
    assert rows["error"]["model", 1] == pytest.approx(((short - c.target) ** 2).sum() / (c.target**2).sum())
    assert rows["error"]["model", 3] < 1e-20  # as many as dimensions, without noise
    assert rows["error"]["zero", 1] == 1 and rows["share"]["zero", 3] == pytest.approx(1)
    assert np.isnan(rows["share"]["model", 1])
    plt.switch_backend("agg")
    assert curves.plot().has_data() and curves.plot(measure="share").has_data()
    plt.close("all")
    with pytest.raises(ValueError, match="lengths"):
        curves_over_length(least_squares, c, {}, lengths=(0,))


def test_a_result_is_drawn_and_comes_back_from_its_folder(tmp_path) -> None:
    plt.switch_backend("agg")
    fit = fit_of("matrices")
    assert len(fit.plot().get_yticklabels()) == len(fit.frame)
    plt.close("all")
    fit.save(tmp_path / "fit")
    assert results.load(tmp_path / "fit") == fit


def test_the_same_seed_gives_the_same_numbers_and_the_model_stays() -> None:
    model = random_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    first, second = (algorithm_fit(model, CONTEXTS, families=("ridge", "zero"), **QUICK) for _ in range(2))
    assert first.frame.equals(second.frame)
    assert all((before[name] == weight).all() for name, weight in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="ridg"):
        algorithm_fit(least_squares, CONTEXTS, families=("ridg",))
    with pytest.raises(ValueError, match="contexts"):
        algorithm_fit(least_squares, TASK.sample(10, seed=0))
    with pytest.raises(ValueError, match="one prediction a context"):
        algorithm_fit(lambda x, y, query: query, CONTEXTS)
    with pytest.raises(ValueError, match="not finite"):
        algorithm_fit(lambda x, y, query: y.mean(-1) * np.nan, CONTEXTS)
    with pytest.raises(ValueError, match="predicts 0"):
        algorithm_fit(lambda x, y, query: 0 * y.mean(-1), CONTEXTS)
    with pytest.raises(ValueError, match="steps"):
        algorithm_fit(least_squares, CONTEXTS, steps=(0,))
