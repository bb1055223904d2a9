"""Few-shot tasks from embedded data, from files of the user's, and from Hugging Face datasets, by name."""

from __future__ import annotations

import csv
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd

from mechicl.tasks.facts import capitals_task, sentiment_task
from mechicl.tasks.fewshot_task import TEMPLATES, FewShotTask
from mechicl.tasks.hub_datasets import read_dataset
from mechicl.tasks.rules import rule_task

EMBEDDED: dict[str, Callable[[], FewShotTask]] = {
    "sentiment": sentiment_task,
    "capitals": capitals_task,
    "rule": rule_task,
    "rule order": lambda: rule_task("order"),
}
SIGNS = ("negative", "positive")


def load_task(
    source: str | Path,
    *,
    text: str = "text",
    label: str = "label",
    score: str | None = None,
    threshold: float = 0.0,
    signs: tuple[str, str] = SIGNS,
    split: str = "train",
    subset: str | None = None,
    template: str | None = None,
    label_words: Mapping[str, str] | None = None,
    name: str | None = None,
) -> FewShotTask:
    r"""A few-shot task by name: an embedded one, a table in a file, or a Hugging Face dataset.

    source: "sentiment", "capitals", "rule" or "rule order", which need no download; the path of a .csv or .tsv file
        with a header; or anything that `datasets.load_dataset` takes, a name on the hub or a folder.
    text, label: the columns. score: instead of labels, a column of numbers: above `threshold` is signs[1], below minus
        the threshold signs[0], and the rows between are left out.
    split, subset: of a Hugging Face dataset; "train[:2000]" is its first 2,000 rows. Labels that it has names for get
        these; other numbers become texts.
    template: what is written, or its name in `mechicl.tasks.fewshot_task.TEMPLATES`; by default "input". label_words:
        label -> the word written. Both change embedded tasks too. name: by default the file's or the dataset's.

    Files: a .tsv file has no quotes (a quotation mark is part of a text), a .csv file may have them. An empty cell is
    missing, and so a mistake in either column; "NA" or "null" is a text like any other. Labels are texts, "0" too.

    Raises `ValueError` for a file, column or dataset that is not there, a score that is no number, a package or network
    that is missing, and whatever `FewShotTask` refuses.

    >>> load_task("sentiment", template="input").question(0).text
    'Input: The soup was warm, rich and full of flavour.\nOutput:'
    """
    if not threshold >= 0:
        raise ValueError(f"got threshold={threshold}; expected a number of at least 0, in the unit of the scores")
    if str(source) in EMBEDDED:
        return EMBEDDED[str(source)]().written(template=template, label_words=label_words, name=name)
    if Path(source).suffix.lower() in (".csv", ".tsv"):
        frame, called = _read_table(Path(source)), Path(source).stem
    else:
        frame, called = _dataset(str(source), subset, split), str(source).rstrip("/").rpartition("/")[2]
    columns = _columns(frame, text, label if score is None else score, str(source))
    rows = _as_texts(columns) if score is None else _by_sign(columns, threshold, signs)
    task = FewShotTask(name or called, rows, template=TEMPLATES["input"])
    return task.written(template=template, label_words=label_words)


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; check the path")
    tabs = path.suffix.lower() == ".tsv"
    try:
        return pd.read_csv(
            path, sep="\t" if tabs else ",", quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            dtype=str, keep_default_na=False, na_values=[""], encoding="utf-8",
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as a table with a header ({error})") from error


def _columns(frame: pd.DataFrame, text: str, label: str, where: str) -> pd.DataFrame:
    """The columns text and label, under these names."""
    for column in (text, label):
        if column not in frame:
            raise ValueError(
                f"{where!r} has no column {column!r}; it has {[str(c) for c in frame.columns]}: name yours with text=, "
                "label= or score="
            )
    return pd.DataFrame({"text": frame[text].to_numpy(), "label": frame[label].to_numpy()})


def _as_texts(columns: pd.DataFrame) -> pd.DataFrame:
    """Labels that are numbers as texts; what is missing stays so, for the task to refuse."""
    return columns.assign(label=[value if pd.isna(value) else str(value) for value in columns["label"].tolist()])


def _by_sign(columns: pd.DataFrame, threshold: float, signs: tuple[str, str]) -> pd.DataFrame:
    missing = columns.index[columns["label"].isna()].tolist()
    if missing:
        raise ValueError(f"{len(missing)} rows have no score, the first is row {missing[0]}; drop them")
    scores = pd.to_numeric(columns["label"], errors="coerce")
    wrong = columns.index[scores.isna()].tolist()
    if wrong:
        raise ValueError(f"the score of row {wrong[0]} is {columns['label'][wrong[0]]!r}; expected a number")
    kept = columns[scores.abs() > threshold]
    if kept.empty:
        raise ValueError(f"no score is above {threshold} or below -{threshold}; choose a smaller threshold")
    return kept.assign(label=[signs[int(score > 0)] for score in scores[kept.index]]).reset_index(drop=True)


def _dataset(source: str, subset: str | None, split: str) -> pd.DataFrame:
    """A Hugging Face dataset; where there is none, the error names the embedded tasks too."""
    try:
        return read_dataset(source, subset=subset, split=split)
    except ValueError as error:
        close = difflib.get_close_matches(source, EMBEDDED, n=1, cutoff=0.6)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"{error}. {hint}Embedded tasks: {', '.join(EMBEDDED)}") from error
