"""Mixtures of HMMs: against all hidden paths, against the one merged HMM, and against counts of what is drawn."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from mechicl.predictors.hmm_bayes import label_probs, posterior_prediction, task_posterior, true_prediction
from mechicl.tasks.hmm import HMMMixture, check_mixture_shapes, random_mixture
from mechicl.tasks.hmm_prompts import HMMPrompts, sample_prompts


def small(seed=0, switch=0.0, prior=None, **options):
    made = random_mixture(3, 3, 4, seed=seed, switch=switch, **options)
    return made if prior is None else replace(made, prior=np.array(prior))


def by_hidden_paths(mixture, task, x):
    """P_theta(x), and P_theta(state after x, x), by summing over every sequence of hidden states."""
    joint = np.zeros(mixture.n_states)
    for path in product(range(mixture.n_states), repeat=len(x)):
        p, state = 1.0, mixture.start[task]
        for observation, following in zip(x, path, strict=True):
            p *= mixture.emissions[task, state, observation] * mixture.transitions[task, state, following]
            state = following
        joint[state] += p
    return joint.sum(), joint


def test_the_forward_algorithm_sums_over_all_hidden_paths() -> None:
    mixture = small()
    x = np.array([[0, 1, 3, 2], [2, 2, 0, 1]])
    logs, states = mixture.forward(x)
    following = mixture.next_probs(x)
    for item, task in product(range(2), range(3)):
        total, joint = by_hidden_paths(mixture, task, x[item])
        assert np.exp(logs[item, task]) == pytest.approx(total, rel=1e-12)
        np.testing.assert_allclose(states[item, task], joint / total, rtol=1e-12)
        expected = [by_hidden_paths(mixture, task, [*x[item], y])[0] / total for y in range(4)]
        np.testing.assert_allclose(following[item, task], expected, rtol=1e-11)


def test_leading_axes_and_empty_sequences() -> None:
    mixture = small()
    x = np.random.default_rng(0).integers(4, size=(2, 5, 3))
    logs, states = mixture.forward(x)
    assert logs.shape == (2, 5, 3) and states.shape == (2, 5, 3, 3)
    np.testing.assert_array_equal(mixture.forward(x[1, 4])[0], logs[1, 4])
    logs, states = mixture.forward(x[..., :0])
    assert (logs == 0).all()
    np.testing.assert_array_equal(states[0, 0], np.eye(3)[mixture.start])


def by_merged_chain(mixture, tokens, stop):
    """The next observation after a prompt, by the S x S forward algorithm over all of its tokens."""
    belief, transitions, emissions = mixture.merged(stop=stop)
    for token in tokens:
        belief = (belief * emissions[:, token]) @ transitions
        belief = belief / belief.sum()
    following = (belief @ emissions)[:-1]
    return following / following.sum()


def test_the_merged_hmm_has_rows_of_probabilities() -> None:
    begin, transitions, emissions = small(switch=0.3, prior=[0.5, 0.3, 0.2]).merged()
    assert begin.shape == (12,) and transitions.shape == (12, 12) and emissions.shape == (12, 5)
    for rows in (begin, transitions, emissions):
        assert (rows >= 0).all() and rows.sum(-1) == pytest.approx(1)


@pytest.mark.parametrize("switch", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("stop", [0.1, 0.7])
def test_the_posterior_is_that_of_the_one_merged_hmm(switch, stop) -> None:
    mixture = small(seed=3, switch=switch, prior=[0.5, 0.3, 0.2], emission_concentration=1.0)
    prompts = sample_prompts(mixture, 12, 5, 2, seed=1)
    found = posterior_prediction(mixture, prompts, counts=[5, 0, 2])
    for at, n in enumerate((5, 0, 2)):
        tokens = prompts.first(n).tokens()
        assert tokens.shape == (12, 4 * n + 2)
        for item in range(12):
            expected = by_merged_chain(mixture, tokens[item], stop)
            np.testing.assert_allclose(found[at, item], expected, rtol=1e-9)
    np.testing.assert_allclose(posterior_prediction(mixture, prompts)[0], found[0], rtol=1e-12)


def test_a_task_drawn_anew_each_time_forgets_the_demonstrations() -> None:
    mixture = small(seed=3, switch=1.0)
    prompts = sample_prompts(mixture, 5, 8, 2, seed=1)
    many, none = task_posterior(mixture, prompts, counts=[8, 0])
    np.testing.assert_allclose(many, none, rtol=1e-12)
    certain = task_posterior(small(seed=3), prompts, counts=[8])[0]
    assert np.abs(certain - none).max() > 0.1


def test_long_prompts_and_long_sequences_stay_finite() -> None:
    mixture = small(seed=4)
    prompts = sample_prompts(mixture, 3, 2_000, 3, seed=0)
    found = posterior_prediction(mixture, prompts)
    np.testing.assert_allclose(found[0], true_prediction(mixture, prompts), atol=1e-12)  # the task is certain by now
    long = sample_prompts(mixture, 3, 0, 5_000, seed=0)
    logs, _ = mixture.forward(long.query)
    own = logs[np.arange(3), long.task]
    assert np.isfinite(own).all() and (own < -800).all()  # exp(-800) is 0 in float64
    np.testing.assert_allclose(mixture.next_probs(long.query)[np.arange(3), long.task].sum(-1), 1, rtol=1e-12)


def test_what_a_task_cannot_make_has_no_weight_and_what_none_can_is_refused() -> None:
    emissions = np.array([[[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]]])
    mixture = HMMMixture(np.ones((2, 1, 1)), emissions, np.zeros(2, dtype=int), np.full(2, 0.5))
    logs, states = mixture.forward(np.array([[1, 0], [1, 2]]))
    assert np.isneginf(logs).tolist() == [[False, True], [True, False]]
    assert (states[0, 1] == 0).all()

    def prompt(x, y, query):
        return HMMPrompts(np.array([[x]]), np.array([[y]]), np.array([query]), np.array([1]), np.array([0]), 3)

    np.testing.assert_allclose(posterior_prediction(mixture, prompt([1], 0, [1]))[0, 0], [0.5, 0.5, 0.0])
    for switch in (0.0, 0.5):
        other = replace(mixture, switch=switch)
        with pytest.raises(ValueError, match="1 of 1 prompts can be made by no task"):
            posterior_prediction(other, prompt([0], 2, [1]))


def test_many_states_in_blocks_are_the_merged_hmm_too() -> None:
    mixture = random_mixture(8, 80, 100, seed=0)
    prompts = sample_prompts(mixture, 2, 4, 3, seed=0)
    found = posterior_prediction(mixture, prompts)[0]
    for item in range(2):
        np.testing.assert_allclose(found[item], by_merged_chain(mixture, prompts.tokens()[item], 0.25), atol=1e-12)


# ------------------------------------------------------------------------------------------- what is drawn


def test_what_is_drawn_has_the_probabilities_of_its_task() -> None:
    mixture = small(seed=5)
    prompts = sample_prompts(mixture, 1, 60_000, 2, task=1, seed=0)
    assert (prompts.task == 1).all()
    x = np.array(list(product(range(4), repeat=3)))
    expected = np.exp(mixture.forward(x)[0][:, 1])
    codes = prompts.x[0] @ [16, 4] + prompts.y[0]
    counted = np.bincount(codes, minlength=64) / 60_000
    assert np.abs(counted - expected).max() < 5 * np.sqrt(0.25 / 60_000)
    assert expected.sum() == pytest.approx(1)
    assert (counted[expected == 0] == 0).all()
    assert label_probs(mixture, 2)[1] == pytest.approx(expected.reshape(16, 4).sum(0), rel=1e-12)


def test_tasks_come_from_the_prior() -> None:
    tasks = sample_prompts(small(prior=[0.7, 0.3, 0.0]), 20_000, 0, 1, seed=0).task
    assert np.bincount(tasks, minlength=3) / 20_000 == pytest.approx([0.7, 0.3, 0.0], abs=0.02)


def test_mixtures_and_prompts_are_pure_functions_of_their_seeds() -> None:
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, again, other = (random_mixture(2, 3, 5, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.transitions, again.transitions)
    assert not np.array_equal(first.transitions, other.transitions)
    assert first.checksum() == again.checksum() != other.checksum()
    assert replace(first, switch=0.1).checksum() != first.checksum()
    wider = random_mixture(2, 3, 5, seed=1, emission_concentration=1.0)
    np.testing.assert_array_equal(first.transitions, wider.transitions)  # generators of their own
    one, same, new = (sample_prompts(first, 4, 3, 2, seed=s).tokens() for s in ((1, 2), (1, 2), (1, 3)))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, new)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_prompts_as_tokens_cut_short_and_permuted() -> None:
    prompts = sample_prompts(small(), 6, 30, 2, seed=2)
    tokens = prompts.tokens()
    assert len(prompts) == 6 and tokens.shape == (6, 30 * 4 + 2)
    assert (tokens[:, 3::4] == 4).all() and (tokens != 4).sum() == 6 * (30 * 3 + 2)
    np.testing.assert_array_equal(tokens[:, 4:6], prompts.x[:, 1])
    np.testing.assert_array_equal(tokens[:, 6], prompts.y[:, 1])
    np.testing.assert_array_equal(prompts.first(7).x, prompts.x[:, :7])
    control = prompts.permuted(seed=0)
    np.testing.assert_array_equal(control.y, prompts.y)
    assert not np.array_equal(control.x, prompts.x)
    for own, other in zip(prompts.x, control.x, strict=True):
        assert sorted(own.tolist()) == sorted(other.tolist())


# ------------------------------------------------------------------------------------------- input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_tasks": 0}, "got n_tasks=0; expected 1 or more"),
        ({"n_states": 0}, "got n_states=0"),
        ({"n_observations": 1}, "got n_observations=1; expected 2 or more"),
        ({"transition_concentration": 0.0}, "got transition_concentration=0.0"),
        ({"emission_concentration": np.inf}, "got emission_concentration=inf"),
        ({"switch": 1.5}, "got switch=1.5; expected a probability"),
    ],
)
def test_mixtures_that_cannot_be_are_refused(options, message) -> None:
    with pytest.raises(ValueError) as error:
        random_mixture(**{"n_tasks": 2, "n_states": 3, "n_observations": 4, "seed": 0} | options)
    assert message in str(error.value)


def test_rows_that_are_no_probabilities_are_refused() -> None:
    good = small()
    for name in ("transitions", "emissions", "prior"):
        for change in (
            lambda rows: rows * 1.01,
            lambda rows: rows * np.nan,
            lambda rows: 2 * rows - 1 / rows.shape[-1],
        ):
            fields = {n: getattr(good, n) for n in ("transitions", "emissions", "start", "prior")}
            with pytest.raises(ValueError, match=f"got {name} with a row that is no probability"):
                HMMMixture(**fields | {name: change(fields[name] + 1e-3 * (name == "prior"))})
    with pytest.raises(ValueError, match=r"start states \[0, 1, 3\]; expected numbers from 0 to 2"):
        HMMMixture(good.transitions, good.emissions, np.array([0, 1, 3]), good.prior)


FITTING = {"transitions": (2, 3, 3), "emissions": (2, 3, 5), "start": (2,), "prior": (2,)}
BAD_SHAPES = [("transitions", (2, 3, 4)), ("transitions", (0, 3, 3)), ("transitions", (3, 3)), ("emissions", (2, 4, 5)),
              ("emissions", (2, 3, 1)), ("start", (3,)), ("prior", (3,))]  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), BAD_SHAPES)
def test_shapes_that_do_not_go_together_are_refused(name, shape) -> None:
    check_mixture_shapes(**FITTING)
    with pytest.raises(ValueError, match=f"got {name} of shape"):
        check_mixture_shapes(**FITTING | {name: shape})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: sample_prompts(m, 0, 1, 1, seed=0), "got n_prompts=0"),
        (lambda m: sample_prompts(m, 1, -1, 1, seed=0), "got n_demos=-1"),
        (lambda m: sample_prompts(m, 1, 1, 0, seed=0), "got length=0"),
        (lambda m: sample_prompts(m, 1, 1, 1, task=3, seed=0), "got task=3; expected a number from 0 to 2"),
        (lambda m: m.forward(np.array([0, 4])), "the delimiter, 4, stands between"),
        (lambda m: m.forward(np.array([-1])), "got observations from -1"),
        (lambda m: m.merged(stop=0.0), "got stop=0.0"),
        (lambda m: sample_prompts(m, 2, 3, 1, seed=0).first(4), "got n_demos=4; expected 0 to 3"),
        (lambda m: posterior_prediction(m, sample_prompts(m, 2, 3, 1, seed=0), counts=[4]), "expected numbers from 0"),
        (lambda m: posterior_prediction(m, sample_prompts(m, 2, 3, 1, seed=0), counts=[]), "expected numbers from 0"),
    ],
)
def test_bad_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call(small())
