"""What accounts say of structural priming: where a target's choice of form moves after one prime.

Write L = log P(first form) - log P(second form) of the target without the prime, in nats, and s for the prime's form
(1: first, 0: second; sign 2 s - 1). The accounts differ in what the movement depends on:

    no priming               L stays
    always the same answer   preference                               neither target nor prime matters
    gradient step            L + scale (the target's movement by a real gradient step on the prime)
    delta rule               L + rate (s - p_v)                       the prime verb's own probability p_v
    constant boost           L + boost (2 s - 1)                      the prime's form alone
    count-based adaptation   P = (strength P_0 + s) / (strength + 1)  the target's own probability P_0 = sigmoid(L)

with p_v = sigmoid(mean L of the verb's sentences without a prime). All but the gradient step are blind to the words of
the prime other than its verb. The delta rule is a gradient step of a model with one number, the log-odds of the form,
from the prime's prediction error; the boost is the activation of spreading-activation and ACT-R accounts; counting is
the posterior mean of a Beta prior that is worth `strength` sentences and expects P_0.

Predictions are P(first form), P(second form). Sources: the accounts as discussed by Zhou, Frank & McCoy, arXiv
2406.18501; Chang, Dell & Bock 2006 (error-driven learning), Reitter, Keller & Moore 2011 (activation), Jaeger & Snider
2013 (adapted expectations).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from mechicl.accounts.account import Account, Free

KIND = "priming"
ANCHOR = "no priming"
Answers = Float[np.ndarray, "batch 2"]


@dataclass(frozen=True, eq=False)
class PrimeExamples:
    """One prime and one target a row, in numbers.

    base: log-odds of the target's first form without the prime's structure (after the neutral prime, or after none).
    form: +1 where the prime has the first form, -1 for the second. step: how far a real gradient step on the prime
    moves the target's log-odds; None where none was taken. bias: log-odds of the first form of the prime's verb by
    itself. verb: a number for each prime verb. All log-odds in nats.

    Errors (ValueError): lengths that differ, numbers that are not finite, forms other than +1 and -1.

    >>> PrimeExamples(np.zeros(2), np.array([1, -1]), None, np.array([1.0, 1.0]), np.array([0, 0])).error.round(2)
    array([ 0.27, -0.73])
    """

    base: Float[np.ndarray, " batch"]
    form: Int[np.ndarray, " batch"]
    step: Float[np.ndarray, " batch"] | None
    bias: Float[np.ndarray, " batch"]
    verb: Int[np.ndarray, " batch"]

    def __post_init__(self) -> None:
        """Check that all speak of the same primes."""
        for name in ("base", "form", "step", "bias", "verb"):
            own = getattr(self, name)
            if own is None:
                continue
            if own.shape != self.base.shape:
                raise ValueError(f"got {name} of shape {own.shape}; expected that of base, {self.base.shape}")
            if not np.isfinite(own).all():
                raise ValueError(f"got {name} with numbers that are not finite; leave these primes out")
        if not np.isin(self.form, (-1, 1)).all():
            raise ValueError(f"got the forms {np.unique(self.form).tolist()}; expected +1 and -1 only")

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.base)

    def take(self, rows: Int[np.ndarray, " _"]) -> PrimeExamples:
        """Some of the rows."""
        step = None if self.step is None else self.step[rows]
        return replace(
            self, base=self.base[rows], form=self.form[rows], step=step, bias=self.bias[rows], verb=self.verb[rows]
        )

    @property
    def is_first(self) -> Float[np.ndarray, " batch"]:
        """s: 1. after the first form, 0. after the second."""
        return (self.form + 1) / 2

    @property
    def error(self) -> Float[np.ndarray, " batch"]:
        """The prime's prediction error s - p_v: from 0 to 1 for the first form, from -1 to 0 for the second."""
        return self.is_first - expit(self.bias)


def priming_accounts(examples: PrimeExamples) -> tuple[Account, ...]:
    """The accounts that can speak of these examples; without `step` the gradient step is left out."""
    found = [
        Account(ANCHOR, "baseline", _no_priming, "the prime changes nothing"),
        Account(
            "always the same answer", "baseline", _same_answer, "one preference for all targets and primes",
            (Free("preference", -8.0, 8.0, "linear", 9),),
        ),
        Account(
            "gradient step", "gradient", _gradient_step,
            "the prime moves the target as a step on the prime's own loss moves it, up to a common factor",
            # steps of the first-order rate are anything from far smaller than effects in context to larger
            (Free("scale", 1e-3, 1e5, "log", 17),),
        ),
        Account(
            "delta rule", "gradient", _delta_rule, "the prime moves all targets alike, by how little it was expected",
            (Free("rate", 0.0, 10.0, "linear", 11),),
        ),
        Account(
            "constant boost", "boost", _constant_boost, "the prime's form gains the same, whatever verb and target",
            (Free("boost", 0.0, 10.0, "linear", 11),),
        ),
        Account(
            "count-based adaptation", "bayes", _counts,
            "the prime is one more sentence counted towards the target's own odds",
            (Free("strength", 1e-3, 1e5, "log", 17),),
        ),
    ]  # fmt: skip
    return tuple(one for one in found if one.name != "gradient step" or examples.step is not None)


def _answers(log_odds: Float[np.ndarray, " batch"]) -> Answers:
    """Probabilities of both forms; each by itself, so that the rarer one keeps its digits."""
    return np.stack([expit(log_odds), expit(-log_odds)], axis=-1)


def _no_priming(examples: PrimeExamples) -> Answers:
    return _answers(examples.base)


def _same_answer(examples: PrimeExamples, *, preference: float) -> Answers:
    return _answers(np.full(len(examples), float(preference)))


def _gradient_step(examples: PrimeExamples, *, scale: float) -> Answers:
    if examples.step is None:
        raise ValueError("no gradient step was taken on these primes; read them with gradient=True")
    return _answers(examples.base + scale * examples.step)


def _delta_rule(examples: PrimeExamples, *, rate: float) -> Answers:
    return _answers(examples.base + rate * examples.error)


def _constant_boost(examples: PrimeExamples, *, boost: float) -> Answers:
    return _answers(examples.base + boost * examples.form)


def _counts(examples: PrimeExamples, *, strength: float) -> Answers:
    before = _answers(examples.base)
    seen = np.stack([examples.is_first, 1 - examples.is_first], axis=-1)
    return np.asarray((strength * before + seen) / (strength + 1))
