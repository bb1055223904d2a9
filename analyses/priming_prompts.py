"""From a priming corpus to items that can be patched: a target in both forms after one prime, and its donors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from mechicl.hooks.patch_items import PatchItem
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.prompts import Prompt, tokenize


def priming_items(
    corpus: PrimingCorpus,
    tokenizer: Any,
    rows: Sequence[int] | Int[np.ndarray, " item"],
    context: str,
    *,
    donor_context: str | None = None,
    donor_rows: Sequence[int] | Int[np.ndarray, " item"] | None = None,
    prepend_bos: bool = True,
) -> list[PatchItem]:
    """One item a row of the corpus' pairs: the target in both forms after the prime in `context`.

    The metric `log_odds` of such an item is L_context. Scored are the tokens from where the two forms part on. Donors
    are the same target after the same prime in `donor_context`, or after the prime of `donor_rows` (pairs with the same
    target and another prime). Roles are the corpus' own, under prime. and target., `bos`, `scored`, and `last`, the
    token before the first scored one. The label is the context.

    Raises `ValueError` for donor rows with another target, and for whatever `tokenize` refuses.
    """
    targets = corpus.pairs["target"].to_numpy()
    other_rows = rows if donor_rows is None else donor_rows
    found = []
    for row, other in zip(rows, other_rows, strict=True):
        if targets[row] != targets[other]:
            raise ValueError(
                f"pair {other} was given as donor of pair {row}, but its target is {targets[other]!r}, not "
                f"{targets[row]!r}; donors have the same target"
            )
        own = _prompts(corpus, tokenizer, int(row), context, prepend_bos)
        donors = None
        if donor_context is not None or donor_rows is not None:
            donors = _prompts(corpus, tokenizer, int(other), donor_context or context, prepend_bos)
        found.append(PatchItem(own, donors, label=context))
    return found


def _prompts(corpus: PrimingCorpus, tokenizer: Any, row: int, context: str, prepend_bos: bool) -> tuple[Prompt, Prompt]:
    """The target in both forms after a prime, with the roles that patching needs."""
    texts = (corpus.prime_target(row, context, form) for form in corpus.forms)
    pair = [tokenize(text, tokenizer, prepend_bos=prepend_bos) for text in texts]
    stem = next(i for i, (a, b) in enumerate(zip(pair[0].tokens, pair[1].tokens, strict=False)) if a != b)
    extra = {"last": (stem - 1, stem)} | ({"bos": (0, 1)} if prepend_bos else {})
    first, second = (
        Prompt(p.tokens, {**p.roles, **extra, "scored": (stem, p.roles["target"][1])}, p.text) for p in pair
    )
    return first, second
