"""Do predictions follow the kernel? Attention of heads is replaced by a kernel's weights, and the answer read again.

At the last token each head of a set divides the attention that it pays to the demonstrations anew (see
`mechicl.hooks.demos.outputs`); how much it pays them, and how it looks at each, stays. Conditions:

    kernel        by the weights given for each head     nuisance     by other weights, such as recency, if given
    uniform       to all demonstrations alike            knocked out  none at all, the rest scaled up
    own           as it does: a check, for it must change nothing

If the kernel is what these heads compute, its weights give the clean run's prediction back where uniform ones do not.
What is measured stands at the head of `mechicl.analyses.causality.tables`. Two controls stand beside the kernel:
its weights permuted over the demonstrations of each prompt (faithfulness must fall, or any weights would do), and the
same replacement in random heads (if those move nothing, the named heads carry the effect). A random head for which no
weights were given takes those of the named head nearest in depth. What a kernel adds to a nuisance is seen by giving
weights made of both, and the nuisance alone beside them. Faithful weights are not proof that the head computes this
kernel: whatever agrees with it on these prompts is as faithful. Derived here; knockout as of arXiv:2304.14767.

Caveats:
- Heads that are left alone can make up for those that are replaced; a set of many heads tells more than one.
- With two labels faithfulness rests on one difference of log-probabilities a prompt; look at the scatter too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from mechicl.analyses.causality.conditions import attention_conditions, condition_numbers
from mechicl.analyses.causality.random_heads import random_sets
from mechicl.analyses.causality.tables import NOTHING, Outcomes, Table
from mechicl.analyses.demonstrations.prompt_checks import last_words, n_demonstrations, query_clusters
from mechicl.hooks.demos.outputs import redistribute_attention
from mechicl.hooks.head_sets import Head, checked_sets
from mechicl.hooks.wrapper import wrap
from mechicl.provenance import Provenance
from mechicl.resampling import MIN_BOOT, check_level
from mechicl.results import Result
from mechicl.tasks.fewshot import FewShotPrompt

REFERENCES = ("uniform", "knocked out")
SPANS = {"demo": "demo[{}]", "label": "demo[{}].label", "text": "demo[{}].text"}


@dataclass(frozen=True)
class KernelCausality(Result):
    """How far predictions follow replaced attention.

    frame: one row a set, condition, reference ("clean" for agreement and moved), measure and control ("none": the
        measure itself, "permuted weights", "nuisance weights", "random heads"): estimate, low, high; for controls also
        difference = measure - control, paired over prompts, with diff_low, diff_high.
    log_probs: labels' log-probabilities, nats, for every set (named ones first, then random ones, see `sets`) and
        condition; clean: without any replacement.
    items: one row a prompt: query, label, clean prediction.
    identity_error: largest change of a log-probability under "own", nats; rounding alone.
    notes: what is undefined, and why.
    """

    task: str
    n_demos: int
    level: float
    frame: pd.DataFrame
    items: pd.DataFrame
    sets: tuple[str, ...]
    heads: tuple[tuple[tuple[int, int], ...], ...]
    conditions: tuple[str, ...]
    log_probs: Float[np.ndarray, "set condition item label"]
    clean: Float[np.ndarray, "item label"]
    identity_error: float
    notes: tuple[str, ...]
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The table of measures and controls."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """Faithfulness of every set with its controls; see `mechicl.views.causality` for the scatter."""
        from mechicl.views.causality import plot_faithfulness_of_kernels

        return plot_faithfulness_of_kernels(self, ax=ax)


def kernel_causality(
    model: Any,
    prompts: Sequence[FewShotPrompt],
    weights: Mapping[Head, Float[np.ndarray, "item demo"]],
    *,
    sets: Mapping[str, Collection[Head]] | None = None,
    nuisance: Mapping[Head, Float[np.ndarray, "item demo"]] | None = None,
    span: str = "demo",
    n_permuted: int = 5,
    n_random: int = 10,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> KernelCausality:
    """Replace the attention of sets of heads by a kernel's weights, and measure how far the predictions follow.

    weights, nuisance: by (layer, head), for every prompt a weight of at least 0 for each demonstration; they need not
    sum to 1. sets: name -> heads, of those in `weights`; by default all of them at once. span: what of a demonstration
    counts as attention to it: the whole ("demo"), its "label" or its "text". n_permuted: orders of the demonstrations
    drawn for a prompt; n_random: random sets for every named one, of as many heads in each layer as it has (from other
    layers where a layer has too few others). Labels are read at the last token, by their first tokens.

        kernel_causality(model, prompts, {(5, 1): kernel_weights}).plot()

    Raises `ValueError`, before any forward pass, for weights that do not fit, sets without heads or with heads that
    have no weights, labels whose first tokens are alike, and fewer than 2 different queries.
    """
    check_level(level)
    wrapped = wrap(model)
    n_demos, clusters, words = n_demonstrations(prompts), query_clusters(prompts), last_words(prompts)
    _check_options(span, n_boot, n_permuted, n_random)
    named = _named_sets(weights, sets)
    checked_sets(wrapped, list(named.values()))
    rng = np.random.default_rng(seed)
    random = {name: random_sets(own, set().union(*named.values()), wrapped.n_layers, wrapped.n_heads, n_random, rng)
              for name, own in named.items()}  # fmt: skip
    all_sets = [*named.items(), *((f"random for {name}", one) for name, own in random.items() for one in own)]
    heads = sorted({head for _, own in all_sets for head in own})
    conditions = attention_conditions(heads, weights, nuisance, len(prompts), n_demos, n_permuted, rng)
    found = redistribute_attention(
        wrapped, [one.prompt for one in prompts], words, conditions, heads=heads,
        demos=[SPANS[span].format(i) for i in range(n_demos)], sets=[own for _, own in all_sets],
        memory_budget=memory_budget, progress=progress,
    )  # fmt: skip
    names = tuple(conditions)
    table = Table(
        Outcomes.of(found.log_probs, found.clean), _places(named, random), condition_numbers(names), REFERENCES,
        clusters, n_boot, level, seed,
    ).frame()  # fmt: skip
    return KernelCausality(
        task=prompts[0].task,
        n_demos=n_demos,
        level=level,
        frame=table,
        items=_items(prompts, found.clean),
        sets=tuple(name for name, _ in all_sets),
        heads=found.sets,
        conditions=names,
        log_probs=found.log_probs,
        clean=found.clean,
        identity_error=float(np.abs(found.log_probs[:, names.index("own")] - found.clean).max()),
        notes=(*_undefined(table), *_missing(random, n_random)),
        provenance=Provenance.of(
            wrapped.facts(),
            seeds={"permutations, random heads and bootstrap": seed},
            options={"n_prompts": len(prompts), "span": span, "n_permuted": n_permuted, "n_random": n_random,
                     "n_boot": n_boot},
        ),
    )  # fmt: skip


def _check_options(span: str, n_boot: int, n_permuted: int, n_random: int) -> None:
    if span not in SPANS or n_boot < MIN_BOOT or min(n_permuted, n_random) < 0:
        raise ValueError(
            f"got span={span!r}, n_boot={n_boot}, n_permuted={n_permuted}, n_random={n_random}; expected a span of "
            f"{', '.join(SPANS)}, at least {MIN_BOOT} draws, and numbers of at least 0"
        )


def _named_sets(
    weights: Mapping[Head, np.ndarray], sets: Mapping[str, Collection[Head]] | None
) -> dict[str, tuple[Head, ...]]:
    if not weights:
        raise ValueError("got weights for no head; give kernel weights by (layer, head)")
    found = {"kernel heads": tuple(weights)} if sets is None else {name: tuple(own) for name, own in sets.items()}
    for name, own in found.items():
        if not own:
            raise ValueError(f"the set {name!r} has no heads; name at least one")
        if lacking := [head for head in own if head not in weights]:
            raise ValueError(f"the set {name!r} holds the head {lacking[0]}, for which there are no weights; give them")
    if not found:
        raise ValueError("got no sets of heads; name at least one, or pass None for all heads that have weights")
    return found


def _places(
    named: Mapping[str, Sequence[Head]], random: Mapping[str, Sequence[Sequence[Head]]]
) -> dict[str, tuple[int, tuple[int, ...]]]:
    """Where each named set and its random ones stand among all sets."""
    places, start = {}, len(named)
    for number, name in enumerate(named):
        stop = start + len(random[name])
        places[name], start = (number, tuple(range(start, stop))), stop
    return places


def _items(prompts: Sequence[FewShotPrompt], clean: Float[np.ndarray, "item label"]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prompt": np.arange(len(prompts)),
            "query": [one.query for one in prompts],
            "label": [one.label for one in prompts],
            "predicted": [one.labels[best] for one, best in zip(prompts, clean.argmax(-1), strict=True)],
        }
    )


def _undefined(table: pd.DataFrame) -> list[str]:
    """Sets whose reference moves nothing, in words."""
    rows = table[(table["measure"] == "faithfulness") & table["estimate"].isna()]
    found = rows[["set", "reference", "control"]].drop_duplicates().itertuples(index=False)
    return [
        f"{name}{'' if control == 'none' else f' ({control})'}: {reference} attention moves no log-odds by more than "
        f"{NOTHING:g} nats, so faithfulness to the clean run is undefined"
        for name, reference, control in found
    ]


def _missing(random: Mapping[str, Sequence[Any]], n_random: int) -> list[str]:
    return [
        f"{name}: no random heads, for the model has too few others"
        for name, own in random.items()
        if n_random and not own
    ]
