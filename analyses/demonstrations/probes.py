"""What do keys and values at the demonstrations' labels tell? Ridge probes around the label position.

If attention is a kernel regression, keys near a label tell what the input is like (what the model says of x_i alone),
and values tell y_i. For each layer, key-value head and offset from the label's first token (-1: the token from which
the label is predicted, 0: the label) one ridge each goes from keys and from values to both:

    prediction   the probability of each label after x_i alone, among the labels (or its argmax, as in the paper)
    label        the label shown, one-hot

    r2 = 1 - sum (y - ridge)^2 / sum (y - mean of the training rows)^2     1: all can be read; 0 or below: nothing

over held-out rows, in which neither the prompt nor the text of any training row occurs: texts recur among prompts, and
a probe that knows a text by heart tells nothing. Beside it stands `control`, the same with targets permuted within each
prompt, and `selectivity`, r2 - control. An interval above 0 says that there is something to read; its size also grows
with how badly a probe of nothing does: below 0, where rows are few or the penalty is small. At offset 0 and after both
sources can see the label itself, and predictions go with labels: `from_labels` is the r2 that the labels alone would
give. Keys are taken before any rotation by position, see `mechicl.hooks.demos.key_values`. Sources: Han et al.,
arXiv:2305.12766; selectivity: Hewitt and Liang, arXiv:1909.03368.

Caveats:
- What can be read need not be used. `mechicl.analyses.causality.replaced_attention` changes something and looks at the
  answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.demonstrations.probe_fits import ProbeFits
from mechicl.analyses.demonstrations.probe_rows import TARGETS, ProbeRows, held_out_blocks, probe_targets
from mechicl.analyses.demonstrations.prompt_checks import n_demonstrations, query_clusters
from mechicl.hooks.wrapper import wrap
from mechicl.provenance import Provenance
from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result
from mechicl.tasks.fewshot import FewShotPrompt

OFFSETS = (-1, 0, 1, 2, 3)
OVERFIT = -0.1  # median r2 of probes of nothing below which the user is told


@dataclass(frozen=True)
class KeyValueProbes(Result):
    """How well predictions and labels can be read from keys and values.

    frame: one row a source ("key", "value"), target ("prediction", "label"), offset, layer and key-value head: n rows,
        r2, low, high, control, from_labels (of predictions), selectivity, selectivity_low, selectivity_high. NaN where
        a target does not vary.
    notes: what is undefined, and why.
    """

    task: str
    n_items: int
    n_demos: int
    level: float
    frame: pd.DataFrame
    notes: tuple[str, ...]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The probes."""
        return self.frame.copy()

    def best(self) -> pd.DataFrame:
        """The head with the highest r2 for each source, target and offset: a maximum, so too high by chance."""
        known = self.frame.dropna(subset=["r2"])
        rows = known.groupby(["source", "target", "offset"], sort=False)["r2"].idxmax()
        return known.loc[rows].reset_index(drop=True)

    def plot(self, ax: Any = None, source: str = "value", target: str = "label") -> Any:
        """Held-out r2 over layers, a line an offset, with its control; returns matplotlib Axes."""
        from mechicl.views.probes import plot_key_value_probes

        return plot_key_value_probes(self, source=source, target=target, ax=ax)


def key_value_probes(
    model: Any,
    prompts: Sequence[FewShotPrompt],
    *,
    offsets: Sequence[int] = OFFSETS,
    prediction: str = "probability",
    penalty: float = 0.01,
    n_folds: int = 4,
    n_controls: int = 5,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> KeyValueProbes:
    """Fit and judge the probes.

    offsets: from the label's first token; what lies outside a prompt is left out, and n says how many rows remain.
    prediction: "probability" or "argmax". penalty: the ridge's, on keys and values as they are. n_folds: folds of
    queries, and of texts; each row is predicted from (1 - 1/n_folds)^2 of all. Give several times as many rows (prompts
    times demonstrations) as a head has dimensions. n_controls: permutations of the targets. Intervals resample queries.

    Keys and values are seen twice: to fit, from sums of products, and to judge query by query. Where they do not fit
    into a quarter of `memory_budget` (bytes), the prompts run twice, and where the sums exceed a half of it, layers
    take turns; so memory does not grow with prompts but for some numbers a query. `seed`: folds, controls, bootstrap.

        key_value_probes(model, prompts).best()

    Raises `ValueError`, before long work, for unknown predictions, offsets twice, a penalty that is not above 0, too
    few queries or texts for the folds, no controls, and prompts that do not go together.
    """
    check_level(level)
    wrapped = wrap(model)
    n_demos, clusters = n_demonstrations(prompts), query_clusters(prompts)
    if prediction not in ("probability", "argmax") or not offsets or len(set(offsets)) < len(offsets):
        raise ValueError(
            f"got prediction={prediction!r}, offsets={tuple(offsets)}; expected 'probability' or 'argmax', and "
            "different offsets"
        )
    if not penalty > 0 or n_controls < 1 or n_folds < 2 or n_boot < MIN_BOOT:
        raise ValueError(
            f"got penalty={penalty}, n_controls={n_controls}, n_folds={n_folds}, n_boot={n_boot}; expected above 0, at "
            f"least 1, 2 and {MIN_BOOT}"
        )
    rng = np.random.default_rng(seed)
    blocks, train = held_out_blocks(prompts, n_folds, rng)
    targets = probe_targets(
        wrapped, prompts, prediction=prediction, n_controls=n_controls, rng=rng, memory_budget=memory_budget
    )
    rows = ProbeRows.of(prompts, offsets, blocks, targets.reshape(*targets.shape[:2], -1))
    fits = ProbeFits(
        wrapped, [one.prompt.tokens for one in prompts], rows, clusters, train, tuple(offsets), targets.shape[2:],
        penalty, n_boot, level, seed, memory_budget, progress,
    )  # fmt: skip
    frame = fits.frame()
    return KeyValueProbes(
        task=prompts[0].task,
        n_items=len(prompts),
        n_demos=n_demos,
        level=level,
        frame=frame,
        notes=_notes(frame, targets),
        provenance=Provenance.of(
            wrapped.facts(),
            seeds={"folds, controls and bootstrap": seed},
            options={"n_prompts": len(prompts), "offsets": list(offsets), "prediction": prediction, "penalty": penalty,
                     "n_folds": n_folds, "n_controls": n_controls, "n_boot": n_boot},
        ),
    )  # fmt: skip


def _notes(frame: pd.DataFrame, targets: Float[np.ndarray, "item demo target draw component"]) -> tuple[str, ...]:
    """What is undefined, and whether the probes have too few rows."""
    control = float(np.nanmedian(frame["control"])) if frame["control"].notna().any() else 0.0
    words = f"the probes overfit: the median control r2 is {control:.2f}; give more prompts, or a larger penalty"
    constant = [name for i, name in enumerate(TARGETS) if np.ptp(targets[:, :, i, 0], axis=(0, 1)).max() == 0]
    found = [f"the {name} is the same for all texts: nothing about it can be read" for name in constant]
    return (*found, words) if control < OVERFIT else tuple(found)
