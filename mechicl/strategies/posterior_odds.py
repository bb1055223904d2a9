"""The odds of memorising against generalising during training, by the hierarchical Bayesian model of 2506.17859.

Training is taken for inference about two strategies, M (memorising) and G (generalising). At step N and diversity D

    log odds(M : G) = gamma N^(1 - alpha) (L_G - L_M)  -  ln 2 (K_M^beta - K_G^beta)
                      evidence (Bayes factor)             prior

L is a strategy's loss a token, nats (or squared error); K its description length, bits; powers are taken separately.
gamma: how much a step counts; alpha, 0 to 1: how much less each further step counts; beta: how steeply a long
description is disfavoured. The model's prediction is w M + (1 - w) G with w = 1 / (1 + exp(-log odds)). All nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import xlogy

from mechicl.storage import Record

NAMES = ("alpha", "beta", "gamma")


@dataclass(frozen=True)
class OddsParameters(Record):
    """The three free numbers: alpha (0 to 1), beta (0 and more), gamma (above 0, nats a step^(1-alpha) and nat)."""

    alpha: float
    beta: float
    gamma: float

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0 <= self.alpha < 1:
            raise ValueError(f"got alpha={self.alpha}; expected 0 or more, below 1")
        if not 0 <= self.beta < np.inf:
            raise ValueError(f"got beta={self.beta}; expected a finite number, 0 or more")
        if not 0 < self.gamma < np.inf:
            raise ValueError(f"got gamma={self.gamma}; expected a finite number above 0")


@dataclass(frozen=True)
class OddsTerms(Record):
    """What the odds are made of, beside the parameters.

    steps: N of every checkpoint, rising. diversities: D, rising. advantage: L_G - L_M, how much better memorising
    predicts what is trained on. bits_memorising, bits_generalising: K.

    Errors (ValueError): shapes that do not go together, steps or diversities that do not rise, numbers that are not
    finite, descriptions below 1 bit.
    """

    steps: Float[np.ndarray, " step"]
    diversities: Float[np.ndarray, " diversity"]
    advantage: Float[np.ndarray, "seed diversity"]
    bits_memorising: Float[np.ndarray, "seed diversity"]
    bits_generalising: Float[np.ndarray, "seed diversity"]

    def __post_init__(self) -> None:
        """Check every field."""
        for name, least in (("steps", 0.0), ("diversities", 1.0)):
            values = getattr(self, name)
            if not np.isfinite(values).all() or (values < least).any() or (np.diff(values) <= 0).any():
                raise ValueError(f"got {name} {values.tolist()}; expected rising finite numbers from {least:g} on")
        for name in ("advantage", "bits_memorising", "bits_generalising"):
            values = getattr(self, name)
            if values.shape != self.advantage.shape or values.shape[1:] != self.diversities.shape:
                raise ValueError(
                    f"got {name} of shape {values.shape}; expected {self.advantage.shape}, [seed, diversity] "
                    f"with {len(self.diversities)} diversities"
                )
            if not np.isfinite(values).all():
                raise ValueError(f"got {name} that is not finite; losses and complexities must be known everywhere")
            if name != "advantage" and (values < 1).any():
                raise ValueError(f"got {name} of {values.min():g} bits; expected 1 bit or more")

    def evidence(self, alpha: float, gamma: float) -> Float[np.ndarray, "seed step diversity"]:
        """gamma N^(1 - alpha) (L_G - L_M): the log Bayes factor, above 0 where training speaks for memorising."""
        return np.asarray(gamma * (self.steps ** (1 - alpha))[:, None] * self.advantage[:, None])

    def prior(self, beta: float) -> Float[np.ndarray, "seed diversity"]:
        """-ln 2 (K_M^beta - K_G^beta): the log prior odds, below 0 where memorising is the longer description."""
        return np.asarray(-np.log(2) * (self.bits_memorising**beta - self.bits_generalising**beta))

    def prior_slope(self, beta: float) -> Float[np.ndarray, "seed diversity"]:
        """The derivative of the log prior odds with respect to beta."""
        m, g = (bits**beta * np.log(bits) for bits in (self.bits_memorising, self.bits_generalising))
        return np.asarray(-np.log(2) * (m - g))

    def log_odds(self, parameters: OddsParameters) -> Float[np.ndarray, "seed step diversity"]:
        """The log posterior odds of memorising against generalising."""
        return np.asarray(self.evidence(parameters.alpha, parameters.gamma) + self.prior(parameters.beta)[:, None, :])

    def log_odds_gradient(self, parameters: OddsParameters) -> Float[np.ndarray, "_ seed step diversity"]:
        """Derivatives of the log odds with respect to alpha, beta and log gamma."""
        evidence = self.evidence(parameters.alpha, parameters.gamma)
        return np.stack(
            [
                -xlogy(evidence, np.where(evidence == 0, 1.0, self.steps[:, None])),
                np.broadcast_to(self.prior_slope(parameters.beta)[:, None, :], evidence.shape),
                evidence,
            ]
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Seeds, steps and diversities."""
        return (len(self.advantage), len(self.steps), len(self.diversities))
