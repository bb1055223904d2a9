"""The description lengths of strategies on a task: the K of the model of training."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from mechicl.predictors import chains, classification, pooled_regression, urns
from mechicl.strategies.complexity import code_bits, pool_bits, strategy_bits
from mechicl.tasks.chains import ChainTask
from mechicl.tasks.classification import ClassificationTask
from mechicl.tasks.pooled_regression import PooledRegressionTask
from mechicl.tasks.urns import UrnTask

PREDICTORS: dict[type, ModuleType] = {
    UrnTask: urns,
    ChainTask: chains,
    PooledRegressionTask: pooled_regression,
    ClassificationTask: classification,
}


def task_bits(task: Any) -> tuple[float, float]:
    """K of the memorising and the generalising predictor of a task, bits; labels count as a number an item."""
    predictors = PREDICTORS[type(task)]
    pool = np.column_stack([task.pool, task.pool_labels]) if isinstance(task, ClassificationTask) else task.pool
    return strategy_bits(pool, predictors.memorising, predictors.generalising)


def constant_bits(task: UrnTask | ChainTask) -> float:
    """K of the constant predictor: its code and the one distribution that it holds."""
    mean = task.pool.reshape(-1, task.dim).mean(0)
    return pool_bits(mean).bits + code_bits(PREDICTORS[type(task)].constant)
