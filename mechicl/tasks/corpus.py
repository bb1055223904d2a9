"""A corpus for structural priming: sentence pairs of two forms, and which sentence primes which.

A **sentence** says one thing in two forms, e.g. PD "A doctor brought a file to a guest." and DO "A doctor brought a
guest a file."; where the alternation allows it there is a `neutral` text too, with the same verb and neither structure.
A **pair** is a prime sentence and a target sentence; read with every form of each it is one item of a priming
experiment. Texts have their first letter capitalised and the period joined; a model reads `prime + " " + target`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from mechicl.tasks.corpus_checks import SPAN_COLUMNS, check_forms, checked_pairs, checked_sentences, checked_spans
from mechicl.tasks.prompts import RoleText, Span

KIND = "mechicl.tasks.corpus.PrimingCorpus"
FILES = ("corpus.json", "sentences.csv", "spans.csv", "pairs.csv")


@dataclass(frozen=True, eq=False, repr=False)
class PrimingCorpus:
    """Sentences in two forms, their named parts, and the prime-target pairs.

    `forms`: the two forms, e.g. `("PD", "DO")`; a form's name is a column of `sentences`.
    `sentences`: one row a sentence; columns `sentence` (unique id), `verb`, one column a form, `neutral` (missing where
    there is none).
    `spans`: one row a named part; columns `sentence`, `form` (or "neutral"), `role`, `start`, `stop` (characters,
    half-open). Usual roles: `subject verb post_verb theme recipient preposition`; `post_verb` is all that follows the
    verb, without the period.
    `pairs`: one row a prime-target pair; columns `prime`, `target` (sentence ids), then recorded factors. `same_verb`
    is always among them and always computed here.
    `seed`: what the corpus was drawn with; None if nothing was drawn.

    Frames are copied and checked; what does not fit is a ValueError. An empty string in a factor counts as missing.
    """

    name: str
    forms: tuple[str, str]
    sentences: pd.DataFrame
    spans: pd.DataFrame
    pairs: pd.DataFrame
    seed: int | None = None

    def __post_init__(self) -> None:
        """Bring the frames into one canonical shape, or say what is wrong with them."""
        check_forms(self.forms)
        sentences = checked_sentences(self.sentences, self.forms)
        object.__setattr__(self, "sentences", sentences)
        object.__setattr__(self, "spans", checked_spans(self.spans, sentences, self.forms))
        object.__setattr__(self, "pairs", checked_pairs(self.pairs, sentences, self.forms))

    @classmethod
    def of(
        cls,
        name: str,
        forms: tuple[str, str],
        sentences: Iterable[tuple[str, str, Mapping[str, RoleText]]],
        pairs: pd.DataFrame,
        *,
        seed: int | None = None,
    ) -> PrimingCorpus:
        """A corpus from `(sentence id, verb, form -> text)` triples; a text under "neutral" is the neutral one."""
        rows, spans = [], []
        for sentence, verb, texts in sentences:
            rows.append((sentence, verb, *(texts[f].text if f in texts else None for f in (*forms, "neutral"))))
            spans += [(sentence, form, role, *span) for form, t in texts.items() for role, span in t.roles.items()]
        return cls(
            name,
            forms,
            pd.DataFrame(rows, columns=["sentence", "verb", *forms, "neutral"]),
            pd.DataFrame(spans, columns=list(SPAN_COLUMNS)),
            pairs,
            seed,
        )

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs, sorted."""
        return tuple(sorted(self.sentences["verb"].unique()))

    def text(self, sentence: str, form: str) -> RoleText:
        """One text of a sentence, with its roles; `form` is one of the two forms or "neutral"."""
        found = self._texts.get((sentence, form))
        if found is None:
            have = [f for f in (*self.forms, "neutral") if (sentence, f) in self._texts]
            raise ValueError(
                f"sentence {sentence!r} has no form {form!r}; it has {have}"
                if have
                else f"unknown sentence {sentence!r}; the ids are in corpus.sentences['sentence']"
            )
        return RoleText(*found)

    def prime_target(self, pair_index: int, prime_form: str, target_form: str) -> RoleText:
        """What a model reads for pair `pair_index` (its row in `pairs`): the prime, a space, the target.

        Roles stand under `prime.` and `target.`; the whole sentences are the roles `prime` and `target`. With
        `prime_form` "unprimed" the target stands alone.
        """
        if not 0 <= pair_index < len(self):
            raise ValueError(f"got pair {pair_index}; the corpus has the pairs 0 to {len(self) - 1}")
        prime, target = self._pair_ids[pair_index]
        target_text = self.text(target, target_form).under("target")
        if prime_form == "unprimed":
            return target_text
        return self.text(prime, prime_form).under("prime") + " " + target_text

    def to_frame(self) -> pd.DataFrame:
        """One row a pair: prime, target, their verbs and texts (prime_verb, prime_<form>, ...), then the factors."""
        table = self.sentences.set_index("sentence")
        frame = self.pairs[["prime", "target"]].copy()
        for side in ("prime", "target"):
            frame[f"{side}_verb"] = frame[side].map(table["verb"])
        for form in (*self.forms, "neutral"):
            frame[f"prime_{form}"] = frame["prime"].map(table[form])
        for form in self.forms:
            frame[f"target_{form}"] = frame["target"].map(table[form])
        return frame.join(self.pairs.drop(columns=["prime", "target"]))

    def where(self, mask: Bool[np.ndarray, "item"] | pd.Series | str) -> PrimingCorpus:
        """The pairs that `mask` selects, and the sentences they need.

        `mask`: a boolean array or series with one entry a pair, or a query on the columns of `to_frame()`, such as
        `"not shared_preposition and prime_verb != 'give'"`.
        """
        if isinstance(mask, str):
            chosen = np.zeros(len(self), dtype=bool)
            chosen[self.to_frame().query(mask).index] = True
        else:
            chosen = np.asarray(mask)
        if chosen.dtype != bool or chosen.shape != (len(self),):
            raise ValueError(f"got a mask of {chosen.dtype}, {chosen.shape}; expected {len(self)} booleans, one a pair")
        if not chosen.any():
            raise ValueError(f"the mask selects none of the {len(self)} pairs; choose a wider one")
        pairs = self.pairs[chosen]
        used = set(pairs["prime"]) | set(pairs["target"])
        sentences, spans = (frame[frame["sentence"].isin(used)] for frame in (self.sentences, self.spans))
        return replace(self, sentences=sentences, spans=spans, pairs=pairs)

    def sample(self, n_pairs: int, *, seed: int = 0) -> PrimingCorpus:
        """At random `n_pairs` of the pairs, as equal in number over the prime verbs as they can be."""
        if not 1 <= n_pairs <= len(self):
            raise ValueError(f"got n_pairs={n_pairs}; expected 1 to {len(self)}, which is what the corpus has")
        verb = self.to_frame()["prime_verb"].to_numpy()
        order = np.random.default_rng(seed).permutation(len(self))
        shuffled = pd.Series(verb[order])
        turn = (
            shuffled.groupby(shuffled).cumcount().to_numpy()
        )  # every verb's first pair, then every verb's second, ...
        mask = np.zeros(len(self), dtype=bool)
        mask[order[np.argsort(turn, kind="stable")[:n_pairs]]] = True
        return replace(self.where(mask), name=f"{self.name} ({n_pairs} of {len(self)} pairs, seed {seed})")

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write three CSV files and a JSON file, which `load_corpus` reads.

        Refuses a folder that holds anything else; one that holds a corpus only with `overwrite`.
        """
        folder = Path(folder)
        held = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        foreign = [name for name in held if name not in FILES]
        if foreign or (folder.exists() and not folder.is_dir()):
            raise ValueError(f"{folder} holds other things ({foreign[:3] or 'it is a file'}); choose a new folder")
        if held and not overwrite:
            raise ValueError(f"{folder} already holds a corpus; choose a new folder or pass overwrite=True")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "corpus.json").unlink(missing_ok=True)  # comes last, so that a folder with it is complete
        factors = {column: str(self.pairs[column].dtype) for column in self.pairs.columns}
        for key, frame in {"sentences": self.sentences, "spans": self.spans, "pairs": self.pairs}.items():
            frame.to_csv(folder / f"{key}.csv", index=False)
        head = {"kind": KIND, "name": self.name, "forms": list(self.forms), "seed": self.seed, "dtypes": factors}
        (folder / "corpus.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
        return folder

    def __len__(self) -> int:
        """How many pairs."""
        return len(self.pairs)

    def __eq__(self, other: object) -> bool:
        """The same name, forms, seed and frames."""
        if not isinstance(other, PrimingCorpus):
            return NotImplemented
        same = (self.name, self.forms, self.seed) == (other.name, other.forms, other.seed)
        return same and all(getattr(self, key).equals(getattr(other, key)) for key in ("sentences", "spans", "pairs"))

    def __repr__(self) -> str:
        """One line."""
        counts = f"{len(self.verbs)} verbs, {len(self.sentences)} sentences, {len(self)} pairs"
        return f"PrimingCorpus({self.name!r}, {'/'.join(self.forms)}, {counts}, seed={self.seed})"

    @cached_property
    def _pair_ids(self) -> list[tuple[str, str]]:
        return list(zip(self.pairs["prime"].tolist(), self.pairs["target"].tolist(), strict=True))

    @cached_property
    def _texts(self) -> dict[tuple[str, str], tuple[str, dict[str, Span]]]:
        roles: dict[tuple[str, str], dict[str, Span]] = {}
        columns = (self.spans[c].tolist() for c in SPAN_COLUMNS)
        for sentence, form, role, start, stop in zip(*columns, strict=True):
            roles.setdefault((sentence, form), {})[role] = (start, stop)
        texts = {}
        for form in (*self.forms, "neutral"):
            for sentence, text in zip(self.sentences["sentence"].tolist(), self.sentences[form].tolist(), strict=True):
                if isinstance(text, str):
                    texts[sentence, form] = (text, roles.get((sentence, form), {}))
        return texts


def load_corpus(folder: str | Path) -> PrimingCorpus:
    """A corpus that `PrimingCorpus.save` wrote; equal to the one that was saved."""
    folder = Path(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{folder} holds no complete corpus ({missing} missing); expected what PrimingCorpus.save wrote"
        )
    head: dict[str, Any] = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
    if head.get("kind") != KIND:
        raise ValueError(f"{folder} holds {head.get('kind')!r}; expected {KIND!r}")

    def read(key: str, dtypes: Any) -> pd.DataFrame:
        path = folder / f"{key}.csv"
        # only an empty field is missing: "None" or "NA" are words
        return pd.read_csv(path, dtype=dtypes, keep_default_na=False, na_values=[""])

    spans = read("spans", {"sentence": str, "form": str, "role": str})
    # floats go through Python's own parser, which is exact
    pairs = read("pairs", {c: d if d in ("bool", "int64") else str for c, d in head["dtypes"].items()})
    pairs = pairs.astype({c: d for c, d in head["dtypes"].items() if d == "float64"})
    first, second = head["forms"]
    return PrimingCorpus(head["name"], (first, second), read("sentences", str), spans, pairs, head["seed"])
