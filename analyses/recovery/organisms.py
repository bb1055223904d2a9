"""Models of which it is known how they answer: each follows one account, or none, with parameters drawn at random.

A draw is a pure function of the study's seed, the kind and the draw's number, so a study of more draws begins with that
of fewer. In regression inputs have variance 1, and contexts are read at d/2, d and 2 d pairs (d: their dimension).

    gradient descent     linear transformer written by hand: d 4-10, 1-4 steps, rate .2-1.5 over the largest eigenvalue
                         that is expected of the shortest context (stable below 2), noise of labels 0-.3
    GD++                 the same with 2-4 steps and gamma .05-.4 over that eigenvalue
    Gaussian kernel      softmax attention written by hand: d 2-6, bandwidth .15-.5 of the usual distance of two inputs
    dot-product kernel   the same: temperature .3-2 of the usual size of a product
    generalising         posterior mean under the prior of laws: d 4-10, noise of labels .2-1, noise of answers 0-.2 SD
    memorising           posterior mean of who knows a pool of 4-64 laws; d 4-10, noise of answers 0-.2 SD
    null                 one of zero, mean label, last label, nearest neighbour, with noise of .05-.3 SD of the labels

Noise of answers is drawn anew for each order of the demonstrations, so it lowers what any account can explain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Float

from mechicl.predictors import pooled_regression
from mechicl.predictors.neighbours import nearest_neighbours
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.regression import RegressionTask

Rule = Callable[..., Float[np.ndarray, " batch"]]
NULLS = ("zero", "mean label", "last label", "nearest neighbour")


@dataclass(frozen=True, eq=False)
class Organism:
    """A model, the task it is asked about, the account it follows ("none" where it follows none), its parameters.

    reading: options of the comparison. measured: how well a trained one follows its account (`d_rel`, `residual`).
    """

    model: Any
    task: Any
    account: str
    family: str
    parameters: Mapping[str, Any]
    reading: Mapping[str, Any] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class NoisyRule:
    """A rule of (x, y, query) with noise on its answers, which are the same whenever it is asked the same."""

    rule: Rule
    noise: float
    seed: int

    def predict(
        self,
        x: Float[np.ndarray, "batch demo dim"],
        y: Float[np.ndarray, "batch demo"],
        query: Float[np.ndarray, "batch dim"],
    ) -> Float[np.ndarray, " batch"]:
        """Answers; demonstrations in another order are another question."""
        asked = crc32(b"".join(np.ascontiguousarray(part, dtype=np.float64).tobytes() for part in (x, y, query)))
        drawn = np.random.default_rng([self.seed, asked]).standard_normal(len(y))
        return np.asarray(self.rule(x, y, query)) + self.noise * drawn


def draw_rng(kind: str, draw: int, seed: int) -> np.random.Generator:
    """The generator of a draw's parameters."""
    return np.random.default_rng([seed, crc32(kind.encode()), draw])


def descent_organism(rng: np.random.Generator) -> Organism:
    """Gradient descent in a linear transformer."""
    from mechicl.organisms.gradient_constructions import descending_transformer

    task, edge = _regression(rng, (4, 10), (0.0, 0.3))
    steps, rate = int(rng.integers(1, 5)), float(rng.uniform(0.2, 1.5) / edge)
    model = descending_transformer(task.dim, rate=rate, steps=steps)
    return Organism(model, task, "gradient descent", "gradient", _told(task, steps=steps, rate=rate), _lengths(task))


def plus_organism(rng: np.random.Generator) -> Organism:
    """GD++ in a linear transformer."""
    from mechicl.organisms.gradient_constructions import plus_transformer

    task, edge = _regression(rng, (4, 10), (0.0, 0.3))
    steps, rate = int(rng.integers(2, 5)), float(rng.uniform(0.2, 1.5) / edge)
    gamma = float(rng.uniform(0.05, 0.4) / edge)  # of X^T X / n; the constructions take it of X^T X
    model = plus_transformer(task.dim, task.n_demos, rate=rate, gamma=gamma / task.n_demos, steps=steps)
    return Organism(model, task, "GD++", "gradient", _told(task, steps=steps, rate=rate, gamma=gamma), _lengths(task))


def gaussian_organism(rng: np.random.Generator) -> Organism:
    """A Gaussian kernel in softmax attention."""
    from mechicl.organisms.softmax_kernel import kernel_regressor

    task, _ = _regression(rng, (2, 6), (0.0, 0.3))
    bandwidth = float(rng.uniform(0.15, 0.5) * np.sqrt(2 * task.dim))
    model = kernel_regressor(task.dim, bandwidth=bandwidth)
    return Organism(model, task, "Gaussian kernel", "kernel", _told(task, bandwidth=bandwidth), _lengths(task))


