"""What the frames of a corpus must hold, and the one canonical shape they are brought into.

Canonical means: the columns in their order, a fresh index, text as strings with every missing value alike, numbers as
bool, int64 or float64. So two corpora with the same content have equal frames, also after a round trip through files.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

RESERVED = ("sentence", "verb", "neutral", "unprimed")  # names that no form may have
SPAN_COLUMNS = ("sentence", "form", "role", "start", "stop")


def check_forms(forms: tuple[str, str]) -> None:
    """Two different names, none of them a word that the frames use otherwise."""
    if len(set(forms)) != 2 or not all(forms) or set(forms) & set(RESERVED):
        raise ValueError(f"got the forms {forms}; expected two different names, none of them in {RESERVED}")


def checked_sentences(frame: pd.DataFrame, forms: tuple[str, str]) -> pd.DataFrame:
    """Unique ids, a verb and both forms in every row."""
    frame = frame if "neutral" in frame else frame.assign(neutral=None)
    frame = _strings(_only(frame, ["sentence", "verb", *forms, "neutral"], "sentences"))
    if frame.empty:
        raise ValueError("the corpus has no sentences; expected at least one prime and its target")
    if frame[["sentence", "verb"]].isna().to_numpy().any():
        raise ValueError("some sentences have no id or no verb; give every row of `sentences` both")
    twice = frame["sentence"][frame["sentence"].duplicated()].tolist()
    if twice:
        raise ValueError(f"{len(twice)} sentence ids occur twice, e.g. {twice[:3]}; ids must be unique")
    for form in forms:
        lacking = frame["sentence"][frame[form].isna()].tolist()
        if lacking:
            raise ValueError(
                f"{len(lacking)} sentences lack the form {form}, e.g. {lacking[:3]}; add it or leave them out"
            )
    return frame


def checked_spans(frame: pd.DataFrame, sentences: pd.DataFrame, forms: tuple[str, str]) -> pd.DataFrame:
    """Every span inside a text of the corpus, and no role twice in one text."""
    frame = _only(frame, list(SPAN_COLUMNS), "spans")
    if frame.isna().to_numpy().any():
        raise ValueError("some rows of `spans` have missing values; fill them in or leave the rows out")
    places = {c: frame[c].astype("int64") for c in ("start", "stop")}
    frame = _strings(frame[["sentence", "form", "role"]]).assign(**places)
    length = {
        (sentence, form): len(text)
        for form in (*forms, "neutral")
        for sentence, text in zip(sentences["sentence"].tolist(), sentences[form].tolist(), strict=True)
        if isinstance(text, str)
    }
    end = [
        length.get(key, -1) for key in zip(frame["sentence"].tolist(), frame["form"].tolist(), strict=True)
    ]  # -1: no such text
    inside = (frame["start"] >= 0) & (frame["start"] < frame["stop"]) & (frame["stop"] <= np.array(end, dtype=int))
    if not inside.all():
        raise ValueError(
            f"{(~inside).sum()} spans lie outside the texts of `sentences`, e.g. {frame[~inside].iloc[0].to_dict()}; "
            "a span is half-open, not empty, and counts characters of an existing text"
        )
    if frame.duplicated(["sentence", "form", "role"]).any():
        twice = frame[frame.duplicated(["sentence", "form", "role"])].iloc[0].to_dict()
        raise ValueError(f"a text has two spans of one role, e.g. {twice}; give each part its own role")
    return frame


def checked_pairs(frame: pd.DataFrame, sentences: pd.DataFrame, forms: tuple[str, str]) -> pd.DataFrame:
    """Known ids, factors whose names are free, and `same_verb`."""
    factors = [c for c in frame.columns if c not in ("prime", "target", "same_verb")]
    taken = {f"{side}_{word}" for side in ("prime", "target") for word in ("verb", "neutral", *forms)}
    clash = sorted(set(factors) & taken)
    if clash:
        raise ValueError(f"the pairs have factors named {clash}, as texts and verbs are named; rename these factors")
    frame = _only(frame, ["prime", "target", *factors], "pairs")
    if frame.empty:
        raise ValueError("the corpus has no pairs; expected at least one prime and its target")
    frame = _strings(frame[["prime", "target"]]).assign(**{c: _factor(frame[c]) for c in factors})
    verb = sentences.set_index("sentence")["verb"]
    for side in ("prime", "target"):
        unknown = sorted(set(frame[side].fillna("(missing)")) - set(verb.index))
        if unknown:
            raise ValueError(f"{len(unknown)} {side} ids are unknown, e.g. {unknown[:3]}; add them to `sentences`")
    same = frame["prime"].map(verb).to_numpy() == frame["target"].map(verb).to_numpy()
    return frame.assign(same_verb=same.astype(bool))


def _only(frame: pd.DataFrame, columns: list[str], name: str) -> pd.DataFrame:
    missing = [c for c in columns if c not in frame]
    if missing:
        raise ValueError(f"`{name}` lacks the columns {missing}; it has {list(frame.columns)}")
    return frame[columns].reset_index(drop=True)


def _factor(column: pd.Series) -> pd.Series:
    column = column.infer_objects()
    if pd.api.types.is_bool_dtype(column) and not column.isna().any():
        return column.astype("bool")
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return column.astype("int64")
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return column.astype("float64")
    return _strings(column.to_frame()).iloc[:, 0]


def _strings(frame: pd.DataFrame) -> pd.DataFrame:
    columns = {}
    for name in frame.columns:
        values = [
            None if v is None or v is pd.NA or v == "" or v != v else v for v in frame[name].tolist()
        ]  # v != v: NaN
        odd = next((v for v in values if v is not None and not isinstance(v, str)), None)
        if odd is not None:
            raise ValueError(
                f"the column {name!r} holds {odd!r} ({type(odd).__name__}); expected strings, "
                "or a factor that is bool, integer or float in every row"
            )
        filled = [np.nan if v is None else v for v in values]
        columns[name] = pd.Series(filled, dtype="str", index=frame.index)
    return pd.DataFrame(columns, index=frame.index)
