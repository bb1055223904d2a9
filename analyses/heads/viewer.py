"""Attention of confirmed heads over one pair of a corpus, token by token, to explore in notebooks and offline pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mechicl.analyses.heads.map import HeadMap
from mechicl.hooks.capture import capture_roles
from mechicl.hooks.patching import Head
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.prompts import Prompt, tokenize
from mechicl.views.circuits_page import MAX_HEADS, CircuitsFigure, attention_figure

SHOWN = 8  # heads in a figure of a report


def show_heads(
    model: Any,
    head_map: HeadMap,
    corpus: PrimingCorpus,
    item: int = 0,
    *,
    prime_form: str | None = None,
    target_form: str | None = None,
    heads: Sequence[Head] | None = None,
    max_heads: int = MAX_HEADS,
    prepend_bos: bool | None = None,
) -> CircuitsFigure:
    """Attention of the confirmed heads over one pair of the corpus, token by token, to explore with the pointer.

    ``item``: row of the corpus' pairs. Forms: of the prime and of the target, by default the corpus' first.
    ``heads``: others than the confirmed ones, as (layer, head). In a notebook the figure shows itself;
    `mechicl.views.circuits_page.save_circuits([figure], "heads.html")` writes a page. The model is left as it was.

    Raises ValueError where no head was confirmed and none is named, or for what the corpus or the model lacks.
    """
    wrapped = wrap(model)
    chosen = list(heads) if heads is not None else head_map.confirmed
    if not chosen:
        raise ValueError(f"Got a head map without confirmed heads ({head_map.verdict}); name some with `heads`.")
    for layer, head in chosen:
        if not (0 <= layer < wrapped.n_layers and 0 <= head < wrapped.n_heads):
            raise ValueError(f"Got the head {(layer, head)}; the model has {wrapped.n_layers} x {wrapped.n_heads}.")
    chosen = chosen[:max_heads]
    forms = prime_form or corpus.forms[0], target_form or corpus.forms[0]
    bos = prepend_bos if prepend_bos is not None else head_map.provenance.prepend_bos is not False
    prompt = tokenize(corpus.prime_target(item, *forms), wrapped.tokenizer, prepend_bos=bos)
    layers = sorted({layer for layer, _ in chosen})
    kept = capture_roles(
        wrapped, [prompt], roles=["target"], streams=(), layers=layers, query_reduce="full", key_reduce="full"
    ).pattern
    if kept is None:
        raise ValueError("the model gave no attention patterns; its attention layers must have the hook `hook_pattern`")
    pattern = np.stack([kept[0, layers.index(layer), head].numpy() for layer, head in chosen])
    return attention_figure(
        _token_texts(wrapped.tokenizer, prompt),
        pattern.astype(float).round(4),  # what an eye can tell apart, in a third of the bytes
        head_names=[f"L{layer}H{head}" for layer, head in chosen],
        max_heads=max_heads,
        caption=f"{forms[0]} prime, {forms[1]} target: {prompt.text}",
    )


def example_attention(model: Any, head_maps: Sequence[HeadMap], corpus: PrimingCorpus) -> list[CircuitsFigure]:
    """Figures for a report: the strongest heads of all maps over a typical pair, after a prime of either form.

    Empty where no map has a confirmed head. The pair is the one whose change by the heads is the median.
    """
    found = [head_map for head_map in head_maps if head_map.confirmed]
    if not found:
        return []
    heads = list(dict.fromkeys(head for head_map in found for head in head_map.confirmed))[:SHOWN]
    item = typical_item(found[0], corpus)
    return [show_heads(model, found[0], corpus, item, prime_form=form, heads=heads) for form in corpus.forms]


def typical_item(head_map: HeadMap, corpus: PrimingCorpus) -> int:
    """The row of the corpus' pairs whose change by the confirmed heads together is nearest to the median."""
    pairs = head_map.confirmed_effects.groupby(["prime_verb", "target"], as_index=False)["d_effect"].sum()
    typical = pairs.loc[(pairs["d_effect"] - pairs["d_effect"].median()).abs().idxmin()]
    frame = corpus.to_frame()
    rows = np.flatnonzero((frame["prime_verb"] == typical["prime_verb"]) & (frame["target"] == typical["target"]))
    if not len(rows):
        raise ValueError(
            f"Got a corpus that lacks the pair {typical['prime_verb']}, {typical['target']} of the head map; expected "
            "the corpus that it was made of."
        )
    return int(rows[0])


def _token_texts(tokenizer: Any, prompt: Prompt) -> list[str]:
    return [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in prompt.tokens]
