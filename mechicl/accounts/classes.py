"""Accounts of in-context classification: the probability of a query's label, 0 or 1, from the pairs of its context.

With n pairs (c_i, y_i) and a query x:

    uniform                  1/2, the anchor
    label frequency          (n_y + pseudo_count) / (n + 2 pseudo_count)
    copy last                (1 - mix) [y_n] + mix / 2; nearest neighbour: the same of the nearest pair's label
    gradient descent         sigma(w . (x, 1)) after steps on the mean cross-entropy of the pairs, from w = 0:
                             w <- w + (rate / n) sum_i (y_i - sigma(w . (c_i, 1))) (c_i, 1)
    Gaussian kernel          (1 - mix) sum_i u_i [y_i] + mix / 2,    u = softmax_i[-|x - c_i|^2 / (2 bandwidth^2)]
    dot-product kernel       the same with u = softmax_i[x . c_i / temperature]
    generalising             the posterior of who knows the law that items are drawn by, but no item
    memorising               the posterior of who knows the pool of items, whatever the context
    mixture of strategies    p memorising + (1 - p) generalising,    p = 1 / (1 + exp(-log_odds)), of all contexts alike

Probabilities sum to 1; chance is 1/2. The generalising predictor is itself a Gaussian kernel regression, of pairs that
are shrunk and with a bandwidth that the noise sets (`mechicl.predictors.classification`): kernel and Bayes are near
each other here by nature. Sources: 2506.17859, 2305.12766. Errors (ValueError): those of `mechicl.predictors`; labels
other than 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit

from mechicl.accounts.account import Account, Free
from mechicl.predictors import classification
from mechicl.predictors.examples import checked_examples
from mechicl.predictors.kernels import dot_log_kernel, nadaraya_watson, rbf_log_kernel
from mechicl.tasks.classification import ClassificationTask

KIND = "classification"
ANCHOR = "uniform"
STEPS = (1, 2, 4, 8, 16, 32, 64)
MIX = Free("mix", 0.0, 1.0, scale="linear", n_grid=6)
LOG_ODDS = Free("log_odds", -8.0, 8.0, scale="linear", n_grid=9)


@dataclass(frozen=True, eq=False)
class ClassExamples:
    """Contexts of one length, and what a Bayesian knows of their making: the pool of items, or the noise alone."""

    x: Float[np.ndarray, "batch demo dim"]
    y: Int[np.ndarray, "batch demo"]
    query: Float[np.ndarray, "batch dim"]
    pool: Float[np.ndarray, "_ dim"]
    pool_labels: Int[np.ndarray, " _"]
    noise: float

    def __post_init__(self) -> None:
        """Check what predictors would refuse one by one."""
        checked_examples(self.x, self.y, self.query)
        if (self.y < 0).any() or (self.y > 1).any():
            raise ValueError(f"got labels from {self.y.min()} to {self.y.max()}; expected 0 and 1")

    def __len__(self) -> int:
        """The number of contexts."""
        return len(self.y)

    def take(self, rows: Int[np.ndarray, " _"]) -> ClassExamples:
        """Some of the contexts."""
        return replace(self, x=self.x[rows], y=self.y[rows], query=self.query[rows])

    @cached_property
    def shown(self) -> Float[np.ndarray, "batch demo label"]:
        """The labels, one-hot."""
        return np.eye(2)[self.y]

    @cached_property
    def nearest(self) -> Float[np.ndarray, "batch label"]:
        """The label of the pair nearest to the query, one-hot."""
        apart = ((self.x - self.query[:, None]) ** 2).sum(-1)
        return self.shown[np.arange(len(self)), apart.argmin(-1)]

    @cached_property
    def features(self) -> Float[np.ndarray, "batch demo _"]:
        """The items and a constant."""
        return np.concatenate([self.x, np.ones((*self.y.shape, 1))], axis=-1)

    @cached_property
    def generalising(self) -> Float[np.ndarray, "batch label"]:
        """The posterior of who knows no item."""
        return classification.generalising(self.query, self.x, self.y, noise=self.noise)

    @cached_property
    def memorising(self) -> Float[np.ndarray, "batch label"]:
        """The posterior of who knows the pool."""
        return classification.memorising(self.query, self.pool, self.pool_labels, noise=self.noise)


def class_accounts(of: object) -> tuple[Account, ...]:
    """The accounts for `ClassExamples` or a ClassificationTask; ranges of bandwidths go with dimension and noise."""
    if not isinstance(of, ClassExamples | ClassificationTask):
        raise ValueError(f"got {type(of).__name__}; expected ClassExamples or ClassificationTask")
    dim = of.dim if isinstance(of, ClassificationTask) else of.x.shape[-1]
    known = classification.bandwidth(dim, noise=of.noise)
    return (
        Account("uniform", "baseline", _uniform, "both labels alike"),
        Account(
            "label frequency",
            "baseline",
            _frequency,
            "how often the context shows each label",
            (Free("pseudo_count", 0.01, 1000.0, n_grid=9),),
        ),
        Account("copy last", "baseline", _copy_last, "the last label", (MIX,)),
        Account("nearest neighbour", "baseline", _nearest, "the label of the nearest item", (MIX,)),
        Account(
            "gradient descent",
            "gradient",
            _descent,
            "logistic regression on the pairs, by steps of gradient descent from weights 0",
            (Free("rate", 0.05, 500.0, n_grid=13),),
            {"steps": STEPS},
        ),
        Account(
            "Gaussian kernel",
            "kernel",
            _gaussian,
            "votes of the pairs, weighed by nearness to the query",
            (Free("bandwidth", known / 10, known * 30, n_grid=9), MIX),
        ),
        Account(
            "dot-product kernel",
            "kernel",
            _dot_product,
            "votes of the pairs, weighed by a softmax of products with the query",
            (Free("temperature", known**2 / 50, known**2 * 200, n_grid=9), MIX),
        ),
        Account("generalising", "bayes", _generalising, "the posterior of who knows how items are drawn, but no item"),
        Account("memorising", "bayes", _memorising, "the posterior of who knows the items by heart"),
        Account("mixture of strategies", "bayes", _mixture, "memorising and generalising at fixed odds", (LOG_ODDS,)),
    )


def _uniform(examples: ClassExamples) -> Float[np.ndarray, "batch label"]:
    return np.full((len(examples), 2), 0.5)


def _frequency(examples: ClassExamples, *, pseudo_count: float) -> Float[np.ndarray, "batch label"]:
    counts = examples.shown.sum(1) + pseudo_count
    return counts / counts.sum(-1, keepdims=True)


def _copy_last(examples: ClassExamples, *, mix: float) -> Float[np.ndarray, "batch label"]:
    return _mixed(examples.shown[:, -1], mix)


def _nearest(examples: ClassExamples, *, mix: float) -> Float[np.ndarray, "batch label"]:
    return _mixed(examples.nearest, mix)


def _descent(examples: ClassExamples, *, steps: int, rate: float) -> Float[np.ndarray, "batch label"]:
    features, (n, n_demos) = examples.features, examples.y.shape
    weights = np.zeros((n, features.shape[-1]))
    for _ in range(steps):
        missed = examples.y - expit((features @ weights[..., None])[..., 0])
        weights = weights + rate / n_demos * (missed[:, None] @ features)[:, 0]
    log_odds = (weights[:, :-1] * examples.query).sum(-1) + weights[:, -1]
    return np.column_stack([expit(-log_odds), expit(log_odds)])


def _gaussian(examples: ClassExamples, *, bandwidth: float, mix: float) -> Float[np.ndarray, "batch label"]:
    weights = rbf_log_kernel(examples.query, examples.x, bandwidth=bandwidth)
    return _mixed(nadaraya_watson(weights, examples.shown), mix)


def _dot_product(examples: ClassExamples, *, temperature: float, mix: float) -> Float[np.ndarray, "batch label"]:
    weights = dot_log_kernel(examples.query, examples.x, temperature=temperature)
    return _mixed(nadaraya_watson(weights, examples.shown), mix)


def _generalising(examples: ClassExamples) -> Float[np.ndarray, "batch label"]:
    return examples.generalising


def _memorising(examples: ClassExamples) -> Float[np.ndarray, "batch label"]:
    return examples.memorising


def _mixture(examples: ClassExamples, *, log_odds: float) -> Float[np.ndarray, "batch label"]:
    share = float(expit(log_odds))
    return share * examples.memorising + (1 - share) * examples.generalising


def _mixed(votes: Float[np.ndarray, "batch label"], mix: float) -> Float[np.ndarray, "batch label"]:
    """With a share of the uniform distribution."""
    return np.asarray((1 - mix) * votes + mix / 2)
