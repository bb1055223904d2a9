"""What replacing heads does to text that has nothing to do with the effect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mechicl.analyses.heads.effects import Sweeper, all_heads
from mechicl.hooks.patch_items import PatchItem, span_log_prob
from mechicl.hooks.patching import Head, patch_heads
from mechicl.hooks.replacements import mean_activations
from mechicl.tasks.prompts import Prompt, RoleText, tokenize

_N_RANDOM = 20

# A few sentences on this and that; what matters is only that no dative primes another.
TEXTS = (
    "The harbour was quiet in the morning, and only the gulls made any noise above the boats.",
    "Water boils at a lower temperature on high mountains because the air presses less on its surface.",
    "She had read the same page three times before she noticed that the rain had stopped.",
    "Most of the trains on this line are late in winter, when the doors freeze and the switches are covered with snow.",
    "In the second half of the century the town grew quickly, and new streets were laid out along the river.",
    "A triangle with two equal sides has two equal angles, and a line from its top halves its base.",
    "Nobody in the office knew why the lights went out, but after an hour everything worked again.",
    "The committee met twice last year and decided, after long debates, to change nothing at all.",
    "Bees find their way by the position of the sun, even when clouds cover most of the sky.",
    "His grandmother kept all her letters in a wooden box under the bed, tied together by year.",
    "If the engine does not start, check first whether there is any fuel, and then look at the battery.",
    "The film begins slowly, with a long walk through an empty house, and ends in the middle of a sentence.",
)


def damage(
    sweeper: Sweeper, heads: Sequence[Head], texts: Sequence[str] | None, seed: int
) -> Iterator[tuple[str, str, float, float, float, str]]:
    """Change of the mean log-probability a token of unrelated texts, with the heads' mean output in place of theirs.

    Beside it the same for random sets of as many heads. Below 0: the texts became less likely.
    """
    wrapped = sweeper.wrapped
    items = [_item(wrapped.tokenizer, text, sweeper.prepend_bos) for text in texts or TEXTS]
    half = len(items) // 2
    every = [head for head in all_heads(wrapped) if head not in set(heads)]
    rng = np.random.default_rng(seed)
    size = min(len(heads), len(every))
    drawn = [[every[i] for i in rng.choice(len(every), size, replace=False)] for _ in range(_N_RANDOM if size else 0)]
    change = []
    for own, others in ((items[:half], items[half:]), (items[half:], items[:half])):
        if not own or not others:
            return
        found = patch_heads(
            wrapped, own, roles=["text"], sets=[list(heads), *drawn], metric=span_log_prob, progress=False,
            replacement=mean_activations(wrapped, others, roles=["text"], progress=False),
            memory_budget=sweeper.memory_budget,
        )  # fmt: skip
        change.append(found.effects / [len(item.prompts[0].part("scored")) for item in own])
    by_text = np.concatenate(change, axis=1)
    own_mean, error = by_text[0].mean(), by_text[0].std(ddof=1) / np.sqrt(len(by_text[0]))
    yield (
        "damage on unrelated text", "nats a token", float(own_mean), float(own_mean - 2 * error),
        float(own_mean + 2 * error),
        f"change of log-probability a token of {len(items)} texts with the confirmed heads' mean output (2 s.e.)",
    )  # fmt: skip
    if drawn:
        low, high = np.quantile(by_text[1:].mean(1), [0.025, 0.975])
        yield (
            "damage by random heads", "nats a token", float(by_text[1:].mean()), float(low), float(high),
            f"the same for {len(drawn)} random sets of as many heads: mean and middle 95%",
        )  # fmt: skip


def _item(tokenizer: object, text: str, prepend_bos: bool) -> PatchItem:
    prompt = tokenize(RoleText(text, {"text": (0, len(text))}), tokenizer, prepend_bos=prepend_bos)
    return PatchItem((Prompt(prompt.tokens, {"text": prompt.roles["text"], "scored": (1, len(prompt))}),))
