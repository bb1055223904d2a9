"""Accounts of in-context regression: what each would say of y for a query, from the pairs of its context.

With n pairs (x_i, y_i), a query x_q, and w from 0 where a rule descends:

    zero                     0, the anchor: the best guess of who sees no context
    mean label, last label   shrinkage times the mean y_i, times y_n; nearest neighbour: times the y of the nearest x
    gradient descent         steps of w <- w + (rate / n) X^T (y - X w); of the loss summed over pairs, without 1 / n
    GD++                     the same, and after each step x <- (I - (gamma / n) X^T X) x, without 1 / n alike
    Gaussian kernel          shrinkage sum_i u_i y_i,    u = softmax_i[-|x_q - x_i|^2 / (2 bandwidth^2)]
    dot-product kernel       the same with u = softmax_i[x_q . x_i / temperature]
    generalising             w^T x_q of the posterior mean, w = (X^T X + noise / weight variance I)^-1 X^T y
    ridge                    the same with a fitted penalty: labels are taken to be noisier, or less so, than they are
    memorising               the posterior mean of who knows the pool of laws
    mixture of strategies    p memorising + (1 - p) generalising,    p = 1 / (1 + exp(-log_odds)), of all contexts alike

Predictions are means, in the unit of y. Those of descents that diverge end at 5 standard deviations of a label, lest
one context outweigh all others. Shrinkage is left free since labels have mean 0: without it a kernel would lose to zero
by its scale alone. Steps of descent shrink a law as a penalty does, so without ridge, descent would pass for the
account of any model that shrinks laws more than it should; beside it only what differs from a penalty counts.
Sources: 2212.07677 (descent, GD++), 2305.12766 (kernels), 2306.15063 and 2506.17859
(strategies). Errors (ValueError): those of `mechicl.predictors`, when examples are made or first predicted from.

    contexts = task.sample(300, seed=0)
    examples = RegressionExamples(contexts.x, contexts.y, contexts.query, None, 0.0, 1.0)
    descent = {one.name: one for one in regression_accounts(examples)}["gradient descent"]
    descent.predict(examples, steps=1, loss="mean", rate=6.06)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit

from mechicl.accounts.account import Account, Free
from mechicl.accounts.regression_examples import RegressionExamples
from mechicl.predictors.kernels import dot_log_kernel, nadaraya_watson, rbf_log_kernel
from mechicl.predictors.spectral import descent_share, ridge_share
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.regression import RegressionTask

__all__ = ["ANCHOR", "KIND", "RegressionExamples", "regression_accounts"]
KIND = "regression"
ANCHOR = "zero"
STEPS = (1, 2, 3, 4, 6, 8, 16, 32, 64)
PLUS_STEPS = (1, 2, 3, 4, 6)  # one step is one of gradient descent: GD++ has descent among its cases
LOSSES = ("mean", "sum")  # over the pairs
LIMIT = 5.0  # standard deviations of a label: no descent's prediction is taken to be larger
SHRINKAGE = Free("shrinkage", 0.0, 1.5, scale="linear", n_grid=4)
LOG_ODDS = Free("log_odds", -8.0, 8.0, scale="linear", n_grid=9)


def regression_accounts(of: object) -> tuple[Account, ...]:
    """The accounts for `RegressionExamples`, a RegressionTask or a PooledRegressionTask.

    Ranges of rates and bandwidths go with the spread of the inputs.
    """
    variance, dim, pooled = _spread(of)
    wide = float(np.sqrt(2 * dim * variance))  # the usual distance of two inputs
    found = [
        Account("zero", "baseline", _zero, "says 0 whatever the context"),
        Account("mean label", "baseline", _mean_label, "a share of the mean of the labels", (SHRINKAGE,)),
        Account("last label", "baseline", _last_label, "a share of the last label", (SHRINKAGE,)),
        Account("nearest neighbour", "baseline", _nearest, "a share of the nearest input's label", (SHRINKAGE,)),
        Account(
            "gradient descent",
            "gradient",
            _descent,
            "steps of gradient descent on the squared error of the demonstrations, from weights 0",
            (Free("rate", 0.002 / variance, 20 / variance, n_grid=29),),
            {"steps": STEPS, "loss": LOSSES},
        ),
        Account(
            "GD++",
            "gradient",
            _descent_plus,
            "gradient descent that makes its inputs better conditioned on the way",
            (
                Free("rate", 0.002 / variance, 20 / variance, n_grid=10),
                Free("gamma", 0.001 / variance, 2 / variance, n_grid=6),
            ),
            {"steps": PLUS_STEPS, "loss": LOSSES},
        ),
        Account(
            "Gaussian kernel",
            "kernel",
            _gaussian,
            "the average label, weighted by nearness to the query",
            (Free("bandwidth", wide / 20, wide * 10, n_grid=9), SHRINKAGE),
        ),
        Account(
            "dot-product kernel",
            "kernel",
            _dot_product,
            "the average label, weighted by a softmax of products with the query",
            (Free("temperature", wide**2 / 500, wide**2 * 20, n_grid=9), SHRINKAGE),
        ),
        Account("generalising", "bayes", _generalising, "the posterior mean of who knows the prior of laws alone"),
        Account(
            "ridge",
            "bayes",
            _ridge,
            "generalising, by who takes labels to be noisier, or less noisy, than they are",
            (Free("penalty", 1e-4 * dim * variance, 10 * dim * variance, n_grid=12),),
        ),
    ]
    if pooled:
        found += [
            Account("memorising", "bayes", _memorising, "the posterior mean of who knows the pool of laws by heart"),
            Account(
                "mixture of strategies", "bayes", _mixture, "memorising and generalising at fixed odds", (LOG_ODDS,)
            ),
        ]
    return tuple(found)


def _spread(of: Any) -> tuple[float, int, bool]:
    """The variance of an input's entries, their number, and whether there is a pool."""
    if isinstance(of, RegressionExamples):
        variance, dim, pooled = float((of.x**2).mean()), of.x.shape[-1], of.pool is not None
        if not variance > 0:
            raise ValueError("got inputs that are all 0; expected demonstrations that differ")
        return variance, dim, pooled
    if isinstance(of, RegressionTask):
        return float(np.trace(of.input_covariance)) / of.dim, of.dim, False
    if isinstance(of, PooledRegressionTask):
        return 1.0, of.dim, True
    raise ValueError(f"got {type(of).__name__}; expected RegressionExamples, RegressionTask or PooledRegressionTask")


