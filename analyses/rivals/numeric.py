"""What a model of a numeric task says at several lengths of context, beside all that accounts may know.

    RegressionTask          the first k demonstrations of each context, and its query          k up to n_demos
    PooledRegressionTask    the first k pairs of each sequence, and its next input             k up to context - 1
    UrnTask, ChainTask      the first k balls or states of each sequence; asked for the next   k up to context - 1
    ClassificationTask      contexts of k pairs, one of which shows the query's item           k up to n_pairs

Where models read the beginnings of one sequence, a context has the same cluster number at all lengths. A query of
classification must be among the pairs, so contexts of every length are drawn for themselves. The trained classifiers
saw one number of pairs, `n_pairs`; they read fewer too, and lose little on them. Nothing here was ever drawn in
training.

The orders that a ceiling rests on permute the demonstrations of each context, at every length anew. A chain's states
carry its moves in their order, which is what accounts of chains read: it has no other order, and a ceiling of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mechicl.accounts.classes import ClassExamples
from mechicl.accounts.contexts import Contexts
from mechicl.accounts.draws import Draws
from mechicl.accounts.regression import RegressionExamples
from mechicl.analyses.algorithms.regressor_calls import owner_of
from mechicl.analyses.rivals.numeric_models import Ask, classifier, regressor, sequence_model
from mechicl.organisms.grid.predictions import HELD_OUT
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.regression import RegressionTask
from mechicl.tasks.urns import UrnTask

NUMERIC_TASKS = (RegressionTask, PooledRegressionTask, UrnTask, ChainTask, ClassificationTask)
PART = 1000  # of the held-out sequences: no other analysis draws from it
N_CONTEXTS, N_ORDERS, N_LENGTHS = 300, 8, 5
LEAST = 8  # contexts, half of which are judged
Drawn = tuple[Any, Float[np.ndarray, "batch label"], Int[np.ndarray, " batch"]]  # examples, truth, cluster


@dataclass(frozen=True)
class _Source:
    """Where contexts of a task come from, and how the model is asked."""

    longest: int
    draw: Callable[[int], Drawn]
    ask: Callable[[Any, int, int], Ask]
    dim: int
    ordered: bool = False  # whether order is part of what accounts read


def read_numeric(
    model: Any,
    task: Any,
    *,
    lengths: Sequence[int] | None = None,
    n_contexts: int = N_CONTEXTS,
    n_orders: int = N_ORDERS,
    fresh: bool = False,
    seed: int = 0,
) -> list[Contexts]:
    """The model's predictions on contexts of a task, one `Contexts` for every length, shortest first.

    model: an organism, or a function (`mechicl.analyses.rivals.numeric_models`). lengths: numbers of demonstrations; by
    default five up to the longest, evenly spread on a log scale; of linear transformers the longest alone, since steps
    that suit the length of their training diverge at shorter ones. n_contexts: a length. n_orders: the given one among
    them; below 2 no other order is asked for, and there is no ceiling. fresh: of laws, urns, chains or items that are
    not in the pool (a RegressionTask has none but such). The truth of fresh pooled regression is a label with noise.

    Raises ValueError, before the model runs, for fewer than 8 contexts, lengths out of range, and models of another
    dimension or vocabulary; TypeError for a task that is not numeric.

        contexts = read_numeric(load_regressor("lsa-1"), RegressionTask(dim=10, n_demos=10, scale=0.5))
        judge_accounts(contexts, regression_accounts(contexts[0].examples), anchor="zero")
    """
    if n_contexts < LEAST:
        raise ValueError(f"got n_contexts={n_contexts}; expected {LEAST} or more, better 200: half of them are judged")
    source = _source_of(task, n_contexts, fresh, seed)
    chosen = _lengths(lengths, source.longest, alone=_trained_on_one_length(model))
    ask = source.ask(model, source.dim, chosen[-1])
    found = []
    for length in chosen:
        examples, truth, cluster = source.draw(length)
        said = ask(examples)
        orders = None
        if n_orders >= 2 and not source.ordered:
            rng = np.random.default_rng([seed, length])
            others = [ask(reordered(examples, rng)) for _ in range(n_orders - 1)]
            orders = np.stack([said, *others])
        found.append(Contexts(length, examples, said, orders, truth, cluster))
    return found


def reordered(examples: Any, rng: np.random.Generator) -> Any:
    """The same demonstrations, in an order of its own for every context."""
    names = ("balls",) if isinstance(examples, Draws) else ("x", "y")
    n, n_demos = getattr(examples, names[-1]).shape
    order = rng.permuted(np.broadcast_to(np.arange(n_demos), (n, n_demos)), axis=-1)
    return replace(examples, **{name: getattr(examples, name)[np.arange(n)[:, None], order] for name in names})


def _source_of(task: Any, n: int, fresh: bool, seed: int) -> _Source:
    if isinstance(task, RegressionTask):
        return _of_regression(task, n, seed)
    if isinstance(task, PooledRegressionTask):
        return _of_pooled_regression(task, n, fresh, seed)
    if isinstance(task, UrnTask | ChainTask):
        return _of_sequences(task, n, fresh, seed)
    if isinstance(task, ClassificationTask):
        return _of_classification(task, n, fresh, seed)
    raise TypeError(
        f"got a {type(task).__name__}; expected one of {', '.join(kind.__name__ for kind in NUMERIC_TASKS)}"
    )


def _of_regression(task: RegressionTask, n: int, seed: int) -> _Source:
    contexts = task.sample(n, seed=(seed, HELD_OUT, PART))

    def draw(length: int) -> Drawn:
        x, y = contexts.x[:, :length].copy(), contexts.y[:, :length].copy()
        noise, weight = float(task.noise) ** 2, float(task.weight_scale) ** 2
        examples = RegressionExamples(x, y, contexts.query, None, noise, weight)
        return examples, contexts.target[:, None], np.arange(n)

    return _Source(task.n_demos, draw, regressor, task.dim)


def _of_pooled_regression(task: PooledRegressionTask, n: int, fresh: bool, seed: int) -> _Source:
    batch = task.sample(n, step=(HELD_OUT, PART, seed), fresh=fresh)

    def draw(length: int) -> Drawn:
        x, y, query = batch.x[:, :length].copy(), batch.y[:, :length].copy(), batch.x[:, length].copy()
        truth = batch.y[:, length] if fresh else (task.pool[batch.task] * query).sum(-1)
        return RegressionExamples(x, y, query, task.pool, task.noise_variance, 1.0), truth[:, None], np.arange(n)

    return _Source(task.context - 1, draw, regressor, task.dim)


def _of_sequences(task: UrnTask | ChainTask, n: int, fresh: bool, seed: int) -> _Source:
    balls = task.sample(n, step=(HELD_OUT, PART, seed), fresh=fresh).tokens[:, 1:]
    kind = "urns" if isinstance(task, UrnTask) else "chains"

    def draw(length: int) -> Drawn:
        examples = Draws(balls[:, :length].copy(), task.dim, task.pool, kind)
        return examples, np.eye(task.dim)[balls[:, length]], np.arange(n)

    return _Source(task.context - 1, draw, sequence_model, task.dim, ordered=kind == "chains")


def _of_classification(task: ClassificationTask, n: int, fresh: bool, seed: int) -> _Source:
    def draw(length: int) -> Drawn:
        # a step of its own: contexts of two lengths would begin with the same items otherwise
        own = replace(task, n_pairs=length).sample(n, step=(HELD_OUT, PART, seed, length), fresh=fresh)
        examples = ClassExamples(own.x, own.y, own.query, task.pool, task.pool_labels, float(task.noise))
        return examples, np.eye(2)[own.target], np.arange(n) + n * length

    return _Source(task.n_pairs, draw, classifier, task.dim)


def _trained_on_one_length(model: Any) -> bool:
    return getattr(getattr(owner_of(model), "cfg", None), "kind", "") in ("linear", "classifier")


def _lengths(lengths: Sequence[int] | None, longest: int, *, alone: bool) -> list[int]:
    if longest < 1:
        raise ValueError("got a task of contexts that end before anything can be asked; expected context=2 or more")
    if lengths is None:
        if alone:
            return [longest]
        spread = np.geomspace(min(2, longest), longest, N_LENGTHS)
        return [int(one) for one in np.unique(np.rint(spread))]
    chosen = sorted({int(one) for one in lengths})
    if not chosen or chosen[0] < 1 or chosen[-1] > longest:
        raise ValueError(f"got lengths={list(lengths)}; expected numbers from 1 to {longest}, as the task has them")
    return chosen
