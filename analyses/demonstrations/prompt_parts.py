"""The parts of few-shot prompts in their order, and prompts of different lengths brought to common bins.

Every token belongs to exactly one part, whose kind is one of

    start      what stands before the first demonstration: BOS
    text       the texts of the demonstrations       query       the text of the query
    label      their labels                          ending      what follows it, to the last token ("Sentiment:")
    template   the template's other words            separator   what stands between demonstrations

A token that crosses a border counts as label, then as text. A text of n tokens is laid over its bins as a line over a
line: token j covers the share [j/n, (j+1)/n), and a bin receives of each token the part that falls into it. Mass is
conserved that way. Density, attention a token, is a bin's mean over what it covers: linear interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mechicl.tasks.fewshot import FewShotPrompt

KINDS = ("start", "text", "template", "label", "separator", "query", "ending")
Part = tuple[str, str, tuple[int, int]]  # name, kind, token span (may be empty)


def parts_of(one: FewShotPrompt) -> list[Part]:
    """All parts of a prompt, in order; empty ones have a span of no tokens."""
    roles, n_demos = one.prompt.roles, len(one.demos)
    found: list[Part] = []
    at = 0

    def up_to(stop: int, name: str, kind: str) -> None:
        nonlocal at
        found.append((name, kind, (at, max(at, stop))))
        at = max(at, stop)

    for i in range(n_demos):
        own = f"demo[{i}]"
        up_to(roles[own][0], "start" if i == 0 else f"separator[{i - 1}]", "start" if i == 0 else "separator")
        up_to(roles[f"{own}.text"][0], f"{own}.opening", "template")
        text_stop = min(roles[f"{own}.text"][1], roles[f"{own}.label"][0])
        up_to(text_stop, f"{own}.text", "text")
        up_to(roles[f"{own}.label"][0], f"{own}.asking", "template")
        up_to(roles[f"{own}.label"][1], f"{own}.label", "label")
    up_to(roles["query"][0], f"separator[{n_demos - 1}]", "separator")
    up_to(roles["query.text"][0], "query.opening", "template")
    up_to(roles["query.text"][1], "query.text", "query")
    up_to(len(one.prompt), "query.ending", "ending")
    return found


@dataclass(frozen=True)
class Bins:
    """Common bins of prompts. names, kinds: of the parts; sizes: how many bins each has (0: no prompt has the part)."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, prompts: Sequence[FewShotPrompt], n_bins: int) -> Bins:
        """Texts have `n_bins` bins, other parts as many as they have tokens at most; so the template stays unscaled."""
        parts = [parts_of(one) for one in prompts]
        names, kinds = tuple(name for name, _, _ in parts[0]), tuple(kind for _, kind, _ in parts[0])
        longest = [max(own[i][2][1] - own[i][2][0] for own in parts) for i in range(len(names))]
        sizes = [n_bins if kind in ("text", "query") and n else n for kind, n in zip(kinds, longest, strict=True)]
        return cls(names, kinds, tuple(sizes))

    @property
    def bin_parts(self) -> tuple[str, ...]:
        """The part of each bin."""
        return tuple(name for name, size in zip(self.names, self.sizes, strict=True) for _ in range(size))

    @property
    def bin_kinds(self) -> tuple[str, ...]:
        """The kind of each bin."""
        return tuple(kind for kind, size in zip(self.kinds, self.sizes, strict=True) for _ in range(size))

    def rows(self, one: FewShotPrompt) -> tuple[Float[np.ndarray, "bin pos"], Float[np.ndarray, "kind pos"]]:
        """What share of each token falls into each bin (columns sum to 1), and which token is of which kind."""
        shares = np.zeros((sum(self.sizes), len(one.prompt)))
        kinds = np.zeros((len(KINDS), len(one.prompt)))
        at = 0
        for (_, kind, (start, stop)), size in zip(parts_of(one), self.sizes, strict=True):
            shares[at : at + size, start:stop] = overlap(stop - start, size)
            kinds[KINDS.index(kind), start:stop] = 1
            at += size
        return shares, kinds


def overlap(n: int, bins: int) -> Float[np.ndarray, "bin pos"]:
    """What share of each of n tokens falls into each bin; columns sum to 1, rows to n / bins."""
    if n == 0 or bins == 0:
        return np.zeros((bins, n))
    edges, places = np.arange(bins + 1)[:, None] / bins * n, np.arange(n)[None]
    covered = np.minimum(edges[1:], places + 1) - np.maximum(edges[:-1], places)
    return np.clip(covered, 0, None)
