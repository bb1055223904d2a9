"""Does the updated model without the context give what the model gives with it? And how far off is a random update?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from mechicl.analyses.updates.update_items import Items
from mechicl.hooks.mlps.mlp_parts import MLPParts
from mechicl.hooks.mlps.mlp_patches import Ends
from mechicl.hooks.mlps.mlp_updates import build_updates, random_updates, run_updated
from mechicl.hooks.mlps.mlp_weights import context_in_weights, updated_weights
from mechicl.hooks.wrapper import WrappedModel

RANDOM = "a random update of the same norms"


def tolerance_of(wrapped: WrappedModel, parts: Sequence[MLPParts]) -> float:
    """The largest relative error with which the identity counts as shown in the model's dtype.

    1e-10 in float64, 1e-4 in float32 (and where a norm behind the MLP computes in float32 whatever the dtype). In half
    precision the spacing of the numbers itself, 2^-7 for bfloat16 and 2^-10 for float16: nothing finer can be seen.
    """
    if wrapped.dtype in (torch.bfloat16, torch.float16):
        return float(torch.finfo(wrapped.dtype).eps)
    exact = wrapped.dtype == torch.float64 and all(part.exact_norm for part in parts)
    return 1e-10 if exact else 1e-4


def verification(
    wrapped: WrappedModel, parts: Sequence[MLPParts], items: Items, proof_items: int, seed: int
) -> tuple[pd.DataFrame, float]:
    """The checks of a result (see `MLPUpdates.checks`), and the tolerance that applies."""
    whole = [items.whole(i, i) for i in range(len(items))]
    alone = [items.alone(i) for i in range(len(items))]
    updates, goal, reached = build_updates(wrapped, parts, whole, alone)
    random = run_updated(wrapped, parts, alone, random_updates(updates, seed=seed))
    unchanged = run_updated(wrapped, parts, alone, None)
    rows = [_row(i, "hooks", i, goal, reached, random, unchanged) for i in range(len(items))]
    for i in range(min(proof_items, len(items))):
        with context_in_weights(wrapped, parts, whole[i], alone[i]) as (built, one_goal):
            proven = _without_hooks(wrapped, parts, alone[i])
        with updated_weights(parts, random_updates(built, seed=seed)):
            failed = run_updated(wrapped, parts, alone[i : i + 1], None)
        here = unchanged.take(torch.tensor([i], device=wrapped.device))
        rows.append(_row(0, "weights", i, one_goal, proven, failed, here))
    return pd.DataFrame(rows), tolerance_of(wrapped, parts)


def _without_hooks(wrapped: WrappedModel, parts: Sequence[MLPParts], text: tuple[int, ...]) -> Ends:
    """Logits of the model as it is, called plainly; the blocks' outputs from a second run that is only watched."""
    tokens = torch.tensor([text], device=wrapped.device)
    with wrapped.evaluating():
        logits = wrapped.model(tokens, return_type="logits", attention_mask=torch.ones_like(tokens))
    watched = run_updated(wrapped, parts, [text], None, logits=False)
    return Ends(watched.resid, logits[:, -1].to(watched.resid.dtype))


def _row(row: int, run: str, item: int, goal: Ends, reached: Ends, random: Ends, unchanged: Ends) -> dict[str, Any]:
    errors = _layer_errors(reached, goal, row)
    worst, failed = float(errors.max()), float(_layer_errors(random, goal, row).max())
    logits = (reached.logits[row] - goal.logits[row]).abs().max()
    shares = reached.logits[row].softmax(-1) - goal.logits[row].softmax(-1)
    return {
        "item": item,
        "run": run,
        "layer_error": worst,
        "worst_layer": int(errors.argmax()),
        "logit_error": float(logits),
        "probability_error": float(shares.abs().max()),
        "random_error": failed,
        "times_larger": failed / max(worst, torch.finfo(errors.dtype).tiny),
        "unchanged_error": float(_layer_errors(unchanged, goal, row).max()),
    }


def _layer_errors(ends: Ends, goal: Ends, row: int) -> torch.Tensor:
    return (ends.resid[row] - goal.resid[row]).norm(dim=-1) / goal.resid[row].norm(dim=-1)
