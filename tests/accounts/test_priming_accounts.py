"""Accounts of priming against loops over single primes, speakers made by hand, and what each must not depend on."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
from jaxtyping import TypeCheckError
from scipy.special import expit, logit

from mechicl.accounts.account import Account
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.distances import account_distances, prediction_distance
from mechicl.accounts.fitting import fit_account
from mechicl.accounts.priming import ANCHOR, PrimeExamples, priming_accounts

STRENGTH = {  # kind of speaker -> account that it follows, its free number, the number's range
    "null": ("no priming", None, (0.0, 0.0)),
    "stubborn": ("always the same answer", "preference", (-2.0, 2.0)),
    "gradient": ("gradient step", "scale", (0.5, 20.0)),
    "delta": ("delta rule", "rate", (0.3, 3.0)),
    "boost": ("constant boost", "boost", (0.2, 1.5)),
    "counts": ("count-based adaptation", "strength", (1.0, 20.0)),
}


def planted_priming_draw(seed: int, kind: str) -> tuple[Contexts, float]:
    """A speaker made of numbers who follows one account, and the account's number.

    12 verbs, each primes 10 targets in both forms; biases -2 to 2, targets' log-odds -2.5 to 2.5, steps at random.
    """
    rng = np.random.default_rng(seed)
    verb, form = (part.ravel() for part in np.meshgrid(np.repeat(np.arange(12), 10), [1, -1]))
    base, bias = np.tile(rng.uniform(-2.5, 2.5, 10), 24), rng.uniform(-2, 2, 12)[verb]
    step = 0.1 * form * rng.lognormal(sigma=0.5, size=len(verb))
    strength = float(rng.uniform(*STRENGTH[kind][2]))
    examples = PrimeExamples(base, form, step, bias, verb)
    first = np.array([one_by_one(kind, examples, i, strength) for i in range(len(verb))])
    answers = np.stack([first, 1 - first], -1)
    return Contexts(1, examples, answers, None, np.full(answers.shape, np.nan), verb), strength


def one_by_one(kind: str, examples: PrimeExamples, i: int, strength: float) -> float:
    """P(first form) after one prime, each account by its own textbook."""
    assert examples.step is not None
    before, said = expit(examples.base[i]), int(examples.form[i] == 1)
    if kind == "null":
        return float(before)
    if kind == "stubborn":
        return float(expit(strength))
    if kind == "counts":  # the mean of Beta(a, b) after one draw
        return float(scipy.stats.beta(strength * before + said, strength * (1 - before) + 1 - said).mean())
    if kind == "delta":  # a step down the gradient of the surprisal of the prime's form with its verb
        h = 1e-6
        surprisal = [-np.log(expit((2 * said - 1) * (examples.bias[i] + d))) for d in (h, -h)]
        move = -strength * (surprisal[0] - surprisal[1]) / (2 * h)
    else:
        move = strength * (examples.step[i] if kind == "gradient" else examples.form[i])
    return float(expit(examples.base[i] + move))


def named(examples: PrimeExamples) -> dict[str, Account]:
    return {one.name: one for one in priming_accounts(examples)}


@pytest.fixture(params=list(STRENGTH))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_predictions_equal_a_loop_over_primes(kind: str) -> None:
    contexts, strength = planted_priming_draw(1, kind)
    name, free, _ = STRENGTH[kind]
    found = named(contexts.examples)[name].predict(contexts.examples, **({} if free is None else {free: strength}))
    np.testing.assert_allclose(found, contexts.model, atol=1e-9)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize("seed", [2, 3])
def test_a_speaker_is_recovered_with_his_number(kind: str, seed: int) -> None:
    contexts, strength = planted_priming_draw(seed, kind)
    name, free, _ = STRENGTH[kind]
    distance = {}
    for account in priming_accounts(contexts.examples):
        fitted = fit_account(account, [contexts])
        distance[account.name] = account_distances(account, contexts, fitted).mean()
        if account.name == name and free is not None:
            assert fitted[free] == pytest.approx(strength, rel=1e-3)
    assert distance.pop(name) < 1e-6
    if kind == "null":  # all that add something to the base can add nothing
        assert distance.pop("always the same answer") > 0.05
        assert max(distance.values()) < 1e-6
    else:
        assert min(distance.values()) > 5e-4


def _changed(field: str) -> Callable[[PrimeExamples], PrimeExamples]:
    return lambda examples: replace(examples, **{field: getattr(examples, field) + 0.7})


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        (_changed("bias"), {"delta rule"}),
        (_changed("step"), {"gradient step"}),
        (lambda e: replace(e, form=-e.form), {"delta rule", "constant boost", "count-based adaptation"}),
        (lambda e: replace(e, verb=e.verb[::-1].copy()), set()),  # a verb is its bias, and no more
    ],
)
def test_accounts_differ_in_what_they_look_at(change: Any, moves: set[str]) -> None:
    contexts, _ = planted_priming_draw(4, "null")
    for account in priming_accounts(contexts.examples):
        numbers = {one.name: 2.0 for one in account.free}
        before = account.predict(contexts.examples, **numbers)
        after = account.predict(change(contexts.examples), **numbers)
        assert (np.abs(before - after).max() > 0.01) == (account.name in moves), account.name


def test_only_counting_moves_log_odds_by_what_the_target_is() -> None:
    contexts, _ = planted_priming_draw(5, "null")
    examples: PrimeExamples = contexts.examples
    other = replace(examples, base=examples.base + 1.5)
    for name, account in named(examples).items():
        numbers = {one.name: 2.0 for one in account.free}
        first, second = (logit(account.predict(e, **numbers)[:, 0]) - e.base for e in (examples, other))
        same = name not in ("count-based adaptation", "always the same answer")
        assert np.allclose(first, second, atol=1e-9) == same


def test_an_error_is_small_where_the_form_was_expected() -> None:
    contexts, _ = planted_priming_draw(6, "null")
    e: PrimeExamples = contexts.examples
    assert ((e.error > 0) == (e.form == 1)).all() and (np.abs(e.error) < 1).all()
    np.testing.assert_allclose(np.abs(e.error), 1 - expit(e.form * e.bias))
    expected, unexpected = (np.abs(e.error[(e.form * e.bias > 0) == side]) for side in (True, False))
    assert expected.max() < 0.5 < unexpected.min()


def test_rows_without_steps_have_no_account_of_steps() -> None:
    contexts, _ = planted_priming_draw(7, "boost")
    without = replace(contexts.examples, step=None)
    assert set(named(contexts.examples)) - set(named(without)) == {"gradient step"}
    assert ANCHOR in named(without) and without.take(np.array([0, 3])).step is None
    with pytest.raises(ValueError, match="gradient=True"):
        named(contexts.examples)["gradient step"].predict(without, scale=1.0)


def test_rows_are_taken_together() -> None:
    contexts, strength = planted_priming_draw(8, "delta")
    rows = np.array([5, 200, 17])
    part = contexts.examples.take(rows)
    assert len(part) == 3 and part.verb.tolist() == contexts.examples.verb[rows].tolist()
    found = named(part)["delta rule"].predict(part, rate=strength)
    assert prediction_distance(contexts.model[rows], found).max() < 1e-9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"form": np.array([1, 0])}, "expected \\+1 and -1"),
        ({"bias": np.zeros(3)}, "bias"),
        ({"step": np.array([0.0, np.nan])}, "step with numbers that are not finite"),
    ],
)
def test_what_is_no_prime_is_refused(change: dict[str, np.ndarray], message: str) -> None:
    good: dict[str, Any] = {"base": np.zeros(2), "form": np.array([1, -1]), "step": None, "bias": np.ones(2)}
    good |= {"verb": np.array([0, 1])}
    PrimeExamples(**good)
    with pytest.raises((ValueError, TypeCheckError), match=message):
        PrimeExamples(**{**good, **change})
