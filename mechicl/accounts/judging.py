"""Which account predicts a model best: fitted on half of the contexts, judged on the other half.

Let D_a be the mean distance of account a from the model's predictions (`mechicl.accounts.distances`) on the contexts
that chose none of its numbers, D_anchor that of a trivial prediction, and D_ceiling what any account must miss that
does not know the order of the demonstrations. The account's share is

    share = (D_anchor - D_a) / (D_anchor - D_ceiling)

0: no nearer than the anchor; 1: as near as an account can be; below 0: farther than the anchor. Above 1 only where an
account knows more of the order than the ceiling grants. The denominator is the *room*: what the model's answers owe to
its context, and not to order. Where its interval reaches 0 there is nothing to explain, and no share has an interval;
nor is there where answers move by less than 1e-4 nats.

Intervals are percentiles of a bootstrap over clusters of contexts, widened for few clusters. Differences between
accounts are paired: both are judged on the same draws. `best` is the nearest account, or one with fewer free numbers
that is not shown to be farther by more than a margin; it is `named` where it is no baseline, beats every baseline, its
share is above a half, and ten clusters or more were judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mechicl.accounts.account import Account, in_words
from mechicl.accounts.contexts import Contexts, split_contexts
from mechicl.accounts.distances import ceiling_distance, predict_contexts, prediction_distance
from mechicl.accounts.fitting import fit_account
from mechicl.accounts.judgement import Judgement
from mechicl.accounts.share_draws import CEILING, ShareDraws, draw_sums, pair_table
from mechicl.resampling import MIN_BOOT, check_level

MARGIN = 0.02  # of the room: accounts that are nearer to each other are not told apart


def judge_accounts(
    contexts: Sequence[Contexts],
    accounts: Sequence[Account],
    *,
    anchor: str,
    margin: float = MARGIN,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> Judgement:
    """Fit and judge accounts on a model's predictions, one `Contexts` for every length of context.

    anchor: the name of the account from which shares are counted; it is fitted like all. margin: differences of shares
    below it count as none. seed: that of halves and bootstrap.

    Raises ValueError for no contexts or accounts, two of one name or length, an anchor that is not among the accounts,
    a margin that is not in [0, 1), and accounts whose predictions do not fit the model's.
    """
    check_level(level)
    _check(contexts, accounts, anchor, margin, n_boot)
    choice, held_out = split_contexts(contexts, seed=seed)
    fitted = {one.name: fit_account(one, choice) for one in accounts}
    predictions = {one.name: [predict_contexts(one, part, fitted[one.name]) for part in held_out] for one in accounts}
    draws = _draws(held_out, predictions, n_boot, seed)
    return Judgement(
        frame=_frame(accounts, fitted, draws, anchor, margin, level),
        by_length=_by_length(accounts, draws, [one.length for one in contexts], anchor, level),
        pairs=pair_table(draws, [one.name for one in accounts], anchor, level),
        apart=_apart(held_out, predictions, draws, anchor),
        truth=_truth(held_out, predictions, n_boot, level, seed),
        parameters=fitted,
        anchor=anchor,
        is_mean=contexts[0].is_mean,
        n_fitted=sum(map(len, choice)),
        n_judged=sum(map(len, held_out)),
        n_clusters=len(np.unique(np.concatenate([one.cluster for one in held_out]))),
        margin=margin,
        level=level,
        **_room(draws, anchor, level),
    )


def _draws(
    held_out: Sequence[Contexts], predictions: dict[str, list[np.ndarray]], n_boot: int, seed: int
) -> ShareDraws:
    """The distances of all accounts, and the ceiling, summed over clusters and drawn."""
    distances = {
        name: [prediction_distance(part.model, p, part.mask) for part, p in zip(held_out, own, strict=True)]
        for name, own in predictions.items()
    }
    distances[CEILING] = [ceiling_distance(part) for part in held_out]
    return draw_sums(distances, [part.cluster for part in held_out], n_boot=n_boot, seed=seed)


def _room(draws: ShareDraws, anchor: str, level: float) -> dict[str, float]:
    value, drawn = draws.mean(anchor) - draws.mean(CEILING), draws.means(anchor) - draws.means(CEILING)
    low, high = draws.interval(drawn, level)
    ceiling = draws.interval(draws.means(CEILING), level)
    return {
        "room": value, "room_low": low, "room_high": high,
        "ceiling": draws.mean(CEILING), "ceiling_low": ceiling[0], "ceiling_high": ceiling[1],
    }  # fmt: skip


def _frame(
    accounts: Sequence[Account],
    fitted: dict[str, dict[str, Any]],
    draws: ShareDraws,
    anchor: str,
    margin: float,
    level: float,
) -> pd.DataFrame:
    """One row an account, nearest first."""
    nearest = min((one.name for one in accounts), key=draws.mean)
    rows = []
    for one in accounts:
        distance_low, distance_high = draws.interval(draws.means(one.name), level)
        share, low, high = draws.share(one.name, anchor, level)
        behind, behind_low, behind_high = draws.difference(nearest, one.name, anchor, level)
        rows.append(
            {
                "account": one.name, "family": one.family, "n_free": one.n_free,
                "parameters": in_words(fitted[one.name]),
                "share": share, "low": low, "high": high,
                "behind": behind, "behind_low": behind_low, "behind_high": behind_high,
                "tied": not behind_low > margin,
                "distance": draws.mean(one.name), "distance_low": distance_low, "distance_high": distance_high,
                "words": one.words,
            }
        )  # fmt: skip
    return pd.DataFrame(rows).sort_values("distance", kind="stable", ignore_index=True)


def _by_length(
    accounts: Sequence[Account], draws: ShareDraws, lengths: Sequence[int], anchor: str, level: float
) -> pd.DataFrame:
    """One row a length and account, with the anchor's distance and the ceiling beside."""
    rows = []
    for place, length in enumerate(lengths):
        part = draws.at(place)
        for one in accounts:
            share, low, high = part.share(one.name, anchor, level)
            distances = (part.mean(name) for name in (one.name, anchor, CEILING))
            rows.append((length, one.name, one.family, share, low, high, *distances))
    columns = ["length", "account", "family", "share", "low", "high", "distance", "anchor_distance", "ceiling"]
    return pd.DataFrame(rows, columns=columns)


