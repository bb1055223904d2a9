"""Accounts of in-context learning as predictors: what each would say of the same examples, and which is nearest.

An `Account` maps demonstrations and a query to a prediction, with a few numbers left free; `judge_accounts` fits them
on half of a model's `Contexts` and judges them on the other. The accounts of each kind of task are in `regression`,
`draws` (urns and Markov chains), `classes`, `labels` (few-shot texts) and `priming`. Pure functions of arrays: no model
is run here; `mechicl.analyses.compare_accounts` does that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mechicl.lazy import lazy_names

if TYPE_CHECKING:
    from mechicl.accounts.account import Account, Free
    from mechicl.accounts.contexts import Contexts
    from mechicl.accounts.fitting import fit_account
    from mechicl.accounts.judgement import Judgement
    from mechicl.accounts.judging import judge_accounts

_HOME = {
    "Account": "account",
    "Contexts": "contexts",
    "Free": "account",
    "Judgement": "judgement",
    "fit_account": "fitting",
    "judge_accounts": "judging",
}
__all__ = sorted(_HOME)
__getattr__, __dir__ = lazy_names(__name__, _HOME)
