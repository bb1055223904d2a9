"""Predictors against naive loops, closed forms and each other; and what they refuse."""

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mechicl.predictors.examples import check_shapes
from mechicl.predictors.gradient import (
    best_preconditioner,
    best_rate,
    diverges,
    gradient_descent,
    gradient_descent_plus,
    gradient_descent_plus_weights,
    gradient_descent_weights,
    least_squares,
    least_squares_weights,
    nearest_neighbours,
    newton,
    newton_weights,
    preconditioned_gradient,
    preconditioned_gradient_weights,
    ridge,
    ridge_weights,
)
from mechicl.tasks.regression import RegressionTask

REFUSED = (ValueError, TypeCheckError)  # jaxtyping may see wrong shapes first


def contexts(dim=4, n_demos=6, n=20, seed=0, **options):
    c = RegressionTask(dim, n_demos, **options).sample(n, seed=seed)
    return c.x, c.y, c.query


# ------------------------------------------------------------------------------------------- naive loops


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_gradient_descent_is_the_gradient_of_the_loss(steps):
    """One context at a time, with a numerical gradient of R(w)."""
    x, y, query = contexts(noise=0.3)
    found = gradient_descent(x, y, query, rate=0.7, steps=steps)
    for i in range(len(y)):
        w = np.zeros(4)

        def loss(w, i=i):
            return sum((w @ x[i, j] - y[i, j]) ** 2 for j in range(6)) / 12

        for _ in range(steps):
            slope = [(loss(w + 1e-4 * e) - loss(w - 1e-4 * e)) / 2e-4 for e in np.eye(4)]  # exact: R is quadratic
            w = w - 0.7 * np.array(slope)
        assert found[i] == pytest.approx(w @ query[i], abs=1e-9)
        assert gradient_descent_weights(x, y, rate=0.7, steps=steps)[i] == pytest.approx(w, abs=1e-9)


def test_preconditioned_steps_are_a_naive_loop():
    x, y, query = contexts(noise=0.3)
    matrices = np.random.default_rng(0).standard_normal((3, 4, 4))
    found = preconditioned_gradient(x, y, query, matrices=matrices)
    for i in range(len(y)):
        w = np.zeros(4)
        for a in matrices:
            w = w + a @ sum((y[i, j] - w @ x[i, j]) * x[i, j] for j in range(6)) / 6
        assert found[i] == pytest.approx(w @ query[i], rel=1e-12, abs=1e-12)
    weights = preconditioned_gradient_weights(x, y, matrices=list(matrices))
    assert (weights * query).sum(-1) == pytest.approx(found, rel=1e-12, abs=1e-12)


def test_gradient_descent_plus_is_a_naive_loop():
    """Residuals, inputs and the query's prediction token by token, as the layers of a transformer change them."""
    x, y, query = contexts(noise=0.3)
    rates, gammas = [0.5, 0.9, 0.7], [0.1, -0.05, 0.2]
    found = gradient_descent_plus(x, y, query, rate=rates, gamma=gammas, steps=3)
    for i in range(len(y)):
        xs, rest, at, prediction = x[i].copy(), y[i].copy(), query[i].copy(), 0.0
        for rate, gamma in zip(rates, gammas, strict=True):
            step = rate / 6 * sum(rest[j] * xs[j] for j in range(6))
            gram = sum(np.outer(xs[j], xs[j]) for j in range(6))
            prediction += step @ at
            rest = np.array([rest[j] - step @ xs[j] for j in range(6)])
            xs = np.array([xs[j] - gamma * gram @ xs[j] for j in range(6)])
            at = at - gamma * gram @ at
        assert found[i] == pytest.approx(prediction, rel=1e-12, abs=1e-12)


def test_newton_is_the_iteration_on_matrices():
    x, y, query = contexts(noise=0.3)
    for steps in (0, 1, 4):
        found = newton(x, y, query, steps=steps)
        for i in range(len(y)):
            s = x[i].T @ x[i]
            m = s / np.linalg.norm(s, 2) ** 2
            for _ in range(steps):
                m = 2 * m - m @ s @ m
            assert found[i] == pytest.approx(query[i] @ m @ x[i].T @ y[i], rel=1e-10, abs=1e-12)


