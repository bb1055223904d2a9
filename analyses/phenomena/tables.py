"""Tables of the phenomena: accuracy by condition, sensitivity to order, and what an account shares with the model.

All are made of one table of items: a row a condition, version (orders have several), query and predictor. Queries are
what was sampled: versions are averaged within queries, intervals resample queries, and p-values flip signs of queries.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from mechicl.analyses.phenomena.conditions import ORDER, REFERENCE
from mechicl.resampling import MANY_UNDEFINED, cluster_bootstrap, cluster_mean_interval
from mechicl.stats import cluster_mean_p, holm

ICL = "ICL"
_NAN3 = (np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Sampling:
    """How intervals and p-values are computed."""

    n_boot: int
    n_permutations: int
    level: float
    seed: int

    def mean(self, values: Float[np.ndarray, " item"]) -> tuple[float, float, float]:
        """Mean and interval over queries; of no width where all are equal, NaN where any is."""
        if np.isnan(values).any():
            return _NAN3
        if np.ptp(values) == 0:
            return float(values[0]), float(values[0]), float(values[0])
        found = cluster_mean_interval(
            values, np.arange(len(values)), n_boot=self.n_boot, level=self.level, seed=self.seed
        )
        return found.estimate, found.low, found.high

    def p(self, values: Float[np.ndarray, " item"]) -> float:
        """Two-sided p of a mean of 0, by flipping signs; NaN where any value is."""
        if np.isnan(values).any():
            return np.nan
        return cluster_mean_p(values, np.arange(len(values)), n_permutations=self.n_permutations, seed=self.seed)

    def statistic(
        self, of: Callable[[Int[np.ndarray, "*boot item"]], Float[np.ndarray, "*boot"]], n: int
    ) -> tuple[float, float, float]:
        """Any statistic of samples of queries, with a percentile interval.

        NaN where it is undefined; no interval where it is undefined on over 1% of the resamples.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # tells of undefined resamples, which are counted here
                found = cluster_bootstrap(
                    of, n, n_boot=self.n_boot, level=self.level, method="percentile", seed=self.seed
                )
        except ValueError:
            return _NAN3
        if found.n_undefined > MANY_UNDEFINED * found.n_boot:
            return found.estimate, np.nan, np.nan
        return found.estimate, found.low, found.high


def by_query(items: pd.DataFrame, column: str, condition: str, predictor: str) -> Float[np.ndarray, " item"]:
    """One number a query, the mean over versions."""
    own = items[(items["condition"] == condition) & (items["predictor"] == predictor)]
    return own.groupby("query", sort=True)[column].mean().to_numpy(np.float64)


def condition_table(items: pd.DataFrame, sampling: Sampling) -> pd.DataFrame:
    """A row a condition and predictor; see `KernelPhenomena.frame`."""
    rows = []
    for predictor in dict.fromkeys(items["predictor"]):
        base = by_query(items, "right", REFERENCE, predictor)
        for condition in dict.fromkeys(items["condition"]):
            right, agrees, changed, chance = (
                by_query(items, column, condition, predictor)
                for column in ("right", "agrees", "changed", "agreement_chance")
            )
            apart = condition != REFERENCE
            rows.append(
                (
                    condition, predictor, *sampling.mean(right), *sampling.mean(agrees), float(chance.mean()),
                    *(sampling.mean(right - base) if apart else _NAN3), sampling.p(right - base) if apart else np.nan,
                    float(changed.mean()), len(right),
                )
            )  # fmt: skip
    names = ["accuracy", "low", "high", "agreement", "agree_low", "agree_high", "agreement_chance"]
    names += ["difference", "diff_low", "diff_high", "p", "changed", "n"]
    return _with_holm(pd.DataFrame(rows, columns=["condition", "predictor", *names]))


