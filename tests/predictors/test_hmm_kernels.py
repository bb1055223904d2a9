"""The theorem's kernel: against dense S x S operators and explicit loops, and what it converges to."""

from itertools import product

import numpy as np
import pytest

from mechicl.predictors.hmm_bayes import label_probs, true_prediction
from mechicl.predictors.hmm_kernels import (
    all_inputs,
    input_features,
    log_pretraining,
    signed_average,
    theorem_kernel,
)
from mechicl.tasks.hmm import HMMMixture, random_mixture
from mechicl.tasks.hmm_prompts import sample_prompts

M, LENGTH = 5, 2


def mixture_of(seed=0, n_tasks=2, n_states=3, **options):
    return random_mixture(n_tasks, n_states, M, seed=seed, **options)


def telling_mixture():
    """The second observation tells which of two lasting states a sequence has entered, and so the label."""
    transitions = np.broadcast_to([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], (3, 3, 3)).copy()
    emissions = np.random.default_rng(0).dirichlet(np.full(M, 0.5), size=(3, 3))
    return HMMMixture(transitions, emissions, np.zeros(3, dtype=int), np.full(3, 1 / 3))


def dense_operator(mixture, x):
    """T_x of the merged HMM without its delimiter: S x S, made from S x S matrices."""
    n, k = mixture.n_tasks, mixture.n_states
    transitions, found = np.zeros((n * k, n * k)), np.eye(n * k)
    for task in range(n):
        transitions[task * k : (task + 1) * k, task * k : (task + 1) * k] = mixture.transitions[task]
    for observation in x:
        found = found @ np.diag(mixture.emissions[:, :, observation].ravel()) @ transitions
    return found


def dense_kernel(mixture, features):
    """K of all inputs by the definition: full vec(T_x), Sigma by a loop over inputs, numpy's pseudo-inverse."""
    begin = np.zeros(mixture.n_tasks * mixture.n_states)
    for task in range(mixture.n_tasks):
        begin[task * mixture.n_states + mixture.start[task]] += mixture.prior[task]
    rows, pre = [], []
    for x in product(range(M), repeat=LENGTH):
        operator = dense_operator(mixture, x)
        pre.append(begin @ operator @ np.ones(len(begin)))
        rows.append(operator.ravel() / (pre[-1] if features == "ratio" else 1))
    sigma = sum(p * np.outer(row, row) for p, row in zip(pre, rows, strict=True))
    return np.array(rows) @ np.linalg.pinv(sigma, rcond=1e-10, hermitian=True) @ np.array(rows).T, np.array(pre)


