"""An account of in-context learning: what it would predict from the same examples, with a few numbers left free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mechicl.accounts.contexts import Contexts

FAMILIES = ("gradient", "kernel", "bayes", "boost", "baseline")
SCALES = ("linear", "log")


@dataclass(frozen=True)
class Free:
    """A number that is fitted, between two ends; `n_grid` values are tried before the search goes on from the best."""

    name: str
    low: float
    high: float
    scale: str = "log"
    n_grid: int = 7

    def __post_init__(self) -> None:
        """Check the range."""
        if self.scale not in SCALES:
            raise ValueError(f"got scale={self.scale!r} of {self.name}; expected one of {', '.join(SCALES)}")
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise ValueError(f"got {self.name} from {self.low} to {self.high}; expected finite numbers, low below high")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"got {self.name} from {self.low} on a log scale; expected a number above 0")
        if self.n_grid < 2:
            raise ValueError(f"got n_grid={self.n_grid} of {self.name}; expected 2 or more")

    def at(self, share: float) -> float:
        """The value at a share of the way from low to high, on its scale."""
        share = min(max(float(share), 0.0), 1.0)
        if self.scale == "log":
            return float(np.exp(np.log(self.low) + share * (np.log(self.high) - np.log(self.low))))
        return float(self.low + share * (self.high - self.low))


@dataclass(frozen=True)
class Account:
    """A rule that maps demonstrations and a query to a prediction.

    name: of the rule; family: which account of in-context learning it belongs to ("gradient", "kernel", "bayes",
    "boost" for priming by a constant, or "baseline"). predict(examples, **parameters): probabilities of the answers
    [batch, label], rows summing to 1 (zeros are allowed), or means [batch, 1]. words: what it claims, in a sentence.
    free: numbers that are fitted. choices: parameter -> values, of which every combination is tried. fit: a search of
    its own, from contexts to parameters, in place of the general one.

        Account("last label", "baseline", lambda examples: examples.y[:, -1:])
        Account("Gaussian kernel", "kernel", predict, free=(Free("bandwidth", 0.05, 20.0),))

    Errors (ValueError): an unknown family, a parameter named twice, a choice without values.
    """

    name: str
    family: str
    predict: Callable[..., Any]
    words: str = ""
    free: tuple[Free, ...] = ()
    choices: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fit: Callable[[Sequence[Contexts]], dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        """Check the names."""
        if self.family not in FAMILIES:
            raise ValueError(f"got family={self.family!r} of {self.name!r}; expected one of {', '.join(FAMILIES)}")
        names = [*self.choices, *(one.name for one in self.free)]
        if len(set(names)) < len(names):
            raise ValueError(f"got the parameters {names} of {self.name!r}; expected names that differ")
        for name, values in self.choices.items():
            if not len(values):
                raise ValueError(f"got no value of {name!r} for {self.name!r} to choose from; expected 1 or more")

    @property
    def n_free(self) -> int:
        """How many numbers the account may choose."""
        return len(self.free) + sum(len(values) > 1 for values in self.choices.values())


def in_words(parameters: Mapping[str, Any]) -> str:
    """Parameters in one line: "steps = 2, rate = 0.52"; nothing where there are none."""
    return ", ".join(f"{name} = {_brief(value)}" for name, value in parameters.items())


def _brief(value: Any) -> str:
    if isinstance(value, bool | int | np.integer | str):
        return str(value)
    if np.ndim(value):
        return "(" + ", ".join(_brief(one) for one in np.asarray(value).ravel().tolist()) + ")"
    return f"{float(value):.3g}"
