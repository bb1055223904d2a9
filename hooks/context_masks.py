"""Contexts as masks: which tokens before a query are demonstrations, given as roles or as masks, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.prompts import Prompt

Demos = Sequence[str] | Sequence[np.ndarray]


def query_positions(wrapped: WrappedModel, prompts: Sequence[Prompt], query: str) -> list[int]:
    """The last token of the role `query` in every prompt; raises `ValueError` where there is none in the window."""
    if not prompts:
        raise ValueError("got no prompts; give at least one")
    for number, prompt in enumerate(prompts):
        if query not in prompt.roles:
            raise ValueError(f"prompt {number} lacks the role {query!r}; it has {', '.join(prompt.roles) or 'none'}")
        if prompt.roles[query][1] > wrapped.n_ctx:
            raise ValueError(
                f"the query of prompt {number} is its token {prompt.roles[query][1]}, but the model's context window "
                f"holds {wrapped.n_ctx}; shorten the prompt"
            )
    return [prompt.roles[query][1] - 1 for prompt in prompts]


def demo_masks(prompts: Sequence[Prompt], ends: list[int], demos: Demos, name: str) -> list[Bool[np.ndarray, "demo _"]]:
    """Each prompt's demonstrations as masks of the text up to the query, checked."""
    if len(demos) == 0:
        raise ValueError(f"the context {name!r} is empty: it has no demonstrations; name at least one role, or a mask")
    by_role = all(isinstance(demo, str) for demo in demos)
    if not by_role and len(demos) != len(prompts):
        raise ValueError(
            f"got {len(demos)} masks for {len(prompts)} prompts in the context {name!r}; expected one each"
        )
    found: list[Bool[np.ndarray, "demo _"]] = []
    for number, (prompt, end) in enumerate(zip(prompts, ends, strict=True)):
        where = f"the context {name!r} of prompt {number}"
        mask = _of_roles(prompt, demos, where) if by_role else np.atleast_2d(np.asarray(demos[number]))
        if mask.dtype != bool or mask.shape[1] != len(prompt):
            raise ValueError(f"{where} is a mask of {mask.dtype} over {mask.shape[1]} tokens; expected booleans over "
                             f"the text's {len(prompt)}")  # fmt: skip
        if not mask.any(1).all():
            raise ValueError(f"{where} is empty, or one of its demonstrations is; give each a token")
        if mask[:, end:].any():
            raise ValueError(f"{where} reaches the query (token {end}) or beyond it; a context comes before")
        if mask.sum(0).max() > 1:
            raise ValueError(f"demonstrations of {where} overlap; each token can belong to one only")
        if found and len(mask) != len(found[0]):
            raise ValueError(
                f"{where} has {len(mask)} demonstrations, that of prompt 0 {len(found[0])}; give all as many"
            )
        found.append(mask[:, : end + 1])
    return found


def _of_roles(prompt: Prompt, demos: Sequence[Any], where: str) -> Bool[np.ndarray, "demo pos"]:
    mask = np.zeros((len(demos), len(prompt)), dtype=bool)
    for row, role in enumerate(demos):
        if role not in prompt.roles:
            raise ValueError(f"{where} has no role {role!r}; there are {', '.join(prompt.roles) or 'none'}")
        mask[row, slice(*prompt.roles[role])] = True
    return mask
