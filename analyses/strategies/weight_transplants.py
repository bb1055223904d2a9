"""Which weights carry the change from one strategy to another? Weights transplanted between two checkpoints of a run.

Two checkpoints of one run, `before` (generalising) and `after` (memorising): each part of the weights is taken from one
and put into the other, alone, with others, and all but it. For a set S of parts, with v(S) the model that has S from
`after` and the rest from `before`,

    share (after into before)    [d_rel(v(S)) - d_rel(v(none))] / [d_rel(v(all)) - d_rel(v(none))]
    share (before into after)    the same the other way: of v(all but S) from v(all)
    share (all orders)           of one part: its mean share over all orders of putting parts in (Shapley's value)

0: moves nothing, 1: moves as much as all parts together; below 0 and above 1 can be. Shares over all orders sum to 1;
`interaction` is 1 less the sum of single shares: what parts do together alone. Beside every share stands the residual of
the transplanted model, for a broken one has a d_rel that means nothing. It makes sense to put weights of one checkpoint
into another because training went on from there: both use one basis. Controls, put in the same way: weights of
`after` in another basis (the same function, but parts that fit no other model), the change of weights in random order
(as large, of no meaning), and another model's weights where one is given.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.analyses.strategies.held_out import Distances, HeldOut, ends, resamples, share_of
from mechicl.analyses.strategies.weight_parts import hybrid, in_another_basis, shuffled_change, weight_parts
from mechicl.provenance import Provenance
from mechicl.results import Result

INTO_BEFORE, INTO_AFTER, ALL_ORDERS = "after into before", "before into after", "all orders"
OTHER, BASIS, SHUFFLED, UNRELATED = "other checkpoint", "in another basis", "change shuffled", "unrelated model"
MANY = 8  # parts from which on not all sets are tried
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class WeightTransplants(Result):
    """What moved with which weights.

    frame: one row a direction, donor and part (also "sum of parts" and "interaction"): share, low, high; moved (d_rel
        less the host's), d_rel and residual of the model, loss_moved; NaN where they do not apply. Donors besides
        "other checkpoint" are controls. Shares are NaN where the checkpoints do not differ.
    sets: one row a set of parts that was put into `before`: parts, d_rel, low, high, residual.
    """

    point: str
    n_sequences: int
    level: float
    frame: pd.DataFrame
    sets: pd.DataFrame
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The shares."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """Shares of the parts in both directions, with controls; returns matplotlib Axes."""
        from mechicl.views.strategy_components import plot_transplants

        return plot_transplants(self, ax=ax)


def transplant_weights(
    held: HeldOut,
    before: Weights,
    after: Weights,
    *,
    unrelated: Weights | None = None,
    by_layer: bool = False,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> WeightTransplants:
    """Transplant every part, alone and (up to 8 parts) in all sets, and measure how far d_rel moves.

    before, after: weights of two checkpoints by name, as `mechicl.organisms.grid.store.read_checkpoint` gives them;
    unrelated: of a model of another seed. by_layer: parts of each layer. seed: controls and bootstrap.

        transplant_weights(HeldOut.of(point), read_checkpoint(folder, 600), read_checkpoint(folder)).plot()

    Raises `ValueError`, before any forward pass, for weights of other shapes than the point's.
    """
    cfg = held.point.config
    for name, own in {"before": before, "after": after, UNRELATED: unrelated}.items():
        if own is not None and {key: tuple(weight.shape) for key, weight in own.items()} != cfg.shapes:
            raise ValueError(f"the weights {name!r} are not of the shapes of {held.point.name}; read them from its run")
    counts = resamples(len(held), n_boot, seed)
    names, numbers = weight_parts(cfg, by_layer=by_layer)
    chosen = _sets(len(names))
    donors: dict[str, Weights] = {
        BASIS: in_another_basis(after, cfg, seed=seed),
        SHUFFLED: shuffled_change(before, after, numbers, seed=seed),
    }
    if unrelated is not None:
        donors[UNRELATED] = unrelated
    table = _Table(names, counts, level)
    game = {parts: at for at, parts in enumerate(chosen)}
    with tqdm(
        total=len(chosen) + len(donors) * len(names), desc="transplants", unit="model", disable=not progress
    ) as bar:

        def measured(host: Weights, donor: Weights, sets: Sequence[Collection[int]]) -> Distances:
            return held.distances(_shown(held.predictions(hybrid(host, donor, numbers, own)), bar) for own in sets)

        found = measured(before, after, chosen)
        rows = table.of_game(found, game)
        for donor, weights in donors.items():
            rows += table.of_control(donor, found, measured(before, weights, [{at} for at in range(len(names))]), game)
    return WeightTransplants(
        point=held.point.name,
        n_sequences=len(held),
        level=level,
        frame=pd.DataFrame(rows),
        sets=table.sets(found, chosen),
        provenance=Provenance.of(
            {"model": held.point.name},
            seeds={"controls and bootstrap": seed},
            options={"n_sequences": len(held), "by_layer": by_layer, "n_boot": n_boot},
        ),
    )


def _shown(predictions: np.ndarray, bar: Any) -> np.ndarray:
    bar.update()
    return predictions


def _sets(n: int) -> list[frozenset[int]]:
    """All sets of parts; of many parts none, each, all but each, and all."""
    sizes = range(n + 1) if n <= MANY else sorted({0, 1, n - 1, n})
    return [frozenset(own) for size in sizes for own in combinations(range(n), size)]


@dataclass(frozen=True)
class _Table:
    names: tuple[str, ...]
    counts: Float[np.ndarray, "boot batch"]
    level: float

    def of_game(self, found: Distances, game: Mapping[frozenset[int], int]) -> list[dict[str, Any]]:
        """Rows of both directions and of all orders. Column 0 is the sample, the others are resamples."""
        v, left, loss = (self._both(measure) for measure in (found.d_rel, found.residual, found.mean_loss))
        n = len(self.names)
        nothing, everything = game[frozenset()], game[frozenset(range(n))]
        whole = v[everything] - v[nothing]
        rows = []
        for direction, host, sign in ((INTO_BEFORE, nothing, 1), (INTO_AFTER, everything, -1)):
            singles = [game[frozenset({at} if sign > 0 else {*range(n)} - {at})] for at in range(n)]
            shares = share_of(sign * (v[singles] - v[host]), whole[None])
            both = [(self.names[at], shares[at], single) for at, single in enumerate(singles)]
            for part, draws, single in both:
                measured = {"moved": v[single, 0] - v[host, 0], "d_rel": v[single, 0], "residual": left[single, 0],
                            "loss_moved": loss[single, 0] - loss[host, 0]}  # fmt: skip
                rows.append(self._row(direction, OTHER, part, draws, measured))
            rows.append(self._row(direction, OTHER, "sum of parts", shares.sum(0), {}))
            rows.append(self._row(direction, OTHER, "interaction", 1 - shares.sum(0), {}))
        if n <= MANY:
            for at, part in enumerate(self.names):
                rows.append(self._row(ALL_ORDERS, OTHER, part, share_of(_shapley(v, game, at, n), whole), {}))
        return rows

    def of_control(
        self, donor: str, found: Distances, controls: Distances, game: Mapping[frozenset[int], int]
    ) -> list[dict[str, Any]]:
        """Rows of a control put into `before`, as shares of the checkpoints' difference."""
        v, own, left, loss = (
            self._both(measure) for measure in (found.d_rel, controls.d_rel, controls.residual, controls.mean_loss)
        )
        host = game[frozenset()]
        whole = v[game[frozenset(range(len(self.names)))]] - v[host]
        clean = found.mean_loss()[host, 0]
        return [
            self._row(
                INTO_BEFORE, donor, part, share_of(own[at] - v[host], whole),
                {"moved": own[at, 0] - v[host, 0], "d_rel": own[at, 0], "residual": left[at, 0],
                 "loss_moved": loss[at, 0] - clean},
            )
            for at, part in enumerate(self.names)
        ]  # fmt: skip

    def sets(self, found: Distances, chosen: Collection[frozenset[int]]) -> pd.DataFrame:
        """d_rel of every set."""
        low, high = ends(found.d_rel(self.counts), self.level)
        words = [" + ".join(self.names[at] for at in sorted(own)) or "none" for own in chosen]
        return pd.DataFrame(
            {"parts": words, "n_parts": [len(own) for own in chosen], "d_rel": found.d_rel()[:, 0], "low": low,
             "high": high, "residual": found.residual()[:, 0]}
        )  # fmt: skip

    def _both(self, measure: Any) -> Float[np.ndarray, "set boot"]:
        return np.concatenate([measure(), measure(self.counts)], axis=1)

    def _row(
        self, direction: str, donor: str, part: str, draws: Float[np.ndarray, " boot"], measured: Mapping[str, float]
    ) -> dict[str, Any]:
        low, high = ends(draws[1:], self.level)
        unknown = dict.fromkeys(("moved", "d_rel", "residual", "loss_moved"), np.nan)
        share = {"share": float(draws[0]), "low": float(low), "high": float(high)}
        return {"direction": direction, "donor": donor, "part": part} | share | unknown | dict(measured)


def _shapley(
    v: Float[np.ndarray, "set boot"], game: Mapping[frozenset[int], int], at: int, n: int
) -> Float[np.ndarray, " boot"]:
    """The mean of what a part adds over all orders: sets of one size have equal weight, and so have sizes."""
    total = np.zeros(v.shape[1])
    for own, row in game.items():
        if at not in own:
            total += (v[game[own | {at}]] - v[row]) / (n * comb(n - 1, len(own)))
    return total