def _zero(examples: RegressionExamples) -> Float[np.ndarray, "batch label"]:
    return np.zeros((len(examples), 1))


def _mean_label(examples: RegressionExamples, *, shrinkage: float) -> Float[np.ndarray, "batch label"]:
    return shrinkage * examples.y.mean(-1, keepdims=True)


def _last_label(examples: RegressionExamples, *, shrinkage: float) -> Float[np.ndarray, "batch label"]:
    return shrinkage * examples.y[:, -1:]


def _nearest(examples: RegressionExamples, *, shrinkage: float) -> Float[np.ndarray, "batch label"]:
    return shrinkage * examples.nearest


def _descent(examples: RegressionExamples, *, steps: int, loss: str, rate: float) -> Float[np.ndarray, "batch label"]:
    return _descent_plus(examples, steps=steps, loss=loss, rate=rate, gamma=0.0)


def _descent_plus(
    examples: RegressionExamples, *, steps: int, loss: str, rate: float, gamma: float
) -> Float[np.ndarray, "batch label"]:
    found, n = examples.spectrum, examples.spectrum.n_demos
    many = 1.0 if loss == "mean" else float(n)  # the curve divides by n itself
    share = descent_share(found, rates=[rate * many] * steps, gammas=[gamma * many / n] * steps)
    # where a descent diverges it is wrong, but not without end: one context would outweigh all others otherwise
    bound = LIMIT * examples.label_scale
    return np.clip(np.nan_to_num(found.predict(share)), -bound, bound)[:, None]


def _gaussian(examples: RegressionExamples, *, bandwidth: float, shrinkage: float) -> Float[np.ndarray, "batch label"]:
    weights = rbf_log_kernel(examples.query, examples.x, bandwidth=bandwidth)
    return shrinkage * nadaraya_watson(weights, examples.y[..., None])


def _dot_product(
    examples: RegressionExamples, *, temperature: float, shrinkage: float
) -> Float[np.ndarray, "batch label"]:
    weights = dot_log_kernel(examples.query, examples.x, temperature=temperature)
    return shrinkage * nadaraya_watson(weights, examples.y[..., None])


def _generalising(examples: RegressionExamples) -> Float[np.ndarray, "batch label"]:
    return examples.generalising


def _ridge(examples: RegressionExamples, *, penalty: float) -> Float[np.ndarray, "batch label"]:
    return examples.spectrum.predict(ridge_share(examples.spectrum, penalty=penalty))[:, None]


def _memorising(examples: RegressionExamples) -> Float[np.ndarray, "batch label"]:
    return examples.memorising


def _mixture(examples: RegressionExamples, *, log_odds: float) -> Float[np.ndarray, "batch label"]:
    share = float(expit(log_odds))
    return share * examples.memorising + (1 - share) * examples.generalising
