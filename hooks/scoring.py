"""Log-probabilities of continuations under a language model, fast enough for a corpus of primes and targets."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from mechicl.hooks.log_probs import by_padding, by_trees, check_causality_and_trees, warn_without_trees
from mechicl.hooks.prefix_tree import Continuation
from mechicl.hooks.score_store import ScoreStore, continuation_key
from mechicl.hooks.wrapper import WrappedModel, wrap

Text = str | Sequence[int] | Int[np.ndarray, "_"] | Int[Tensor, "_"]  # a text, or its token ids

_FLUSH_EVERY = 2_000  # scores lost at most by a kill that cannot be caught


@overload
def score(
    model: Any, contexts: Text | Sequence[Text], continuations: Sequence[Text], *, per_token: Literal[False] = ...,
    prepend_bos: bool = ..., share_prefixes: bool = ..., memory_budget: int = ..., progress: bool = ...,
    store: str | Path | None = ...,
) -> Float[np.ndarray, " item"]: ...  # fmt: skip
@overload
def score(
    model: Any, contexts: Text | Sequence[Text], continuations: Sequence[Text], *, per_token: Literal[True],
    prepend_bos: bool = ..., share_prefixes: bool = ..., memory_budget: int = ..., progress: bool = ...,
    store: str | Path | None = ...,
) -> list[Float[np.ndarray, " pos"]]: ...  # fmt: skip
def score(
    model: Any,
    contexts: Text | Sequence[Text],
    continuations: Sequence[Text],
    *,
    per_token: bool = False,
    prepend_bos: bool = True,
    share_prefixes: bool = True,
    memory_budget: int = 1 << 30,
    progress: bool = True,
    store: str | Path | None = None,
) -> Float[np.ndarray, " item"] | list[Float[np.ndarray, " pos"]]:
    """Log-probability, in nats, of each continuation after its context.

        log P(continuation | context) = sum over its tokens t of log P(t | BOS, context, earlier tokens)

    `contexts` and `continuations` are lists of equal length, of texts or of token ids; a single context serves all
    continuations, and "" is no context. A context and its continuation are tokenized as one text, so put the space
    between them at the head of the continuation. With `per_token` one array a continuation is returned instead of the
    sum. Numbers are at most 0 and depend neither on batching, nor on order, nor on the tokenizer's padding side (to
    1e-4 nats in float32).

    Shared prefixes are computed once, where the model takes prefix trees and carries no hooks of the user's; with
    hooks, every sequence runs in a row of its own, so that hooks which count positions mean what they meant.
    `memory_budget` (bytes) bounds a forward pass' activations. With `store`, a folder, finished scores are kept and
    reused: an interrupted call goes on where it was. The model is left as it was.

    Raises `ValueError`, before any forward pass, for unequal lengths, nothing to score, token ids out of range, a
    sequence longer than the context window, a token that straddles the boundary; and during the work for
    log-probabilities that are not finite (what was finished is in `store`).

    >>> score(mechicl.load("smollm2"), "The capital of France is", [" Paris", " Rome"])  # doctest: +SKIP
    array([-0.28892231, -6.50175381])
    """
    wrapped = wrap(model)
    requests = as_continuations(wrapped, contexts, continuations, prepend_bos)
    unique = list(dict.fromkeys(requests))
    _check_length(wrapped, requests, unique)
    kept = _open_store(wrapped, store)
    values = {c: found for c in unique if kept is not None and (found := kept.get(continuation_key(c))) is not None}
    todo = [c for c in unique if c not in values]
    bar = tqdm(total=len(unique), initial=len(values), desc="scoring", unit="seq", disable=not progress)

    def finish(number: int, log_probs: np.ndarray) -> None:
        values[todo[number]] = log_probs
        bar.update()
        if kept is not None:
            kept.put(continuation_key(todo[number]), log_probs)
            if len(values) % _FLUSH_EVERY == 0:
                kept.flush()

    try:
        if todo:
            _run(wrapped, todo, share_prefixes, memory_budget, finish)
    finally:  # also on Ctrl-C: what is finished stays
        bar.close()
        if kept is not None:
            kept.flush()
    if per_token:
        return [values[c] for c in requests]
    return np.array([values[c].sum(dtype=np.float64) for c in requests])


def _run(wrapped: WrappedModel, todo: list[Continuation], share: bool, budget: int, finish: Any) -> None:
    with wrapped.evaluating():
        trees = check_causality_and_trees(wrapped)
        if not share:
            trees = False
        elif wrapped.has_hooks():
            trees = False
            warn_without_trees("the model carries hooks of yours, which may count positions")
        elif wrapped.window is not None and max(len(c.tokens) for c in todo) > wrapped.window:
            trees = False
            warn_without_trees(f"a text is longer than the model's attention window of {wrapped.window} tokens")
        elif not trees:
            warn_without_trees("this model takes no attention mask or positions of the caller's making")
        (by_trees if trees else by_padding)(wrapped, todo, budget, finish)


def as_continuations(
    wrapped: WrappedModel, contexts: Text | Sequence[Text], continuations: Sequence[Text], prepend_bos: bool
) -> list[Continuation]:
    """Token ids of each context and continuation together, and where the continuation starts; see `score`."""
    if isinstance(continuations, str) or len(continuations) == 0:
        raise ValueError(f"nothing to score: got {continuations!r}, expected a list of texts or token ids")
    single = isinstance(contexts, str | np.ndarray | Tensor) or len(contexts) == 0 or isinstance(contexts[0], Integral)
    listed: Sequence[Any] = [contexts] * len(continuations) if single else list(contexts)
    if len(listed) != len(continuations):
        raise ValueError(
            f"got {len(listed)} contexts and {len(continuations)} continuations; give one context for each"
        )
    bos = (wrapped.bos_token_id,) if prepend_bos else ()
    tokens: list[tuple[tuple[int, ...], int]]
    if isinstance(continuations[0], str):
        tokens = _tokenized(wrapped, listed, continuations)
    else:
        # ids of numpy or torch become plain ones: requests are compared by value
        tokens = [(tuple(int(i) for i in (*c, *k)), len(c)) for c, k in zip(listed, continuations, strict=True)]
    found = [Continuation((*bos, *ids), start + len(bos)) for ids, start in tokens]
    for item, continuation in enumerate(found):
        _check_tokens(wrapped, item, continuation)
    return found


def _tokenized(
    wrapped: WrappedModel, contexts: Sequence[Any], continuations: Sequence[Any]
) -> list[tuple[tuple[int, ...], int]]:
    tokenizer = wrapped.tokenizer
    if tokenizer is None or not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            "the model has no fast tokenizer, so texts cannot be cut at the boundary; pass token ids instead of texts"
        )
    pairs = list(dict.fromkeys(zip(contexts, continuations, strict=True)))
    encoded = tokenizer([a + b for a, b in pairs], add_special_tokens=False, return_offsets_mapping=True)
    found = {}
    for (context, continuation), ids, offsets in zip(
        pairs, encoded["input_ids"], encoded["offset_mapping"], strict=True
    ):
        border = len(context)
        start = next((i for i, (_, stop) in enumerate(offsets) if stop > border), len(ids))
        if start < len(ids) and offsets[start][0] < border and context[offsets[start][0] : border].strip():
            piece = (context + continuation)[slice(*offsets[start])]
            raise ValueError(
                f"the token {piece!r} straddles the end of the context {context!r}; begin the continuation with the "
                f"space that parts them, got {continuation!r}"
            )
        found[context, continuation] = (tuple(ids), start)
    return [found[pair] for pair in zip(contexts, continuations, strict=True)]


def _check_tokens(wrapped: WrappedModel, item: int, continuation: Continuation) -> None:
    if continuation.start >= len(continuation.tokens):
        raise ValueError(f"item {item} has an empty continuation; drop it")
    if continuation.start == 0:
        raise ValueError(
            f"item {item} has nothing before its first token, which then has no probability; pass prepend_bos=True"
        )
    if not all(0 <= token < wrapped.d_vocab for token in continuation.tokens):
        raise ValueError(f"item {item} holds token ids outside 0 to {wrapped.d_vocab - 1}; is it another tokenizer's?")


def _check_length(wrapped: WrappedModel, requests: list[Continuation], unique: list[Continuation]) -> None:
    longest = max(unique, key=lambda c: len(c.tokens))
    if len(longest.tokens) > wrapped.n_ctx:
        raise ValueError(
            f"item {requests.index(longest)} has {len(longest.tokens)} tokens, BOS included, but the model's context "
            f"window holds {wrapped.n_ctx}; shorten the context"
        )


def _open_store(wrapped: WrappedModel, store: str | Path | None) -> ScoreStore | None:
    return None if store is None else ScoreStore(store, stored_facts(wrapped))


def stored_facts(wrapped: WrappedModel) -> dict[str, str]:
    """What stored numbers depend on beyond the request; raises `ValueError` where that cannot be said."""
    if wrapped.has_hooks():
        raise ValueError(
            "the model carries hooks, whose effect a stored number would not name; remove them with "
            "model.reset_hooks(), or pass store=None"
        )
    facts = wrapped.facts()
    return {key: str(facts[key]) for key in ("model", "weights_sha256", "dtype", "device")}
