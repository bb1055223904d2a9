"""Which rows of a task become queries and demonstrations, and with which labels they are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

# Receives the frame, the query's row, the rows that may be taken, how many, whether balanced, and the generator.
Choice = Callable[[pd.DataFrame, int, list[int], int, bool, np.random.Generator], list[int]]


def draw_queries(frame: pd.DataFrame, n: int, *, balanced: bool, rng: np.random.Generator) -> list[int]:
    """Different rows, balanced over labels as far as can be if asked for; ValueError for too many."""
    if not 1 <= n < len(frame):
        raise ValueError(f"got n_queries={n}; expected 1 to {len(frame) - 1}, for the task has {len(frame)} rows")
    return _drawn(frame["label"], list(range(len(frame))), n, balanced, rng)


def draw_demonstrations(
    frame: pd.DataFrame, query: int, n: int, *, choice: str, balanced: bool, rng: np.random.Generator
) -> list[int]:
    """Rows for one query, none of them with its text, in random order."""
    texts = frame["text"].to_numpy()
    usable = np.flatnonzero(texts != texts[query]).tolist()
    if not 1 <= n <= len(usable):
        raise ValueError(f"got n_demos={n}; expected 1 to {len(usable)}, the rows with other texts than the query's")
    return CHOICES[choice](frame, query, usable, n, balanced, rng)


def shown_labels(true: Sequence[str], how: str, *, rng: np.random.Generator) -> list[str]:
    """The labels as they are shown: true, or the same ones in another order (as far as they differ at all)."""
    if how == "true" or len(set(true)) < 2:
        return list(true)
    while True:
        found = [true[i] for i in rng.permutation(len(true))]
        if found != list(true):
            return found


def _random(
    frame: pd.DataFrame, query: int, usable: list[int], n: int, balanced: bool, rng: np.random.Generator
) -> list[int]:
    return _drawn(frame["label"], usable, n, balanced, rng)


CHOICES: dict[str, Choice] = {"random": _random}


def _drawn(labels: pd.Series, rows: list[int], n: int, balanced: bool, rng: np.random.Generator) -> list[int]:
    """n of the rows in random order; balanced: each next one of a label that was taken least and has rows left."""
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    if not balanced:
        return shuffled[:n]
    left: dict[str, list[int]] = {}
    own = labels.tolist()
    for row in shuffled:
        left.setdefault(own[row], []).append(row)
    taken, found = Counter[str](), list[int]()
    while len(found) < n:
        fewest = min(taken[label] for label in left)
        label = rng.choice(sorted(label for label in left if taken[label] == fewest))
        found.append(left[label].pop())
        taken[label] += 1
        if not left[label]:
            del left[label]
    return [found[i] for i in rng.permutation(n)]
