"""The results of the Bayesian account that come with the package, a folder a setting: `SHIPPED` has their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mechicl.results import JSON_NAME

if TYPE_CHECKING:
    from mechicl.analyses.strategies.account import StrategyAccount

RESULTS = Path(__file__).parent / "results"
SHIPPED: tuple[str, ...] = tuple(sorted(folder.parent.name for folder in RESULTS.glob(f"*/{JSON_NAME}")))


def shipped_strategies(setting: str) -> StrategyAccount:
    """The account of a setting, as it was measured on models that `mechicl train` made.

    Raises ValueError for a setting without shipped results, and where files are missing or damaged.

        shipped_strategies("balls_and_urns").plot()
    """
    folder = RESULTS / setting
    if not (folder / JSON_NAME).is_file():
        others = f" (only of {', '.join(SHIPPED)})" if SHIPPED else ""
        raise ValueError(
            f"no results of {setting!r} come with this package{others}; make your own with mechicl train --setting "
            f"{setting}, then mechicl strategies --results runs/{setting}"
        )
    from mechicl.analyses.strategies.account import StrategyAccount

    return StrategyAccount.load(folder)
