"""Attention over the demonstrations of one prompt, to look at: pictures with a pointer, and bars beside a kernel's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from mechicl.analyses.kernel_regression import KernelRegression
from mechicl.hooks.capture import capture_roles
from mechicl.hooks.demos.readings import read_demonstrations
from mechicl.hooks.patching import Head
from mechicl.hooks.wrapper import wrap
from mechicl.tasks.fewshot import FewShotPrompt
from mechicl.views.circuits_page import MAX_HEADS, CircuitsFigure, attention_figure, token_scores_figure

MAX_TOKENS = 160  # a square of tokens a head: more than a browser draws at once
SHOWN = 4  # heads in a report's figures


def show_demonstrations(
    model: Any, prompt: FewShotPrompt, heads: Sequence[Head], *, max_heads: int = MAX_HEADS
) -> list[CircuitsFigure]:
    """The prompt as a text, once a head: the deeper a token's colour, the more the last token attends to it.

    In a notebook each figure shows itself; `mechicl.views.circuits_page.save_circuits(figures, "heads.html")` writes a
    page. The first token is left pale: much attention rests there in most models, and would hide all else. Raises
    `ValueError` for heads that the model lacks, and more of them than `max_heads`.
    """
    chosen = _checked(model, heads, max_heads)
    rows = _patterns(model, prompt, chosen)[:, -1]
    texts = _token_texts(model, prompt)
    figures = []
    for (layer, head), weights in zip(chosen, rows, strict=True):
        own = weights.round(4)
        rest = float(own[0])
        own[0] = 0.0
        caption = f"L{layer}H{head}: attention of the last token ({rest:.0%} of it on the first token, not coloured)"
        figures.append(token_scores_figure(texts, own, caption=caption))
    return figures


def show_kernel_heads(
    model: Any, prompt: FewShotPrompt, heads: Sequence[Head], *, max_heads: int = MAX_HEADS
) -> CircuitsFigure:
    """Attention from every token to every earlier one, to choose heads and tokens with the pointer.

    Raises `ValueError` as `show_demonstrations` does, and for prompts of more than `MAX_TOKENS` tokens: take one with
    fewer demonstrations.
    """
    chosen = _checked(model, heads, max_heads)
    if len(prompt.prompt) > MAX_TOKENS:
        raise ValueError(
            f"got a prompt of {len(prompt.prompt)} tokens; expected at most {MAX_TOKENS}: take one with fewer "
            "demonstrations, or `show_demonstrations`"
        )
    return attention_figure(
        _token_texts(model, prompt),
        _patterns(model, prompt, chosen).round(4),  # what an eye can tell apart, in a third of the bytes
        head_names=[f"L{layer}H{head}" for layer, head in chosen],
        max_heads=max_heads,
        caption=f"{len(prompt.demos)} demonstrations, then: {prompt.query_text or prompt.zero_shot.text}",
    )


def plot_prompt(
    model: Any, found: KernelRegression, prompts: Sequence[FewShotPrompt], item: int, head: Head, *, ax: Any = None
) -> Any:
    """Bars of one head's attention to the demonstrations of one prompt, beside what its kernel and nuisances give.

    prompts: those that `found` was measured on; `item` is one of them, `head` one of `found.named_heads`. Runs the
    prompt again. Returns matplotlib Axes; see `mechicl.views.kernels.plot_demo_attention`.
    """
    from mechicl.views.kernels import plot_demo_attention

    if head not in found.named_heads:
        raise ValueError(f"got the head {head}; expected one that was named: {list(found.named_heads)}")
    if len(prompts) != len(found.kernel_weights):
        raise ValueError(f"got {len(prompts)} prompts; expected the {len(found.kernel_weights)} of the regression")
    if not 0 <= item < len(prompts):
        raise ValueError(f"got item {item}; expected 0 to {len(prompts) - 1}")
    one, number = prompts[item], found.named_heads.index(head)
    read = read_demonstrations(model, [one], places=(), progress=False)
    weights = read.attention[found.aggregate][0, head[0], head[1]]
    shares = {
        f"attention of L{head[0]}H{head[1]}": weights / weights.sum(),
        "by its kernel": found.kernel_weights[item, number],
        "by nuisances": found.nuisance_weights[item, number],
    }
    answer = one.labels[int(read.predicted[0])]
    return plot_demo_attention(
        shares, one.demo_labels, texts=one.demo_texts or None, query=one.query_text, answer=answer, ax=ax
    )


def example_demonstrations(model: Any, found: KernelRegression, prompt: FewShotPrompt) -> list[CircuitsFigure]:
    """Figures for a report, over one prompt: named heads that follow a kernel, then those named for their votes."""
    follows = found.heads.set_index(["layer", "head"])["follows_kernel"]
    heads = [head for head in found.named["kernel"] if follows[head]]
    chosen = list(dict.fromkeys([*heads, *found.named["agreement"]]))[:SHOWN]
    return show_demonstrations(model, prompt, chosen) if chosen else []


def _checked(model: Any, heads: Sequence[Head], max_heads: int) -> list[Head]:
    wrapped = wrap(model)
    if not 0 < len(heads) <= max_heads:
        raise ValueError(f"got {len(heads)} heads; expected 1 to {max_heads} in one figure")
    for layer, head in heads:
        if not (0 <= layer < wrapped.n_layers and 0 <= head < wrapped.n_heads):
            raise ValueError(f"got the head {(layer, head)}; the model has {wrapped.n_layers} x {wrapped.n_heads}")
    return list(heads)


def _patterns(model: Any, prompt: FewShotPrompt, heads: Sequence[Head]) -> Float[np.ndarray, "head pos pos"]:
    layers = sorted({layer for layer, _ in heads})
    kept = capture_roles(
        wrap(model), [prompt.prompt], roles=["last"], streams=(), layers=layers, query_reduce="full", key_reduce="full"
    ).pattern
    if kept is None:
        raise ValueError("the model gave no attention patterns; its attention layers must have the hook `hook_pattern`")
    return np.stack([kept[0, layers.index(layer), head].double().numpy() for layer, head in heads])


def _token_texts(model: Any, prompt: FewShotPrompt) -> list[str]:
    tokenizer = wrap(model).tokenizer
    return [tokenizer.decode([token], clean_up_tokenization_spaces=False) for token in prompt.prompt.tokens]
