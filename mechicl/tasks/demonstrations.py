"""Which rows of a task become queries and demonstrations, and with which labels they are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

CHOICES = ("random", "similar", "dissimilar")
ORDERS = ("most similar last", "most similar first", "random")
LABELS = ("true", "shuffled", "flipped", "random")


def draw_queries(frame: pd.DataFrame, n: int, *, balanced: bool, rng: np.random.Generator) -> list[int]:
    """Different rows, balanced over labels as far as can be if asked for; ValueError for too many."""
    if not 1 <= n < len(frame):
        raise ValueError(f"got n_queries={n}; expected 1 to {len(frame) - 1}, for the task has {len(frame)} rows")
    return _drawn(frame["label"], list(range(len(frame))), n, balanced, rng)


def draw_demonstrations(
    frame: pd.DataFrame,
    query: str,
    n: int,
    *,
    balanced: bool,
    rng: np.random.Generator,
    similarity: Float[np.ndarray, " demo"] | None = None,
    order: str = "random",
) -> list[int]:
    """Rows for the text of one query, none of them with that text.

    similarity: of each row to the query; those with the most are taken, in an order of `ORDERS`, and rows that are
    equally alike in the order of chance. None: any rows, in random order.
    """
    usable = np.flatnonzero(frame["text"].to_numpy() != query).tolist()
    if not 1 <= n <= len(usable):
        raise ValueError(f"got n_demos={n}; expected 1 to {len(usable)}, the rows with other texts than the query's")
    if similarity is None:
        return _drawn(frame["label"], usable, n, balanced, rng)
    return _retrieved(frame["label"], similarity, usable, n, balanced, order, rng)


def shown_labels(
    true: Sequence[str], how: str, *, rng: np.random.Generator, labels: Sequence[str] | None = None
) -> list[str]:
    """The labels as they are shown.

    "true"; "shuffled": the same ones in another order (as far as they differ at all); "flipped": another of `labels`
    for each, drawn if there are several; "random": any of `labels` each, so that 1 of so many is true by chance.
    """
    if how in ("flipped", "random"):
        if labels is None:
            raise ValueError(f"labels {how!r} need the labels that there are; give labels=")
        pools = [[x for x in labels if x != own] if how == "flipped" else list(labels) for own in true]
        return [str(pool[int(rng.integers(len(pool)))]) for pool in pools]
    if how == "true" or len(set(true)) < 2:
        return list(true)
    while True:
        found = [true[i] for i in rng.permutation(len(true))]
        if found != list(true):
            return found


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


def _retrieved(
    labels: pd.Series,
    similarity: np.ndarray,
    rows: list[int],
    n: int,
    balanced: bool,
    order: str,
    rng: np.random.Generator,
) -> list[int]:
    """The n rows most alike; balanced: the most alike of each label, one label as often as another as far as can be.

    Where n leaves a remainder, the labels whose next row is most alike get it.
    """
    if order not in ORDERS:
        raise ValueError(f"got order={order!r}; expected one of {', '.join(ORDERS)}")
    shuffled = np.array([rows[i] for i in rng.permutation(len(rows))])  # so that ties fall to chance
    ranked = shuffled[np.argsort(-similarity[shuffled], kind="stable")]
    if balanced:
        own = labels.to_numpy()[ranked]
        # the round in which a row is taken: how many of its own label are more alike
        rounds = pd.Series(own).groupby(own).cumcount().to_numpy()
        chosen = np.sort(np.argsort(rounds, kind="stable")[:n])
    else:
        chosen = np.arange(n)
    found = ranked[chosen]
    if order == "random":
        found = found[rng.permutation(n)]
    elif order == "most similar last":
        found = found[::-1]
    return [int(row) for row in found]
