"""What each Bayesian strategy predicts for a batch of any setting of `mechicl.tasks.mixtures`, in one shape.

    memorising     M: the exact posterior of who knows the pool of tasks, and of classification its items
    generalising   G: the exact posterior of who knows the prior that tasks are drawn from, but no task (classification:
                   who also takes every pair of the context for an item of its own)
    constant       the best prediction that never changes; None where there is none (regression, classification)

The predictors themselves are in `urns`, `chains`, `pooled_regression` and `classification` of this package. All arrays
are [batch, pos, label]: probabilities of the next token at each of C positions (urns, chains), the mean of the next
label, one number (regression), probabilities of the query's label at one position (classification, kept off 0 by
1e-5). A loss is in nats, or a squared error for regression.

Errors: TypeError for a task of no setting or a batch of another task; ValueError as the predictors raise.

Source: 2506.17859.

    task = UrnTask(diversity=64)
    found = predict_strategies(task, task.sample(1000, step=(1, 0)))
    prediction_losses(found.memorising, found.truth).mean()         # below that of found.generalising
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from jaxtyping import Float, Int

from mechicl.predictors import chains, classification, pooled_regression, urns
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import Classifications, ClassificationTask
from mechicl.tasks.pooled_regression import PooledRegressions, PooledRegressionTask
from mechicl.tasks.urns import TokenSequences, UrnTask

KINDS = {
    UrnTask: TokenSequences,
    ChainTask: TokenSequences,
    PooledRegressionTask: PooledRegressions,
    ClassificationTask: Classifications,
}


@dataclass(frozen=True, eq=False)
class StrategyPredictions:
    """What each strategy predicts, and the truth: outcomes (whole numbers), or labels (floats) of regression."""

    memorising: Float[np.ndarray, "batch pos label"]
    generalising: Float[np.ndarray, "batch pos label"]
    constant: Float[np.ndarray, "batch pos label"] | None
    truth: Int[np.ndarray, "batch pos"] | Float[np.ndarray, "batch pos"]

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.truth)


def predict_strategies(task: object, batch: object) -> StrategyPredictions:
    """The predictions of every strategy for what `task.sample` gave; M knows the pool, fresh sequences or not."""
    if isinstance(task, UrnTask) and isinstance(batch, TokenSequences):
        return _predict_tokens(urns, task, batch)
    if isinstance(task, ChainTask) and isinstance(batch, TokenSequences):
        return _predict_tokens(chains, task, batch)
    if isinstance(task, PooledRegressionTask) and isinstance(batch, PooledRegressions):
        return _predict_regression(task, batch)
    if isinstance(task, ClassificationTask) and isinstance(batch, Classifications):
        return _predict_classification(task, batch)
    pairs = ", ".join(f"{kind.__name__} with {sequences.__name__}" for kind, sequences in KINDS.items())
    raise TypeError(f"got {type(task).__name__} with {type(batch).__name__}; expected a task and its batch: {pairs}")


def _predict_tokens(predictors: ModuleType, task: UrnTask | ChainTask, batch: TokenSequences) -> StrategyPredictions:
    outcomes = batch.tokens[:, 1:]  # without the start token
    return StrategyPredictions(
        predictors.memorising(outcomes, task.pool),
        predictors.generalising(outcomes, task.dim),
        predictors.constant(outcomes, task.pool),
        outcomes,
    )


def _predict_regression(task: PooledRegressionTask, batch: PooledRegressions) -> StrategyPredictions:
    memorising = pooled_regression.memorising(batch.x, batch.y, task.pool, noise_variance=task.noise_variance)
    generalising = pooled_regression.generalising(batch.x, batch.y, noise_variance=task.noise_variance)
    return StrategyPredictions(memorising[..., None], generalising[..., None], None, batch.y)


def _predict_classification(task: ClassificationTask, batch: Classifications) -> StrategyPredictions:
    memorising, generalising = [], []
    for rows in urns.chunks(len(batch), max(task.diversity, task.n_pairs)):
        query, x, y = batch.query[rows], batch.x[rows], batch.y[rows]
        memorising.append(classification.memorising(query, task.pool, task.pool_labels, noise=task.noise))
        generalising.append(classification.generalising(query, x, y, noise=task.noise))
    return StrategyPredictions(
        np.concatenate(memorising)[:, None], np.concatenate(generalising)[:, None], None, batch.target[:, None]
    )


def prediction_losses(
    predictions: Float[np.ndarray, "batch pos label"],
    truth: Int[np.ndarray, "batch pos"] | Float[np.ndarray, "batch pos"],
) -> Float[np.ndarray, "batch pos"]:
    """-log p(truth), nats, where the truth is an outcome; the squared error where it is a number.

    Raises ValueError for shapes that do not go together, outcomes out of range, and probabilities that are not above 0
    or do not sum to 1.
    """
    if predictions.shape[:2] != truth.shape:
        raise ValueError(
            f"got predictions of {predictions.shape} for a truth of {truth.shape}; expected [*truth, label]"
        )
    labels = predictions.shape[-1]
    if np.issubdtype(truth.dtype, np.floating):
        if labels != 1:
            raise ValueError(f"got {labels} labels for a truth of numbers; expected 1, the mean")
        return np.asarray((predictions[..., 0] - truth) ** 2)
    total = predictions.sum(-1)
    if not (predictions > 0).all() or not np.allclose(total, 1, rtol=0, atol=1e-5):  # of float32 too
        raise ValueError("expected probabilities above 0 that sum to 1 over the last axis; clamp them first")
    if truth.size and not 0 <= truth.min() <= truth.max() < labels:
        raise ValueError(f"got outcomes from {truth.min()} to {truth.max()}; expected 0 to {labels - 1}")
    return np.asarray(-np.log(np.take_along_axis(predictions, truth[..., None], axis=-1)[..., 0]))