def test_nearest_neighbours_is_a_sort():
    x, y, query = contexts()
    for k in (1, 3, 6):
        found = nearest_neighbours(x, y, query, k=k)
        for i in range(len(y)):
            order = sorted(range(6), key=lambda j, i=i: np.linalg.norm(x[i, j] - query[i]))
            assert found[i] == pytest.approx(np.mean([y[i, j] for j in order[:k]]), abs=1e-12)
    same = np.zeros((1, 3, 2))
    assert nearest_neighbours(same, np.array([[1.0, 2.0, 9.0]]), np.zeros((1, 2)), k=2) == pytest.approx([1.5])


# ------------------------------------------------------------------------------------------- closed forms


def test_algorithms_meet_where_they_must():
    x, y, query = contexts(noise=0.3)
    one = gradient_descent(x, y, query, rate=0.7, steps=5)
    assert gradient_descent_plus(x, y, query, rate=0.7, gamma=0.0, steps=5) == pytest.approx(one, abs=1e-12)
    assert preconditioned_gradient(x, y, query, matrices=[0.7 * np.eye(4)] * 5) == pytest.approx(one, abs=1e-12)
    exact = least_squares(x, y, query)
    assert ridge(x, y, query, penalty=0.0) == pytest.approx(exact, abs=1e-12)
    assert ridge(x, y, query, penalty=1e-9) == pytest.approx(exact, abs=1e-6)
    assert newton(x, y, query, steps=40) == pytest.approx(exact, abs=1e-9)
    assert gradient_descent(x, y, query, rate=1.0, steps=20_000) == pytest.approx(exact, abs=1e-6)
    assert np.abs(ridge(x, y, query, penalty=1e9)).max() < 1e-6
    assert np.abs(one - exact).max() > 0.01  # five steps are not enough to hide a difference


def test_least_squares_is_numpys_and_the_shortest_with_few_points():
    for n_demos in (2, 4, 9):
        x, y, _ = contexts(n_demos=n_demos, noise=0.1)
        found = least_squares_weights(x, y)
        for i in range(len(y)):
            assert found[i] == pytest.approx(np.linalg.lstsq(x[i], y[i], rcond=None)[0], abs=1e-9)
    x, y, _ = contexts(dim=5, n_demos=2)
    assert newton_weights(x, y, steps=60) == pytest.approx(least_squares_weights(x, y), abs=1e-9)


def test_ridge_is_the_bayesian_predictor():
    """The posterior mean of w under w ~ N(0, t^2 I) and noise s, by conditioning of Gaussians in label space."""
    task = RegressionTask(4, 3, noise=0.5, weight_scale=2.0)
    c = task.sample(10, seed=1)
    found = ridge_weights(c.x, c.y, penalty=0.25 / 4.0)
    for i in range(10):
        joint = 4.0 * c.x[i] @ c.x[i].T + 0.25 * np.eye(3)
        assert found[i] == pytest.approx(4.0 * c.x[i].T @ np.linalg.solve(joint, c.y[i]), abs=1e-10)


def test_newtons_share_of_least_squares_by_eigenvalue():
    x, y, _ = contexts(n=5)
    for i in range(5):
        values, vectors = np.linalg.eigh(x[i].T @ x[i])
        exact = vectors.T @ least_squares_weights(x[i], y[i])
        for steps in (0, 2, 5):
            share = 1 - (1 - (values / values[-1]) ** 2) ** (2**steps)
            assert vectors.T @ newton_weights(x[i], y[i], steps=steps) == pytest.approx(share * exact, abs=1e-9)


