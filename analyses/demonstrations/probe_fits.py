"""The two passes behind the key and value probes: sums of products to fit, errors of each query to judge.

The model runs once where all keys and values fit into memory, else once a pass and turn of layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from torch import Tensor

from mechicl.analyses.demonstrations.gram_ridge import BlockGrams, Ridges, bytes_of_grams
from mechicl.analyses.demonstrations.probe_rows import TARGETS, ProbeRows, read_from_labels
from mechicl.hooks.demos.key_values import SOURCES, Visit, visit_key_values
from mechicl.hooks.wrapper import WrappedModel

Key = tuple[str, int]  # source, layer


@dataclass
class ProbeFits:
    """Probes of all layers and heads. shape: targets, draws and components that a row's targets are made of."""

    wrapped: WrappedModel
    texts: Sequence[tuple[int, ...]]
    rows: ProbeRows
    clusters: np.ndarray
    train: Bool[np.ndarray, "block block"]
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    penalty: float
    n_boot: int
    level: float
    seed: int
    memory_budget: int
    progress: bool
    _kept: dict[Key, list[tuple[Tensor, Tensor]]] | None = None

    def frame(self) -> pd.DataFrame:
        """One row a source, target, offset, layer and head."""
        codes, names = pd.factorize(self.clusters)
        self.cluster = codes[self.rows.item]
        self.n_clusters = len(names)
        drawing = np.random.default_rng(self.seed)
        counts = drawing.multinomial(self.n_clusters, np.full(self.n_clusters, 1 / self.n_clusters), size=self.n_boot)
        found = []
        self._keep()
        self.from_labels = read_from_labels(self.rows, self.shape, self.train, len(self.offsets))
        for layers in self._turns():
            fitted = {key: grams.fit(self.train, self.penalty) for key, grams in self.sums(layers).items()}
            errors = self._errors(layers, fitted)
            found += [self._table(*key, errors[key], self._totals(ridges), counts) for key, ridges in fitted.items()]
        whole = pd.concat(found, ignore_index=True)
        order = {name: i for i, name in enumerate((*SOURCES, *TARGETS))}
        return whole.sort_values(
            ["source", "target", "offset", "layer", "head"],
            key=lambda column: column.map(order) if column.name in ("source", "target") else column,
        ).reset_index(drop=True)

    def sums(self, layers: Sequence[int]) -> dict[Key, BlockGrams]:
        """First pass: sums of products of every source and layer, by offset and block."""
        size = (len(self.offsets), len(self.train), self.wrapped.n_kv_heads, self.wrapped.d_head)
        grams = {(s, layer): BlockGrams(*size, self.rows.targets.shape[1]) for layer in layers for s in SOURCES}

        def visit(place: Tensor, source: str, layer: int, x: Tensor) -> None:
            for group, block, rows, own in self._groups(place, x):
                grams[source, layer].add(group, block, own, self.rows.targets[rows])

        self._run(layers, visit)
        return grams

    def _errors(
        self, layers: Sequence[int], fitted: dict[tuple[str, int], Ridges]
    ) -> dict[tuple[str, int], np.ndarray]:
        """Second pass: squared errors of every query, [cluster group head target draw]."""
        target, draw, component = self.shape
        size = (self.n_clusters, len(self.offsets), self.wrapped.n_kv_heads, target, draw)
        errors = {key: np.zeros(size) for key in fitted}

        def visit(place: Tensor, source: str, layer: int, x: Tensor) -> None:
            ridges = fitted[source, layer]
            for group, block, rows, own in self._groups(place, x):
                said = np.einsum("rhd,hdt->rht", own, ridges.weights[group, block], optimize=True)
                gap = said + ridges.intercept[group, block] - self.rows.targets[rows][:, None]
                squares = (gap**2).reshape(*gap.shape[:2], target, draw, component).sum(-1)
                np.add.at(errors[source, layer], (self.cluster[rows], group), squares)

        self._run(layers, visit)
        return errors

    def _totals(self, ridges: Ridges) -> Float[np.ndarray, "item group target draw"]:
        """Squared distances of each query's targets from the mean of the training rows."""
        target, draw, component = self.shape
        gap = self.rows.targets - ridges.mean[self.rows.group, self.rows.block]
        totals = np.zeros((self.n_clusters, len(self.offsets), target, draw))
        squares = (gap**2).reshape(len(gap), target, draw, component).sum(-1)
        np.add.at(totals, (self.cluster, self.rows.group), squares)
        return totals

    def _table(
        self, source: str, layer: int, errors: np.ndarray, totals: np.ndarray, counts: np.ndarray
    ) -> pd.DataFrame:
        """r2 and selectivity of one source and layer, with percentile intervals over queries."""
        estimate, drawn = (_r2(weights, errors, totals) for weights in (np.ones((1, len(errors))), counts))
        tails = [(1 - self.level) / 2, (1 + self.level) / 2]
        r2, control = estimate[0, ..., 0], estimate[0, ..., 1:].mean(-1)
        gap = drawn[..., 0] - drawn[..., 1:].mean(-1)
        low, high = np.quantile(drawn[..., 0], tails, axis=0)
        gap_low, gap_high = np.quantile(gap, tails, axis=0)
        group, head, target = (index.ravel() for index in np.indices(r2.shape))
        numbers = np.bincount(self.rows.group, minlength=len(self.offsets))
        return pd.DataFrame(
            {
                "source": source,
                "target": np.array(TARGETS)[target],
                "offset": np.array(self.offsets)[group],
                "layer": layer,
                "head": head,
                "n": numbers[group],
                "r2": r2.ravel(),
                "low": low.ravel(),
                "high": high.ravel(),
                "control": control.ravel(),
                "from_labels": np.where(np.array(TARGETS)[target] == "prediction", self.from_labels[group], np.nan),
                "selectivity": (r2 - control).ravel(),
                "selectivity_low": gap_low.ravel(),
                "selectivity_high": gap_high.ravel(),
            }
        )

    def _groups(self, place: Tensor, x: Tensor) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
        """Rows of one offset and block, with their vectors."""
        numbers, vectors = place.numpy(), x.numpy()
        joint = self.rows.group[numbers] * len(self.train) + self.rows.block[numbers]
        order = np.argsort(joint, kind="stable")
        for part in np.split(order, np.flatnonzero(np.diff(joint[order])) + 1):
            group, block = divmod(int(joint[part[0]]), len(self.train))
            yield group, block, numbers[part], vectors[part]

    def _turns(self) -> Iterator[range]:
        """Layers in turns whose sums fit into half of the memory budget."""
        size = (len(self.offsets), len(self.train), self.wrapped.n_kv_heads, self.wrapped.d_head)
        one = len(SOURCES) * bytes_of_grams(*size, self.rows.targets.shape[1])
        at_once = max(1, self.memory_budget // 2 // one)
        for start in range(0, self.wrapped.n_layers, at_once):
            yield range(start, min(start + at_once, self.wrapped.n_layers))

    def _keep(self) -> None:
        """Run the prompts once for all, where all keys and values fit into a quarter of the memory budget."""
        wrapped = self.wrapped
        numbers = len(SOURCES) * wrapped.n_layers * len(self.rows.places) * wrapped.n_kv_heads * wrapped.d_head
        if 8 * numbers <= self.memory_budget // 4:
            kept: dict[Key, list[tuple[Tensor, Tensor]]] = {}

            def keep(place: Tensor, source: str, layer: int, x: Tensor) -> None:
                kept.setdefault((source, layer), []).append((place, x))

            self._see(range(wrapped.n_layers), keep)
            self._kept = kept

    def _run(self, layers: Sequence[int], visit: Visit) -> None:
        """Visit all places: what was kept, or else in a pass of the model."""
        if self._kept is None:
            self._see(layers, visit)
            return
        for layer in layers:
            for source in SOURCES:
                for place, x in self._kept[source, layer]:
                    visit(place, source, layer, x)

    def _see(self, layers: Sequence[int], visit: Visit) -> None:
        visit_key_values(
            self.wrapped, self.texts, self.rows.places, visit, layers=layers, memory_budget=self.memory_budget // 4,
            progress=self.progress,
        )  # fmt: skip


def _r2(counts: np.ndarray, errors: np.ndarray, totals: np.ndarray) -> Float[np.ndarray, "boot group head target draw"]:
    """1 - sum of errors / sum of totals over queries drawn so many times; NaN where the target does not vary."""
    above = np.tensordot(counts, errors, axes=(1, 0))
    below = np.tensordot(counts, totals, axes=(1, 0))[:, :, None]
    return 1 - np.divide(
        above, below, out=np.full_like(above, np.nan), where=np.broadcast_to(below > 1e-12, above.shape)
    )
