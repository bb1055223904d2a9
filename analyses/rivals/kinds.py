"""The kinds of task on which accounts are compared: how a model is read, and which accounts there are.

What a kind needs is imported when it is asked for: urns need no tokenizer, and priming no grid of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd

from mechicl.accounts.account import Account
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.judgement import Judgement
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.fewshot_task import FewShotTask
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.regression import RegressionTask
from mechicl.tasks.urns import UrnTask

STRATEGIES = ("generalising", "memorising", "mixture of strategies")
DESCENT = "gradient descent"
SIZES = ("dim", "n_demos", "n_pairs", "context", "diversity")


@dataclass(frozen=True)
class Kind:
    """A kind of task: its name, the types of its tasks, and where its parts are.

    module, maker: of `mechicl.accounts`, and the function that makes its accounts from examples. reader: module of
    `mechicl.analyses.rivals` and function. anchor: from which shares are counted. names: of all accounts it may have.
    """

    name: str
    tasks: tuple[type, ...]
    module: str
    maker: str
    reader: tuple[str, str]
    inside: tuple[str, str]
    anchor: str
    names: tuple[str, ...]

    @property
    def is_numeric(self) -> bool:
        """Whether contexts are numbers, and no texts."""
        return self.reader[1] == "read_numeric"

    def check_names(self, accounts: Sequence[str | Account] | None, anchor: str) -> None:
        """A ValueError for a name that no account of the kind has, before anything is read."""
        own = [one.name for one in accounts or () if isinstance(one, Account)]
        for name in [*(one for one in accounts or () if isinstance(one, str)), anchor]:
            if name not in (*self.names, *own):
                raise ValueError(
                    f"got the account {name!r} for a task of {self.name}; expected some of {', '.join(self.names)}, or "
                    "an Account of your own"
                )

    def read(self, model: Any, task: Any, options: Mapping[str, Any], **running: Any) -> list[Contexts]:
        """The model's predictions; options that are None are left to the reading."""
        given = {name: value for name, value in options.items() if value is not None}
        if "lengths" in given and self.name == "priming":
            raise ValueError(
                f"got lengths={given['lengths']} for priming; a context is one prime there, leave them out"
            )
        if self.is_numeric:
            running = {"seed": running["seed"]}
        read: Any = getattr(import_module(f"mechicl.analyses.rivals.{self.reader[0]}"), self.reader[1])
        found: list[Contexts] = read(model, task, **given, **running)
        return found

    def accounts(self, contexts: Sequence[Contexts]) -> tuple[Account, ...]:
        """The accounts that can speak of these contexts."""
        make: Any = getattr(import_module(f"mechicl.accounts.{self.module}"), self.maker)
        found: tuple[Account, ...] = make(contexts[0].examples)
        return found

    def mechanisms(
        self,
        model: Any,
        task: Any,
        contexts: Sequence[Contexts],
        judged: Judgement,
        beside: Sequence[Any],
        *,
        seed: int,
    ) -> pd.DataFrame:
        """Measures inside the model: of numeric organisms measured here, of language models taken from `beside`."""
        find: Any = getattr(import_module(f"mechicl.analyses.rivals.{self.inside[0]}"), self.inside[1])
        found: pd.DataFrame = find(model, task, contexts, judged, seed=seed) if self.is_numeric else find(beside)
        return found

    def facts(self, model: Any) -> Mapping[str, Any]:
        """What provenance records of the model."""
        from mechicl.analyses.algorithms.regressor_calls import facts_of
        from mechicl.hooks.wrapper import wrap

        is_transformer = not self.is_numeric or (self.name == "urns" and hasattr(model, "parameters"))
        return wrap(model).facts() if is_transformer else facts_of(model)

    def words(self, task: Any) -> str:
        """The task in a few words: its name, or its sizes and what was chosen of it."""
        name = getattr(task, "name", None)
        if name:
            return str(name)
        chosen = [
            f"{one.name} {getattr(task, one.name)}"
            for one in fields(task)
            if np.ndim(getattr(task, one.name)) == 0 and (one.name in SIZES or getattr(task, one.name) != one.default)
        ]
        return f"{self.name}: {', '.join(chosen)}".replace("_", " ")


NUMERIC = ("numeric", "read_numeric")
INSIDE = ("inside_numeric", "numeric_mechanisms")
KINDS = (
    Kind(
        "regression", (RegressionTask, PooledRegressionTask), "regression", "regression_accounts", NUMERIC, INSIDE,
        "zero",
        ("zero", "mean label", "last label", "nearest neighbour", DESCENT, "GD++", "Gaussian kernel",
         "dot-product kernel", "ridge", *STRATEGIES),
    ),
    Kind(
        "urns", (UrnTask, ChainTask), "draws", "draw_accounts", NUMERIC, INSIDE, "uniform",
        ("uniform", "pool mean", "copy last", DESCENT, "recency kernel", *STRATEGIES),
    ),
    Kind(
        "classification", (ClassificationTask,), "classes", "class_accounts", NUMERIC, INSIDE, "uniform",
        ("uniform", "label frequency", "copy last", "nearest neighbour", DESCENT, "Gaussian kernel",
         "dot-product kernel", *STRATEGIES),
    ),
    Kind(
        "few-shot", (FewShotTask,), "labels", "label_accounts", ("fewshot.readings", "read_fewshot"),
        ("fewshot.inside", "mechanisms_beside"), "constant",
        ("constant", "uniform", "label frequency", "copy last", "gradient step", "kernel of the inputs",
         "attention of one head", "prior and label frequency", "prior alone"),
    ),
    Kind(
        "priming", (PrimingCorpus,), "priming", "priming_accounts", ("priming_readings", "read_priming"),
        ("inside_priming", "mechanisms_beside"), "no priming",
        ("no priming", "always the same answer", "gradient step", "delta rule", "constant boost",
         "count-based adaptation"),
    ),
)  # fmt: skip


def kind_of(task: Any) -> Kind:
    """The kind of a task; TypeError for anything else."""
    for kind in KINDS:
        if isinstance(task, kind.tasks):
            return kind
    known = ", ".join(own.__name__ for kind in KINDS for own in kind.tasks)
    raise TypeError(f"got a task of type {type(task).__name__}; expected one of {known}")
