"""Which learning rate? The one that answers held-out queries best, never the one that resembles ICL most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from mechicl.analyses.resemblance.readings import read, read_tuned
from mechicl.analyses.resemblance.variants import FineTuning, learner_of
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt

RATE_COLUMNS = ["variant", "learning_rate", "loss", "accuracy", "n_diverged", "chosen"]


def choose_rate(
    wrapped: WrappedModel,
    tuning: FineTuning,
    held_out: Sequence[FewShotPrompt],
    rates: Sequence[float],
    *,
    memory_budget: int,
) -> tuple[float, pd.DataFrame]:
    """The rate with the lowest mean loss on the held-out queries, each after steps on its own demonstrations.

    The loss is minus the log-probability of the right label with no demonstration in the context, nats. The table has
    one row a rate, and one of rate 0, the model as it is. A rate at which any learner diverges is out.

    Raises `ValueError` where all rates diverge.
    """
    base, _ = read(wrapped, held_out, zero_shot=True, memory_budget=memory_budget)
    rows = [[tuning.name, 0.0, float(base.loss.mean()), float(base.right.mean()), 0]]
    learners = [learner_of(prompt) for prompt in held_out]
    for rate in sorted(rates):
        found = read_tuned(wrapped, held_out, tuning, learners, rate, memory_budget=memory_budget, states=False)
        known = np.isfinite(found.loss)
        loss = float(found.loss[known].mean()) if known.any() else np.nan
        rows.append([tuning.name, float(rate), loss, float(found.right.mean()), int((~known).sum())])
    table = pd.DataFrame(rows, columns=RATE_COLUMNS[:-1])
    usable = table[(table["learning_rate"] > 0) & (table["n_diverged"] == 0) & np.isfinite(table["loss"])]
    if usable.empty:
        raise ValueError(
            f"{tuning.name}: gradient descent diverges at every learning rate of {sorted(rates)}; pass lower ones"
        )
    best = float(usable.loc[usable["loss"].idxmin(), "learning_rate"])
    return best, table.assign(chosen=table["learning_rate"] == best)
