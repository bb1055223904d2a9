"""Attribution patching of heads' queries, keys and values: by which of its inputs does a head carry an effect?

For head h and part p the donors' p is put in at the patched positions, everything else that enters the head stays:
z' is what the head then writes. The effect is estimated as the sum over all positions of (z' - z) . dm/dz, linear
behind the head only. For queries and keys that is AtP*'s **QK fix**: the softmax, which saturates, is computed anew,
and since z = pattern @ v, (z' - z) . dm/dz is its (pattern' - pattern) . dm/dpattern. Without the fix it is the plain
(q_new - q) . dm/dq. For values both are the same.

All heads' parts are swapped in one forward pass a part: each layer's z is put back behind its hook, so that no layer
sees the swaps of another. Norms, rotary positions and masks are the model's own; a donor's query or key is taken before
rotation and stands at the prompt's position. Under grouped queries a key-value head is swapped for one query head at a
time: effects are of query heads, and their sum over a group is that of the shared key or value, to first order.

On SmolLM2-135M (dative priming, swaps at the target, 48 heads x 3 items) the largest error against exact swaps was .012
for queries with the fix and .049 without, .001 and .009 for keys, of effects up to .21 and .05 nats.

Source: AtP*, arXiv:2403.00745.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.attribution import constant_parameters, slopes
from mechicl.hooks.head_sets import by_head, heads_apart
from mechicl.hooks.patch_items import Metric, PatchItem, check_items, log_odds
from mechicl.hooks.patch_support import way_to_patch
from mechicl.hooks.replacements import Interchange
from mechicl.hooks.row_runs import RowRuns, batches
from mechicl.hooks.text_ends import mean_heads_after
from mechicl.hooks.wrapper import Hook, wrap

PARTS = ("q", "k", "v")


@dataclass(frozen=True)
class AttributedInputs:
    """First-order estimates of what swapping one input of one head does to each item's metric.

    effects: above 0 where the swap is estimated to raise the metric; the metric's unit. parts: the names along its
    first axis. clean: the metric itself.
    """

    parts: tuple[str, ...]
    effects: Float[np.ndarray, "part layer head item"]
    clean: Float[np.ndarray, " item"]

    def part(self, name: str) -> Float[np.ndarray, "layer head item"]:
        """Effects of "q", "k" or "v"."""
        if name not in self.parts:
            raise ValueError(f"no effect was estimated for {name!r}; there are {', '.join(self.parts)}")
        return self.effects[self.parts.index(name)]


def attribute_inputs(
    model: Any,
    items: Sequence[PatchItem],
    *,
    roles: Sequence[str],
    parts: Sequence[str] = PARTS,
    qk_fix: bool = True,
    metric: Metric = log_odds,
    memory_budget: int = 1 << 30,
    progress: bool = True,
) -> AttributedInputs:
    """Estimate the effect of swapping every head's queries, keys or values for the donors', at the roles of every item.

    roles: where they are swapped; a swapped key or value acts on all later positions. qk_fix: see above. Otherwise as
    `attribute_heads`, with an interchange, and with its errors.
    """
    wrapped = wrap(model)
    check_items(wrapped, items, roles, donors=True)
    if not parts or isinstance(parts, str) or set(parts) - set(PARTS):
        raise ValueError(f"got parts={parts!r}, expected some of {PARTS}")
    effects = np.zeros((len(parts), wrapped.n_layers, wrapped.n_heads, len(items)))
    clean = np.full(len(items), np.nan)
    bar = tqdm(total=len(items), desc="attribution of inputs", unit="item", disable=not progress)
    with bar, torch.inference_mode(False), wrapped.evaluating():
        way = way_to_patch(wrapped, items)
        for runs in batches(wrapped, items, roles, Interchange(), way, budget=memory_budget, graph=True):
            numbers = list(runs.numbers)
            swaps = _Swaps(runs, metric)
            clean[numbers] = swaps.clean.cpu().numpy()
            donors = mean_heads_after(wrapped, runs.batch.sources, parts) if runs.batch.sources else {}  # type: ignore[arg-type]
            for p, part in enumerate(donors):
                found = swaps.recomputed(part, donors[part]) if qk_fix else swaps.linear(part, donors[part])
                effects[p][:, :, numbers] = runs.by_item(found).permute(1, 2, 0).cpu().numpy()
            bar.update(len(numbers))
    return AttributedInputs(tuple(parts), effects, clean)


class _Swaps:
    """One batch: its clean z and dm/dz at every node of a patched run, and what swaps change."""

    def __init__(self, runs: RowRuns, metric: Metric) -> None:
        self.runs, self.wrapped = runs, runs.wrapped
        layers = range(self.wrapped.n_layers)
        self.z: list[Tensor] = [torch.empty(0)] * len(layers)

        def look(layer: int) -> Hook:
            def store(z: Tensor) -> None:
                self.z[layer] = by_head(self.wrapped, z)[:, runs.first :].clone()

            return store

        log_probs = runs.start([("z", layer, look(layer)) for layer in layers])
        self.clean = runs.metrics(metric, log_probs[None])[0]
        added = [torch.zeros_like(z).requires_grad_() for z in self.z]
        hooks = [("z", layer, _plus(leaf)) for layer, leaf in enumerate(added)]
        self.slopes = slopes(runs, hooks, added, metric, copies=1)

    def recomputed(
        self, part: str, donors: Float[Tensor, "patched layer head_or_kv_head d_head"]
    ) -> Float[Tensor, "row layer head"]:
        """(z' - z) . dm/dz, with z' as the model computes it from the donors' part."""
        found = []

        def compare(layer: int) -> Hook:
            def hook(z: Tensor) -> Tensor:
                change = by_head(self.wrapped, z) - self.z[layer]
                found.append((change.double() * self.slopes[layer].double()).sum((1, 3)))
                return self.z[layer].view_as(z)

            return hook

        hooks: list[tuple[str, int, Hook]] = []
        for layer in range(self.wrapped.n_layers):
            hooks += [(part, layer, self._put(donors[:, layer])), ("z", layer, compare(layer))]
        self.runs.again(0, 1, hooks)
        return torch.stack(found, 1)

    def linear(
        self, part: str, donors: Float[Tensor, "patched layer head_or_kv_head d_head"]
    ) -> Float[Tensor, "row layer head"]:
        """(new - old) . dm/d(part): the slope, at no swap, of what `recomputed` gives at a whole one."""
        n_own = donors.shape[2]
        group = self.wrapped.n_heads // n_own
        shares = [torch.zeros(self.runs.n_rows, n_own, device=donors.device, requires_grad=True) for _ in self.z]
        outputs: list[Tensor] = []  # of each layer: [row, head], summed over nodes

        def weigh(layer: int) -> Hook:
            def hook(z: Tensor) -> Tensor:
                outputs.append((by_head(self.wrapped, z).double() * self.slopes[layer].double()).sum((1, 3)))
                return self.z[layer].view_as(z)

            return hook

        hooks: list[tuple[str, int, Hook]] = []
        for layer, share in enumerate(shares):
            hooks += [(part, layer, self._put(donors[:, layer], share)), ("z", layer, weigh(layer))]
        with constant_parameters(self.wrapped), torch.enable_grad():
            self.runs.again(0, 1, hooks)
            by_member = [
                torch.autograd.grad(
                    torch.stack(outputs)[..., member::group].sum(), shares, retain_graph=member + 1 < group
                )
                for member in range(group)
            ]
        # query head kv * group + member reads key-value head kv
        return torch.stack([torch.stack(grads, 1) for grads in by_member], -1).flatten(2).double()

    def _put(self, donors: Float[Tensor, "patched own d_head"], share: Float[Tensor, "row own"] | None = None) -> Hook:
        """A hook that puts donors in at the patched nodes, or, with `share`, that share of the difference."""
        row, column = self.runs.patched_row, self.runs.patched_column

        def hook(x: Tensor) -> Tensor:
            apart = heads_apart(x, *donors.shape[1:]).clone()
            own = apart[row, column]
            new = donors.to(x.dtype)
            apart[row, column] = new if share is None else own + share[row][..., None].to(x.dtype) * (new - own)
            return apart.view_as(x)

        return hook


def _plus(leaf: Tensor) -> Hook:
    return lambda z: z + leaf.view_as(z)
