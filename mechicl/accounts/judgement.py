"""What came of judging accounts by a model's predictions: tables, and what may be said of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mechicl.accounts.words import ENOUGH, NAMED, family_sentence, verdict_of
from mechicl.results import Result

NEGLIGIBLE = 1e-4  # nats: answers that move less owe their contexts nothing (half a percent of a fair coin)


@dataclass(frozen=True)
class Judgement(Result):
    """Every account's share of what a model's answers owe to its context; see `mechicl.accounts.judging`.

    frame: one row an account, nearest first: account, family, n_free, parameters (in words), share, low, high; behind
        (by how much of the room it is behind the nearest), behind_low, behind_high; tied (not shown to be behind by
        more than the margin); distance with its interval, nats or squared units; words.
    by_length: the shares at every length of context, with distance, anchor_distance and ceiling.
    pairs: one row a pair: difference of shares, low, high, p (bootstrap, two-sided), p_holm over all pairs.
    apart: how far accounts are from each other on these contexts, as a share of the room: what is near 0 cannot be told
        apart here, whatever the model does.
    truth: error of the model and of each account against the right answers, in nats or squared units.
    parameters: the fitted numbers. anchor: from which shares are counted. room, ceiling: see there; with intervals.
    n_fitted, n_judged: contexts; n_clusters: of those judged.
    """

    frame: pd.DataFrame
    by_length: pd.DataFrame
    pairs: pd.DataFrame
    apart: pd.DataFrame
    truth: pd.DataFrame
    parameters: dict[str, dict[str, Any]]
    anchor: str
    is_mean: bool
    n_fitted: int
    n_judged: int
    n_clusters: int
    margin: float
    level: float
    room: float
    room_low: float
    room_high: float
    ceiling: float
    ceiling_low: float
    ceiling_high: float

    @property
    def has_room(self) -> bool:
        """Whether the model's answers owe anything to their contexts that an account could explain."""
        return bool(self.room_low > (0.0 if self.is_mean else NEGLIGIBLE))

    @property
    def best(self) -> str:
        """The account with the fewest free numbers among those not told apart from the nearest; then the nearest."""
        near = self.frame[self.frame["tied"]]
        return str(near.sort_values(["n_free", "distance"], kind="stable").iloc[0]["account"])

    @property
    def tied(self) -> tuple[str, ...]:
        """The other accounts that are not told apart from the nearest."""
        near = self.frame[self.frame["tied"] & (self.frame["account"] != self.best)]
        return tuple(map(str, near["account"]))

    @property
    def named(self) -> str | None:
        """The best account where it explains the model; None where it is a baseline, beats not all of them, where its
        share may be below a half, or fewer than 10 clusters were judged."""
        row = self.row(self.best)
        if not self.has_room or row["family"] == "baseline" or not row["low"] > NAMED or self.n_clusters < ENOUGH:
            return None
        return self.best if self.beats_baselines(self.best) else None

    @property
    def family(self) -> str | None:
        """The family of the named account."""
        return None if self.named is None else str(self.row(self.named)["family"])

    def beats_baselines(self, account: str) -> bool:
        """Whether the account is nearer than every baseline, each difference's interval above 0."""
        baselines = self.frame.loc[self.frame["family"] == "baseline", "account"]
        return all(self.difference(account, name)[1] > 0 for name in baselines if name != account)

    def row(self, account: str) -> pd.Series:
        """The row of one account; ValueError for a name that is not there."""
        rows = self.frame[self.frame["account"] == account]
        if rows.empty:
            raise ValueError(f"got account {account!r}; expected one of {', '.join(self.frame['account'])}")
        return rows.iloc[0]

    def difference(self, account: str, other: str) -> tuple[float, float, float]:
        """By how much of the room the account is nearer than the other, with its interval."""
        pairs = self.pairs
        for sign, a, b in ((1, account, other), (-1, other, account)):
            rows = pairs[(pairs["account"] == a) & (pairs["other"] == b)]
            if len(rows):
                row = rows.iloc[0]
                low, high = sorted((sign * float(row["low"]), sign * float(row["high"])))
                return sign * float(row["difference"]), low, high
        raise ValueError(f"got {account!r} and {other!r}; expected two of {', '.join(self.frame['account'])}")

    def leading(self, family: str) -> pd.Series | None:
        """The row of the nearest account of a family; None where it has none."""
        rows = self.frame[self.frame["family"] == family]
        return None if rows.empty else rows.iloc[0]

    @property
    def families(self) -> tuple[str, ...]:
        """The families that were judged, baselines last."""
        found = dict.fromkeys(map(str, self.frame["family"]))
        order = ("gradient", "kernel", "bayes", "boost", "baseline")
        return tuple(sorted(found, key=lambda one: order.index(one)))

    @property
    def sentences(self) -> dict[str, str]:
        """One sentence a family: how much of the model its nearest account explains, and beyond the best baseline."""
        return {family: family_sentence(self, family) for family in self.families}

    @property
    def verdict(self) -> str:
        """What came out, in words."""
        return verdict_of(self)

    def to_frame(self) -> pd.DataFrame:
        """The accounts."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """Shares of all accounts with intervals; returns matplotlib Axes."""
        from mechicl.views.accounts import plot_shares

        return plot_shares(self, ax=ax)

    def plot_lengths(self, ax: Any = None) -> Any:
        """The share of each family's nearest account over the length of context; returns matplotlib Axes."""
        from mechicl.views.accounts import plot_lengths

        return plot_lengths(self, ax=ax)

    def plot_apart(self, ax: Any = None) -> Any:
        """What these contexts tell apart: the distance of every account from every other; returns matplotlib Axes."""
        from mechicl.views.accounts import plot_apart

        return plot_apart(self, ax=ax)

    def to_apart(self) -> pd.DataFrame:
        """The same as a square table: share of the room between two accounts."""
        names = list(self.frame["account"])
        values = self.apart.set_index(["account", "other"])["share"]
        return pd.DataFrame([[values[one, other] for other in names] for one in names], index=names, columns=names)