@pytest.mark.parametrize(
    ("dim", "n_demos", "options", "half"),
    [
        (10, 10, {"scale": 0.5}, 0.20623),
        (10, 10, {"scale": 1.0}, 0.8249),
        (5, 8, {"inputs": "normal"}, 2.5 * (1 - 8 / 14)),  # v dim (1 - v^2 / s) with s = (n + dim + 1) / n
    ],
)
def test_the_best_rate_has_the_loss_it_promises_and_others_have_more(dim, n_demos, options, half):
    """By Monte Carlo within 4 standard errors; the loss at other rates is higher by the parabola through it."""
    task = RegressionTask(dim, n_demos, **options)
    variance, fourth = task.moments
    rate, loss = best_rate(dim, n_demos, variance=variance, fourth_moment=fourth)
    assert loss / 2 == pytest.approx(half, rel=1e-4)
    c = task.sample(40_000, seed=2)
    errors = {f: (gradient_descent(c.x, c.y, c.query, rate=f * rate) - c.target) ** 2 for f in (0.8, 1.0, 1.2)}
    spread = errors[1.0].std() / np.sqrt(len(c))
    assert errors[1.0].mean() == pytest.approx(loss, abs=4 * spread)
    for factor in (0.8, 1.2):
        rise = errors[factor] - errors[1.0]
        expected = 0.04 * (variance * dim - loss)
        assert rise.mean() == pytest.approx(expected, abs=4 * rise.std() / np.sqrt(len(c)))


def test_one_step_by_the_best_rate_is_best_for_normal_inputs_too():
    rate, _ = best_rate(5, 8, variance=1.0, fourth_moment=3.0)
    assert rate == pytest.approx(8 / 14)
    assert best_preconditioner(np.eye(5), 8) == pytest.approx(rate * np.eye(5))


def test_the_best_preconditioner_beats_its_neighbours():
    """No small change of the matrix, in any of 10 directions, lowers the loss on the same contexts."""
    rng = np.random.default_rng(3)
    basis = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    covariance = (basis * [2.0, 0.5, 0.1]) @ basis.T
    best = best_preconditioner(covariance, 6)
    c = RegressionTask(3, 6, inputs="normal", covariance=covariance).sample(60_000, seed=4)

    def errors(matrix):
        return (preconditioned_gradient(c.x, c.y, c.query, matrices=[matrix]) - c.target) ** 2

    at_best = errors(best)
    for _ in range(10):
        other = best + 0.3 * np.linalg.norm(best) * rng.standard_normal((3, 3)) / 3
        rise = errors(other) - at_best
        assert rise.mean() > -2 * rise.std() / np.sqrt(len(c))
    assert at_best.mean() < errors(best_rate(3, 6, variance=2.6 / 3, fourth_moment=3.0)[0] * np.eye(3)).mean()


# ------------------------------------------------------------------------------------------- divergence


def test_divergence_begins_at_two_over_the_largest_eigenvalue():
    x, y, query = contexts(n=8)
    largest = np.array([np.linalg.eigvalsh(part.T @ part / 6)[-1] for part in x])
    for i, limit in enumerate(2 / largest):
        assert not diverges(x[i], 0.99 * limit)
        assert diverges(x[i], limit * (1 + 1e-12))
        near = gradient_descent(x[i], y[i], query[i], rate=0.99 * limit, steps=2000)
        assert near == pytest.approx(least_squares(x[i], y[i], query[i]), abs=0.1)
        assert np.linalg.norm(gradient_descent_weights(x[i], y[i], rate=1.01 * limit, steps=2000)) > 1e6
    assert diverges(x, 2 / largest.max() * (1 + 1e-12)).sum() == 1
    assert not diverges(np.zeros((3, 2)), 1e9)


def test_numbers_that_overflow_are_reported():
    x, y, query = contexts()
    with pytest.raises(ValueError, match=r"diverged in 20 of 20 contexts.*see `diverges`"):
        gradient_descent(x, y, query, rate=1e3, steps=2000)
    with pytest.raises(ValueError, match="diverged"):
        gradient_descent_plus(x, y, query, rate=1.0, gamma=1e3, steps=500)
    with pytest.raises(ValueError, match="preconditioned descent over 900 steps diverged"):
        preconditioned_gradient(x, y, query, matrices=[-9 * np.eye(4)] * 900)
    assert np.isfinite(gradient_descent(x, y, query, rate=50.0, steps=5)).all()  # grows, and may be compared with


# ------------------------------------------------------------------------------------------- input


