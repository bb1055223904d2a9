"""Tasks whose rule is known and whose labels mean nothing: what a label stands for must be learned from the context."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mechicl.tasks.fewshot_task import TEMPLATES, FewShotTask

RULES = ("kind", "order")
ANIMALS = (
    "fox", "horse", "goat", "whale", "crow", "frog", "mouse", "tiger", "snake", "duck", "sheep", "bear",
    "wolf", "rabbit", "eagle", "donkey", "camel", "lion", "otter", "pig", "swan", "deer", "shark", "owl",
)  # fmt: skip
TOOLS = (
    "hammer", "saw", "drill", "chisel", "wrench", "shovel", "rake", "axe", "pliers", "file", "spade", "anvil",
    "ladder", "screwdriver", "broom", "needle", "scissors", "crowbar", "trowel", "clamp", "ruler", "brush",
    "hoe", "plane",
)  # fmt: skip
OTHERS = (
    "river", "cloud", "bread", "winter", "purple", "village", "music", "window", "sugar", "letter", "morning", "silver",
    "forest", "coffee", "island", "story", "yellow", "garden", "bridge", "pepper",
    "evening", "stone", "paper", "valley",
)  # fmt: skip
MOST_ROWS = 20_000  # of over a million possible texts; no text is drawn twice
LABEL_WORDS = ("dax", "blick", "toma", "wug", "fep", "zup", "koba", "lorp")  # words of no language


def rule_task(rule: str = "kind", n_rows: int = 200, *, seed: int = 0) -> FewShotTask:
    """Lists of four words under two meaningless labels; half of the rows have each.

    rule "kind": one word is an animal or a tool, and the label tells which; the others are neither. rule "order": one
    word is an animal and another a tool, and the label tells which comes first. Which label stands for what, the words
    and their places are drawn by `seed`. Without demonstrations nothing tells the labels apart. Under "order" the same
    words stand under both labels, so that no comparison of bags of words does better than chance.

    >>> rule_task(n_rows=2).frame["text"].str.count(",").tolist()
    [3, 3]
    """
    if rule not in RULES:
        raise ValueError(f"got rule={rule!r}; expected one of {', '.join(RULES)}")
    if not 2 <= n_rows <= MOST_ROWS or n_rows % 2:
        raise ValueError(f"got n_rows={n_rows}; expected an even number from 2 to {MOST_ROWS}: each label has half")
    rng = np.random.default_rng(seed)
    labels = [LABEL_WORDS[i] for i in rng.choice(len(LABEL_WORDS), size=2, replace=False)]
    rows: dict[str, str] = {}
    for i in range(n_rows):
        text = _text(rule, i % 2, rng)
        while text in rows:
            text = _text(rule, i % 2, rng)
        rows[text] = labels[i % 2]
    frame = pd.DataFrame({"text": list(rows), "label": list(rows.values())})
    return FewShotTask("rule" if rule == "kind" else f"rule {rule}", frame, template=TEMPLATES["input"])


def _text(rule: str, which: int, rng: np.random.Generator) -> str:
    """Four words; `which` 0 is an animal, or an animal before a tool, and 1 the opposite."""
    key = [str(rng.choice(ANIMALS)), str(rng.choice(TOOLS))]
    key = [key[which]] if rule == "kind" else key if which == 0 else key[::-1]
    words = [str(word) for word in rng.choice(OTHERS, size=4 - len(key), replace=False)]
    for place, word in zip(sorted(rng.choice(4, size=len(key), replace=False)), key, strict=True):
        words.insert(int(place), word)
    return ", ".join(words)
