"""The runs of path patching for one batch of items: senders first, then every pair of sender and receiver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.hooks.head_sets import Head, by_head
from mechicl.hooks.patch_items import Metric
from mechicl.hooks.replacements import Replacement
from mechicl.hooks.row_runs import RowRuns
from mechicl.hooks.wrapper import HOOK_NAMES, Hook

LOGITS = "logits"
Receiver = Head | str  # a head, or LOGITS


@dataclass(frozen=True)
class Paths:
    """Which paths are asked for.

    kept: inputs of receivers that stay as without a patch. freeze: "heads", "mlps" between sender and receiver.
    """

    senders: tuple[Head, ...]
    receivers: tuple[Receiver, ...]
    kept: frozenset[str]
    freeze: frozenset[str]

    def senders_by_layer(self) -> dict[int, list[int]]:
        """Layer -> numbers of the senders there."""
        found: dict[int, list[int]] = {}
        for i, (layer, _) in enumerate(self.senders):
            found.setdefault(layer, []).append(i)
        return found

    def receivers_by_layer(self) -> dict[int, list[tuple[int, int]]]:
        """Layer -> the receiving heads there, each (its number among the receivers, head)."""
        found: dict[int, list[tuple[int, int]]] = {}
        for i, receiver in enumerate(self.receivers):
            if isinstance(receiver, tuple):
                found.setdefault(receiver[0], []).append((i, receiver[1]))
        return found

    @property
    def copies(self) -> int:
        """Copies of a batch in the busiest pass."""
        sent = max(map(len, self.senders_by_layer().values()))
        return sent * max(map(len, self.receivers_by_layer().values()), default=1)


class PathRuns:
    """All paths of one batch of items. `clean`: the items' metric without a patch."""

    def __init__(self, runs: RowRuns, paths: Paths, replacement: Replacement, metric: Metric) -> None:
        self.runs, self.paths, self.metric, self.wrapped = runs, paths, metric, runs.wrapped
        self.at = paths.receivers_by_layer()
        self.old: dict[tuple[str, int], Tensor] = {}  # what a run without a patch has, in the columns of a patched one

        def look(key: tuple[str, int]) -> Hook:
            def store(x: Tensor) -> None:
                self.old[key] = x[:, runs.first :].clone()

            return store

        log_probs = runs.start([(*key, look(key)) for key in self._wanted()])
        self.clean = runs.metrics(metric, log_probs[None])[0]
        self.new = replacement.values(self.wrapped, runs.batch.sources) if runs.batch.sources else None

    def _wanted(self) -> list[tuple[str, int]]:
        """What is put back in patched runs."""
        wanted = [(name, layer) for layer in self.at for name in self.paths.kept]
        for name, part in (("z", "heads"), ("mlp_out", "mlps")):
            for layer in range(self.wrapped.n_layers) if part in self.paths.freeze else ():
                if HOOK_NAMES[name].format(layer=layer) in self.wrapped.model.hook_dict:  # some layers have no MLP
                    wanted.append((name, layer))
        return wanted

    def effects(self, budget: int) -> Float[Tensor, "sender receiver item"]:
        """Of every pair."""
        runs = self.runs
        found = self.clean.new_zeros(len(self.paths.senders), len(self.paths.receivers), len(runs.items))
        if self.new is None:  # the roles stand where nothing is read any more
            return found
        n_received = sum(map(len, self.at.values()))
        one = 4 * runs.n_rows * runs.width * max(1, n_received) * self.wrapped.d_head  # bytes kept of a sender
        size = max(1, min(runs.copies, budget // one))
        logits = [r for r, receiver in enumerate(self.paths.receivers) if receiver == LOGITS]
        for layer, numbers in self.paths.senders_by_layer().items():
            for start in range(0, len(numbers), size):
                part = numbers[start : start + size]
                received: dict[int, Tensor] = {}
                log_probs = runs.again(layer, len(part), self._sending(layer, part, self.new, received))
                sent = torch.tensor(part, device=found.device)[:, None]
                found[sent, logits] = (runs.metrics(self.metric, log_probs) - self.clean)[:, None]
                for later, z in received.items():
                    found[sent, [r for r, _ in self.at[later]]] = self._receiving(later, z)
        return found

    def _sending(
        self, layer: int, numbers: Sequence[int], new: Tensor, received: dict[int, Tensor]
    ) -> list[tuple[str, int, Hook]]:
        """Hooks of run (1), a copy for each sender; they fill `received`: layer -> [sender row pos receiver d_head]."""
        runs, copies = self.runs, len(numbers)
        heads = torch.tensor([self.paths.senders[i][1] for i in numbers], device=self.wrapped.device)
        where = torch.arange(copies, device=heads.device)[:, None] * runs.n_rows + runs.patched_row

        def send(z: Tensor) -> Tensor:
            apart = by_head(self.wrapped, z).clone()
            apart[where, runs.patched_column, heads[:, None]] = new[:, layer, heads].transpose(0, 1).to(z.dtype)
            return apart.view_as(z)

        def receive(later: int) -> Hook:
            own = [head for _, head in self.at[later]]

            def store(z: Tensor) -> None:
                received[later] = by_head(self.wrapped, z)[:, :, own].unflatten(0, (copies, -1))

            return store

        def put_back(key: tuple[str, int]) -> Hook:
            old = self.old[key]
            return lambda x: old.repeat(copies, *[1] * (old.ndim - 1)).view_as(x)

        hooks: list[tuple[str, int, Hook]] = [("z", layer, send)]
        hooks += [("z", later, receive(later)) for later in self.at if later > layer]  # before z is put back
        hooks += [(*key, put_back(key)) for key in self.old if key[1] > layer or key == ("mlp_out", layer)]
        return hooks

    def _receiving(
        self, layer: int, z: Float[Tensor, "sender row pos receiver d_head"]
    ) -> Float[Tensor, "sender receiver item"]:
        """Run (2): effects of all pairs of these senders and the receivers at a layer."""
        runs, device = self.runs, z.device
        heads = torch.tensor([head for _, head in self.at[layer]], device=device)
        pairs = torch.cartesian_prod(torch.arange(len(z), device=device), torch.arange(len(heads), device=device))
        found = []
        for part in pairs.split(runs.copies):
            copies, (sender, receiver) = torch.arange(len(part), device=device), part.T

            def put(
                own: Tensor, copies: Tensor = copies, sender: Tensor = sender, receiver: Tensor = receiver
            ) -> Tensor:
                apart = by_head(self.wrapped, own).clone()
                apart.unflatten(0, (len(copies), -1))[copies, :, :, heads[receiver]] = z[sender, :, :, receiver]
                return apart.view_as(own)

            found.append(runs.metrics(self.metric, runs.again(layer, len(part), [("z", layer, put)])) - self.clean)
        return torch.cat(found).unflatten(0, (len(z), len(heads)))