def _apart(
    held_out: Sequence[Contexts], predictions: dict[str, list[np.ndarray]], draws: ShareDraws, anchor: str
) -> pd.DataFrame:
    """How far each account is from each other one, as a share of the room: what these contexts can tell apart."""
    room = draws.mean(anchor) - draws.mean(CEILING)
    rows = []
    for of, own in predictions.items():
        for by, other in predictions.items():
            parts = [prediction_distance(a, b, part.mask) for part, a, b in zip(held_out, own, other, strict=True)]
            distance = float(np.concatenate(parts).mean())
            rows.append((of, by, distance, distance / room if room > 0 else np.nan))
    return pd.DataFrame(rows, columns=["account", "other", "distance", "share"])


def _truth(
    held_out: Sequence[Contexts], predictions: dict[str, list[np.ndarray]], n_boot: int, level: float, seed: int
) -> pd.DataFrame:
    """How far the model ("model") and each account are from the truth; empty where it is unknown."""
    columns = ["account", "error", "low", "high"]
    known = [np.flatnonzero(np.isfinite(part.truth).all(-1)) for part in held_out]
    parts = [(part.take(rows), rows) for part, rows in zip(held_out, known, strict=True) if len(rows)]
    if not parts or len(np.unique(np.concatenate([part.cluster for part, _ in parts]))) < 2:
        return pd.DataFrame(columns=columns)
    said = {"model": [part.model for part, _ in parts]}
    for name, own in predictions.items():
        said[name] = [p[rows] for p, rows in zip(own, known, strict=True) if len(rows)]
    errors = {
        name: [prediction_distance(part.truth, p, part.mask) for (part, _), p in zip(parts, own, strict=True)]
        for name, own in said.items()
    }
    draws = draw_sums(errors, [part.cluster for part, _ in parts], n_boot=n_boot, seed=seed)
    rows = [(name, draws.mean(name), *draws.interval(draws.means(name), level)) for name in said]
    return pd.DataFrame(rows, columns=columns)


def _check(contexts: Sequence[Contexts], accounts: Sequence[Account], anchor: str, margin: float, n_boot: int) -> None:
    if not contexts or not accounts:
        raise ValueError(f"got {len(contexts)} lengths of contexts and {len(accounts)} accounts; expected some of each")
    lengths, names = [one.length for one in contexts], [one.name for one in accounts]
    for what, given in (("lengths", lengths), ("names of accounts", names)):
        if len(set(given)) < len(given):
            raise ValueError(f"got the {what} {given}; expected each once")
    if anchor not in names:
        raise ValueError(f"got anchor={anchor!r}; expected one of the accounts: {', '.join(names)}")
    if {CEILING, "model"} & set(names):
        raise ValueError("got an account that is called ceiling or model; these names are taken, choose another")
    if len({one.model.shape[1] for one in contexts}) > 1:
        raise ValueError("got contexts with different numbers of answers; expected the same at all lengths")
    if not 0 <= margin < 1:
        raise ValueError(f"got margin={margin}; expected a share of the room, from 0 to below 1")
    if n_boot < MIN_BOOT:
        raise ValueError(f"got n_boot={n_boot}, expected at least {MIN_BOOT}")


__all__ = ["MARGIN", "Judgement", "judge_accounts"]
