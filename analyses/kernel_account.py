"""The kernel account of one model on one few-shot task, from description to cause.

The claim: the answer yhat to a query x is an average of the labels of the demonstrations (x_i, y_i),

    yhat = sum_i e(y_i) K(x, x_i) / sum_i K(x, x_i)        e(y): one-hot; K: a kernel, which attention computes

Five measurements:

    attention    where does the token that answers look? (`attention_map`)
    regression   do labels weighed by attention give the model's answers, and does attention follow a kernel?
                 (`measure_kernel_regression`)
    probes       do keys hold what the account needs of the inputs, and values the labels? (`key_value_probes`)
    causality    put a kernel's weights in the place of heads' attention: do the answers follow? (`kernel_causality`)
    phenomena    retrieved, flipped, misspelt, reordered demonstrations: does the account move as the model does?
                 (`kernel_phenomena`)

The first three describe, and can be so in a model that does otherwise; the last two can fail. Source of the account:
Han et al., arXiv 2305.12766.

Caveats:
- Agreement of votes is no kernel regression by itself; labels by place, the last label and label frequency stand beside
  it.
- A weighted vote sees no order, no format, and no label that is not shown. Where answers change with these, something
  else is at work.
- Heads and kernels are chosen on half of the queries: with few queries little can be found on the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mechicl.analyses.causality.replaced_attention import KernelCausality, kernel_causality
from mechicl.analyses.demonstrations.attention_maps import AttentionMap, attention_map
from mechicl.analyses.demonstrations.probes import KeyValueProbes, key_value_probes
from mechicl.analyses.kernel_regression import KernelRegression, measure_kernel_regression
from mechicl.analyses.kernels.head_votes import HeadVotes
from mechicl.analyses.kernels.words import account_verdict
from mechicl.analyses.phenomena.experiments import KernelPhenomena, kernel_phenomena
from mechicl.hooks.demos.readings import PLACES
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.results import Result
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, fewshot_prompts

MANY_LABELS = 10
PARTS = ("attention", "probes", "causality", "phenomena")
PENALTY = 10.0  # of the ridge on keys and values; the published .01 overfits some hundred demonstrations by far


@dataclass(frozen=True)
class KernelAccount(Result):
    """All measurements of the kernel account; a part that was not asked for is None, and so is causality where no head
    could be named. verdict: in words."""

    regression: KernelRegression
    attention: AttentionMap | None
    probes: KeyValueProbes | None
    causality: KernelCausality | None
    phenomena: KernelPhenomena | None
    verdict: str
    provenance: Provenance

    def to_frame(self) -> Any:
        """The ways to rebuild the model's answers."""
        return self.regression.rebuilt.copy()

    def plot(self, ax: Any = None) -> Any:
        """Agreement of rebuilt answers with the model's; returns matplotlib Axes."""
        from mechicl.views.kernels import plot_rebuilt

        return plot_rebuilt(self.regression, ax=ax)


