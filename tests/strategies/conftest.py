"""Transformers that do exactly what the model of training says, made from random strategies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from jaxtyping import config

from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms

TRUE = OddsParameters(alpha=0.55, beta=0.22, gamma=0.9)


@dataclass
class Made:
    """Arrays as `fit_strategies` takes them; `options` are its keywords."""

    memorising: np.ndarray
    generalising: np.ndarray
    terms: OddsTerms
    clusters: np.ndarray
    predictions: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def arguments(self) -> tuple[Any, ...]:
        zero = np.zeros_like(self.terms.advantage)
        bits = (self.terms.bits_memorising, self.terms.bits_generalising)
        return self.predictions, self.memorising, self.generalising, (zero, self.terms.advantage), bits

    @property
    def options(self) -> dict[str, Any]:
        steps, diversities = self.terms.steps.astype(int), self.terms.diversities.astype(int)
        return {"steps": steps, "diversities": diversities, "clusters": self.clusters}

    def mixed(self, log_odds: np.ndarray) -> np.ndarray:
        """w M + (1 - w) G, written out."""
        weight = 1 / (1 + np.exp(-log_odds))[..., None, None]
        return weight * self.memorising[:, None] + (1 - weight) * self.generalising[:, None]


@pytest.fixture
def as_users_run() -> Iterator[None]:
    """Without the tests' own checks of shapes, which would see wrong ones before the code does."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def training() -> Callable[..., Made]:
    """Makes a transformer of the model. labels: 1 for means. spread: predictions differ from the model's at random."""

    def make(
        *, parameters: OddsParameters = TRUE, n_seeds: int = 2, n_steps: int = 14, n_diversities: int = 6,
        n_clusters: int = 8, n_items: int = 3, labels: int = 4, spread: float = 0.0, seed: int = 0,
    ) -> Made:  # fmt: skip
        rng = np.random.default_rng(seed)
        diversities = 2.0 ** np.arange(2, 2 + n_diversities)
        steps = np.round(np.linspace(3, 70, n_steps) ** 2)
        shape = (n_seeds, n_diversities, n_clusters * n_items)
        if labels == 1:
            m, g = rng.normal(size=(*shape, 1)), rng.normal(size=(*shape, 1))
        else:
            m, g = rng.dirichlet(np.ones(labels), shape) * 0.98 + 0.02 / labels, rng.dirichlet(np.ones(labels), shape)
            g = g * 0.98 + 0.02 / labels
        advantage = 0.2 * diversities**-0.35 * rng.uniform(0.9, 1.1, (n_seeds, n_diversities))
        bits = 2_000 + 500 * diversities * rng.uniform(0.98, 1.02, (n_seeds, n_diversities))
        terms = OddsTerms(steps, diversities, advantage, bits, np.full_like(bits, 1_800.0))
        made = Made(m, g, terms, np.repeat(np.arange(n_clusters), n_items))
        h = made.mixed(terms.log_odds(parameters))
        if spread and labels > 1:
            h = rng.standard_gamma(h / spread)
            h = np.maximum(h, 1e-9)
            h /= h.sum(-1, keepdims=True)
        elif spread:
            h = h + spread * rng.normal(size=h.shape)
        made.predictions = h
        return made

    return make
