"""The kernel account of a model on a few-shot task: is its answer a kernel regression over the demonstrations?

With a_i the attention that the answering token pays to demonstration i, k a kernel between inputs, z nuisances:

    yhat = sum_i e(y_i) a_i / sum_i a_i             rebuilt answers; a_i of a head, or a kernel's in its place
    log a_i = beta log k_i + gamma . z_i + c        does attention follow a kernel? c: the prompt's constant

Three measurements:

    rebuilt   are the model's answers those of its demonstrations' labels, weighed by a head's attention?
              (beside it kernels between the texts, the nearest demonstration, the most frequent and the last label)
    heads     does a head's attention follow a kernel between query and demonstrations? Held-out R^2 beyond place,
              label, length, words in common, and beyond what a demonstration draws from any query
    named     heads to look at further, with the attention that their kernel predicts: `kernel_causality` puts it in
              the place of their own

Heads and kernels are chosen on one part of the prompts and judged on the other. Source: Han et al., arXiv 2305.12766;
the regression onto kernels, its controls and the split are added here.

Caveats:
- Late in a model a head may look at the label that it is about to give; its votes then agree without having made the
  answer.
- Kernels are fitted to log attention, where a demonstration that gets almost nothing weighs as much as one that gets
  almost all. `share_r2` is of the shares themselves.
- Kernels of neighbouring layers are alike, so that the name of the one that won says less than that one did.
- One task in one template; queries are the sample, and demonstrations recur among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from mechicl.analyses.kernels.head_kernels import query_folds
from mechicl.analyses.kernels.head_regressions import regress_heads, regressed
from mechicl.analyses.kernels.head_rows import Head
from mechicl.analyses.kernels.rebuilt import Answers, rebuilt_predictions
from mechicl.analyses.kernels.texts import text_kernels
from mechicl.analyses.kernels.words import kernel_verdict
from mechicl.hooks.demos.attention import AGGREGATES
from mechicl.hooks.demos.readings import PLACES, DemoReadings, read_demonstrations
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result
from mechicl.stats import cluster_mean_interval
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.tasks.fewshot_prompt import shown_numbers


@dataclass(frozen=True)
class KernelRegression(Result):
    """Attention to demonstrations as weights of a kernel regression.

    heads: one row a head. demos: attention to all demonstrations; start, query: to what stands before and after them
        (what parts them is left out). agreement_*, accuracy_*: of its rebuilt answers, by how tokens are taken
        together, over all prompts. kernel: the one chosen, with slope, slope_beyond nuisances and salience, and (for
        rbf) bandwidth in units of the residual stream; p_fwe over all heads and kernels. r2, unique_r2, joint_r2,
        nuisance_r2 with intervals: on prompts not used for choice and fit; *_r2 of each block of nuisances alone;
        share_r2 of the shares themselves, by all together. recency: correlation with the demonstration's number.
        follows_kernel: p_fwe at most .05 and unique_r2's interval above 0. kind: what attention follows most ("kernel"
        by unique_r2, "recency", "primacy", "label", "length", "overlap" by R^2 alone; "other"; "constant": all alike;
        "undefined": none at all to some demonstration).
    kernels: one row a kernel, in the order of the last axis of r2, unique_r2 (cross-validated over all prompts), slope
        and p_fwe, which are [layer head kernel].
    rebuilt: see `mechicl.analyses.kernels.rebuilt.rebuilt_predictions`.
    curves: attention over the kernel for the named heads.
    named: heads that agree most, and heads that follow a kernel best, by the prompts for selection. kernel_weights,
        nuisance_weights: shares of the demonstrations that the chosen kernel (with nuisances), or the nuisances alone,
        give them (both the latter where no kernel was chosen). evaluation: which prompts did not choose or fit.
    accuracy: of the model, with its interval.
    """

    task: str
    n_demos: int
    aggregate: str
    level: float
    heads: pd.DataFrame
    kernels: pd.DataFrame
    r2: Float[np.ndarray, "layer head kernel"]
    unique_r2: Float[np.ndarray, "layer head kernel"]
    slope: Float[np.ndarray, "layer head kernel"]
    p_fwe: Float[np.ndarray, "layer head kernel"]
    rebuilt: pd.DataFrame
    curves: pd.DataFrame
    named: dict[str, tuple[Head, ...]]
    kernel_weights: Float[np.ndarray, "item named demo"]
    nuisance_weights: Float[np.ndarray, "item named demo"]
    evaluation: Bool[np.ndarray, " item"]
    accuracy: dict[str, float]
    notes: tuple[str, ...]
    verdict: str
    provenance: Provenance

    @property
    def named_heads(self) -> tuple[Head, ...]:
        """All named heads, in the order of the weights."""
        return tuple(sorted({head for heads in self.named.values() for head in heads}))

    def to_frame(self) -> pd.DataFrame:
        """The heads."""
        return self.heads.copy()

    def plot(self, ax: Any = None) -> Any:
        """Unique R^2 of every head's kernel, layer by head; see `mechicl.views.kernels` for others."""
        from mechicl.views.kernels import plot_kernel_map

        return plot_kernel_map(self, ax=ax)


