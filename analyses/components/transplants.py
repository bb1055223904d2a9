"""Which weights carry the change from one strategy to another? Weights transplanted between two checkpoints of a run.

Two checkpoints of one run, `before` (generalising) and `after` (memorising): each part of the weights is taken from one
and put into the other, alone, with others, and all but it. For a set S of parts, with v(S) the model that has S from
`after` and the rest from `before`,

    share (after into before)    [d_rel(v(S)) - d_rel(v(none))] / [d_rel(v(all)) - d_rel(v(none))]
    share (before into after)    the same the other way: of v(all but S) from v(all)
    share (all orders)           of one part: its mean share over all orders of putting parts in (Shapley's value)

0: moves nothing, 1: moves as much as all parts together; below 0 and above 1 can be. Shares over all orders sum to 1;
`interaction` is 1 less the sum of single shares: what parts do together alone. Beside every share stands the residual
of the transplanted model, for a broken one has a d_rel that means nothing. It makes sense to put weights of one
checkpoint into another because training went on from there: both use one basis. Controls, put in the same way: weights
of `after` in another basis (the same function, but parts that fit no other model), the change of weights in random
order (as large, of no meaning), and another model's weights where one is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.analyses.components.held_out import HeldOut, ends, resamples
from mechicl.analyses.components.moves import Moves
from mechicl.analyses.components.parts import hybrid, in_another_basis, shuffled_change, weight_parts
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
    plan = [(after, own) for own in chosen]
    plan += [(donor, frozenset({at})) for donor in donors.values() for at in range(len(names))]
    bar = tqdm(plan, desc="transplants", unit="model", disable=not progress)
    found = held.distances(held.predictions(hybrid(before, donor, numbers, own)) for donor, own in bar)
    moves = Moves(found, counts, level)
    rows = _game_rows(moves, names, chosen)
    rows += [
        {"direction": INTO_BEFORE, "donor": donor, "part": part, **moves.row(len(chosen) + number, 0, len(chosen) - 1)}
        for number, (donor, part) in enumerate((donor, part) for donor in donors for part in names)
    ]
    return WeightTransplants(
        point=held.point.name,
        n_sequences=len(held),
        level=level,
        frame=pd.DataFrame(rows),
        sets=_set_table(moves, names, chosen),
        provenance=Provenance.of(
            {"model": held.point.name},
            seeds={"controls and bootstrap": seed},
            options={"n_sequences": len(held), "by_layer": by_layer, "n_boot": n_boot},
        ),
    )


def _sets(n: int) -> list[frozenset[int]]:
    """All sets of parts; of many parts none, each, all but each, and all."""
    sizes = range(n + 1) if n <= MANY else sorted({0, 1, n - 1, n})
    return [frozenset(own) for size in sizes for own in combinations(range(n), size)]


def _game_rows(moves: Moves, names: Sequence[str], chosen: Sequence[frozenset[int]]) -> list[dict[str, Any]]:
    """Rows of both directions, and of all orders where all sets were tried; the first set is empty, the last whole."""
    game = {own: at for at, own in enumerate(chosen)}
    n, last = len(names), len(chosen) - 1
    rows = []
    for direction, host, other in ((INTO_BEFORE, 0, last), (INTO_AFTER, last, 0)):
        singles = [game[frozenset({at} if host == 0 else {*range(n)} - {at})] for at in range(n)]
        total = moves.share(singles, host, other).sum(0)
        found = [(part, moves.row(at, host, other)) for part, at in zip(names, singles, strict=True)]
        found += [("sum of parts", moves.numbers(total)), ("interaction", moves.numbers(1 - total))]
        rows += [{"direction": direction, "donor": OTHER, "part": part, **numbers} for part, numbers in found]
    if len(chosen) == 2**n:
        share = moves.share(slice(len(chosen)), 0, last)
        rows += [
            {"direction": ALL_ORDERS, "donor": OTHER, "part": part, **moves.numbers(_shapley(share, game, at, n))}
            for at, part in enumerate(names)
        ]
    return rows


def _set_table(moves: Moves, names: Sequence[str], chosen: Sequence[frozenset[int]]) -> pd.DataFrame:
    """d_rel of every set."""
    own = slice(len(chosen))
    low, high = ends(moves.d_rel[own, 1:], moves.level)
    words = [" + ".join(names[at] for at in sorted(parts)) or "none" for parts in chosen]
    return pd.DataFrame(
        {"parts": words, "n_parts": [len(parts) for parts in chosen], "d_rel": moves.d_rel[own, 0], "low": low,
         "high": high, "residual": moves.residual[own, 0]}
    )  # fmt: skip


def _shapley(
    v: Float[np.ndarray, "set boot"], game: Mapping[frozenset[int], int], at: int, n: int
) -> Float[np.ndarray, " boot"]:
    """The mean of what a part adds over all orders: sets of one size have equal weight, and so have sizes."""
    total = np.zeros(v.shape[1])
    for own, row in game.items():
        if at not in own:
            total += (v[game[own | {at}]] - v[row]) / (n * comb(n - 1, len(own)))
    return total
