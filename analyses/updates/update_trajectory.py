"""How the update of the MLPs moves while the context is read token by token.

With dW_i the update that replaces the first i tokens of the context for a fixed query (`mlp_update`), a step is
dW_{i+1} - dW_i, and |dW_{i+1} - dW_i|_F (no unit; also relative to |W|_F; 0: the token changes nothing) is reported
over i. For one block in which the query's input A(x) to the MLP stays as it is, the step is one of stochastic gradient
descent, W_{i+1} = W_i - h grad L_i(W_i), with rate h = 1 / |A(x)|^2 and the loss L_i(W) = tr(D_i^T W),
D_i = W_0 (A(C_1..i, x) - A(C_1..i+1, x)) A(x)^T: linear in W and different for every token, so that the form alone says
nothing of a loss that the model is trained to lower (arXiv:2507.16003). Shrinking steps look like convergence, but the
average over a growing context has them too: beside them stand the same tokens in random order. Steps come from the
rank-1 factors; no matrix is made.

Caveats:
- That each step can be written as one of gradient descent holds by construction, for a loss that differs from token to
  token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from mechicl.analyses.updates.update_items import (
    CAVEAT,
    Given,
    Text,
    checked_clusters,
    mean_interval,
    read_items,
)
from mechicl.hooks.mlps.mlp_parts import MLPParts
from mechicl.hooks.mlps.mlp_patches import LayerUpdate
from mechicl.hooks.mlps.mlp_trials import find_mlps
from mechicl.hooks.mlps.mlp_updates import build_updates
from mechicl.hooks.wrapper import WrappedModel, wrap
from mechicl.provenance import Provenance
from mechicl.results import Result

OWN, SHUFFLED = "own", "shuffled"


@dataclass(frozen=True)
class UpdateTrajectory(Result):
    """Steps of the update over the tokens of each context, in their own order and shuffled.

    steps: one row an item, order ("own", "shuffled"), repeat (which shuffle; 0 for "own"), position i (1 to the
        context's length), layer and matrix: step |dW_i - dW_{i-1}|_F with dW_0 = 0, relative step / |W|_F, norm
        |dW_i|_F, and the token's text (its id where there is no tokenizer).
    shrinking: one row a matrix and order, and the difference of both: the mean over items of log2(mean relative step in
        the second half of the context / in the first half, without the first token), averaged over layers, with its
        interval (cluster bootstrap). Below 0: steps shrink; -1: they halve. NaN for contexts of fewer than 3 tokens.
    """

    steps: pd.DataFrame
    shrinking: pd.DataFrame
    level: float
    provenance: Provenance

    @property
    def caveat(self) -> str:
        """What such updates cannot show."""
        return CAVEAT

    def to_frame(self) -> pd.DataFrame:
        """The steps."""
        return self.steps.copy()

    def plot(self, ax: Any = None) -> Any:
        """Mean relative step over positions, own order and shuffled; returns matplotlib Axes."""
        from mechicl.views.updates import plot_update_trajectory

        return plot_update_trajectory(self.steps, ax=ax)

    def plot_map(self, item: int = 0, matrix: str | None = None, ax: Any = None) -> Any:
        """Relative steps of one item as a map of layers and context tokens; returns matplotlib Axes."""
        from mechicl.views.updates import plot_update_map

        rows = self.steps[(self.steps["item"] == item) & (self.steps["order"] == OWN)]
        if rows.empty:
            raise ValueError(f"there is no item {item}; known are 0 to {self.steps['item'].max()}")
        chosen = rows[rows["matrix"] == (matrix or rows["matrix"].iloc[0])]
        if chosen.empty:
            raise ValueError(f"there is no matrix {matrix!r}; known are {', '.join(rows['matrix'].unique())}")
        table = chosen.pivot_table(index="layer", columns="position", values="relative")
        tokens = chosen.drop_duplicates("position").sort_values("position")["token"].tolist()
        label = f"Step of {chosen['matrix'].iloc[0]}"
        return plot_update_map(table.to_numpy(float), tokens, label=label, layers=table.index.tolist(), ax=ax)

    def report(self) -> str:
        """How much steps shrink, beside shuffled contexts, and the caveat."""
        lines = [f"Steps of the MLP updates in {self.provenance.model}: log2 of later over earlier steps"]
        for _, row in self.shrinking.iterrows():
            lines.append(
                f"  d{row['matrix']}, {row['order']}: {row['estimate']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
            )
        return "\n".join([*lines, self.caveat])

    def __repr__(self) -> str:
        """The report: numbers do not go without their caveat."""
        return self.report()


def measure_update_trajectory(
    model: Any,
    contexts: Sequence[Given],
    queries: Sequence[Given],
    *,
    prepend_bos: bool = True,
    n_shuffles: int = 2,
    clusters: Sequence[Any] | None = None,
    n_boot: int = 2_000,
    level: float = 0.95,
    seed: int = 0,
) -> UpdateTrajectory:
    """The update after every token of each context, all prefixes of a context in a few batched passes.

    `n_shuffles` random orders of each context's tokens are the control. Errors as of `measure_mlp_updates`.
    """
    wrapped = wrap(model)
    items = read_items(wrapped, contexts, queries, prepend_bos)
    labels = checked_clusters(clusters, len(items))
    if n_shuffles < 1:
        raise ValueError(f"got n_shuffles={n_shuffles}, expected at least 1: shuffled contexts are the control")
    parts = find_mlps(wrapped)
    rng = np.random.default_rng(seed)
    frames = []
    for i, (context, query) in enumerate(zip(items.contexts, items.queries, strict=True)):
        orders = [(OWN, 0, context)]
        orders += [(SHUFFLED, k, tuple(int(t) for t in rng.permutation(context))) for k in range(n_shuffles)]
        for order, repeat, tokens in orders:
            found = _steps(wrapped, parts, items.bos, tokens, query)
            names = [_name(wrapped, token) for token in tokens]
            frames.append(
                found.assign(item=i, order=order, repeat=repeat, token=[names[p - 1] for p in found["position"]])
            )
    steps = pd.concat(frames, ignore_index=True)
    return UpdateTrajectory(
        steps=steps[["item", "order", "repeat", "position", "token", "layer", "matrix", "step", "relative", "norm"]],
        shrinking=_shrinking(steps, labels, n_boot, level, seed),
        level=level,
        provenance=Provenance.of(
            {**wrapped.facts(), "prepend_bos": prepend_bos},
            seeds={"all": seed},
            options={"n_items": len(items), "n_shuffles": n_shuffles, "n_boot": n_boot},
        ),
    )


def difference_norms(left: Float[Tensor, "pos d_out"], right: Float[Tensor, "pos d_in"]) -> Float[Tensor, " step"]:
    """|a_{i+1} b_{i+1}^T - a_i b_i^T|_F from the factors, also where both hardly differ.

    By (a' - a) b'^T + a (b' - b)^T, so that nothing large is subtracted from something nearly as large.
    """
    turn, shift = left[1:] - left[:-1], right[1:] - right[:-1]
    squared = (
        turn.square().sum(-1) * right[1:].square().sum(-1)
        + left[:-1].square().sum(-1) * shift.square().sum(-1)
        + 2 * (turn * left[:-1]).sum(-1) * (right[1:] * shift).sum(-1)
    )
    return squared.clamp(min=0).sqrt()


def _steps(wrapped: WrappedModel, parts: Sequence[MLPParts], bos: Text, context: Text, query: Text) -> pd.DataFrame:
    """Steps and norms of one context, a row a position, layer and matrix."""
    whole = [(*bos, *context[:stop], *query) for stop in range(1, len(context) + 1)]
    updates, _, _ = build_updates(wrapped, parts, whole, [(*bos, *query)] * len(whole), logits=False)
    frames = []
    for part, own in zip(parts, updates, strict=True):
        norms = own.norms(part)
        for name, steps in _layer_steps(part, own).items():
            size = part.size(name)
            frame = pd.DataFrame({"position": np.arange(1, len(steps) + 1), "layer": part.layer, "matrix": name})
            frame["step"] = steps.cpu().numpy()
            frame["relative"] = frame["step"] / size if size > 0 else np.nan
            frame["norm"] = norms[name].double().cpu().numpy()
            frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _layer_steps(part: MLPParts, own: LayerUpdate) -> dict[str, Tensor]:
    """Norms of the steps of each parameter; before the first token there is no update."""

    def begun(x: Tensor, *, still: bool = False) -> Tensor:
        first = x[:1].double()
        return torch.cat([first if still else torch.zeros_like(first), x.double()])

    found = {}
    for name, left in zip(part.matrices, own.left, strict=True):
        found[name] = difference_norms(begun(left), begun(own.right, still=True))
    if own.hidden is not None:
        found[part.rest_name] = difference_norms(begun(own.rest), begun(own.hidden, still=True))
    else:
        found[part.rest_name] = (begun(own.rest)[1:] - begun(own.rest)[:-1]).norm(dim=-1)
    return found


def _shrinking(steps: pd.DataFrame, labels: Sequence[Any], n_boot: int, level: float, seed: int) -> pd.DataFrame:
    """log2 of later over earlier steps, by matrix and order, and the difference of both orders."""
    later = steps[steps["position"] > 1]
    length = later.groupby("item")["position"].transform("max")
    half = np.where(later["position"] > (length + 1) / 2, "second", "first")
    keys = ["item", "order", "repeat", "layer", "matrix"]
    halves = later.assign(half=half)
    first, second = (halves[halves["half"] == name].groupby(keys)["relative"].mean() for name in ("first", "second"))
    ratio = (second / first.where(first > 0)).dropna()
    logs = pd.Series(
        np.log2(ratio.to_numpy(), where=ratio.to_numpy() > 0, out=np.full(len(ratio), np.nan)), ratio.index
    )
    values = logs.groupby(["matrix", "order", "item"], sort=False).mean()
    rows = []
    every = range(len(labels))
    for matrix in steps["matrix"].unique():
        own, shuffled = (
            np.array([values.get((matrix, order, i), np.nan) for i in every], float) for order in (OWN, SHUFFLED)
        )
        for order, column in ((OWN, own), (SHUFFLED, shuffled), (f"{OWN} - {SHUFFLED}", own - shuffled)):
            known = np.isfinite(column)
            kept = [label for label, there in zip(labels, known, strict=True) if there]
            mean, low, high = mean_interval(column[known], kept, n_boot, level, seed) if kept else (np.nan,) * 3
            rows.append((matrix, order, mean, low, high, int(known.sum())))
    return pd.DataFrame(rows, columns=["matrix", "order", "estimate", "low", "high", "n_items"])


def _name(wrapped: WrappedModel, token: int) -> str:
    return str(token) if wrapped.tokenizer is None else str(wrapped.tokenizer.decode([token]))