def product_organism(rng: np.random.Generator) -> Organism:
    """A dot-product kernel in softmax attention."""
    from mechicl.organisms.softmax_kernel import kernel_regressor

    task, _ = _regression(rng, (2, 6), (0.0, 0.3))
    temperature = float(rng.uniform(0.3, 2.0) * np.sqrt(task.dim))
    model = kernel_regressor(task.dim, temperature=temperature)
    return Organism(model, task, "dot-product kernel", "kernel", _told(task, temperature=temperature), _lengths(task))


def generalising_organism(rng: np.random.Generator) -> Organism:
    """The posterior mean under the prior of laws, computed by itself and not by the account."""
    task, _ = _regression(rng, (4, 10), (0.2, 1.0))

    def rule(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> Float[np.ndarray, " batch"]:
        gram = x.swapaxes(-1, -2) @ x + task.noise**2 * np.eye(task.dim)
        weights = np.linalg.solve(gram, (y[:, None] @ x)[:, 0, :, None])[..., 0]
        return np.asarray((weights * query).sum(-1))

    model, noise = _noisy(rule, float(rng.uniform(0.0, 0.2)), task, rng)
    return Organism(model, task, "generalising", "bayes", _told(task, answer_noise=noise), _lengths(task))


def memorising_organism(rng: np.random.Generator) -> Organism:
    """The posterior mean of who knows a pool."""
    dim, seed = int(rng.integers(4, 11)), int(rng.integers(2**31))
    task = PooledRegressionTask(dim, 2 * dim + 1, int(2 ** rng.integers(2, 7)), seed, seed, seed)

    def rule(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> Float[np.ndarray, " batch"]:
        whole = np.concatenate([x, query[:, None]], axis=1), np.column_stack([y, np.zeros(len(y))])
        return pooled_regression.memorising(*whole, task.pool, noise_variance=task.noise_variance)[:, -1]

    model, noise = _noisy(rule, float(rng.uniform(0.0, 0.2)), task, rng)
    told = {"dim": dim, "diversity": task.diversity, "answer_noise": noise}
    return Organism(model, task, "memorising", "bayes", told, _lengths(task))


def null_organism(rng: np.random.Generator) -> Organism:
    """A rule that learns nothing from pairs of x and y, and noise."""
    task, _ = _regression(rng, (4, 10), (0.0, 0.3))
    name = NULLS[int(rng.integers(len(NULLS)))]
    rules: dict[str, Rule] = {
        "zero": lambda x, y, query: np.zeros(len(y)),
        "mean label": lambda x, y, query: y.mean(-1),
        "last label": lambda x, y, query: y[:, -1],
        "nearest neighbour": lambda x, y, query: nearest_neighbours(x, y, query, k=1),
    }
    noise = float(rng.uniform(0.05, 0.3) * np.sqrt(task.dim))  # the labels' SD is the root of d
    model = NoisyRule(rules[name], noise, int(rng.integers(2**31)))
    return Organism(model, task, name, "baseline", _told(task, answer_noise=noise), _lengths(task))


def add_noise(organism: Organism, level: float, *, seed: int) -> Organism:
    """The same regression organism with noise of `level` standard deviations of its answers on each of them."""
    model, noise = _noisy(organism.model.predict, level, organism.task, np.random.default_rng(seed))
    told = {**organism.parameters, "answer_noise": noise}
    return Organism(model, organism.task, organism.account, organism.family, told, organism.reading)


def _regression(
    rng: np.random.Generator, dims: tuple[int, int], noises: tuple[float, float]
) -> tuple[RegressionTask, float]:
    """A task of 2 d pairs, and the largest eigenvalue of X^T X / n that is expected at d/2 pairs (their edge law)."""
    dim = int(rng.integers(dims[0], dims[1] + 1))
    task = RegressionTask(dim=dim, n_demos=2 * dim, inputs="normal", noise=float(rng.uniform(*noises)))
    return task, float((1 + np.sqrt(dim / (dim // 2))) ** 2)


def _lengths(task: Any) -> dict[str, Any]:
    return {"lengths": (task.dim // 2, task.dim, 2 * task.dim)}


def _told(task: RegressionTask, **own: Any) -> dict[str, Any]:
    return {"dim": task.dim, "label_noise": task.noise, **own}


def _noisy(rule: Rule, level: float, task: Any, rng: np.random.Generator) -> tuple[NoisyRule, float]:
    """Noise of so many standard deviations of the rule's answers to full contexts."""
    if isinstance(task, RegressionTask):
        drawn = task.sample(400, seed=int(rng.integers(2**31)))
        answers = rule(drawn.x, drawn.y, drawn.query)
    else:
        whole = task.sample(400, step=(2, 0))
        answers = rule(whole.x[:, :-1], whole.y[:, :-1], whole.x[:, -1])
    noise = level * float(np.std(answers))
    return NoisyRule(rule, noise, int(rng.integers(2**31))), noise
