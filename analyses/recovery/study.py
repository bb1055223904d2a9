"""What came of asking which account organisms follow whose account is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from mechicl.provenance import Provenance
from mechicl.results import Result

FAMILIES = ("gradient", "kernel", "bayes", "boost", "baseline")
NONE = "none"
COLUMNS = (
    "kind", "draw", "truth_account", "truth_family", "parameters", "account", "family", "nearest", "tied", "rivals",
    "outcome",
    "share", "low", "high", "truth_share", "truth_behind", "room", "room_low", "ceiling", "fitted", "d_rel", "residual",
)  # fmt: skip


@dataclass(frozen=True)
class RecoveryStudy(Result):
    """Organisms, the account that each follows, and the one that the comparison named.

    frame: one row an organism: kind, draw; truth_account, truth_family ("baseline" where nothing is learned from the
        context); parameters (JSON); account, family: what was named, "none" for nothing; nearest: the account that
        would be named if it passed; tied: those not told apart from it; rivals: the other families among them; outcome
        (see `outcome_of`); share with its interval (of the nearest); truth_share and truth_behind (of the true account:
        behind the nearest by so much); room, its lower end, ceiling; fitted: the nearest's numbers; d_rel and residual
        of trained transformers.
    noise: the same for organisms with noise on their answers; noise: its standard deviation in those of the answers.
    """

    frame: pd.DataFrame
    noise: pd.DataFrame
    level: float
    provenance: Provenance

    @property
    def confusion(self) -> pd.DataFrame:
        """Organisms by the true family (rows; "baseline" for nulls) and the attributed one ("none" for nothing)."""
        return _crossed(self.frame, "truth_family", "family", FAMILIES, (*FAMILIES[:-1], NONE))

    @property
    def account_confusion(self) -> pd.DataFrame:
        """Organisms by kind (rows) and the account that was named."""
        named = sorted(set(self.frame["account"]) - {NONE})
        return _crossed(self.frame, "kind", "account", tuple(dict.fromkeys(self.frame["kind"])), (*named, NONE))

    @property
    def accuracy(self) -> pd.DataFrame:
        """One row a kind, "all accounts" and "all nulls": how many were attributed to their family (of nulls: to none),
        with Wilson's interval. Of these, alone: those that no account of another family ties with (others are the
        simplest or nearest of those that tie; 0 for nulls). right_account: attributed to their own account."""
        nulls = self.frame["truth_family"] == "baseline"
        parts = {kind: self.frame["kind"] == kind for kind in dict.fromkeys(self.frame["kind"])}
        parts |= {name: mask for name, mask in (("all accounts", ~nulls), ("all nulls", nulls)) if mask.any()}
        return pd.DataFrame([{"kind": kind, **self._rates(self.frame[mask])} for kind, mask in parts.items()])

    @property
    def false_attributions(self) -> pd.DataFrame:
        """The nulls that were attributed to an account."""
        return self.frame[self.frame["outcome"] == "false"].reset_index(drop=True)

    @property
    def misattributed(self) -> pd.DataFrame:
        """Every organism whose family was not found: nulls that were named, and accounts that were not, or wrongly."""
        return self.frame[self.frame["outcome"] != "right"].reset_index(drop=True)

    @property
    def noise_table(self) -> pd.DataFrame:
        """One row a kind and level of noise: organisms, how many were attributed to their family, mean share."""
        if not len(self.noise):
            return pd.DataFrame(columns=["kind", "noise", "n", "right", "low", "high", "right_account", "share"])
        rows = []
        for (kind, level), own in self.noise.groupby(["kind", "noise"], sort=True):
            rates = self._rates(own)
            kept = {name: rates[name] for name in ("n", "right", "low", "high", "right_account")}
            rows.append({"kind": kind, "noise": level, **kept, "share": float(own["share"].mean())})
        return pd.DataFrame(rows)

    @property
    def verdict(self) -> str:
        """What came out, in words."""
        from mechicl.analyses.recovery.words import recovery_verdict

        return recovery_verdict(self)

    def to_frame(self) -> pd.DataFrame:
        """One row an organism."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """The confusion matrix of families; returns matplotlib Axes."""
        from mechicl.views.recovery import plot_confusion

        return plot_confusion(self, ax=ax)

    def plot_kinds(self, ax: Any = None) -> Any:
        """The same matrix, a row a kind of organism; returns matplotlib Axes."""
        from mechicl.views.recovery import plot_confusion

        return plot_confusion(self, by_kind=True, ax=ax)

    def plot_noise(self, ax: Any = None) -> Any:
        """How many are attributed to their family over the noise on their answers; returns matplotlib Axes."""
        from mechicl.views.recovery import plot_noise

        return plot_noise(self, ax=ax)

    def _rates(self, rows: pd.DataFrame) -> dict[str, Any]:
        """Counts of one part of the organisms."""
        is_null = (rows["truth_family"] == "baseline").to_numpy(bool)
        right = (rows["outcome"] == "right").to_numpy(bool)
        exact = np.where(is_null, right, (rows["account"] == rows["truth_account"]).to_numpy(bool))
        low, high = wilson(int(right.sum()), len(rows), self.level)
        return {
            "n": len(rows), "right": int(right.sum()), "rate": float(right.mean()), "low": low, "high": high,
            "alone": int((right & ~is_null & (rows["rivals"] == "").to_numpy(bool)).sum()),
            "right_account": int(exact.sum()), "tied": int((rows["outcome"] == "tied").sum()),
            "unnamed": int((rows["outcome"] == "unnamed").sum()),
        }  # fmt: skip


def outcome_of(truth_account: str, truth_family: str, family: str, tied: tuple[str, ...]) -> str:
    """What became of one organism.

    "right": its family was named, or nothing for a null. "false": a null was named. "tied": its family was not, but the
    true account is among those not told apart from the one preferred, which has fewer free numbers or a hair less
    distance (a baseline, where nothing was named). "unnamed": nothing was named, as the nearest account explains too
    little or does not beat the baselines. "wrong": another family was named, and the true account is farther.
    """
    if truth_family == "baseline":
        return "right" if family == NONE else "false"
    if family == truth_family:
        return "right"
    if truth_account in tied:
        return "tied"
    return "unnamed" if family == NONE else "wrong"


def wilson(right: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's interval of a share; NaN where there is nothing to count."""
    if not n:
        return np.nan, np.nan
    found = binomtest(right, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def _crossed(
    frame: pd.DataFrame, rows: str, columns: str, row_order: tuple[str, ...], column_order: tuple[str, ...]
) -> pd.DataFrame:
    table = pd.crosstab(frame[rows], frame[columns])
    found = [name for name in row_order if name in table.index]
    return table.reindex(index=found, columns=list(column_order), fill_value=0)