def order_table(items: pd.DataFrame, sampling: Sampling) -> pd.DataFrame:
    """A row a predictor; see `KernelPhenomena.orders`. Empty without the condition or with one version of it."""
    own = items[items["condition"] == ORDER]
    columns = ["predictor", "accuracy_min", "accuracy_max", "accuracy_sd", "disagreement", "low", "high", "n_orders"]
    if own["version"].nunique() < 2:
        return pd.DataFrame(columns=columns)
    rows = []
    for predictor, part in own.groupby("predictor", sort=False):
        accuracy = part.groupby("version")["right"].mean()
        differs = part.groupby("query", sort=True)["order_disagreement"].mean().to_numpy(np.float64)
        spread = (accuracy.min(), accuracy.max(), accuracy.std(ddof=1))
        rows.append((predictor, *map(float, spread), *sampling.mean(differs), len(accuracy)))
    return pd.DataFrame(rows, columns=columns)


def account_table(frame: pd.DataFrame, items: pd.DataFrame, sampling: Sampling) -> pd.DataFrame:
    """A row a condition and account; see `KernelPhenomena.accounts`."""
    rows = []
    effects = frame.set_index(["predictor", "condition"])
    alpha = 1 - sampling.level
    predictors = [name for name in dict.fromkeys(frame["predictor"]) if name != ICL]
    for predictor in predictors:
        for condition in dict.fromkeys(frame["condition"]):
            if condition == REFERENCE:
                continue
            model, account = effects.loc[(ICL, condition)], effects.loc[(predictor, condition)]
            gap = [
                by_query(items, "right", condition, name) - by_query(items, "right", REFERENCE, name)
                for name in (ICL, predictor)
            ]
            rows.append(
                (
                    condition, predictor, model["difference"], account["difference"], *sampling.mean(gap[0] - gap[1]),
                    sampling.p(gap[0] - gap[1]), _verdict(model, account, alpha),
                )
            )  # fmt: skip
    names = ["model_difference", "account_difference", "gap", "low", "high", "p", "verdict"]
    return _with_holm(pd.DataFrame(rows, columns=["condition", "predictor", *names]))


def correlation_table(items: pd.DataFrame, sampling: Sampling) -> pd.DataFrame:
    """A row an account; see `KernelPhenomena.correlations`."""
    rows = []
    conditions = list(dict.fromkeys(items["condition"]))
    for predictor in dict.fromkeys(items["predictor"]):
        if predictor == ICL:
            continue
        pairs = [[by_query(items, "right", c, name) for name in (ICL, predictor)] for c in conditions]
        known = [pair for pair in pairs if not np.isnan(pair[1]).any()]
        rows.append((predictor, *_correlation(np.array(known), sampling), len(known)))
    return pd.DataFrame(rows, columns=["predictor", "correlation", "low", "high", "n_conditions"])


def _correlation(rights: Float[np.ndarray, "fold two item"], sampling: Sampling) -> tuple[float, float, float]:
    """Pearson's over conditions, of the accuracies of a model and an account on the same queries."""
    if len(rights) < 3:
        return _NAN3

    def of(chosen: Int[np.ndarray, "*boot item"]) -> Float[np.ndarray, "*boot"]:
        means = rights[:, :, chosen].mean(-1)  # condition, which, boot
        centred = means - means.mean(0)
        spreads = np.sqrt((centred**2).sum(0))
        product = (centred[:, 0] * centred[:, 1]).sum(0)
        scale = spreads[0] * spreads[1]
        return np.asarray(np.divide(product, scale, out=np.full(np.shape(scale), np.nan), where=scale > 1e-9))

    return sampling.statistic(of, rights.shape[-1])


def _verdict(model: pd.Series, account: pd.Series, alpha: float) -> str:
    """Whose accuracy differs from the reference's at the level alpha, corrected for the number of conditions."""
    if np.isnan(account["p_holm"]):
        return "no account"
    moved, predicted = model["p_holm"] <= alpha, account["p_holm"] <= alpha
    if moved and predicted:
        return "both change" if model["difference"] * account["difference"] > 0 else "opposite changes"
    if moved or predicted:
        return "only the model changes" if moved else "only the account changes"
    return "no change seen"


def _with_holm(frame: pd.DataFrame) -> pd.DataFrame:
    """With the column p_holm after p: Holm's correction over the conditions of each predictor."""
    adjusted = frame.groupby("predictor", sort=False)["p"].transform(lambda p: holm(p.to_numpy(np.float64)))
    names = [x for column in frame.columns for x in ((column, "p_holm") if column == "p" else (column,))]
    return frame.assign(p_holm=adjusted.to_numpy(np.float64))[names]
