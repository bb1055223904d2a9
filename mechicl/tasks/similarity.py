"""How alike texts are, by their words or by a measure of the caller's: what retrieves demonstrations for a query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

Embed = Callable[[Sequence[str]], Float[np.ndarray, "item dim"]]
# "tfidf", a function that embeds texts, or the similarities of every text (rows) to every text of the pool (columns)
By = str | Embed | Float[np.ndarray, "_ demo"]


class WordOverlap:
    """Cosine of TF-IDF vectors, words weighted by how few texts of a collection hold them.

    tf is 1 + log(count) and idf is log((1 + n) / (1 + n_with)) + 1, as in scikit-learn, which does the work. No unit;
    range 0 (no word in common) to 1 (the same words as often). Words outside the collection count for nothing, so two
    texts without a known word have 0. Case and the order of words make no difference.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Count in how many texts each word is; ValueError if none has a word."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        # single letters and digits are words as well: they may be all that a text has
        self._vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b", sublinear_tf=True)
        try:
            self._vectorizer.fit(texts)
        except ValueError as error:
            raise ValueError(
                f"no word in {len(texts)} texts, so that words cannot tell how alike they are; give a function that "
                "embeds texts, or a matrix of similarities"
            ) from error

    def cosines(self, queries: Sequence[str], pool: Sequence[str]) -> Float[np.ndarray, "item demo"]:
        """Of every query with every text of the pool."""
        vectors: Any = self._vectorizer.transform(queries) @ self._vectorizer.transform(pool).T
        return np.asarray(vectors.toarray(), dtype=np.float64)


def similarities(
    texts: Sequence[str], rows: Sequence[int], pool: Sequence[str], by: By
) -> Float[np.ndarray, "item demo"]:
    """Similarity of the texts at `rows` to every text of the pool; larger is more alike.

    by: "tfidf", see `WordOverlap`, over the words of the pool; a function from texts to vectors, of which the cosine is
    taken; or a matrix with a row for each of `texts` and a column for each text of the pool, of any unit.

    Raises `ValueError` for an unknown name, another shape, and numbers that are not finite.
    """
    chosen = [texts[row] for row in rows]
    if isinstance(by, str):
        if by != "tfidf":
            raise ValueError(f"got similarity={by!r}; expected 'tfidf', a function that embeds texts, or a matrix")
        return WordOverlap(pool).cosines(chosen, pool)
    if callable(by):
        one, other = (_unit_rows(np.asarray(by(part), dtype=np.float64), len(part)) for part in (chosen, list(pool)))
        return one @ other.T
    given = np.asarray(by, dtype=np.float64)
    if given.shape != (len(texts), len(pool)):
        raise ValueError(
            f"got similarities of shape {given.shape}; expected {(len(texts), len(pool))}, a row for each text that "
            "may be asked and a column for each that may be shown"
        )
    return _finite(given[list(rows)])


def _unit_rows(vectors: np.ndarray, n: int) -> Float[np.ndarray, "item dim"]:
    """Vectors of length 1; one of length 0 stays, alike to nothing."""
    if vectors.ndim != 2 or len(vectors) != n:
        raise ValueError(
            f"the function that embeds texts gave the shape {vectors.shape} for {n} texts; expected ({n}, dim)"
        )
    lengths = np.linalg.norm(_finite(vectors), axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError(f"got {int((~np.isfinite(values)).sum())} similarities or embeddings that are not finite")
    return values
