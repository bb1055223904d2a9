"""Where training and task diversity push the odds of memorising: prior, evidence, posterior and their derivatives.

With the log odds E(N, D) + P(D), evidence E = gamma N^(1 - alpha) (L_G - L_M) and prior P (means over seeds):

    d log odds / d log N = (1 - alpha) E
    d log odds / d log D = dE / d log D + dP / d log D        (differences between neighbouring diversities)

All nats, or nats a factor e of N or D. Above 0 pushes towards memorising. Divide by N for the derivative by N.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.results import Result
from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms


@dataclass(frozen=True)
class StrategyField(Result):
    """The odds over steps and diversities, and what changes them."""

    steps: Float[np.ndarray, " step"]
    diversities: Float[np.ndarray, " diversity"]
    prior: Float[np.ndarray, " diversity"]
    evidence: Float[np.ndarray, "step diversity"]
    by_log_step: Float[np.ndarray, "step diversity"]
    by_log_diversity: Float[np.ndarray, "step diversity"]
    prior_by_log_diversity: Float[np.ndarray, " diversity"]

    @property
    def log_odds(self) -> Float[np.ndarray, "step diversity"]:
        """The log posterior odds of memorising."""
        return self.evidence + self.prior

    def to_frame(self) -> pd.DataFrame:
        """One row a step and diversity."""
        steps, diversities = np.indices(self.evidence.shape).reshape(2, -1)
        cells = ("evidence", "log_odds", "by_log_step", "by_log_diversity")
        return pd.DataFrame(
            {
                "step": self.steps[steps],
                "diversity": self.diversities[diversities],
                "prior": self.prior[diversities],
                "prior_by_log_diversity": self.prior_by_log_diversity[diversities],
            }
            | {name: getattr(self, name).ravel() for name in cells}
        )

    def plot(self, ax: Any = None) -> Any:
        """Arrows over log steps and log diversities, on the posterior weight."""
        from mechicl.views.strategy_judged import plot_vector_field

        return plot_vector_field(self, ax=ax)


def strategy_field(terms: OddsTerms, parameters: OddsParameters) -> StrategyField:
    """The field at the checkpoints and diversities of the terms.

    Errors (ValueError): fewer than 2 diversities.

        strategy_field(fit.terms, fit.estimate).plot()
    """
    if len(terms.diversities) < 2:
        raise ValueError(f"got {len(terms.diversities)} diversity; expected 2 or more, for differences between them")
    evidence = terms.evidence(parameters.alpha, parameters.gamma).mean(0)
    prior = terms.prior(parameters.beta).mean(0)
    log_d = np.log(terms.diversities)
    prior_slope = np.gradient(prior, log_d)
    return StrategyField(
        steps=terms.steps,
        diversities=terms.diversities,
        prior=prior,
        evidence=evidence,
        by_log_step=(1 - parameters.alpha) * evidence,
        by_log_diversity=np.gradient(evidence, log_d, axis=1) + prior_slope,
        prior_by_log_diversity=prior_slope,
    )
