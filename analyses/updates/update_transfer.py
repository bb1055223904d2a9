"""Does the update that replaces a context for one query carry the context to other queries?

The update of the MLPs is built from a context C and a query q, then put to use on another query q' alone:

    transfer = 1 - KL(P(.|C, q') || P_updated(.|q')) / KL(P(.|C, q') || P(.|q'))

of the next-token distributions: 1 where it carries q' all the way to what it is after C (so for q' = q, by
construction), 0 where it does nothing, below 0 where it leads away; no lower bound. This can be evidence: for q itself
the update works in any model. Controls: the update from another context for the same q, random updates of the same
norms (same right factors, so as strong on similar inputs) and, on request, own updates in a model with shuffled
weights. Estimates are ratios of sums, 1 - sum KL / sum KL: pairs hardly changed count little. Source: arXiv:2507.16003.

Caveats:
- Behind a norm (Gemma) an update of the gain divides by outputs near 0: transfer is far below 0; read differences only.
- It is a divergence of distributions, in which likely next tokens weigh most: a rare answer may not move it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechicl.analyses.updates.update_items import CAVEAT, Given, Items, checked_clusters, other_of, read_items
from mechicl.hooks.mlps.mlp_parts import MLPParts
from mechicl.hooks.mlps.mlp_patches import Updates
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.mlps.mlp_updates import build_updates, random_updates, run_updated
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.resampling import cluster_bootstrap
from mechicl.results import Result
from mechicl.untrained import shuffled_weights

CONDITIONS = ("own", "other", "random", "untrained")


@dataclass(frozen=True)
class UpdateTransfer(Result):
    """How far updates carry other queries towards what they are after the context.

    pairs: one row an item (whose context and query made the update) and query (number `query` of the item's list):
        kl_without, nats, KL(P(.|C, q') || P(.|q')), and kl_own, kl_other, kl_random with the updates in force;
        transfer, transfer_other, transfer_random; where asked for kl_untrained_without, kl_untrained and
        transfer_untrained.
    estimates: one row a condition ("own": the item's update; "other": another context's for the same query; "random";
        "untrained": own ones in a model with shuffled weights) and difference ("own - other", ...): ratio of sums with
        its interval (bootstrap over clusters of items, percentiles), and the median over pairs.
    """

    pairs: pd.DataFrame
    estimates: pd.DataFrame
    level: float
    provenance: Provenance

    @property
    def caveat(self) -> str:
        """What such updates cannot show."""
        return CAVEAT

    def to_frame(self) -> pd.DataFrame:
        """The pairs."""
        return self.pairs.copy()

    def plot(self, ax: Any = None) -> Any:
        """Transfer of the three updates with intervals; returns matplotlib Axes."""
        from mechicl.views.updates import plot_update_transfer

        return plot_update_transfer(self.estimates, ax=ax)

    def report(self) -> str:
        """Transfer beside its controls, and the caveat."""
        lines = [f"Transfer of MLP updates to other queries in {self.provenance.model} (1: all the way, 0: nothing)"]
        for _, row in self.estimates.iterrows():
            lines.append(
                f"  {row['condition']}: {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}], median "
                f"{row['median']:.2f}"
            )
        return "\n".join([*lines, self.caveat])

    def __repr__(self) -> str:
        """The report: numbers do not go without their caveat."""
        return self.report()


def measure_update_transfer(
    model: Any,
    contexts: Sequence[Given],
    queries: Sequence[Given],
    *,
    others: Sequence[Sequence[Given]] | None = None,
    n_others: int = 4,
    prepend_bos: bool = True,
    clusters: Sequence[Any] | None = None,
    untrained: bool = False,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> UpdateTransfer:
    """Put each item's update to use on other queries.

    others: for each item the queries to carry the update to; by default up to `n_others` of the other items' queries,
    drawn with `seed`. Otherwise as `measure_mlp_updates`. Raises `ValueError` as that does, and for an item without
    another query.
    """
    wrapped = wrap(model)
    items = read_items(wrapped, contexts, queries, prepend_bos)
    labels, donors = checked_clusters(clusters, len(items)), other_of(items.contexts, seed)
    targets = _targets(wrapped, items, others, n_others, prepend_bos, seed)
    pairs = _all_pairs(wrapped, items, targets, donors, seed)
    if untrained:
        control = _all_pairs(wrap(shuffled_weights(wrapped.model, seed=seed)), items, targets, None, seed)
        names = {"kl_without": "kl_untrained_without", "kl_own": "kl_untrained", "transfer": "transfer_untrained"}
        pairs = pairs.join(control[list(names)].rename(columns=names))
    return UpdateTransfer(
        pairs=pairs,
        estimates=_estimates(pairs, labels, n_boot, level, seed),
        level=level,
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepend_bos},
            seeds={"all": seed},
            options={"n_items": len(items), "n_pairs": len(pairs), "n_boot": n_boot},
        ),
    )


def _targets(
    wrapped: WrappedModel,
    items: Items,
    others: Sequence[Sequence[Given]] | None,
    n_others: int,
    prepend_bos: bool,
    seed: int,
) -> list[tuple[tuple[int, ...], ...]]:
    """For each item the other queries, as token ids; each is checked beside the item's context."""
    if others is not None:
        if len(others) != len(items):
            raise ValueError(f"got other queries for {len(others)} items, expected for each of the {len(items)}")
        if any(len(own) == 0 for own in others):
            raise ValueError("an item has no other query; give at least one for each item")
        return [
            read_items(wrapped, [context] * len(own), own, prepend_bos).queries
            for context, own in zip(items.contexts, others, strict=True)
        ]
    rng = np.random.default_rng(seed)
    found = []
    for own in items.queries:
        choices = sorted(set(items.queries) - {own})
        if not choices or n_others < 1:
            raise ValueError(
                f"got n_others={n_others} and {len(set(items.queries))} different queries, expected at least 1 and 2; "
                "or give `others`"
            )
        chosen = rng.choice(len(choices), size=min(n_others, len(choices)), replace=False)
        found.append(tuple(choices[j] for j in sorted(chosen)))
    return found


def _all_pairs(
    wrapped: WrappedModel,
    items: Items,
    targets: Sequence[Sequence[tuple[int, ...]]],
    donors: Sequence[int] | None,
    seed: int,
) -> pd.DataFrame:
    """The rows of every item; without `donors` (whose contexts are the control) for the items' own updates alone."""
    parts = find_mlps(wrapped)
    alone = [items.alone(i) for i in range(len(items))]
    found = {}
    for name, chosen in (("own", range(len(items))), ("other", donors)):
        if chosen is not None:
            whole = [items.whole(c, i) for i, c in enumerate(chosen)]
            found[name] = build_updates(wrapped, parts, whole, alone, logits=False)[0]
    if donors is not None:
        found["random"] = random_updates(found["own"], seed=seed)
    frames = []
    for i, texts in enumerate(targets):
        rows = torch.full((len(texts),), i, device=wrapped.device)
        of_item = {name: tuple(own.take(rows) for own in update) for name, update in found.items()}
        frames.append(_pairs(wrapped, parts, items, i, texts, of_item))
    return pd.concat(frames, ignore_index=True)


def _pairs(
    wrapped: WrappedModel,
    parts: Sequence[MLPParts],
    items: Items,
    item: int,
    texts: Sequence[tuple[int, ...]],
    updates: dict[str, Updates],
) -> pd.DataFrame:
    alone = [(*items.bos, *text) for text in texts]
    whole = [(*items.bos, *items.contexts[item], *text) for text in texts]
    goal = run_updated(wrapped, parts, whole, None).logits
    kls = {"without": divergence(goal, run_updated(wrapped, parts, alone, None).logits)}
    for name, own in updates.items():
        kls[name] = divergence(goal, run_updated(wrapped, parts, alone, own).logits)
    frame = pd.DataFrame({"item": item, "query": range(len(texts))})
    for name, values in kls.items():
        frame[f"kl_{name}"] = values.cpu().numpy()
    for name in updates:
        column = "transfer" if name == "own" else f"transfer_{name}"
        frame[column] = 1 - frame[f"kl_{name}"] / frame["kl_without"].where(frame["kl_without"] > 0)
    return frame


def divergence(p: Float[Tensor, "row d_vocab"], q: Float[Tensor, "row d_vocab"]) -> Float[Tensor, " row"]:
    """KL(p || q) of the distributions that logits stand for, in nats; 0 or more."""
    log_p, log_q = p.double().log_softmax(-1), q.double().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp(min=0)


def _estimates(pairs: pd.DataFrame, labels: Sequence[Any], n_boot: int, level: float, seed: int) -> pd.DataFrame:
    codes, names = pd.factorize(pd.Series([labels[i] for i in pairs["item"]]))
    conditions = [name for name in CONDITIONS if f"kl_{name}" in pairs]
    sums = {name: np.bincount(codes, pairs[f"kl_{name}"].to_numpy(), len(names)) for name in conditions}
    wholes = {
        name: np.bincount(codes, pairs[f"kl_{'untrained_' * (name == 'untrained')}without"].to_numpy(), len(names))
        for name in conditions
    }

    def share(name: str, chosen: Int[np.ndarray, "*boot verb"]) -> Float[np.ndarray, "*boot"]:
        whole = wholes[name][chosen].sum(-1)
        return np.asarray(1 - sums[name][chosen].sum(-1) / np.where(whole > 0, whole, np.nan))

    def values(name: str) -> pd.Series:
        return pairs["transfer" if name == "own" else f"transfer_{name}"]

    rows = []
    for more, less in [*((name, None) for name in conditions), *(("own", name) for name in conditions[1:])]:

        def statistic(
            chosen: Int[np.ndarray, "*boot verb"], more: str = more, less: str | None = less
        ) -> Float[np.ndarray, "*boot"]:
            return share(more, chosen) if less is None else np.asarray(share(more, chosen) - share(less, chosen))

        estimate, low, high = float(statistic(np.arange(len(names)))), float("nan"), float("nan")
        if len(names) > 1 and np.isfinite(estimate):  # undefined where no context changes anything
            own = cluster_bootstrap(statistic, len(names), n_boot=n_boot, level=level, method="percentile", seed=seed)
            low, high = own.low, own.high
        median = float((values(more) if less is None else values(more) - values(less)).median())
        name = more if less is None else f"{more} - {less}"
        rows.append((name, estimate, low, high, median, len(pairs), len(names)))
    return pd.DataFrame(rows, columns=["condition", "estimate", "low", "high", "median", "n_pairs", "n_clusters"])