def test_leading_axes_are_contexts_of_their_own():
    x, y, query = contexts(n=6)
    together = gradient_descent(x.reshape(2, 3, 6, 4), y.reshape(2, 3, 6), query.reshape(2, 3, 4), rate=0.5, steps=2)
    assert together.shape == (2, 3)
    alone = [float(gradient_descent(x[i], y[i], query[i], rate=0.5, steps=2)) for i in range(6)]
    assert together.ravel() == pytest.approx(alone, abs=1e-15)
    before = x.copy(), y.copy(), query.copy()
    gradient_descent_plus(x, y, query, rate=0.5, gamma=0.1, steps=3)
    assert all(np.array_equal(a, b) for a, b in zip(before, (x, y, query), strict=True))


@pytest.mark.parametrize(
    ("x", "y", "query", "message"),
    [
        ((3, 0, 2), (3, 0), (3, 2), "no demonstrations"),
        ((3, 4, 2), (3, 5), (3, 2), "expected (3, 4): one label for each x"),
        ((3, 4, 2), (3, 4), (3, 5), "expected (3, 2): one query a context, with the 2 numbers of an x"),
        ((3, 4, 2), (3, 4), (4, 2), "got query of shape (4, 2)"),
        ((3,), (), (3,), "expected [*batch, demo, dim]"),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(x, y, query, message):
    with pytest.raises(ValueError) as error:
        check_shapes(x, y, query)
    assert message in str(error.value)
    for predict in (least_squares, lambda *a: gradient_descent(*a, rate=1.0), lambda *a: newton(*a, steps=1),
                    lambda *a: ridge(*a, penalty=1.0), lambda *a: nearest_neighbours(*a, k=1)):  # fmt: skip
        with pytest.raises(REFUSED):
            predict(np.ones(x), np.ones(y), np.ones(query))


def test_no_demonstrations_are_refused_by_the_weights_too():
    for weights in (least_squares_weights, lambda x, y: newton_weights(x, y, steps=1),
                    lambda x, y: ridge_weights(x, y, penalty=1.0),
                    lambda x, y: gradient_descent_plus_weights(x, y, rate=1.0, gamma=0.0, steps=1)):  # fmt: skip
        with pytest.raises(ValueError, match="no demonstrations"):
            weights(np.zeros((2, 0, 3)), np.zeros((2, 0)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda *a: gradient_descent(*a, rate=1.0, steps=-1), "got steps=-1; expected 0 or more"),
        (lambda *a: gradient_descent(*a, rate=[1.0, 2.0], steps=3), "got 2 values of rate for 3 steps"),
        (lambda *a: gradient_descent(*a, rate=np.nan), "got rate=nan"),
        (lambda *a: newton(*a, steps=-2), "got steps=-2"),
        (lambda *a: ridge(*a, penalty=-1.0), "got penalty=-1"),
        (lambda *a: nearest_neighbours(*a, k=0), "got k=0"),
        (lambda *a: nearest_neighbours(*a, k=7), "got k=7 with 6 demonstrations"),
        (lambda x, y, q: least_squares(x * np.nan, y, q), "x with numbers that are not finite"),
        (lambda x, y, q: least_squares(x, y, q / 0), "query with numbers that are not finite"),
        (lambda *a: best_rate(0, 5, variance=1.0, fourth_moment=3.0), "got dim=0"),
        (lambda *a: best_rate(5, 5, variance=1.0, fourth_moment=0.5), "fourth_moment=0.5"),
        (lambda *a: best_preconditioner(np.array([[1.0, 0.0], [0.0, -1.0]]), 5), "covariance that is not symmetric"),
        (lambda *a: best_preconditioner(np.eye(2), 0), "got n=0"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
def test_parameters_without_a_meaning_are_refused(call, message):
    with pytest.raises(ValueError) as error:
        call(*contexts())
    assert message in str(error.value)


def test_a_preconditioner_of_the_wrong_shape_is_refused():
    with pytest.raises(REFUSED, match=r"expected \(4, 4\)|type-?check"):
        preconditioned_gradient(*contexts(), matrices=[np.eye(3)])
    with pytest.raises(ValueError, match=r"for step 0; expected \(4, 4\), all finite"):
        preconditioned_gradient(*contexts(), matrices=[np.full((4, 4), np.inf)])
