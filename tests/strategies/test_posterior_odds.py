import numpy as np
import pytest

from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms


def made_terms(steps=(0.0, 10.0, 1000.0)):
    return OddsTerms(
        np.array(steps),
        np.array([4.0, 64.0]),
        np.array([[0.3, 0.05], [0.2, -0.01]]),
        np.array([[3e3, 4e4], [3e3, 5e4]]),
        np.full((2, 2), 2e3),
    )


def test_log_odds_are_the_formula_cell_by_cell():
    terms, at = made_terms(), OddsParameters(0.6, 0.2, 0.85)
    found = terms.log_odds(at)
    for s, n, d in np.ndindex(found.shape):
        evidence = 0.85 * terms.steps[n] ** 0.4 * terms.advantage[s, d]
        prior = np.log(2) * (terms.bits_memorising[s, d] ** 0.2 - terms.bits_generalising[s, d] ** 0.2)
        assert found[s, n, d] == pytest.approx(evidence - prior, abs=1e-12)


@pytest.mark.parametrize("at", [OddsParameters(0.6, 0.2, 0.85), OddsParameters(0.0, 1.0, 3.0)])
def test_gradient_is_that_of_finite_differences(at):
    terms, step = made_terms((1.0, 10.0, 1000.0)), 1e-6
    gradient = terms.log_odds_gradient(at)

    def odds(alpha=0.0, beta=0.0, log_gamma=0.0):
        # the power law itself, since alpha - step may be below its range
        evidence = at.gamma * np.exp(log_gamma) * terms.steps[:, None] ** (1 - at.alpha - alpha)
        return evidence * terms.advantage[:, None] + terms.prior(at.beta + beta)[:, None]

    for number, name in enumerate(("alpha", "beta", "log_gamma")):
        expected = (odds(**{name: step}) - odds(**{name: -step})) / (2 * step)
        np.testing.assert_allclose(gradient[number], expected, rtol=1e-4, atol=1e-6)


def test_step_zero_leaves_the_prior_alone_and_equal_strategies_are_even():
    terms, at = made_terms(), OddsParameters(0.6, 0.2, 0.85)
    np.testing.assert_array_equal(terms.log_odds(at)[:, 0], terms.prior(0.2))
    assert np.isfinite(terms.log_odds_gradient(at)).all()
    nothing = np.zeros((1, 2))
    same = OddsTerms(terms.steps, terms.diversities, nothing, nothing + 500.0, nothing + 500.0)
    np.testing.assert_array_equal(same.log_odds(at), 0.0)


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("steps", np.array([1.0, 1.0, 2.0]), "rising"),
        ("diversities", np.array([0.5, 4.0]), "rising finite numbers from 1"),
        ("bits_generalising", np.zeros((2, 2)), "1 bit or more"),
        ("bits_memorising", np.ones((3, 2)), r"expected \(2, 2\)"),
        ("advantage", np.full((2, 2), np.nan), "not finite"),
    ],
)
def test_terms_that_do_not_make_sense_are_refused(field, value, said):
    terms = made_terms()
    names = ("steps", "diversities", "advantage", "bits_memorising", "bits_generalising")
    parts = {name: getattr(terms, name) for name in names} | {field: value}
    with pytest.raises(ValueError, match=said):
        OddsTerms(**parts)


@pytest.mark.parametrize("values", [(1.0, 0.2, 1.0), (-0.1, 0.2, 1.0), (0.5, -1.0, 1.0), (0.5, 0.2, 0.0)])
def test_parameters_out_of_range_are_refused(values):
    with pytest.raises(ValueError, match="expected"):
        OddsParameters(*values)