def measure_kernel_account(
    model: Any,
    task: FewShotTask,
    *,
    n_demos: int = 8,
    n_prompts: int = 120,
    n_described: int = 60,
    n_phenomena: int = 40,
    conditions: Sequence[str] | None = None,
    parts: Sequence[str] = PARTS,
    n_candidates: int | None = None,
    aggregate: str = "label",
    places: Sequence[str] = PLACES,
    n_permutations: int = 1_000,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    prepend_bos: bool = True,
    memory_budget: int = 1 << 30,
    progress: bool = True,
    store: str | Path | None = None,
) -> KernelAccount:
    """Measure the kernel account on prompts drawn from a task.

    n_prompts: for the regression, and causality (the half that chose no head and no kernel); n_described: how many of
    them serve the map of attention, keys and values; n_phenomena: queries of the experiments, under `conditions` (None:
    all that the task allows). n_candidates: of many labels, only so many may be answered;
    None: all, or of more than 10 labels as many as are shown and the right one. parts: what is measured
    besides the regression. store: a folder for finished work, from which an interrupted run goes on.

    Raises `ValueError`, before any forward pass, for what `fewshot_prompts` and the parts refuse.
    """
    wrapped = wrap(model)
    n_candidates = _candidates(task, n_demos, n_candidates)
    if isinstance(parts, str) or any(part not in PARTS for part in parts):
        raise ValueError(f"got parts={parts!r}; expected some of {', '.join(PARTS)}")
    prompts = account_prompts(
        wrapped, task, n_demos, n_prompts, n_candidates=n_candidates, seed=seed, prepend_bos=prepend_bos
    )
    shared: dict[str, Any] = {"level": level, "seed": seed, "memory_budget": memory_budget, "progress": progress}
    folder = Path(store) if store is not None else None
    regression = measure_kernel_regression(
        wrapped,
        prompts,
        aggregate=aggregate,
        places=places,
        n_permutations=n_permutations,
        n_boot=n_boot,
        store=folder / "readings" if folder else None,
        **shared,
    )
    few = prompts[:n_described]
    profile = attention_map(wrapped, few, n_boot=n_boot, **shared) if "attention" in parts else None
    probes = None
    if "probes" in parts:
        probes = key_value_probes(wrapped, few, penalty=PENALTY, n_boot=n_boot, **shared)
    causality = None
    if "causality" in parts and regression.named_heads:
        causality = _causality(wrapped, prompts, regression, n_boot, shared)
    phenomena = None
    if "phenomena" in parts:
        votes = HeadVotes(wrapped, *_best_head(regression), memory_budget, folder / "readings" if folder else None)
        phenomena = kernel_phenomena(
            wrapped,
            task,
            n_demos=n_demos,
            n_queries=n_phenomena,
            conditions=conditions,
            votes=votes,
            log_probs=votes.log_probs,
            n_candidates=n_candidates,
            prepend_bos=prepend_bos,
            n_boot=n_boot,
            store=folder / "phenomena" if folder else None,
            **shared,
        )
    return KernelAccount(
        regression=regression,
        attention=profile,
        probes=probes,
        causality=causality,
        phenomena=phenomena,
        verdict=account_verdict(regression, causality, phenomena),
        provenance=Provenance.of(
            wrapped.facts(),
            seeds={"prompts, splits, permutations and bootstrap": seed},
            options={
                "task": task.name, "n_demos": n_demos, "n_prompts": n_prompts, "n_described": n_described,
                "n_phenomena": n_phenomena, "n_candidates": n_candidates, "prepend_bos": prepend_bos,
            },
        ),
    )  # fmt: skip


def account_prompts(
    model: Any,
    task: FewShotTask,
    n_demos: int,
    n_prompts: int,
    *,
    n_candidates: int | None,
    seed: int,
    prepend_bos: bool,
) -> list[FewShotPrompt]:
    """The prompts of the account: balanced, labels told apart by their first tokens, within the context window."""
    wrapped = wrap(model)
    return fewshot_prompts(
        task,
        n_demos,
        n_prompts,
        tokenizer=wrapped.tokenizer,
        seed=seed,
        n_candidates=_candidates(task, n_demos, n_candidates),
        first_tokens="distinct",
        prepend_bos=prepend_bos,
        n_ctx=wrapped.n_ctx,
    )


def _candidates(task: FewShotTask, n_demos: int, given: int | None) -> int | None:
    """How many labels may be answered: of many, those that are shown and the right one."""
    return n_demos + 1 if given is None and len(task.labels) > MANY_LABELS else given


def _best_head(regression: KernelRegression) -> tuple[int, int, str]:
    """The head that was chosen to rebuild answers."""
    chosen = regression.rebuilt.set_index("name").loc["best head", "chosen"]
    name, how = str(chosen).split()
    layer, head = name.removeprefix("L").split("H")
    return int(layer), int(head), how


def _causality(
    wrapped: WrappedModel,
    prompts: Sequence[FewShotPrompt],
    regression: KernelRegression,
    n_boot: int,
    shared: dict[str, Any],
) -> KernelCausality:
    """On the prompts that chose nothing, with the weights that were fitted on the others."""
    items = np.flatnonzero(regression.evaluation).tolist()
    own = [regression.kernel_weights, regression.nuisance_weights]
    weights, nuisance = (
        {head: given[items, number] for number, head in enumerate(regression.named_heads)} for given in own
    )
    return kernel_causality(
        wrapped,
        [prompts[i] for i in items],
        weights,
        sets={name: heads for name, heads in regression.named.items() if heads},
        nuisance=nuisance,
        span="label" if regression.aggregate == "label" else "demo",
        n_boot=n_boot,
        **shared,
    )
