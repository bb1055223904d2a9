"""Numbers in the cells of the Bayesian account's tables."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from mechicl.wording import number, with_interval


def interval(row: Any, name: str, digits: int = 2) -> str:
    """A number of a row with its interval, whose ends are called low and high, or name_low and name_high."""
    return with_interval(float(row[name]), *_ends(row, name), digits)


def small_interval(row: Any, name: str) -> str:
    """The same with two digits that count."""
    low, high = _ends(row, name)
    known = math.isfinite(low) and math.isfinite(high)
    return small(float(row[name])) + (f" [{small(low)}, {small(high)}]" if known else "")


def small(value: float) -> str:
    """Two digits that count, however small the number is."""
    if not math.isfinite(value) or value == 0:
        return number(value, 2)
    return number(value, min(max(1 - math.floor(math.log10(abs(value))), 0), 9))


def steps(row: Any, name: str) -> str:
    """A number of training steps with its interval."""
    value, (low, high) = float(row[name]), _ends(row, name)
    if not math.isfinite(value):
        return number(value, 0)
    known = math.isfinite(low) and math.isfinite(high)
    return f"{value:,.0f}" + (f" [{low:,.0f}, {high:,.0f}]" if known else "")


def over_seeds(values: pd.Series, digits: int) -> str:
    """The mean with the range."""
    ends = (float(values.min()), float(values.max())) if len(values) > 1 else (math.nan, math.nan)
    return with_interval(float(values.mean()), *ends, digits)


def _ends(row: Any, name: str) -> tuple[float, float]:
    stem = f"{name}_" if f"{name}_low" in row else ""
    return float(row[f"{stem}low"]), float(row[f"{stem}high"])
