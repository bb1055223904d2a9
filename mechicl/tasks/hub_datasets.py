"""Tables from Hugging Face `datasets`: an optional package, imported only when a dataset is asked for."""

from __future__ import annotations

from typing import Any

import pandas as pd


def read_dataset(name: str, *, subset: str | None, split: str) -> pd.DataFrame:
    """The rows of one split, labels as their names where the dataset has names for them.

    A number below 0 stands for "no label" by the hub's custom, and becomes missing. Raises `ValueError` where the
    package is not installed, and where the dataset cannot be had: a wrong name or subset, no such split, no network.
    """
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"{name!r} is neither an embedded task nor a .csv or .tsv file, and to look for it among Hugging Face "
            "datasets the package is missing: pip install datasets"
        ) from error
    try:
        found: Any = datasets.load_dataset(name, subset, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        # the package's errors have many kinds; most derive from these, and the first line tells what was wrong
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ValueError(
            f"the dataset {name!r} (subset {subset!r}, split {split!r}) could not be loaded: {reason}. Check the names "
            "and the network, or save it as a .csv file with the columns text and label"
        ) from error
    frame = pd.DataFrame({column: found[column] for column in found.column_names})
    for column, feature in found.features.items():
        names = getattr(feature, "names", None)  # ClassLabel features have them
        if names is not None:
            frame[column] = [
                None if value is None or value < 0 else str(names[int(value)]) for value in frame[column].tolist()
            ]
    return frame
