"""What the confirmed heads look at, and what they do item by item."""

from __future__ import annotations

import pandas as pd

from mechicl.analyses.heads.effects import Rows, Sweeper
from mechicl.analyses.heads.question import Question
from mechicl.analyses.heads.selection import Confirmation, head_name
from mechicl.hooks.capture import capture_roles
from mechicl.hooks.patching import Head

_QUERIES = ("last", "target.verb", "prime.verb")


def attention_table(sweeper: Sweeper, question: Question, rows: Rows, heads: list[Head]) -> pd.DataFrame:
    """Share of attention of each confirmed head, from a few places to the parts of prime and target, by context.

    Mean over items of the first form's prompt; 0 to 1. Parts that not all prompts have are left out.
    """
    columns = ["name", "context", "query", "key", "share"]
    found: list[tuple[str, str, str, str, float]] = []
    for context in question.functional.contexts if heads else ():
        prompts = [item.prompts[0] for item in sweeper.items(rows, context)]
        common = set.intersection(*(set(prompt.roles) for prompt in prompts))
        # The smallest parts only: "prime" and "prime.post_verb" hold others.
        keys = [role for role in prompts[0].roles if role in common and not _holds_others(role)]
        queries = [role for role in _QUERIES if role in common]
        layers = sorted({layer for layer, _ in heads})
        capture = capture_roles(
            sweeper.wrapped, prompts, roles=list(dict.fromkeys([*queries, *keys])), streams=(), layers=layers,
            query_reduce="last", memory_budget=sweeper.memory_budget,
        )  # fmt: skip
        for head in heads:
            for query in queries:
                for key in keys:
                    share = capture.attention(query, key)[:, layers.index(head[0]), head[1]].mean()
                    found.append((head_name(head), context, query, key, float(share)))
    return pd.DataFrame(found, columns=columns)


def confirmed_effects_table(found: Confirmation, question: Question, rows: Rows) -> pd.DataFrame:
    """One row a confirmed head and item: what is behind the head's effect."""
    parts = [
        pd.DataFrame(
            {
                "name": head_name(head),
                "prime_verb": rows.prime_verb,
                "target": rows.target,
                "bias": question.bias.reindex(rows.prime_verb).to_numpy(),
                "d_effect": change,
            }
        )
        for head, change, yes in zip(found.candidates, found.change, found.confirmed, strict=True)
        if yes
    ]
    columns = ["name", "prime_verb", "target", "bias", "d_effect"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _holds_others(role: str) -> bool:
    return role in ("prime", "target", "scored", "last") or role.endswith(".post_verb")
