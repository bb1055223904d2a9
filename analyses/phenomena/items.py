"""What the model and the accounts answer in each condition, item by item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.phenomena.conditions import ORDER, REFERENCE, ZERO_SHOT, Condition
from mechicl.analyses.phenomena.tables import ICL
from mechicl.analyses.phenomena.votes import Votes, all_votes
from mechicl.hooks.scoring import score
from mechicl.hooks.wrapper import WrappedModel
from mechicl.predictors.votes import shares_of_best
from mechicl.tasks.fewshot_prompt import FewShotPrompt, shown_numbers
from mechicl.wording import percent

LogProbs = Callable[[Sequence[FewShotPrompt]], Float[np.ndarray, "item label"]]
Answers = dict[str, np.ndarray]  # predictor -> item x label: 1 for the label that it answers, shared between ties


@dataclass(frozen=True, eq=False)
class Run:
    """The prompts of one version of a condition, one a query."""

    condition: Condition
    version: int
    prompts: Sequence[FewShotPrompt]

    @property
    def zero_shot(self) -> bool:
        """Whether the query is asked alone."""
        return self.condition.kind == ZERO_SHOT


def score_runs(
    wrapped: WrappedModel,
    runs: Sequence[Run],
    *,
    log_probs: LogProbs | None,
    memory_budget: int,
    store: str | Path | None,
    progress: bool,
) -> list[Float[np.ndarray, "item label"]]:
    """Log-probability, nats, of every label after every prompt; a prompt that several conditions share runs once.

    log_probs: knows them of prompts with demonstrations; those without are scored in any case.
    """
    unknown = [run for run in runs if log_probs is None or run.zero_shot]
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for run in unknown:
        for one in run.prompts:
            tokens = (one.zero_shot if run.zero_shot else one.prompt).tokens
            pairs += [(tokens, label) for label in one.label_tokens]
    values = np.zeros(0)
    if pairs:
        values = score(
            wrapped, [tokens for tokens, _ in pairs], [label for _, label in pairs], prepend_bos=False,
            memory_budget=memory_budget, store=store, progress=progress,
        )  # fmt: skip
    sizes = np.cumsum([len(run.prompts) * len(run.prompts[0].labels) for run in unknown])[:-1]
    parts = iter(np.split(np.asarray(values, dtype=np.float64), sizes))
    found = []
    for run in runs:
        scored = log_probs is None or run.zero_shot
        found.append(next(parts).reshape(len(run.prompts), -1) if scored else _given(log_probs, run))
    return found


def _given(log_probs: Any, run: Run) -> Float[np.ndarray, "item label"]:
    values = np.asarray(log_probs(run.prompts), dtype=np.float64)
    expected = (len(run.prompts), len(run.prompts[0].labels))
    if values.shape != expected:
        raise ValueError(f"log_probs gave the shape {values.shape}; expected {expected}, a row a prompt")
    return values


def votes_of(runs: Sequence[Run], sources: Sequence[Votes]) -> list[Answers]:
    """The answers of the accounts in each run, as shares of labels; zero shot there is nothing that votes (NaN).

    Votes may cost forward passes, so prompts that several runs share are asked about once.
    """
    asked: dict[tuple[int, ...], Answers] = {}
    found = []
    for run in runs:
        key = tuple(id(one) for one in run.prompts)
        if key not in asked:
            asked[key] = {name: shares_of_best(votes) for name, votes in all_votes(run.prompts, sources).items()}
        found.append({name: np.full_like(own, np.nan) if run.zero_shot else own for name, own in asked[key].items()})
    return found


def items_of(runs: Sequence[Run], scores: Sequence[np.ndarray], votes: Sequence[Answers]) -> pd.DataFrame:
    """One row a condition, version, query and predictor.

    right: 1 where the predictor's label is the true one, shared between ties; agrees: the same against the model's
    label, agreement_chance against the model's labels of all queries; changed: how much of the answer is another than
    in the reference; order_disagreement: than in the other orders. log_odds: of the model, nats, the true label against
    all others together. NaN where there are no demonstrations to vote, or no sense.
    """
    answers = [{ICL: shares_of_best(values), **voted} for values, voted in zip(scores, votes, strict=True)]
    reference = answers[0]
    in_order = [i for i, run in enumerate(runs) if run.condition.kind == ORDER]
    frames = []
    for i, (run, own, values) in enumerate(zip(runs, answers, scores, strict=True)):
        right = np.array([one.answer for one in run.prompts])
        rows = np.arange(len(right))
        for predictor, shares in own.items():
            others = [answers[k][predictor] for k in in_order if k != i] if i in in_order else []
            apart = [_apart(runs[i], shares, runs[i], other) for other in others]
            icl = predictor == ICL
            frames.append(
                pd.DataFrame(
                    {
                        "condition": run.condition.name,
                        "version": run.version,
                        "query": [one.query for one in run.prompts],
                        "label": [one.label for one in run.prompts],
                        "predictor": predictor,
                        "right": shares[rows, right],
                        "agrees": np.nan if icl else (shares * own[ICL]).sum(-1),
                        "agreement_chance": np.nan if icl else _by_chance(run.prompts, shares, own[ICL]),
                        "changed": _apart(run, shares, runs[0], reference[predictor]),
                        "order_disagreement": np.mean(apart, axis=0) if apart else np.nan,
                        "log_odds": _log_odds(values, right) if icl else np.nan,
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def note_of(condition: Condition, prompts: Sequence[FewShotPrompt], reference: Sequence[FewShotPrompt]) -> str | None:
    """What a condition did to the demonstrations, where this cannot be seen from its name."""
    if condition.name == REFERENCE:
        return None
    if condition.options.get("perturb") is not None:
        pairs = [
            (a, b)
            for x, y in zip(prompts, reference, strict=True)
            for a, b in zip(x.demo_texts, y.demo_texts, strict=True)
        ]
        changed = float(np.mean([a != b for a, b in pairs]))
        return f"{condition.name}: {percent(changed)} of the demonstrations' texts are changed"
    lost = float((shown_numbers(prompts) < 0).mean())
    if lost > 0 and condition.kind != ZERO_SHOT:
        return f"{condition.name}: {percent(lost)} of the demonstrations show a label that may not be answered: no vote"
    return None


def _apart(run: Run, shares: np.ndarray, other_run: Run, other: np.ndarray) -> Float[np.ndarray, " item"]:
    """Half the absolute difference of two answers, by label: 0 the same, 1 another."""
    found = []
    for one, own, two, theirs in zip(run.prompts, shares, other_run.prompts, other, strict=True):
        if one.labels == two.labels:
            found.append(abs(own - theirs).sum() / 2)
            continue
        first, second = dict(zip(one.labels, own, strict=True)), dict(zip(two.labels, theirs, strict=True))
        labels = first.keys() | second.keys()
        found.append(sum(abs(first.get(x, 0.0) - second.get(x, 0.0)) for x in labels) / 2)
    return np.array(found, dtype=np.float64)


def _by_chance(prompts: Sequence[FewShotPrompt], shares: np.ndarray, model: np.ndarray) -> Any:
    """Mean agreement with the model's answers to all queries; NaN where prompts have different labels."""
    if any(one.labels != prompts[0].labels for one in prompts):
        return np.nan
    return shares @ model.mean(0)


def _log_odds(values: np.ndarray, right: np.ndarray) -> Float[np.ndarray, " item"]:
    rows = np.arange(len(right))
    others = values.copy()
    others[rows, right] = -np.inf
    return np.asarray(values[rows, right] - np.logaddexp.reduce(others, axis=-1))
