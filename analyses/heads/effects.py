"""What replacing heads does to a functional, item by item: the sweeps behind a localisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from mechicl.analyses.priming_prompts import priming_items
from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.patching import Head, patch_heads
from mechicl.hooks.replacements import Interchange, MeanActivations, Replacement, Zero, mean_activations
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.corpus import PrimingCorpus

ABLATIONS = ("interchange", "mean", "resample", "zero")

# Differences of log-odds below this are rounding: two ways of batching the same sum differ by as much.
_RESOLUTION = {torch.float64: 1e-10, torch.float32: 5e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Rows:
    """Some pairs of a corpus: their numbers, the verbs of their primes and their targets."""

    numbers: Int[np.ndarray, " item"]
    prime_verb: np.ndarray
    target: np.ndarray

    @classmethod
    def of(cls, corpus_frame: pd.DataFrame, numbers: Int[np.ndarray, " item"]) -> Rows:
        """The rows of a corpus' frame with these numbers."""
        chosen = corpus_frame.iloc[numbers]
        return cls(numbers, chosen["prime_verb"].to_numpy(), chosen["target"].to_numpy())


@dataclass(frozen=True)
class SetEffects:
    """L with sets of heads replaced, and without, by context; changes below the model's resolution are 0."""

    patched: dict[str, Float[np.ndarray, "set item"]]
    clean: dict[str, Float[np.ndarray, " item"]]


@dataclass(frozen=True)
class Sweeper:
    """A model, a corpus and a way of replacing heads; `effects` runs sets of heads over rows.

    held_out: pairs of other verbs, whose mean activations replace those of the rows ("mean"). seed: draws the donors
    of "resample", pairs with the same target and another prime verb.
    """

    wrapped: WrappedModel
    corpus: PrimingCorpus
    roles: tuple[str, ...]
    ablation: str
    prepend_bos: bool
    memory_budget: int
    progress: bool
    store: Path | None
    seed: int = 0
    _means: dict[tuple[str, bytes], MeanActivations] = field(default_factory=dict, repr=False)
    _items: dict[tuple[str, str, bytes], list[PatchItem]] = field(default_factory=dict, repr=False)

    def effects(
        self, rows: Rows, held_out: Rows, sets: Sequence[Sequence[Head]], contexts: Sequence[str]
    ) -> SetEffects:
        """Every set in every row and context."""
        patched, clean = {}, {}
        for context in contexts:
            found = patch_heads(
                self.wrapped,
                self.items(rows, context),
                roles=self.roles,
                replacement=self.replacement(context, held_out),
                sets=sets,
                memory_budget=self.memory_budget,
                progress=self.progress,
                store=self.store,
            )
            patched[context], clean[context] = found.clean + self.resolved(found.effects), found.clean
        return SetEffects(patched, clean)

    def resolved(self, change: Float[np.ndarray, "set item"]) -> Float[np.ndarray, "set item"]:
        """Changes of log-odds, those below the model's resolution set to 0."""
        return np.where(np.abs(change) < _RESOLUTION[self.wrapped.dtype], 0.0, change)

    def items(self, rows: Rows, context: str) -> list[PatchItem]:
        """The items of rows in a context, with the donors that the ablation needs; made once."""
        key = (self.ablation, context, rows.numbers.tobytes())
        if key not in self._items:
            self._items[key] = self._made(rows, context)
        return self._items[key]

    def _made(self, rows: Rows, context: str) -> list[PatchItem]:
        donors: dict[str, Any] = {}
        if self.ablation == "interchange":
            first, second = self.corpus.forms
            donors["donor_context"] = {first: second, second: first}.get(context, context)
        elif self.ablation == "resample":
            donors["donor_rows"] = self.donor_rows(rows)
        return priming_items(
            self.corpus, self.wrapped.tokenizer, rows.numbers, context, prepend_bos=self.prepend_bos, **donors
        )

    def replacement(self, context: str, held_out: Rows) -> Replacement:
        """What takes the heads' place in a context; means are those of `held_out`."""
        if self.ablation == "zero":
            return Zero()
        if self.ablation != "mean":
            return Interchange()
        key = (context, held_out.numbers.tobytes())
        if key not in self._means:
            items = priming_items(
                self.corpus, self.wrapped.tokenizer, held_out.numbers, context, prepend_bos=self.prepend_bos
            )
            self._means[key] = mean_activations(self.wrapped, items, roles=self.roles, progress=self.progress)
        return self._means[key]

    def donor_rows(self, rows: Rows) -> Int[np.ndarray, " item"]:
        """For each row one with the same target and another prime verb, at random."""
        frame = self.corpus.to_frame()
        verbs, targets = frame["prime_verb"].to_numpy(), frame["target"].to_numpy()
        rng = np.random.default_rng(self.seed)
        chosen = []
        for number, verb, target in zip(rows.numbers, rows.prime_verb, rows.target, strict=True):
            others = np.flatnonzero((targets == target) & (verbs != verb))
            if not len(others):
                raise ValueError(
                    f"pair {number} has a target that no other verb primes, so nothing can be resampled; use "
                    "ablation='mean', or a corpus whose targets have several primes"
                )
            chosen.append(rng.choice(others))
        return np.array(chosen)


def all_heads(wrapped: WrappedModel) -> list[Head]:
    """Every (layer, head), layer by layer."""
    return [(layer, head) for layer in range(wrapped.n_layers) for head in range(wrapped.n_heads)]


def usable_pairs(items: pd.DataFrame, contexts: Mapping[str, float]) -> Int[np.ndarray, " item"]:
    """Numbers of the pairs that have every context (some have no neutral prime)."""
    return np.flatnonzero(items[[f"L_{context}" for context in contexts]].notna().all(axis=1))
