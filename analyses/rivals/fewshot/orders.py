"""The same demonstrations in several orders, and what the model answers after each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from tqdm.auto import tqdm

from mechicl.hooks.label_scores import label_log_probs
from mechicl.hooks.length_batches import batches_of_length
from mechicl.hooks.score_store import ScoreStore, request_key
from mechicl.hooks.scoring import stored_facts
from mechicl.hooks.wrapper import WrappedModel
from mechicl.tasks.fewshot import FewShotPrompt, FewShotTask, given_prompts


def reordered(
    wrapped: WrappedModel,
    task: FewShotTask,
    prompts: Sequence[FewShotPrompt],
    n_orders: int,
    *,
    prepend_bos: bool,
    seed: int,
) -> list[list[FewShotPrompt]]:
    """The prompts with their demonstrations in other orders, a list for each of `n_orders` - 1 of them.

    Each order is drawn by itself from all that there are, so two demonstrations often come as they came: what differs
    between orders is then not overrated, as it would be if they were made to differ.
    """
    rng = np.random.default_rng([5, seed, len(prompts[0].demos)])
    versions = []
    for _ in range(n_orders - 1):
        orders = [rng.permutation(len(one.demos)) for one in prompts]
        versions.append(
            given_prompts(
                task,
                [one.query for one in prompts],
                [[one.demos[i] for i in order] for one, order in zip(prompts, orders, strict=True)],
                tokenizer=wrapped.tokenizer,
                shown=[[one.demo_labels[i] for i in order] for one, order in zip(prompts, orders, strict=True)],
                candidates=[one.labels for one in prompts],
                prepend_bos=prepend_bos,
                n_ctx=wrapped.n_ctx,
            )
        )
    return versions


def answers(
    wrapped: WrappedModel,
    prompts: Sequence[FewShotPrompt],
    *,
    zero_shot: bool = False,
    memory_budget: int = 1 << 30,
    progress: bool = True,
    store: str | Path | None = None,
) -> list[Float[np.ndarray, " label"]]:
    """Log-probability, nats, of each label that may be answered, after the prompt or after its query alone.

    Prompts that are the same are run once. store: a folder for finished prompts.
    """
    asked = {}
    for one in prompts:
        prompt = one.zero_shot if zero_shot else one.prompt
        asked[prompt.tokens, one.label_tokens] = prompt
    keys = {own: request_key(repr(own).encode()) for own in asked}
    kept = None if store is None else ScoreStore(store, stored_facts(wrapped))
    found = {own: known for own in asked if kept is not None and (known := kept.get(keys[own])) is not None}
    todo = [own for own in asked if own not in found]
    what = "zero shot" if zero_shot else "orders"
    with tqdm(total=len(asked), initial=len(found), desc=what, unit="prompt", disable=not progress) as bar:
        for numbers in batches_of_length(wrapped, [len(tokens) for tokens, _ in todo], memory_budget):
            part = [todo[i] for i in numbers]
            read = label_log_probs(
                wrapped, [asked[own] for own in part], [labels for _, labels in part], memory_budget=memory_budget
            )
            found |= dict(zip(part, read, strict=True))
            if kept is not None:
                for own, values in zip(part, read, strict=True):
                    kept.put(keys[own], values)
                kept.flush()
            bar.update(len(part))
    return [found[(one.zero_shot if zero_shot else one.prompt).tokens, one.label_tokens] for one in prompts]