def measure_kernel_regression(
    model: Any,
    prompts: Sequence[FewShotPrompt],
    *,
    readings: DemoReadings | None = None,
    aggregate: str = "label",
    places: Sequence[str] = PLACES,
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
    n_named: int = 8,
    n_folds: int = 5,
    n_permutations: int = 1_000,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
    store: str | Path | None = None,
) -> KernelRegression:
    """Rebuild the model's answers from attention, and regress attention onto kernels.

    readings: of these prompts, if they are at hand. aggregate: the attention that is regressed: to a demonstration's
    "label" tokens, the "sum" over its tokens, or their "max". places: where residual streams are compared. embed: turns
    texts into vectors; the cosines between these are one more kernel to rebuild answers from. n_named: heads to name
    by agreement, and by their kernel. seed: for split, folds, permutations and bootstrap. store: a folder for finished
    prompts.

    Raises `ValueError`, before any forward pass, for what `read_demonstrations` refuses, fewer than 4 folds' worth of
    queries, and unknown choices. Heads with constant attention have no R^2 and are named in `notes`.
    """
    wrapped = wrap(model)
    check_level(level)
    _check_numbers(n_folds, n_permutations, n_boot, n_named)
    _check_choices(prompts, aggregate, places, n_folds)
    if readings is None:
        readings = read_demonstrations(wrapped, prompts, places=places, memory_budget=memory_budget, progress=progress,
                                       store=store)  # fmt: skip
    _check_readings(readings, wrapped, prompts)
    boot: dict[str, Any] = {"n_boot": n_boot, "level": level, "seed": seed}
    data = regressed(readings, prompts, aggregate)
    selection = query_folds(data.queries, 2, seed) == 0
    true = np.array([one.answer for one in prompts])
    answers = Answers(shown_numbers(prompts), readings.predicted, readings.label_log_probs, true, data.queries)
    found = regress_heads(
        data, readings, answers, selection, n_named=n_named, n_folds=n_folds, n_permutations=n_permutations, seed=seed,
        boot=boot,
    )  # fmt: skip
    kernels = text_kernels(prompts, readings, answers, selection, embed)
    rebuilt = rebuilt_predictions(readings, answers, selection, kernels, **boot, n_permutations=n_permutations)
    accuracy = _accuracy(answers, boot)
    cells = ("r2", "unique_r2", "slope", "p_fwe")
    grid = (wrapped.n_layers, wrapped.n_heads, -1)
    return KernelRegression(
        task=prompts[0].task,
        n_demos=len(prompts[0].demos),
        aggregate=aggregate,
        level=level,
        heads=found.heads,
        kernels=readings.kernel_table,
        **{name: getattr(found.fits, name).reshape(grid) for name in cells},
        rebuilt=rebuilt,
        curves=found.curves,
        named=found.named,
        kernel_weights=found.kernel_weights,
        nuisance_weights=found.nuisance_weights,
        evaluation=~selection,
        accuracy=accuracy,
        notes=_notes(found.heads),
        verdict=kernel_verdict(found.heads, rebuilt, accuracy),
        provenance=Provenance.of(
            wrapped.facts(),
            seeds={"split, folds, permutations and bootstrap": seed},
            options={
                "n_prompts": len(prompts), "n_evaluated": int((~selection).sum()), "n_demos": len(prompts[0].demos),
                "aggregate": aggregate, "places": list(places), "n_permutations": n_permutations, "n_boot": n_boot,
            },
        ),
    )  # fmt: skip


def _accuracy(answers: Answers, boot: dict[str, Any]) -> dict[str, float]:
    """How often the model answers rightly, over all prompts, and by chance."""
    right = (answers.predicted == answers.true).astype(float)
    found = cluster_mean_interval(right, answers.queries, method="percentile", **boot)
    return {"estimate": found.estimate, "low": found.low, "high": found.high, "chance": 1 / answers.n_labels}


def _check_choices(prompts: Sequence[FewShotPrompt], aggregate: str, places: Sequence[str], n_folds: int) -> None:
    if aggregate not in AGGREGATES:
        raise ValueError(f"got aggregate={aggregate!r}; expected one of {', '.join(AGGREGATES)}")
    if not places:
        raise ValueError(f"got places={places!r}; expected some of {', '.join(PLACES)}, for kernels to regress on")
    n_queries = len({one.query for one in prompts})
    if n_queries < 4 * n_folds:
        raise ValueError(
            f"got {n_queries} different queries; expected at least {4 * n_folds}: half of them choose kernels in "
            f"{n_folds} folds, the others judge them"
        )


def _check_numbers(n_folds: int, n_permutations: int, n_boot: int, n_named: int) -> None:
    for name, got, least in (
        ("n_folds", n_folds, 2),
        ("n_permutations", n_permutations, 1),
        ("n_boot", n_boot, MIN_BOOT),
        ("n_named", n_named, 1),
    ):
        if got < least:
            raise ValueError(f"got {name}={got}; expected at least {least}")


def _check_readings(readings: DemoReadings, wrapped: WrappedModel, prompts: Sequence[FewShotPrompt]) -> None:
    expected = (len(prompts), wrapped.n_layers, wrapped.n_heads, len(prompts[0].demos))
    found = readings.attention["sum"].shape
    if found != expected:
        raise ValueError(
            f"got readings of (prompts, layers, heads, demonstrations) {found} for {expected}; give those of this "
            "model and these prompts, in their order"
        )


def _notes(heads: pd.DataFrame) -> tuple[str, ...]:
    """Heads without R^2, by name."""
    reasons = {
        "constant": "no R^2, for attention to all demonstrations alike",
        "undefined": "no R^2, for no attention at all to some demonstration",
    }
    names = {
        kind: [f"L{row.layer}H{row.head}" for row in heads[heads["kind"] == kind].itertuples()] for kind in reasons
    }
    return tuple(f"{reasons[kind]}: {', '.join(own)}" for kind, own in names.items() if own)
