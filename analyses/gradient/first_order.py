"""A learning rate for single gradient steps: as long as a step may be and still do what its gradient says.

To first order a step of rate e on a text lowers the text's loss by e |g|^2, with g the loss's gradient. The rate chosen
is the largest of a geometric grid at which steps lower their texts' loss by at least nine tenths of that, in the mean
over a sample of texts. It looks at the texts that are learned from and never at what is measured afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mechicl.analyses.priming_texts import PrimingTexts
from mechicl.hooks.scoring import as_continuations
from mechicl.hooks.steps.gradient_steps import DivergenceError
from mechicl.hooks.steps.step_scoring import StepOptions, score_after_steps
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.corpus import PrimingCorpus

GRID = tuple(float(f"{10.0**power:.2g}") for power in np.arange(-5, 0.01, 0.5))
KEPT = 0.9  # share of what the first order promises


def first_order_rate(
    model: Any,
    corpus: PrimingCorpus,
    *,
    options: StepOptions | None = None,
    n_texts: int = 8,
    grid: Sequence[float] = GRID,
    prepend_bos: bool = True,
    seed: int = 0,
) -> tuple[float, pd.DataFrame]:
    """The rate for steps on the corpus' primes, and the table behind it.

    The table has one row a rate tried: learning_rate, decrease (mean over the sampled primes of the loss before minus
    after one step, nats a token), promised (the same to first order, from the smallest rates), share (decrease /
    promised). Rates are tried from below, until the share falls under .9. `options` says how steps are taken besides
    the rate; adaptive optimisers, whose step has the same length whatever the gradient, are refused.

    Raises `ValueError` for an optimiser other than SGD, a grid of fewer than 3 ascending rates, and where even the
    smallest rate does less than it promises.
    """
    wrapped = wrap(model)
    if len(grid) < 3 or list(grid) != sorted(grid):
        raise ValueError(f"got the grid {grid}, expected at least 3 rates in ascending order")
    options = options or StepOptions(learning_rate=grid[0])
    check_plain(options.optimizer)
    primes = list(dict.fromkeys(asked.prime for asked in PrimingTexts(corpus).asked if asked.prime is not None))
    drawn = np.random.default_rng(seed).choice(len(primes), min(n_texts, len(primes)), replace=False)
    texts = as_continuations(wrapped, "", [primes[i] for i in drawn], prepend_bos)
    texts = texts if prepend_bos else [replace(text, start=1) for text in texts]
    decreases: list[float] = []
    promised = float("nan")  # decrease a unit of rate
    for rate in grid:
        decreases.append(_decrease(wrapped, texts, replace(options, learning_rate=rate)))
        if len(decreases) == 2:  # the curve bends down: the steeper of the first two is nearer to its slope at 0
            promised = max(found / own for own, found in zip(grid, decreases, strict=False))
        if len(decreases) > 2 and not decreases[-1] >= KEPT * promised * rate:
            break
    table = pd.DataFrame({"learning_rate": grid[: len(decreases)], "decrease": decreases})
    table["promised"] = promised * table["learning_rate"]
    table["share"] = table["decrease"] / table["promised"]
    good = (table["share"] >= KEPT).cumprod().astype(bool)
    if not promised > 0 or not good.iloc[0]:
        raise ValueError(f"even steps of rate {grid[0]:g} do less than their gradient says; begin the grid lower")
    return float(table["learning_rate"][good].iloc[-1]), table


def check_plain(optimizer: str) -> None:
    """Raises `ValueError` for an optimiser whose step does not follow the gradient's length."""
    if optimizer != "sgd":
        raise ValueError(f"a rate is chosen for 'sgd' only, got {optimizer!r}; pass a learning rate")


def _decrease(wrapped: Any, texts: Sequence[Any], options: StepOptions) -> float:
    """Mean fall of the texts' loss, nats a token; minus infinity where it is not finite."""
    try:
        found = score_after_steps(wrapped, [[t] for t in texts], [[t] for t in texts], options, progress=False)
    except DivergenceError:
        return -np.inf
    return float((found.losses[:, 0] - found.losses[:, -1]).mean())
