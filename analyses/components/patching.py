"""Which activations carry the change from one strategy to another? Patching between two checkpoints of a run.

Both checkpoints read the same sequences. What one computes at a place (an attention pattern, a head's mix of values,
what attention or the MLP adds, the residual stream) is put into the other's run, at all positions or at the last alone:

    share = [d_rel(patched) - d_rel(host)] / [d_rel(donor) - d_rel(host)]     0: moves nothing, 1: as far as the donor

At the last position d_rel is that of the last prediction alone. A place downstream of all that differs has the share 1:
what falls short of 1 in the residual stream after the last block is in the last norm and the unembedding. The residual
streams of one run's checkpoints share a basis, because training went on from there; those of other models do not, which
the controls show: the donor in another basis (the same function), and another model where one is given. Patterns need
no common basis: a pattern of the donor in another basis is the donor's own. "both outputs" puts in what attention and
the MLP add at once, and `interaction` is its share less the sum of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.analyses.components.held_out import WHERE, resamples
from mechicl.analyses.components.hooked_runs import HookedRun, Place, replaced
from mechicl.analyses.components.moves import Moves
from mechicl.analyses.components.transplants import INTO_AFTER, INTO_BEFORE, OTHER
from mechicl.provenance import Provenance
from mechicl.results import Result

BOTH = "both outputs"


@dataclass(frozen=True)
class Site:
    """A place in the model: the activations that are patched at once, each with its head or None for all."""

    name: str
    layer: int
    head: int | None
    points: tuple[str, ...]


@dataclass(frozen=True)
class CheckpointPatching(Result):
    """What moved with which activations.

    frame: one row a direction, donor, place (`site`, layer, head, where): share, low, high; moved (d_rel less the
        host's), d_rel and residual of the patched model, loss_moved. head is -1 for all heads. Donors besides "other
        checkpoint" are controls. For the place "interaction" there is a share alone.
    """

    point: str
    n_sequences: int
    level: float
    frame: pd.DataFrame
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The shares."""
        return self.frame.copy()

    def plot(self, ax: Any = None, where: str = "all") -> Any:
        """Shares place by place, in both directions, with controls; returns matplotlib Axes."""
        from mechicl.views.strategy_components import plot_patches

        return plot_patches(self, where=where, ax=ax)


def patch_checkpoints(
    before: HookedRun,
    after: HookedRun,
    *,
    controls: Mapping[str, HookedRun] | None = None,
    where: Sequence[str] = WHERE,
    n_boot: int = 1_000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> CheckpointPatching:
    """Patch every place of one checkpoint's run with the other's activations.

    controls: donors whose activations are put into `before` as those of `after` are, by name. where: "all" positions,
    the "last", or both.

        patch_checkpoints(HookedRun.of(open_checkpoint(folder, 600), held), HookedRun.of(open_checkpoint(folder), held))

    Raises `ValueError`, before any forward pass, for runs over other sequences, and unknown positions.
    """
    held, controls = before.held, dict(controls or {})
    if any(run.held is not held for run in (after, *controls.values())):
        raise ValueError("got runs over other sequences; open all checkpoints with the same HeldOut")
    if not where or any(own not in WHERE for own in where):
        raise ValueError(f"got where={tuple(where)}; expected some of {', '.join(WHERE)}")
    counts = resamples(len(held), n_boot, seed)
    sites = patching_sites(before.wrapped.n_layers, before.wrapped.n_heads)
    plan = [(INTO_BEFORE, OTHER, before, after), (INTO_AFTER, OTHER, after, before)]
    plan += [(INTO_BEFORE, name, before, run) for name, run in controls.items()]
    clean = {id(run): run.predictions() for run in (before, after)}
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(plan) * len(where) * len(sites), desc="patches", unit="run", disable=not progress) as bar:
        for direction, name, host, donor in plan:
            taken = donor.capture([(point, site.layer) for site in sites for point in site.points])
            for at in where:
                patched = []
                for site in sites:
                    patched.append(_patched(host, site, taken, at))
                    bar.update()
                ends_of = [clean[id(host)], clean[id(before if host is after else after)]]
                moves = Moves(held.distances([*ends_of, *patched], where=at), counts, level)
                rows += [{"direction": direction, "donor": name, "where": at, **row} for row in _rows(moves, sites)]
    return CheckpointPatching(
        point=held.point.name,
        n_sequences=len(held),
        level=level,
        frame=pd.DataFrame(rows),
        provenance=Provenance.of(
            after.facts(),
            seeds={"bootstrap": seed},
            options={"before": before.facts()["weights_sha256"], "n_sequences": len(held), "n_boot": n_boot},
        ),
    )


def patching_sites(n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Every place, in the order of the forward pass; heads apart where there are several."""
    found = [Site("embedding", 0, None, ("resid_pre",))]
    for layer in range(n_layers):
        heads = range(n_heads) if n_heads > 1 else ()
        found += [Site("pattern", layer, None, ("pattern",)), *(Site("pattern", layer, h, ("pattern",)) for h in heads)]
        found += [Site("mixed values", layer, None, ("z",)), *(Site("mixed values", layer, h, ("z",)) for h in heads)]
        found += [
            Site("attention output", layer, None, ("attn_out",)),
            Site("stream after attention", layer, None, ("resid_mid",)),
            Site("MLP output", layer, None, ("mlp_out",)),
            Site(BOTH, layer, None, ("attn_out", "mlp_out")),
            Site("stream after block", layer, None, ("resid_post",)),
        ]
    return tuple(found)


def _patched(host: HookedRun, site: Site, taken: Mapping[Place, Tensor], where: str) -> np.ndarray:
    places = [(point, site.layer) for point in site.points]
    return host.predictions(
        [replaced(host.wrapped, place, taken[place], head=site.head, where=where) for place in places]
    )


def _rows(moves: Moves, sites: Sequence[Site]) -> list[dict[str, Any]]:
    """The first two models are the host and the other checkpoint."""
    rows = []
    numbers = {(site.name, site.layer, site.head): at for at, site in enumerate(sites, start=2)}
    for (name, layer, head), at in numbers.items():
        place = {"site": name, "layer": layer, "head": -1 if head is None else head}
        rows.append(place | moves.row(at, 0, 1))
        if name == BOTH:
            parts = [numbers[part, layer, None] for part in ("attention output", "MLP output")]
            alone = moves.share(parts, 0, 1).sum(0)
            rows.append(place | {"site": "interaction"} | moves.numbers(moves.share(at, 0, 1) - alone))
    return rows
