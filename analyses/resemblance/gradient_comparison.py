"""Does in-context learning do what gradient descent on the same demonstrations would do?

Per prompt three runs are compared: the query after its demonstrations (ICL), the query alone (zero shot), and the query
alone under weights that took one gradient step on each demonstration (fine-tuned). The main measure, by layer, with h
attention's output at the last token (others: `mechicl.update_similarity`):

    SimAOU = cos(h_ICL - h_zero_shot, h_fine_tuned - h_zero_shot)        -1 to 1; 0 for unrelated updates

Each measure stands beside controls (`mechicl.analyses.resemblance.gradient_controls`), and what counts is the
difference. Sources: Dai et al., arXiv 2212.10559; Deutch et al., arXiv 2311.07772; Shen et al., arXiv 2310.08540.

Caveats:
- Similarity of directions comes cheap: a model with random weights, averaged over layers, can score as high as a
  trained one. Read differences to controls, never a measure alone.
- Measures by layer compare representations, not answers; the effects in nats of `items` compare answers.
- One step at one rate stands for gradient descent. The rate is the one that answers best, not the one that resembles
  most.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from mechicl.analyses.resemblance.comparison_runs import Conditions
from mechicl.analyses.resemblance.gradient_controls import CONTROLS, check_controls
from mechicl.analyses.resemblance.gradient_table import COLUMNS, Design, Measured, table_rows
from mechicl.analyses.resemblance.learning_rate import RATE_COLUMNS, choose_rate
from mechicl.analyses.resemblance.variants import FineTuning, fine_tuning
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result
from mechicl.tasks.fewshot import FewShotPrompt

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)


@dataclass(frozen=True)
class GradientComparison(Result):
    """How alike ICL and explicit gradient steps are, beside controls.

    frame: one row a variant of fine-tuning, measure, layer ("all": mean over layers, or no layers) and control:
        estimate, low, high; for a control ("none": the measure itself) also difference = measure - control, paired over
        prompts, with diff_low, diff_high; n items. See `mechicl.analyses.resemblance.gradient_controls.CONTROLS`.
    items: one row a variant and prompt: label, its effects in nats (log-odds of the right label against the others,
        minus zero shot), the zero-shot log-odds, and right answers of all three runs.
    rates: the learning rates that were tried on held-out prompts; see `choose_rate`. Empty where the rate was given.
    divergence: one row a prompt and condition whose descent diverged: "not finite" (left out), or "loss grew" over its
        own demonstrations (kept): loss_before, loss_after in nats.
    notes: what could not be measured, and why.
    """

    task: str
    n_demos: int
    level: float
    frame: pd.DataFrame
    items: pd.DataFrame
    rates: pd.DataFrame
    divergence: pd.DataFrame
    notes: tuple[str, ...]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The table of measures and controls."""
        return self.frame.copy()

    def accuracy(self) -> pd.Series:
        """The share of right answers: in context, zero shot, and after each variant's steps; chance is 1 / labels."""
        first = self.items[self.items["variant"] == self.items["variant"].iloc[0]]
        shares = {"icl": float(first["icl_right"].mean()), "zero_shot": float(first["zero_shot_right"].mean())}
        for variant, own in self.items.groupby("variant", sort=False):
            shares[str(variant)] = float(own["tuned_right"].mean())
        return pd.Series(shares, name="accuracy")

    def plot(self, ax: Any = None) -> Any:
        """SimAOU over layers with its controls; see `mechicl.views.similarity` for others."""
        from mechicl.views.similarity import plot_alignment

        return plot_alignment(self, ax=ax)


