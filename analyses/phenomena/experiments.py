"""The phenomena of in-context learning as experiments: what the model does in each, and what a kernel account says.

A kernel account predicts the label that has the most votes of the demonstrations, each weighted by its likeness to the
query (Nadaraya and Watson):

    answer = argmax_y sum_i K(x, x_i) [y_i = y]        K: a head's attention, words in common, or place alone

Where the model's accuracy changes with a condition and the account's does too, the account
covers the phenomenon; where one changes alone, it does not. Sources: Han et al., arXiv 2305.12766, section 5, for
similar demonstrations, format and out-of-distribution inputs; Lu et al., 2104.08786, for order; Min et al., 2202.12837,
for random labels.

Caveats:
- Each condition is one way of making it; other misspellings or foreign inputs may do something else.
- With some dozen queries "no change seen" is the likely verdict whatever is true: see the intervals of `gap`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mechicl.analyses.phenomena.conditions import Condition, Design, chosen_conditions
from mechicl.analyses.phenomena.items import LogProbs, Run, items_of, note_of, score_runs, votes_of
from mechicl.analyses.phenomena.tables import (
    Sampling,
    account_table,
    condition_table,
    correlation_table,
    order_table,
)
from mechicl.analyses.phenomena.votes import Votes, model_free_votes
from mechicl.hooks.wrapper import wrap
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.fewshot_task import FewShotTask
from mechicl.tasks.similarity import By


@dataclass(frozen=True)
class KernelPhenomena(Result):
    """ICL accuracy by condition beside that of kernel accounts, on the same queries.

    frame: one row a condition and predictor ("ICL" is the model): accuracy, low, high (0 to 1; `chance` is 1 / labels);
        agreement with the model and its interval, beside agreement_chance, that of answers paired with other queries;
        difference of accuracies from "random" with diff_low, diff_high, paired over queries, p by flipping signs, and
        p_holm over conditions; changed, the share of queries whose answer is another than in "random" (0 where an
        account cannot see the condition); n queries. Ties count as what guessing among them gives. An interval has no
        width where all queries gave the same.
    orders: one row a predictor: accuracy of the best and the worst order, standard deviation over orders;
        disagreement, how often two orders of the same demonstrations give different answers, with its interval. 0 for
        any account that sees no positions.
    accounts: one row a condition and account: both differences from "random"; gap = the model's minus the account's,
        with interval, p and p_holm; verdict by both p_holm: "both change", "only the model changes", "only the account
        changes", "opposite changes", or "no change seen", which with few queries may mean only that.
    correlations: one row an account: Pearson's r over conditions of its accuracy with the model's. The interval
        resamples queries; conditions are as they were chosen.
    items: one row a condition, version, query and predictor. notes: what could not be done, what conditions changed.
    """

    task: str
    n_demos: int
    chance: float
    level: float
    frame: pd.DataFrame
    orders: pd.DataFrame
    accounts: pd.DataFrame
    correlations: pd.DataFrame
    items: pd.DataFrame
    notes: tuple[str, ...]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The table of conditions and predictors."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """Accuracy by condition: the model's beside the accounts'."""
        from mechicl.views.phenomena import plot_phenomena

        return plot_phenomena(self, ax=ax)


def kernel_phenomena(
    model: Any,
    task: FewShotTask,
    *,
    n_demos: int = 8,
    n_queries: int = 100,
    conditions: Sequence[str | Condition] | None = None,
    votes: Votes | None = None,
    log_probs: LogProbs | None = None,
    other_task: FewShotTask | None = None,
    n_orders: int = 4,
    similarity: By = "tfidf",
    balanced: bool = True,
    n_candidates: int | None = None,
    first_tokens: str = "any",
    tokenizer: Any = None,
    prepend_bos: bool = True,
    n_boot: int = 2_000,
    n_permutations: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    store: str | Path | None = None,
    progress: bool = True,
) -> KernelPhenomena:
    """Measure ICL under each condition, and beside it what kernel accounts predict for the same prompts.

    conditions: names of `standard_conditions`, or `Condition`s of your own; None: all that the task allows (what it
    does not is in `notes`). votes: gives, for prompts, the votes of the caller's own kernels by name (a head's
    attention, an embedding's kernel); those that need no model are always there, see `model_free_votes`. log_probs:
    gives the model's log-probabilities of the labels, where the votes' own runs know them (`HeadVotes`). n_candidates,
    first_tokens, balanced, similarity: as in `fewshot_prompts`; of many labels those that may be answered include those
    that are shown, so they differ between conditions. tokenizer: by default the model's. store: a folder where scores
    are kept, so that an interrupted call goes on where it was.

    The model is left as it was. Raises `ValueError`, before it is run, for an unknown condition, fewer than 3 queries,
    fewer than 1 order, and whatever `fewshot_prompts` refuses for "random" or for a condition that was asked for.
    """
    wrapped = wrap(model)
    check_level(level)
    if n_queries < 3 or n_orders < 1:
        raise ValueError(f"got n_queries={n_queries} and n_orders={n_orders}; expected at least 3 and 1")
    if n_boot < 100 or n_permutations < 1:
        raise ValueError(f"got n_boot={n_boot} and n_permutations={n_permutations}; expected at least 100 and 1")
    writing = {
        "tokenizer": wrapped.tokenizer if tokenizer is None else tokenizer,
        "prepend_bos": prepend_bos,
        "n_ctx": wrapped.n_ctx,
    }
    drawing = {
        "balanced": balanced, "n_candidates": n_candidates, "first_tokens": first_tokens, "similarity": similarity,
    }  # fmt: skip
    design = Design(task, n_demos, n_queries, n_orders, seed, writing, drawing)
    runs, notes = _runs(design, chosen_conditions(task, conditions, other_task), strict=conditions is not None)
    # votes first: what is wrong with them shows before the model has run
    voted = votes_of(runs, [model_free_votes(task.frame["text"].tolist()), *([] if votes is None else [votes])])
    scores = score_runs(wrapped, runs, log_probs=log_probs, memory_budget=memory_budget, store=store, progress=progress)
    items = items_of(runs, scores, voted)
    sampling = Sampling(n_boot, n_permutations, level, seed)
    frame = condition_table(items, sampling)
    return KernelPhenomena(
        task=task.name,
        n_demos=n_demos,
        chance=1 / len(runs[0].prompts[0].labels),
        level=level,
        frame=frame,
        orders=order_table(items, sampling),
        accounts=account_table(frame, items, sampling),
        correlations=correlation_table(items, sampling),
        items=items,
        notes=tuple(notes),
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepend_bos},
            seeds={"prompts, orders and bootstrap": seed},
            options={
                "n_queries": n_queries, "n_orders": n_orders, "balanced": balanced, "n_candidates": n_candidates,
                "first_tokens": first_tokens, "n_boot": n_boot, "n_permutations": n_permutations,
                "similarity": similarity if isinstance(similarity, str) else "given",
            },
        ),
    )  # fmt: skip


def _runs(design: Design, conditions: Sequence[Condition], *, strict: bool) -> tuple[list[Run], list[str]]:
    """The prompts of each condition; with strict=False a condition that the task does not allow becomes a note."""
    runs, notes = [], list[str]()
    reference: list[FewShotPrompt] = []
    for condition in conditions:
        try:
            versions = design.prompts(condition, reference)
        except ValueError as error:
            if strict or not reference:
                raise
            notes.append(f"{condition.name}: left out, {error}")
            continue
        reference = reference or versions[0]
        runs += [Run(condition, version, prompts) for version, prompts in enumerate(versions)]
        note = note_of(condition, versions[-1], reference)
        if note:
            notes.append(note)
    return runs, notes
