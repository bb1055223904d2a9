"""Which way of patching does a model take? Tried on a few random tokens, not guessed from its name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mechicl.hooks.hook_loop import loop_log_probs
from mechicl.hooks.patch_items import PatchItem
from mechicl.hooks.patch_sweep import Plan, sweep
from mechicl.hooks.replacements import Interchange
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.prompts import Prompt

_TRIED: WeakKeyDictionary[torch.nn.Module, str] = WeakKeyDictionary()


def way_to_patch(wrapped: WrappedModel, items: Sequence[PatchItem]) -> str:
    """ "cached" (affected nodes only), "whole" (all nodes from the patched layer on) or "hooks" (with one warning)."""
    longest = max(len(prompt) for item in items for prompt in (*item.prompts, *(item.donors or ())))
    if wrapped.has_hooks():
        return _slowly("the model carries hooks of yours, which may count positions")
    if wrapped.window is not None and longest > wrapped.window:
        return _slowly(f"a text is longer than the model's attention window of {wrapped.window} tokens")
    if wrapped.model not in _TRIED:
        _TRIED[wrapped.model] = next((way for way in ("cached", "whole") if _agrees(wrapped, way)), "hooks")
    if _TRIED[wrapped.model] == "hooks":
        return _slowly("this model takes no attention mask or positions of the caller's making")
    return _TRIED[wrapped.model]


def _slowly(reason: str) -> str:
    warnings.warn(f"patching runs the whole model once a set of heads and item: {reason}", stacklevel=4)
    return "hooks"


def _agrees(wrapped: WrappedModel, way: str) -> bool:
    """Does the fast way give the loop's numbers on a random item?"""
    draw = np.random.default_rng(0).integers(0, wrapped.d_vocab, size=(4, 5)).tolist()
    roles = {"target": (5, 10), "scored": (7, 10)}
    stem, one, other = draw[2][:2], draw[2][2:], draw[3][2:]
    sides = [tuple(Prompt((*prime, *stem, *end), roles) for end in (one, other)) for prime in draw[:2]]
    last = wrapped.n_layers - 1
    sets = (((0, 0),), ((last, 0),), ((0, 0), (last, 0)))
    plan = Plan((PatchItem(sides[0], sides[1]),), ("target",), Interchange(), sets, 1 << 40)
    slow, clean = loop_log_probs(wrapped, plan, 0)  # outside the try: what fails here fails for good
    found: list[Tensor] = []
    try:
        sweep(wrapped, plan, [0], lambda _, patched, base: found.extend((patched, base)), cached=way == "cached")
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return False  # the model refuses such a mask, such positions or such a cache
    gap = torch.cat([(found[0] - slow).flatten(), found[1] - clean]).abs()
    exact = wrapped.dtype in (torch.float32, torch.float64)
    # rounding grows with the size of what is rounded: in a model with shuffled weights log-probabilities reach -50
    size = max(1.0, clean.abs().max().item() / 10)
    return bool(gap.max() < 1e-4 * size if exact else gap.mean() < 0.1)