def compare_to_gradient(
    model: Any,
    prompts: Sequence[FewShotPrompt],
    *,
    fine_tune: Sequence[str | FineTuning] = ("key_value",),
    controls: Sequence[str] = CONTROLS,
    other_task: Sequence[FewShotPrompt] | None = None,
    learning_rate: float | None = None,
    learning_rates: Sequence[float] = RATES,
    held_out: float = 0.25,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> GradientComparison:
    """Compare ICL with explicit gradient steps on the same demonstrations, prompt by prompt.

    fine_tune: variants, see `fine_tuning`. learning_rate: None chooses the one of `learning_rates` with the lowest
    zero-shot loss on a share `held_out` of the prompts, drawn by `seed`, which are compared no further. other_task:
    prompts whose demonstrations serve the control of that name (as many a prompt as here); None takes a built-in task.
    Weights, flags, gradients and hooks of the model are left as they were; two controls take a copy of it each.

    Warns (RuntimeWarning) where descent diverged for some prompts, which `divergence` names. Raises `ValueError`,
    before long work, for fewer than 3 prompts to compare, prompts with different numbers of demonstrations, an unknown
    variant or control, a rate that is no positive number, and prompts longer than the context window; and where all
    rates diverge.
    """
    wrapped = wrap(model)
    check_level(level)
    n_demos = _check(wrapped, prompts, fine_tune, learning_rates if learning_rate is None else [learning_rate])
    check_controls(controls, other_task, n_demos)
    held, compared = _split(prompts, held_out if learning_rate is None else 0.0, seed)
    tunings = [fine_tuning(wrapped, variant) for variant in fine_tune]
    runs = Conditions(wrapped, compared, other_task, memory_budget, seed)
    chosen, tables = _rates(wrapped, tunings, held, learning_rate, learning_rates, memory_budget)
    design = Design(np.array([p.query for p in compared]), _groups(compared), n_boot, level, seed)
    rows: list[tuple[Any, ...]] = []
    items = []
    total = len(tunings) * (1 + len(controls))
    with tqdm(total=total, desc="against gradient", unit="condition", disable=not progress) as bar:
        for tuning, rate in zip(tunings, chosen, strict=True):
            own = runs.own(tuning, rate)
            bar.update()
            beside = {}
            for control in controls:
                beside[control] = runs.control(control, tuning, rate)
                bar.update()
            rows += [(tuning.name, *row) for row in table_rows(own, beside | runs.other_query(), design)]
            items.append(_items(tuning.name, compared, own))
    used = {tuning.name: rate for tuning, rate in zip(tunings, chosen, strict=True)}
    if len(runs.divergence):
        found = runs.divergence["condition"].value_counts().to_dict()
        text = f"gradient descent diverged for some prompts, by condition: {found}; see `divergence`"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
    return GradientComparison(
        task=prompts[0].task,
        n_demos=n_demos,
        level=level,
        frame=pd.DataFrame(rows, columns=["variant", *COLUMNS]),
        items=pd.concat(items, ignore_index=True),
        rates=tables,
        divergence=runs.divergence,
        notes=(*runs.notes, *_notes(tables)),
        provenance=Provenance.of(
            wrapped.facts(),
            seeds={"split, controls and bootstrap": seed},
            options={"rates": used, "n_prompts": len(compared), "n_held_out": len(held), "n_boot": n_boot},
        ),
    )


def _rates(
    wrapped: WrappedModel,
    tunings: Sequence[FineTuning],
    held: Sequence[FewShotPrompt],
    given: float | None,
    rates: Sequence[float],
    budget: int,
) -> tuple[list[float], pd.DataFrame]:
    """The rate of each variant, and what was tried."""
    if given is not None:
        return [given] * len(tunings), pd.DataFrame(columns=RATE_COLUMNS)
    found = [choose_rate(wrapped, tuning, held, rates, memory_budget=budget) for tuning in tunings]
    return [rate for rate, _ in found], pd.concat([table for _, table in found], ignore_index=True)


def _notes(rates: pd.DataFrame) -> list[str]:
    """Variants that no rate makes better than the model as it is."""
    best = rates[rates["chosen"].astype(bool)].set_index("variant")["loss"]
    before = rates[rates["learning_rate"] == 0].set_index("variant")["loss"]
    return [
        f"{name}: no learning rate answers held-out queries better than zero shot does"
        for name in best.index[best >= before.reindex(best.index)]
    ]


def _items(variant: str, prompts: Sequence[FewShotPrompt], own: Measured) -> pd.DataFrame:
    if own.effects is None or own.right is None:
        raise ValueError("the comparison's own condition has no effects")
    icl, zero_shot, tuned = own.right
    return pd.DataFrame(
        {
            "variant": variant,
            "prompt": np.arange(len(prompts)),
            "query": [one.query for one in prompts],
            "label": [one.label for one in prompts],
            "icl_effect": own.effects.icl,
            "tuned_effect": own.effects.tuned,
            "zero_shot": own.effects.baseline,
            "icl_right": icl,
            "zero_shot_right": zero_shot,
            "tuned_right": tuned,
        }
    )


def _split(
    prompts: Sequence[FewShotPrompt], share: float, seed: int
) -> tuple[list[FewShotPrompt], list[FewShotPrompt]]:
    """Held-out prompts, and those to compare: queries of one side are on no other."""
    queries = list(dict.fromkeys(one.query for one in prompts))
    n = 0 if share == 0 else max(1, round(share * len(queries)))
    order = np.random.default_rng(seed).permutation(len(queries))
    out = {queries[i] for i in order[:n]}
    held, compared = ([one for one in prompts if (one.query in out) == side] for side in (True, False))
    if len({one.query for one in compared}) < 3:
        raise ValueError(
            f"got {len(queries)} queries, {n} of them held out to choose a learning rate; expected at least 3 to "
            "compare. Give more prompts, or a learning_rate"
        )
    return held, compared


def _groups(prompts: Sequence[FewShotPrompt]) -> np.ndarray | None:
    """The queries' labels, where some are shared by enough prompts for a correlation within them."""
    labels = pd.Series([one.label for one in prompts])
    return labels.to_numpy(str) if len(labels) - labels.nunique() >= 4 else None


def _check(
    wrapped: WrappedModel, prompts: Sequence[FewShotPrompt], variants: Sequence[Any], rates: Sequence[float]
) -> int:
    """The number of demonstrations, the same in every prompt."""
    if isinstance(variants, str) or not variants:
        raise ValueError(f"got fine_tune={variants!r}; expected a sequence of variants, such as ['key_value']")
    if not rates or not all(np.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"got the learning rates {list(rates)}; expected positive numbers")
    counts = sorted({len(one.examples) for one in prompts})
    if len(counts) != 1 or counts[0] == 0:
        raise ValueError(f"got prompts with {counts} demonstrations; expected the same number, at least 1, in each")
    for number, one in enumerate(prompts):
        length = len(one.prompt) + max(map(len, one.label_tokens)) - 1
        if length > wrapped.n_ctx:
            raise ValueError(
                f"prompt {number} has {length} tokens with its label, but the model's context window holds "
                f"{wrapped.n_ctx}; use fewer demonstrations"
            )
    return counts[0]
