"""Path patching: how much of a head's effect goes through one other head, or straight to the logits?

The direct effect of a sender head on a metric m through a receiver: (1) z of the sender is replaced at the patched
roles, and z of all other heads is frozen as it was, so that the change reaches the receiver by the residual stream
alone (and through MLPs, unless these are frozen too); (2) in a run without a patch the receiver's queries, keys and
values are those of (1), and all that follows is free. The effect is m(2) - m. For the receiver "logits", the
unembedding, it is m(1) - m. Sign and unit are the metric's, as in `PatchedHeads.effects`; through a receiver that is
not in a later layer the effect is 0.

What makes it fast: the z that every receiver would have written in (1), before it is frozen, is what (2) puts in. So
one run a sender serves all receivers, and (2) is a patch of one head, begun at its layer, many at once.

Sources: Wang et al., arXiv:2211.00593; Goldowsky-Dill et al., arXiv:2304.05969.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from mechicl.hooks.head_sets import Head, checked_sets
from mechicl.hooks.patch_items import Metric, PatchItem, check_items, log_odds
from mechicl.hooks.patch_support import way_to_patch
from mechicl.hooks.path_runs import LOGITS, PathRuns, Paths, Receiver
from mechicl.hooks.replacements import Interchange, Replacement
from mechicl.hooks.row_runs import batches
from mechicl.hooks.wrapper import wrap

INPUTS = ("q", "k", "v")
_FREEZABLE = ("heads", "mlps")


@dataclass(frozen=True)
class PathEffects:
    """Direct effects of senders on a metric through receivers.

    effects: above 0 where the replacement, by this path alone, raises the metric. clean: the metric itself.
    """

    senders: tuple[Head, ...]
    receivers: tuple[Receiver, ...]
    effects: Float[np.ndarray, "sender receiver item"]
    clean: Float[np.ndarray, " item"]


def path_effects(
    model: Any,
    items: Sequence[PatchItem],
    *,
    senders: Sequence[Head],
    receivers: Sequence[Receiver],
    roles: Sequence[str],
    inputs: Collection[str] = INPUTS,
    freeze: Collection[str] = ("heads",),
    replacement: Replacement | None = None,
    metric: Metric = log_odds,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> PathEffects:
    """The effect of every sender on the metric through every receiver alone.

    senders: heads, (layer, head), replaced at the `roles` of every item. receivers: heads, which receive at all
    positions, or "logits". inputs: of the receiving heads, some of "q", "k", "v". freeze: "heads" and "mlps" stay as
    without a patch between sender and receiver; with ("heads",) MLPs pass the change on; with () everything does, and
    the effect on "logits" is the whole effect, that of `patch_heads`. replacement, metric, memory_budget: as there.

    Under grouped queries a receiving query head sees its keys and values changed, the others of its group do not.
    Models that take no trees, or carry hooks of yours, run one prompt a row, with one warning. The model is left as it
    was. Raises `ValueError` for what `patch_heads` refuses, no or unknown heads, inputs or frozen parts, and for some
    inputs only while heads are not frozen.
    """
    wrapped = wrap(model)
    replacement = replacement or Interchange()
    check_items(wrapped, items, roles, donors=isinstance(replacement, Interchange))
    if not senders or not receivers or isinstance(receivers, str):
        raise ValueError(f"got senders={senders!r} and receivers={receivers!r}; give a list with at least one of each")
    sent = tuple(head for (head,) in checked_sets(wrapped, [[head] for head in senders]))
    checked_sets(wrapped, [[head for head in receivers if isinstance(head, tuple)]])
    if unknown := [other for other in receivers if not isinstance(other, tuple) and other != LOGITS]:
        raise ValueError(f"got the receiver {unknown[0]!r}, expected (layer, head) or {LOGITS!r}")
    for name, given, known in (("inputs", inputs, INPUTS), ("freeze", freeze, _FREEZABLE)):
        if isinstance(given, str) or set(given) - set(known) or (name == "inputs" and not given):
            raise ValueError(f"got {name}={given!r}, expected some of {known}")
    if set(inputs) != set(INPUTS) and "heads" not in freeze:
        raise ValueError(f"paths through {sorted(inputs)} alone need the other heads frozen; add 'heads' to freeze")
    plan = Paths(sent, tuple(receivers), frozenset(INPUTS) - set(inputs), frozenset(freeze))
    effects = np.zeros((len(sent), len(receivers), len(items)))
    clean = np.full(len(items), np.nan)
    bar = tqdm(total=len(items), desc="path patching", unit="item", disable=not progress)
    with bar, wrapped.evaluating():
        way = way_to_patch(wrapped, items)
        for runs in batches(wrapped, items, roles, replacement, way, budget=memory_budget, copies=plan.copies):
            numbers = list(runs.numbers)
            batch = PathRuns(runs, plan, replacement, metric)
            clean[numbers] = batch.clean.cpu().numpy()
            effects[:, :, numbers] = batch.effects(memory_budget).cpu().numpy()
            bar.update(len(numbers))
    return PathEffects(sent, tuple(receivers), effects, clean)
