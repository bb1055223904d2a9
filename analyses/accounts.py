"""Three accounts of in-context learning, one model, one task: how much of its answers does each explain?

An account (gradient steps, kernel regression, Bayesian strategies, and plain baselines beside them) says what it would
predict from the same demonstrations and query. Its free numbers are fitted to the model's predictions on one half of
the contexts; on the other half

    share = (D_anchor - D_account) / (D_anchor - D_ceiling)

with D the mean distance from the model's predictions: KL(model || account), nats, or a squared error between means. 0:
no nearer than a trivial prediction (the anchor), 1: as near as an account can be that does not know the order of the
demonstrations, below 0: farther than the trivial one. Beside it stands each account's error against the right answers,
and what other analyses found inside the model.

What may be asked (each with accounts of its own, see the modules of `mechicl.accounts`):

    RegressionTask, PooledRegressionTask    models of in-context regression       squared error     anchor: zero
    UrnTask, ChainTask                      transformers of urns and chains       nats              uniform
    ClassificationTask                      in-context classifiers                nats              uniform
    FewShotTask                             a language model, texts and labels    nats              constant
    PrimingCorpus                           a language model, one prime           nats              no priming

**Caveats.** An account that predicts what the model says need not be how it comes to say it: a share is behaviour, the
mechanistic rows are the beginning of more. Accounts that predict the same on these contexts cannot be told apart by
them (`apart` shows which). An account may fail for its free numbers' sake, not for its idea's: a kernel is only as good
as its features. Fitted numbers are chosen on half of the contexts, and the ceiling knows order alone: what else makes a
model unreliable is held against all accounts. The method is ours; the accounts are those of 2212.07677, 2305.12766,
2506.17859 and 2406.18501.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.accounts.account import Account
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.judgement import Judgement
from mechicl.accounts.judging import MARGIN, judge_accounts
from mechicl.analyses.rivals.kinds import Kind, kind_of
from mechicl.provenance import Provenance
from mechicl.resampling import check_level

__all__ = ["MECHANISMS", "AccountTable", "compare_accounts"]
MECHANISMS = ["account", "measure", "estimate", "low", "high", "control", "note"]


@dataclass(frozen=True)
class AccountTable(Judgement):
    """The accounts of one model on one task; all of a `Judgement`, and

    kind: of task. task: in words. mechanisms: one row a measure inside the model: account (or family), measure,
        estimate, low, high, control (the same where nothing should be; NaN where there is none), note.
    """

    kind: str
    task: str
    mechanisms: pd.DataFrame
    provenance: Provenance


def compare_accounts(
    model: Any,
    task: Any,
    *,
    accounts: Sequence[str | Account] | None = None,
    lengths: Sequence[int] | None = None,
    n_contexts: int | None = None,
    n_orders: int | None = None,
    anchor: str | None = None,
    beside: Sequence[Any] = (),
    reading: Mapping[str, Any] | None = None,
    margin: float = MARGIN,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    store: str | Path | None = None,
    progress: bool = True,
) -> AccountTable:
    """How much of a model's answers each account explains, with intervals.

    model: a language model, or an organism of the task (see the table above). accounts: names of the task's accounts,
    or an `Account` of your own, which predicts from the same examples; None takes all that the task has. lengths:
    numbers of demonstrations. n_contexts: a length; half of them are judged. n_orders: orders of the demonstrations
    that the ceiling rests on. anchor: an account to count shares from. beside: results of other analyses of the same
    model (`KernelAccount`, `GradientComparison`, `ImplicitGradient`, `HeadMap`), whose measures go into `mechanisms`.
    reading: more options of the task's reading, as `primed` and `finetuned` of `read_priming`, or `rates` of
    `read_fewshot`. margin: shares nearer than this are not told apart. store: folder of finished work, from which an
    interrupted run goes on (language models). seed: of contexts, orders, halves and bootstrap.

        task = RegressionTask(dim=10, n_demos=10, scale=0.5)
        found = compare_accounts(load_regressor("lsa-1"), task)
        print(found.verdict)
        found.plot()

    Raises `ValueError`, before any long work, for an unknown account or anchor, and what the readings refuse; TypeError
    for a task of no kind.
    """
    check_level(level)
    kind = kind_of(task)
    anchor = kind.anchor if anchor is None else anchor
    kind.check_names(accounts, anchor)
    options = {"lengths": lengths, "n_contexts": n_contexts, "n_orders": n_orders, **(reading or {})}
    contexts = kind.read(model, task, options, seed=seed, store=store, progress=progress)
    table = judge_accounts(
        contexts, _chosen(kind, contexts, accounts, anchor), anchor=anchor, margin=margin, n_boot=n_boot, level=level,
        seed=seed,
    )  # fmt: skip
    mechanisms = kind.mechanisms(model, task, contexts, table, beside, seed=seed)
    return AccountTable(
        **{field.name: getattr(table, field.name) for field in fields(Judgement)},
        kind=kind.name,
        task=kind.words(task),
        mechanisms=mechanisms[MECHANISMS],
        provenance=Provenance.of(
            kind.facts(model),
            seeds={"contexts, orders, halves and bootstrap": seed},
            options={
                "lengths": [one.length for one in contexts],
                "n_contexts": [len(one) for one in contexts],
                "n_orders": [0 if one.orders is None else len(one.orders) for one in contexts],
                "n_boot": n_boot,
                **{
                    name: value
                    for name, value in (reading or {}).items()
                    if isinstance(value, int | float | str | bool)
                },
            },
        ),
    )


def _chosen(
    kind: Kind, contexts: Sequence[Contexts], wanted: Sequence[str | Account] | None, anchor: str
) -> list[Account]:
    """The accounts that are judged, the anchor always among them."""
    known = {one.name: one for one in kind.accounts(contexts)}
    if wanted is None:
        return list(known.values())
    own = [known[one] if isinstance(one, str) else one for one in wanted]
    return own if anchor in {one.name for one in own} else [*own, known[anchor]]
