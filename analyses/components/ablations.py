"""Which parts of one model carry which strategy? Heads, attention, MLPs and layers ablated one by one.

An ablation moves what a part computes towards its mean over sequences, position by position: all the way (strength 1)
or by a share of it. Then

    moved = d_rel(ablated) - d_rel(clean)      above 0: without it the model memorises more, so it carried generalising

and likewise the loss. Any change of a model moves something, so beside it stands `control`, the mean over changes of
the same size in random directions (the change, turned by a rotation drawn for each sequence), and `beyond` = moved -
control. A part that both strategies need leaves, taken out, a model that is near neither: its residual is large, and
d_rel means nothing. Weaker ablations keep the model near the strategies, and tell which of them suffers first. Parts
are named on one half of the sequences, by a test of `beyond` corrected over all parts and strengths (max-T, whole
sequences' signs flipped; d_rel without its limits at 0 and 1 is a mean over sequences), and judged on the other, whose
numbers are shown. In a model of one head the head is its attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.analyses.components.held_out import Distances, ends, resamples
from mechicl.analyses.components.hooked_runs import HookedRun, Place, replaced
from mechicl.max_t import max_t_over_heads
from mechicl.provenance import Provenance
from mechicl.resampling import check_level
from mechicl.results import Result

STRENGTHS = (1.0, 0.2)
BROKEN = 1.0  # a residual from which on a model is farther from both strategies than they are from each other
MEASURES = ("moved", "control", "beyond", "loss_moved", "loss_control")


@dataclass(frozen=True)
class Component:
    """A part of the model: the activations that make it, and its head, or None for all."""

    name: str
    layer: int
    head: int | None
    points: tuple[str, ...]


@dataclass(frozen=True)
class ComponentStrategies(Result):
    """What each part of a model carries.

    frame: one row a strength and part (component, layer, head; -1: all heads): moved, control, beyond, loss_moved and
        loss_control, each with _low and _high; d_rel and residual of the ablated model; all on the sequences that named
        nothing. t, p, p_fwe, named: from the others. carries: "generalising" or "memorising", the strategy that a named
        part carries by the sign of `beyond`, where its interval on the evaluated half does not hold 0; "both" where the
        residual is above 1, so that neither strategy is left; or "neither".
    clean_d_rel, clean_residual, clean_loss: of the model as it is, on the evaluated half.
    """

    point: str
    n_sequences: int
    level: float
    clean_d_rel: float
    clean_residual: float
    clean_loss: float
    frame: pd.DataFrame
    provenance: Provenance

    def to_frame(self) -> pd.DataFrame:
        """The parts."""
        return self.frame.copy()

    def plot(self, ax: Any = None) -> Any:
        """How far d_rel moves without each part, beside the control; returns matplotlib Axes."""
        from mechicl.views.strategy_components import plot_ablations

        return plot_ablations(self, ax=ax)


def ablate_components(
    run: HookedRun,
    *,
    strengths: Sequence[float] = STRENGTHS,
    n_random: int = 5,
    n_boot: int = 1_000,
    n_permutations: int = 5_000,
    level: float = 0.95,
    seed: int = 0,
    progress: bool = False,
) -> ComponentStrategies:
    """Ablate every head, attention, MLP and layer of a model, and measure how far d_rel and loss move.

    strengths: shares of the way to the mean, above 0. n_random: random directions a part and sequence. seed: halves,
    directions, permutations and bootstrap.

        ablate_components(HookedRun.of(open_checkpoint(folder), HeldOut.of(point))).plot()

    Raises `ValueError`, before any forward pass, for no random directions, too few sequences, and strengths of 0.
    """
    check_level(level)
    if not strengths or not min(strengths) > 0:
        raise ValueError(f"got strengths={tuple(strengths)}; expected one or more, above 0")
    if n_random < 1 or len(run.held) < 8:
        raise ValueError(f"got n_random={n_random} and {len(run.held)} sequences; expected at least 1 and 8")
    generator = torch.Generator().manual_seed(seed)
    order = np.random.default_rng(seed).permutation(len(run.held))
    half, rest = order[: len(order) // 2], order[len(order) // 2 :]
    counts = resamples(len(rest), n_boot, seed)
    parts = components(run.wrapped.n_layers, run.wrapped.n_heads)
    taken = run.capture([(point, part.layer) for part in parts for point in part.points])
    said = [run.predictions()]
    plan = [(strength, part) for strength in strengths for part in parts]
    for strength, part in tqdm(plan, desc="ablations", unit="part", disable=not progress):
        said.append(_changed(run, part, taken, strength, None))
        said += [_changed(run, part, taken, strength, generator) for _ in range(n_random)]
    found = run.held.distances(said)
    tests = max_t_over_heads(_effects(found.part(half), n_random), n_permutations=n_permutations, seed=seed)
    named = tests.p_fwe <= 1 - level
    own = found.part(rest)
    table = pd.DataFrame(_rows(plan, own, counts, n_random, level)).assign(
        t=tests.t, p=tests.p, p_fwe=tests.p_fwe, named=named
    )
    return ComponentStrategies(
        point=run.held.point.name,
        n_sequences=len(run.held),
        level=level,
        clean_d_rel=float(own.d_rel()[0, 0]),
        clean_residual=float(own.residual()[0, 0]),
        clean_loss=float(own.mean_loss()[0, 0]),
        frame=table.assign(carries=_carries(table, named)),
        provenance=Provenance.of(
            run.facts(),
            seeds={"halves, directions, permutations and bootstrap": seed},
            options={"n_sequences": len(run.held), "strengths": list(strengths), "n_random": n_random,
                     "n_boot": n_boot, "n_permutations": n_permutations},
        ),
    )  # fmt: skip


def components(n_layers: int, n_heads: int) -> tuple[Component, ...]:
    """Heads (where there are several), attention and MLP of every layer, and layers (where there are several)."""
    found = []
    for layer in range(n_layers):
        found += [Component(f"head {head}", layer, head, ("z",)) for head in range(n_heads) if n_heads > 1]
        found += [Component("attention", layer, None, ("attn_out",)), Component("MLP", layer, None, ("mlp_out",))]
        if n_layers > 1:
            found.append(Component("layer", layer, None, ("attn_out", "mlp_out")))
    return tuple(found)


def _changed(
    run: HookedRun, part: Component, taken: dict[Place, Tensor], strength: float, generator: torch.Generator | None
) -> Float[np.ndarray, "batch pos label"]:
    """Predictions with a part moved to its mean, or, given a generator, by as much in a random direction."""
    hooks = []
    for point in part.points:
        own = taken[point, part.layer]
        change = strength * (own.mean(0, keepdim=True) - own)
        if generator is not None:
            turn = _rotations(len(own), own.shape[-1], generator).to(own)
            change = torch.einsum("b...d,bde->b...e", change, turn)
        hooks.append(replaced(run.wrapped, (point, part.layer), own + change, head=part.head))
    return run.predictions(hooks)


def _rotations(batch: int, size: int, generator: torch.Generator) -> Float[Tensor, "batch d_model d_model"]:
    """Random orthogonal matrices, uniform; one a sequence, so that the mean is over many directions."""
    q, r = torch.linalg.qr(torch.randn(batch, size, size, generator=generator, dtype=torch.float64))
    return q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None]


def _effects(found: Distances, n_random: int) -> Float[np.ndarray, "head verb"]:
    """What each sequence adds to `beyond` of each part, d_rel without its limits."""
    lean = (found.to_generalising - found.to_memorising) / (2 * found.between.mean())
    moved = (lean[1:] - lean[0]).reshape(-1, 1 + n_random, lean.shape[1])
    return moved[:, 0] - moved[:, 1:].mean(1)


def _rows(
    plan: Sequence[tuple[float, Component]],
    found: Distances,
    counts: Float[np.ndarray, "boot batch"],
    n_random: int,
    level: float,
) -> list[dict[str, Any]]:
    """The numbers of every part; column 0 of the draws is the sample."""
    d_rel, loss = (np.concatenate([measure(), measure(counts)], axis=1) for measure in (found.d_rel, found.mean_loss))
    left, rows = found.residual()[:, 0], []
    for number, (strength, part) in enumerate(plan):
        at = 1 + number * (1 + n_random)
        random = slice(at + 1, at + 1 + n_random)
        moved, control = d_rel[at] - d_rel[0], (d_rel[random] - d_rel[0]).mean(0)
        draws = (moved, control, moved - control, loss[at] - loss[0], (loss[random] - loss[0]).mean(0))
        row: dict[str, Any] = {
            "strength": strength, "component": part.name, "layer": part.layer,
            "head": -1 if part.head is None else part.head,
            "d_rel": float(d_rel[at, 0]), "residual": float(left[at]),
        }  # fmt: skip
        for name, own in zip(MEASURES, draws, strict=True):
            low, high = ends(own[1:], level)
            row |= {name: float(own[0]), f"{name}_low": float(low), f"{name}_high": float(high)}
        rows.append(row)
    return rows


def _carries(table: pd.DataFrame, named: Bool[np.ndarray, " head"]) -> list[str]:
    cases = {
        "both": named & (table["residual"] > BROKEN),
        "generalising": named & (table["beyond_low"] > 0),
        "memorising": named & (table["beyond_high"] < 0),
    }
    return [str(word) for word in np.select([*cases.values()], [*cases], "neither")]
