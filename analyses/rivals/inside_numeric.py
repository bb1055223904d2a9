"""What is inside a model of a numeric task, beside the accounts of what it says: one row a measure.

    cosine of slopes             mean cosine of d yhat / d x_q of the model and of a fitted account: do both apply the
                                 same law to the query? -1 to 1. Control: an untrained model, or, for a function, the
                                 account's law in another context; 0 is expected of laws that are unrelated.
    unique R2 of attention       what a kernel explains of log attention beyond place, label and what a pair draws from
                                 any query, held out (`mechicl.analyses.kernels`). Control: an untrained model.
    replaced attention           the account's weights in the place of the head's (`attention_mechanisms`)
    strategy log-odds            of memorising against generalising in the mixture that is nearest to the model; 8 and
                                 -8 are the ends of what is looked at: there the odds are only known to be beyond.

All on the contexts that fitted no account (those that `judge_accounts` judged, for the same seed), with percentile
intervals of a bootstrap over clusters; R2 over independent sets of contexts. Sources: 2212.07677 (slopes), 2305.12766
(attention), 2506.17859 (odds).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.special import expit

from mechicl.accounts.account import Account
from mechicl.accounts.classes import ClassExamples, class_accounts
from mechicl.accounts.contexts import Contexts, split_contexts
from mechicl.accounts.distances import prediction_distance
from mechicl.accounts.draws import draw_accounts
from mechicl.accounts.fitting import fit_account
from mechicl.accounts.regression import RegressionExamples, regression_accounts
from mechicl.analyses.algorithms.regressor_calls import slopes, untrained_of
from mechicl.analyses.rivals.inside_attention import attention_kernels, replaced_attention
from mechicl.analyses.updates.dual_intervals import ratio_intervals
from mechicl.tasks.regression import Regressions

COLUMNS = ["account", "measure", "estimate", "low", "high", "control", "note"]
MIXTURE = "mixture of strategies"
ODDS = np.linspace(-8.0, 8.0, 321)


def numeric_mechanisms(
    model: Any,
    task: Any,
    contexts: Sequence[Contexts],
    judged: Any = None,
    *,
    n_boot: int = 1_000,
    level: float = 0.95,
    difference_step: float = 1e-5,
    seed: int = 0,
) -> pd.DataFrame:
    """The rows that this model and task have; see the head of this file.

    contexts: what `read_numeric` gave. judged: the `Judgement` on them, whose accounts and fitted numbers are taken;
    without it the accounts are fitted here, to the same half for the same seed. difference_step: for functions, which
    have no gradients, in units of the query's root mean square; a float32 function needs about 1e-2.

    Raises ValueError for contexts of no numeric kind, and too few of them to halve.

        found = judge_accounts(contexts, regression_accounts(contexts[0].examples), anchor="zero")
        numeric_mechanisms(model, task, contexts, found)
    """
    choice, held_out = split_contexts(contexts, seed=seed)
    examples = contexts[0].examples
    accounts = {one.name: one for one in _accounts_of(examples)}
    fitted: dict[str, dict[str, Any]] = dict(judged.parameters) if judged is not None else {}
    if judged is None:
        # what no row reads is not fitted: laws of regression are, and kernels where there is a head to put them into
        needed = ("gradient", "kernel", "bayes") if isinstance(examples, RegressionExamples) else ("kernel",)
        read = isinstance(examples, RegressionExamples) or hasattr(model, "parameters")
        fitted = {
            name: fit_account(one, choice) if read and one.family in needed else {}
            for name, one in accounts.items()
            if one.family != "baseline"
        }
    chosen = {
        name: one
        for name, one in accounts.items()
        if one.family != "baseline" and name in fitted and (judged is None or _names(one) == set(fitted[name]))
    }
    fitted = {name: fitted[name] for name in chosen}  # without accounts of the user's own
    intervals: dict[str, Any] = {"n_boot": n_boot, "level": level, "seed": seed}
    rows: list[dict[str, Any]] = []
    if isinstance(examples, RegressionExamples):
        rows += slope_rows(model, held_out, chosen, fitted, difference_step=difference_step, **intervals)
    else:
        if isinstance(examples, ClassExamples):
            rows += attention_kernels(model, task, list(chosen), level=level, seed=seed)
        rows += replaced_attention(model, held_out, fitted, **intervals)
    if MIXTURE in chosen:
        rows.append(odds_row(chosen[MIXTURE], held_out, **intervals))
    return pd.DataFrame(rows, columns=COLUMNS)


def slope_rows(
    model: Any,
    contexts: Sequence[Contexts],
    accounts: Mapping[str, Account],
    fitted: Mapping[str, Mapping[str, Any]],
    *,
    difference_step: float,
    n_boot: int,
    level: float,
    seed: int,
) -> list[dict[str, Any]]:
    """The cosine of slopes, one row an account; an account whose slope is 0 everywhere has none."""
    parts = [one.examples for one in contexts]
    clusters = np.concatenate([one.cluster for one in contexts])
    own = [slopes(model, _as_regressions(part), step=difference_step) for part in parts]
    untrained = untrained_of(model, None, seed=seed)
    bare = None if untrained is None else [untrained.slopes(_as_regressions(part), difference_step) for part in parts]
    rows = []
    for name, account in accounts.items():
        laws = [account_slopes(account, part, fitted[name]) for part in parts]
        if not any(law.any() for law in laws):
            continue
        against = bare if bare is not None else [np.roll(slope, 1, axis=0) for slope in own]
        both = np.column_stack(
            [np.concatenate([_cosines(a, b) for a, b in zip(s, laws, strict=True)]) for s in (own, against)]
        )
        found, low, high = ratio_intervals(
            both, np.ones_like(both), clusters, n_boot=n_boot, level=level, seed=seed
        )  # fmt: skip
        beside = "an untrained model" if bare is not None else "the law in another context"
        rows.append(
            dict(zip(COLUMNS, (name, "cosine of slopes", found[0], low[0], high[0], found[1], f"control: {beside}"),
                     strict=True))
        )  # fmt: skip
    return rows


def account_slopes(
    account: Account, examples: RegressionExamples, parameters: Mapping[str, Any], *, step: float = 1e-4
) -> Float[np.ndarray, "batch dim"]:
    """d prediction / d x_q of an account, by central differences (exact where it is linear in the query)."""
    width = step * float(np.sqrt((examples.query**2).mean()))
    found = np.empty_like(examples.query)
    for entry in range(found.shape[1]):
        moved = np.zeros(found.shape[1])
        moved[entry] = width
        up, down = (
            account.predict(replace(examples, query=examples.query + sign * moved), **parameters) for sign in (1, -1)
        )
        found[:, entry] = (up - down)[:, 0] / (2 * width)
    return found


def odds_row(mixture: Account, contexts: Sequence[Contexts], *, n_boot: int, level: float, seed: int) -> dict[str, Any]:
    """The log-odds at which the mixture is nearest to the model."""
    clusters = np.concatenate([one.cluster for one in contexts])
    distances = np.concatenate(
        [
            np.stack([prediction_distance(one.model, _mixed(mixture, one, odds), one.mask) for odds in ODDS], axis=1)
            for one in contexts
        ]
    )
    codes = np.unique(clusters, return_inverse=True)[1]
    sums = np.zeros((int(codes.max()) + 1, len(ODDS)))
    np.add.at(sums, codes, distances)
    n = len(sums)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=n_boot)
    drawn = _lowest(counts @ sums)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    estimate = float(_lowest(sums.sum(0)[None])[0])
    beyond = "; at the end of the range: only known to be beyond" if abs(estimate) >= ODDS[-1] else ""
    note = f"weight of memorising {expit(estimate):.2f}{beyond}"
    return dict(
        zip(COLUMNS, (mixture.name, "strategy log-odds", estimate, low, high, np.nan, note), strict=True)
    )  # fmt: skip


def _lowest(curves: Float[np.ndarray, "boot _"]) -> Float[np.ndarray, " boot"]:
    """Where each curve over `ODDS` is lowest, by a parabola through the three points around it."""
    at = curves.argmin(-1)
    inner = np.clip(at, 1, len(ODDS) - 2)
    rows: Int[np.ndarray, " boot"] = np.arange(len(curves))
    left, middle, right = (curves[rows, inner + shift] for shift in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.divide(left - right, 2 * bend, out=np.zeros_like(bend), where=bend > 0)
    fine = ODDS[inner] + np.clip(shift, -1, 1) * (ODDS[1] - ODDS[0])
    return np.asarray(np.where(at == inner, fine, ODDS[at]))


def _mixed(mixture: Account, contexts: Contexts, odds: float) -> Float[np.ndarray, "batch label"]:
    return np.asarray(mixture.predict(contexts.examples, log_odds=float(odds)))


def _cosines(a: Float[np.ndarray, "batch dim"], b: Float[np.ndarray, "batch dim"]) -> Float[np.ndarray, " batch"]:
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return np.divide((a * b).sum(-1), norms, out=np.zeros_like(norms), where=norms > 0)


def _as_regressions(examples: RegressionExamples) -> Regressions:
    """Contexts as `slopes` takes them, which reads no target."""
    unknown = np.full(len(examples), np.nan)
    return Regressions(examples.x, examples.y, examples.query, unknown, np.full_like(examples.query, np.nan))


def _names(account: Account) -> set[str]:
    """Of the parameters."""
    return {*account.choices, *(one.name for one in account.free)}


def _accounts_of(examples: Any) -> tuple[Account, ...]:
    if isinstance(examples, RegressionExamples):
        return regression_accounts(examples)
    return class_accounts(examples) if isinstance(examples, ClassExamples) else draw_accounts(examples)
