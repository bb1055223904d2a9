"""Left-out ridge regression: an explicit one by scikit-learn, chance, and states that do not vary."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mechicl.decoding import decode_over_verbs

RNG = np.random.default_rng(5)
X = RNG.uniform(0.1, 0.9, 12)
STATES = RNG.normal(size=(4, 12, 7)) + 3.0  # the intercept matters
STATES[1, :, 2] += 5 * X
STATES[2] = np.outer(X, RNG.normal(size=7))


def by_hand(states: np.ndarray, x: np.ndarray) -> float:
    """A new fit for every verb that is left out, with the penalty that all verbs give."""
    penalty = 0.1 * ((states - states.mean(0)) ** 2).sum()
    errors, around_mean = [], []
    for verb in range(len(x)):
        others = np.arange(len(x)) != verb
        fit = Ridge(alpha=penalty, solver="svd").fit(states[others], x[others])
        errors.append(x[verb] - fit.predict(states[verb : verb + 1])[0])
        around_mean.append(x[verb] - x[others].mean())
    return 1 - np.square(errors).sum() / np.square(around_mean).sum()


def test_r2_equals_refitting_without_each_verb() -> None:
    found = decode_over_verbs(STATES, X, n_permutations=10)
    np.testing.assert_allclose(found.r2, [by_hand(states, X) for states in STATES], atol=1e-9)
    assert found.r2[2] > 0.9 > found.r2[0]


def test_p_is_the_share_of_orders_whose_best_head_does_as_well() -> None:
    found = decode_over_verbs(STATES, X, n_permutations=39, seed=3)
    rng = np.random.default_rng(3)
    orders = [rng.permutation(X) for _ in range(39)]
    best = np.array([max(by_hand(states, order) for states in STATES) for order in orders])
    np.testing.assert_allclose(found.p_fwe, [(1 + (best >= r2).sum()) / 40 for r2 in found.r2])
    assert found.p_fwe[2] == 1 / 40 and found.p_fwe[0] > 0.1


def test_chance() -> None:
    """States that have nothing to do with x: no R^2 on average, and 5% of draws below .05 for any of 6 heads."""
    rng = np.random.default_rng(0)
    found = [
        decode_over_verbs(rng.normal(size=(6, 14, 5)), rng.uniform(size=14), n_permutations=199) for _ in range(300)
    ]
    assert np.mean([one.r2.mean() for one in found]) < 0
    share = np.mean([(one.p_fwe <= 0.05).any() for one in found])
    assert 0.025 <= share <= 0.08  # .05 with three standard errors of 300 draws on either side is .012 to .088


def test_neither_shift_nor_scale_nor_rotation_matters() -> None:
    turned = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))[0]
    found = decode_over_verbs(40 * STATES @ turned - 7, 3 * X + 1, n_permutations=20)
    np.testing.assert_allclose(found.r2, decode_over_verbs(STATES, X, n_permutations=20).r2, atol=1e-9)


def test_states_that_do_not_vary_say_nothing() -> None:
    states = STATES.copy()
    states[0] = 7.0
    states[3] = 0.0
    found = decode_over_verbs(states, X, n_permutations=20)
    np.testing.assert_array_equal(found.r2[[0, 3]], 0)
    np.testing.assert_array_equal(found.p_fwe[[0, 3]], 1)


def test_rounding_says_nothing() -> None:
    """A head at rest still holds the bias, in digits that nothing could read."""
    states = np.stack([STATES[0], 1e-13 * STATES[2], 1e-38 * STATES[2], 1 + 1e-8 * STATES[2]])
    found = decode_over_verbs(states, X, n_permutations=20)
    np.testing.assert_array_equal(found.r2[1:], 0)
    np.testing.assert_array_equal(found.p_fwe[1:], 1)
    weak = decode_over_verbs(np.stack([STATES[0], 1e-3 * STATES[2]]), X, n_permutations=20)
    assert weak.r2[1] > 0.9  # small is not rounding


@pytest.mark.parametrize(
    ("states", "x", "message"),
    [
        (STATES[:, :3], X[:3], "at least 4 verbs"),
        (np.where(STATES > 4, np.nan, STATES), X, "not finite"),
        (STATES, np.full(12, 0.5), "does not vary"),
    ],
)
def test_what_cannot_be_decoded_is_refused(states, x, message) -> None:
    with pytest.raises(ValueError, match=message):
        decode_over_verbs(states, x)
