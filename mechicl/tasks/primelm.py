"""Reads priming corpora in the format of PrimeLM (Sinclair et al. 2022): a CSV file with four sentences a row.

Columns `p<form>`, `p<other>`, `t<form>`, `t<other>`: a prime in both forms and a target in both forms, e.g. ppo, pdo,
tpo, tdo for the dative alternation, pact, ppass, tact, tpass for active and passive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from mechicl.tasks.corpus import PrimingCorpus
from mechicl.tasks.dative_words import VERBS
from mechicl.tasks.prompts import RoleText
from mechicl.tasks.sentence_parts import Words, dative_parts, find_verbs, parts, tidy

_MISSING = ("", ".", "nan", "na", "n/a", "none", "null")


def read_primelm(
    path: str | Path,
    *,
    max_pairs: int | None = None,
    seed: int = 0,
    verbs: Sequence[str] | Mapping[str, str] | None = None,
    drop_incomplete: bool = False,
) -> PrimingCorpus:
    """A PrimeLM file as a priming corpus, whatever its alternation.

    Forms are named by the columns, in upper case: `ppo` gives "PO". Texts get a capital first letter and their period
    joined. A sentence that occurs several times is one sentence of the corpus.

    The verb of a sentence is the one word that its two forms share outside noun phrases. Where that rule fails, pass
    `verbs`: the surface words to look for, or a mapping from them to the verb's name, which may bring unequal
    inflections together (`{"ate": "eat", "eaten": "eat"}`). Without a mapping, verbs are named by their word, but by
    their lemma ("bring" for "brought") if all of them are among the 22 of `dative_corpus`, so that results can be
    joined.

    Roles: `subject` (without auxiliaries), `verb`, `post_verb`; where one form is "X to Y" or "X for Y" and the other
    "Y X" also `theme`, `preposition`, `recipient`, and a neutral text, the prepositional form without its phrase.
    Other alternations have no neutral text. If every sentence has a preposition, the pairs have the factors
    `shared_preposition`, `prime_preposition` and `target_preposition`.

    `max_pairs`: no more rows than this, a random sample balanced over prime verbs; `seed` is used for nothing else.
    `drop_incomplete`: leave out rows in which a sentence is missing, instead of refusing the file.

    Errors (ValueError): columns that are not two forms of prime and target, no rows, missing sentences, no verb found.
    """
    path = Path(path)
    frame, forms = _read_columns(path)
    frame = _complete_rows(frame, drop_incomplete)
    known = _known_verbs(verbs)
    sentences: dict[tuple[str, str], _Sentence] = {}
    sides = []
    for side in ("p", "t"):
        texts = list(zip(frame[side + forms[0]].tolist(), frame[side + forms[1]].tolist(), strict=True))
        for row, pair in zip(frame.index, texts, strict=True):
            if pair not in sentences:
                sentences[pair] = _parse(f"s{len(sentences):05d}", pair, known, f"row {row + 1}, {side}{forms[0]}")
        sides.append([sentences[pair] for pair in texts])
    lemmas = {verb.past: verb.lemma for verb in VERBS.values()}
    if isinstance(verbs, Mapping) or not all(s.verb in lemmas for s in sentences.values()):
        lemmas = {}
    names = (forms[0].upper(), forms[1].upper())
    triples = [(s.key, lemmas.get(s.verb, s.verb), s.texts(names)) for s in sentences.values()]
    corpus = PrimingCorpus.of(path.stem, names, triples, _pairs(*sides))
    if max_pairs is None or max_pairs >= len(corpus):
        return corpus
    return replace(corpus.sample(max_pairs, seed=seed), seed=seed)


@dataclass(frozen=True)
class _Sentence:
    key: str
    verb: str
    first: RoleText
    second: RoleText
    neutral: RoleText | None
    preposition: str | None

    def texts(self, forms: tuple[str, str]) -> dict[str, RoleText]:
        texts = {forms[0]: self.first, forms[1]: self.second}
        return texts if self.neutral is None else {**texts, "neutral": self.neutral}


def _read_columns(path: Path) -> tuple[pd.DataFrame, tuple[str, str]]:
    """The four columns as they are; other columns, such as a saved index, are ignored."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig")
    frame.columns = [str(c).strip().lower() for c in frame.columns]
    forms = [c[1:] for c in frame.columns if c.startswith("p") and len(c) > 1 and "t" + c[1:] in frame.columns]
    if len(forms) != 2:
        raise ValueError(
            f"{path} has the columns {list(frame.columns)}; expected prime and target in two forms, named "
            f"p<form>, p<other>, t<form>, t<other> (e.g. ppo, pdo, tpo, tdo), found the forms {forms}"
        )
    if frame.empty:
        raise ValueError(f"{path} has a header but no rows; expected at least one prime and its target")
    # a file saved without a name for its index column has one field more than names, which pandas makes the index
    return frame[[side + form for side in "pt" for form in forms]].reset_index(drop=True), (forms[0], forms[1])


def _complete_rows(frame: pd.DataFrame, drop_incomplete: bool) -> pd.DataFrame:
    missing = frame.apply(lambda column: column.str.strip().str.lower().isin(_MISSING)).any(axis=1)
    if not missing.any():
        return frame
    rows = [int(row) + 1 for row in frame.index[missing]]
    if drop_incomplete and len(rows) < len(frame):
        return frame[~missing]
    raise ValueError(
        f"{len(rows)} of {len(frame)} rows lack a sentence, the first are {rows[:5]} "
        "(counted from 1, without the header); complete them or pass drop_incomplete=True"
    )


def _known_verbs(verbs: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    if verbs is None:
        return {}
    if isinstance(verbs, str) or not verbs:
        raise ValueError(f"got verbs={verbs!r}; expected surface words such as ['gave', 'sent'], or a mapping")
    pairs = verbs.items() if isinstance(verbs, Mapping) else ((verb, verb.lower()) for verb in verbs)
    return {word.lower(): name for word, name in pairs}


def _parse(key: str, texts: tuple[str, str], known: Mapping[str, str], where: str) -> _Sentence:
    first, second = Words.of(tidy(texts[0])), Words.of(tidy(texts[1]))
    found = find_verbs(first, second, known)
    if found is None:
        raise ValueError(
            f"no single verb found in {where} (counted from 1, without the header): {first.text!r} / {second.text!r}; "
            "pass verbs=[...], the surface forms of the verbs to look for (one of them in each form of a sentence)"
        )
    at_first, at_second, verb = found
    roles = parts(first, at_first), parts(second, at_second)
    dative = dative_parts(first, second, (at_first, at_second))
    if dative is None:
        return _Sentence(key, verb, RoleText(first.text, roles[0]), RoleText(second.text, roles[1]), None, None)
    one = RoleText(first.text, {**roles[0], **dative.first})
    two = RoleText(second.text, {**roles[1], **dative.second})
    return _Sentence(key, verb, one, two, dative.neutral, dative.preposition)


def _pairs(primes: list[_Sentence], targets: list[_Sentence]) -> pd.DataFrame:
    table = pd.DataFrame({"prime": [p.key for p in primes], "target": [t.key for t in targets]})
    if any(s.preposition is None for s in (*primes, *targets)):
        return table
    first, second = [str(p.preposition) for p in primes], [str(t.preposition) for t in targets]
    shared = [p == t for p, t in zip(first, second, strict=True)]
    return table.assign(shared_preposition=shared, prime_preposition=first, target_preposition=second)
