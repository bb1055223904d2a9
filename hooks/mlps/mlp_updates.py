"""The context as an update of every MLP: built layer by layer in one pass without the context, and put to use.

At the query's last token let n_C and n_0 be an MLP's input with and without the context, and base the block's output
less the MLP's contribution. Every matrix that reads n is changed by

    dW = W (n_C - n_0) n_0^T / |n_0|^2        so that (W + dW) n_0 = W n_C,

and the change of the base goes where the block can add it: db = base_C - base_0 into the output bias; without biases
dW_out = (base_C - base_0) h^T / |h|^2, h the hidden state; behind a norm d gain = (base_C - base_0) / (normalised
output). n_0, base_0 and h are those of the run in which all layers below are changed already. The model so changed
gives, without the context, what the model gives with it. A change of weights acts at every token; what it does at the
other tokens of the query reaches later layers through attention and is part of their n_0 and base_0. The identity is
claimed for the last token. Sources: arXiv:2507.16003; Goldwaser, Munn, Gonzalvo & Dherin 2025 for modern blocks.

Updates are kept as factors and act through hooks; `mechicl.hooks.mlps.mlp_weights` puts them into the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mechicl.hooks.mlps.mlp_parts import MLPParts
from mechicl.hooks.mlps.mlp_patches import Ends, LayerUpdate, Patch, State, Text, Updates, Watch, chunks, run_rows
from mechicl.hooks.wrapper import WrappedModel


def build_updates(
    wrapped: WrappedModel,
    parts: Sequence[MLPParts],
    contexts: Sequence[Text],
    queries: Sequence[Text],
    *,
    logits: bool = True,
) -> tuple[Updates, Ends, Ends]:
    """The updates that bring each query to its context, one a row; the run with context; the updated run without.

    `contexts` are whole texts, the query at their end; a BOS stands in both or in neither. Raises `ValueError` where an
    update is undefined: an input or hidden state of length 0, a normalised output with zeros.
    """
    found = []
    for rows in chunks(contexts):
        goals, reached = states_of(wrapped, parts, contexts[rows], logits=logits)
        patches = [Patch(part, goal=goal) for part, goal in zip(parts, goals, strict=True)]
        patched = run_rows(wrapped, parts, queries[rows], patches, logits=logits)
        found.append((tuple(patch.update for patch in patches), reached, patched))
    updates = tuple(_joined(own) for own in zip(*(one for one, _, _ in found), strict=True))
    return updates, _joined_ends([one for _, one, _ in found]), _joined_ends([one for _, _, one in found])


def run_updated(
    wrapped: WrappedModel,
    parts: Sequence[MLPParts],
    texts: Sequence[Text],
    updates: Updates | None,
    *,
    logits: bool = True,
) -> Ends:
    """Run texts with the updates of the same rows in force at every token (None: the model as it is)."""
    ends = []
    for rows in chunks(texts):
        index = torch.arange(rows.start, rows.stop, device=wrapped.device)
        patches = [] if updates is None else [
            Patch(part, given=own.take(index)) for part, own in zip(parts, updates, strict=True)
        ]  # fmt: skip
        ends.append(run_rows(wrapped, parts, texts[rows], patches, logits=logits))
    return _joined_ends(ends)


def random_updates(updates: Updates, *, seed: int) -> Updates:
    """Updates of the same norms in random directions: left factors, biases and gains are drawn anew.

    Right factors stay, so that a random update acts on its own query as strongly as the true one does.
    """
    generator = torch.Generator().manual_seed(seed)

    def like(x: Tensor) -> Tensor:
        drawn = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
        return drawn * (x.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))

    return tuple(
        LayerUpdate(tuple(like(x) for x in own.left), own.right, like(own.rest), own.hidden, own.cosine)
        for own in updates
    )


def states_of(
    wrapped: WrappedModel, parts: Sequence[MLPParts], texts: Sequence[Text], *, logits: bool
) -> tuple[list[State], Ends]:
    """Every layer's state at the last token of each text, in one pass."""
    watches = [Watch(part) for part in parts]
    ends = run_rows(wrapped, parts, texts, watches, logits=logits)
    return [watch.state for watch in watches], ends


def _joined(parts: Sequence[LayerUpdate]) -> LayerUpdate:
    left = tuple(torch.cat(xs) for xs in zip(*(own.left for own in parts), strict=True))
    hidden = [own.hidden for own in parts if own.hidden is not None]
    right, rest, cosine = (torch.cat([getattr(own, name) for own in parts]) for name in ("right", "rest", "cosine"))
    return LayerUpdate(left, right, rest, torch.cat(hidden) if hidden else None, cosine)


def _joined_ends(ends: Sequence[Ends]) -> Ends:
    return Ends(torch.cat([end.resid for end in ends]), torch.cat([end.logits for end in ends]))