@pytest.mark.parametrize("features", ["ratio", "literal"])
def test_blocks_give_the_kernel_of_dense_operators(features) -> None:
    mixture = mixture_of(emission_concentration=1.0, transition_concentration=1.0)
    kernel = theorem_kernel(mixture, LENGTH, features=features)
    inputs = all_inputs(mixture, LENGTH)
    assert inputs.tolist() == [list(x) for x in product(range(M), repeat=LENGTH)]
    expected, pre = dense_kernel(mixture, features)
    np.testing.assert_allclose(np.exp(log_pretraining(mixture, inputs)), pre, rtol=1e-12)
    embedded = kernel.embed(inputs)
    np.testing.assert_allclose(embedded @ embedded.T, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    assert kernel.rank < 2 * 9 and kernel.n_inputs == 25  # rank deficient: the pseudo-inverse matters


def test_features_are_the_blocks_of_the_operator_and_their_start_rows() -> None:
    mixture = mixture_of(seed=1)
    x = np.array([[0, 3, 1, 1]])
    dense = dense_operator(mixture, x[0])
    blocks = np.array([dense[:3, :3], dense[3:, 3:]])
    literal = input_features(mixture, x, features="literal")
    np.testing.assert_allclose(literal[0], blocks.ravel(), rtol=1e-10)
    starts = input_features(mixture, x, features="literal", rows="start")
    np.testing.assert_allclose(starts[0], np.concatenate([blocks[t, mixture.start[t]] for t in range(2)]), rtol=1e-10)
    ratio = input_features(mixture, x)
    np.testing.assert_allclose(ratio[0] * np.exp(log_pretraining(mixture, x)), literal[0], rtol=1e-10)


def test_calls_are_products_of_embeddings_however_inputs_repeat() -> None:
    mixture = mixture_of()
    kernel = theorem_kernel(mixture, LENGTH)
    for n_demos in (3, 200):  # fewer and more than there are distinct inputs
        prompts = sample_prompts(mixture, 4, n_demos, LENGTH, seed=0)
        expected = np.einsum("bdr,br->bd", kernel.embed(prompts.x), kernel.embed(prompts.query))
        np.testing.assert_allclose(kernel(prompts.query, prompts.x), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(kernel(prompts.query[1], prompts.x[1]), expected[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rows", ["all", "start"])
def test_the_ratio_is_exact_on_the_population_and_the_literal_form_is_not(rows) -> None:
    """With every (x, y) weighted by P_theta(x, y) in place of a sample, sums are expectations: n is infinite."""
    mixture = mixture_of(seed=2, n_tasks=3)
    inputs = all_inputs(mixture, LENGTH)
    logs, _ = mixture.forward(inputs)
    following = mixture.next_probs(inputs)
    for features, exact in (("ratio", True), ("literal", False)):
        embedded = theorem_kernel(mixture, LENGTH, features=features, rows=rows).embed(inputs)
        for task in range(3):
            made = logs[:, task] > np.log(1e-6)
            joint = np.exp(logs[:, task])[:, None] * following[:, task]
            votes = embedded @ (embedded.T @ joint)
            found = votes / votes.sum(-1, keepdims=True)
            error = np.abs(found - following[:, task])[made].max()
            assert error < 1e-6 if exact else error > 1e-3


def test_a_task_that_is_there_twice_adds_no_direction() -> None:
    one = mixture_of(seed=6, n_tasks=1)
    twice = HMMMixture(
        one.transitions.repeat(2, axis=0), one.emissions.repeat(2, axis=0), one.start.repeat(2), np.full(2, 0.5)
    )
    single, double = (theorem_kernel(mixture, 3) for mixture in (one, twice))
    assert double.whitening.shape[0] == 2 * single.whitening.shape[0]
    assert double.rank == single.rank  # the other eigenvalues are rounding, and would be divided by
    x = sample_prompts(one, 1, 20, 3, seed=0)
    np.testing.assert_allclose(double(x.query, x.x), single(x.query, x.x), rtol=1e-6, atol=1e-6)


def test_drawn_inputs_approach_all_of_them() -> None:
    mixture = mixture_of(emission_concentration=1.0, transition_concentration=1.0)
    x = all_inputs(mixture, LENGTH)
    exact = theorem_kernel(mixture, LENGTH).embed(x)
    drawn = theorem_kernel(mixture, LENGTH, n_inputs=200_000, seed=1)
    found = drawn.embed(x)
    assert drawn.n_inputs == 200_000
    likely = log_pretraining(mixture, x) > np.log(0.02)
    np.testing.assert_allclose((found @ found.T)[likely][:, likely], (exact @ exact.T)[likely][:, likely], atol=1.0)
    again = theorem_kernel(mixture, LENGTH, n_inputs=300, seed=1).whitening
    np.testing.assert_array_equal(again, theorem_kernel(mixture, LENGTH, n_inputs=300, seed=1).whitening)


def test_long_inputs_neither_vanish_nor_overflow() -> None:
    mixture = mixture_of()
    x = sample_prompts(mixture, 4, 0, 3_000, seed=0).query
    features = input_features(mixture, x)
    assert np.isfinite(features).all() and (features.max(-1) > 0.1).all()
    assert (log_pretraining(mixture, x) < -800).all()


def test_the_ratio_converges_to_the_conditional_and_the_null_control_to_label_frequencies() -> None:
    mixture = telling_mixture()
    prompts = sample_prompts(mixture, 30, 20_000, LENGTH, seed=0)
    kernel = theorem_kernel(mixture, LENGTH)
    true, labels = true_prediction(mixture, prompts), label_probs(mixture, LENGTH)[prompts.task]

    def error(given, n, target):
        weights = kernel(given.query, given.x)[:, :n]
        return np.abs(signed_average(weights, given.y[:, :n], M) - target).max(-1)

    early, late = error(prompts, 200, true), error(prompts, 20_000, true)
    assert np.median(late) < np.median(early) / 4 < 0.05
    control = prompts.permuted(seed=1)
    assert np.median(error(control, 20_000, labels)) < 0.02
    informative = np.abs(true - labels).max(-1) > 0.2
    assert informative.sum() > 5
    assert (error(control, 20_000, true)[informative] > 2 * late[informative]).all()


# ------------------------------------------------------------------------------------------- averages


def test_averages_are_those_of_a_loop_with_weights_of_both_signs() -> None:
    rng = np.random.default_rng(0)
    weights, y = rng.standard_normal((2, 3, 6)), rng.integers(4, size=(2, 3, 6))
    ratio, mean = (signed_average(weights, y, 4, normalise=one) for one in (True, False))
    assert ratio.shape == mean.shape == (2, 3, 4)
    for at in np.ndindex(2, 3):
        votes = np.zeros(4)
        for weight, label in zip(weights[at], y[at], strict=True):
            votes[label] += weight
        np.testing.assert_allclose(mean[at], votes / 6, atol=1e-12)
        np.testing.assert_allclose(ratio[at], votes / weights[at].sum(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(signed_average(weights[at], y[at], 4), ratio[at], rtol=1e-12)


def test_weights_that_are_all_zero_leave_label_frequencies() -> None:
    y = np.array([[0, 2, 2, 1]])
    np.testing.assert_allclose(signed_average(np.zeros((1, 4)), y, 3), [[0.25, 0.25, 0.5]])
    np.testing.assert_allclose(signed_average(np.zeros((1, 4)), y, 3, normalise=False), 0)
    cancel = np.array([[0.1, 0.2, -0.3, 0.0]])  # sums to 5e-17
    np.testing.assert_allclose(signed_average(cancel, y, 3), [[0.25, 0.25, 0.5]])


# ------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "phi"}, "got features='phi'"),
        ({"rows": "last"}, "rows='last'"),
        ({"length": 0}, "got length=0"),
        ({"n_inputs": 0}, "n_inputs=0"),
        ({"tolerance": 0.0}, "got tolerance=0.0"),
    ],
)
def test_kernels_that_cannot_be_are_refused(options, message) -> None:
    with pytest.raises(ValueError) as error:
        theorem_kernel(mixture_of(), **{"length": 2} | options)
    assert message in str(error.value)


def test_too_many_features_name_the_cure() -> None:
    large = random_mixture(2, 50, M, seed=0)
    with pytest.raises(ValueError, match=r"5000 features, more than 4096; take rows='start'"):
        theorem_kernel(large, 1)
    assert theorem_kernel(large, 1, rows="start").whitening.shape[0] == 100


def test_inputs_that_never_occur_and_other_lengths_are_refused() -> None:
    emissions = np.array([[[0.5, 0.5, 0.0]]])
    mixture = HMMMixture(np.ones((1, 1, 1)), emissions, np.zeros(1, dtype=int), np.ones(1))
    kernel = theorem_kernel(mixture, 2)
    assert kernel.rank == 1
    with pytest.raises(ValueError, match=r"1 of 2 inputs never occur in pre-training"):
        kernel.embed(np.array([[0, 1], [0, 2]]))
    with pytest.raises(ValueError, match="this kernel is for length 2"):
        kernel.embed(np.array([[0, 1, 1]]))
    with pytest.raises(ValueError, match="got observations"):
        kernel.embed(np.array([[0, 3]]))


def test_bad_weights_and_labels_are_refused() -> None:
    y = np.array([0, 1])
    for weights, labels, message in (
        (np.array([1.0, np.nan]), y, "not finite"),
        (np.ones(2), np.array([0, 5]), "got observations"),
        (np.ones(0), np.zeros(0, dtype=int), "n >= 1"),
    ):
        with pytest.raises(ValueError, match=message):
            signed_average(weights, labels, 3)
