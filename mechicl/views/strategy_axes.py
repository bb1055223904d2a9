"""Axes that pictures of training share: steps by their roots, diversities by powers of two, colours of diversities."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, NullLocator

from mechicl.views import BLUE

D_REL = "Relative distance d_rel\n(0: generalising, 1: memorising)"
# Light to dark without a turn, so that 0 and 1 are told apart with any eyes, and in grey.
STRATEGIES = LinearSegmentedColormap.from_list("strategies", ["#FFF1C9", "#E9C46A", "#8A9A9B", BLUE, "#00253D"])
FEW = 6  # diversities that one picture of curves can hold


def root(values: Any) -> Any:
    """Square roots, 0 below 0: what an axis asks of ends beyond its data."""
    return np.sqrt(np.maximum(values, 0))


def step_axis(ax: Axes, steps: Float[np.ndarray, " step"], ends: tuple[float, float] | None = None) -> None:
    """Training steps from left to right on an axis of square roots, with ticks at round numbers."""
    low, high = ends or (0.0, float(steps[-1]) * 1.02)
    ax.set_xscale("function", functions=(root, np.square))
    ax.set_xlim(max(low, 0.0), high)
    last = float(steps[-1])
    ticks = {float(f"{share**2 * last:.2g}") for share in np.linspace(0, 1, 6)} if last >= 10 else set(steps.tolist())
    ax.set_xticks(sorted(tick for tick in ticks if tick <= high))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("Training step N")


def diversity_axis(ax: Axes, diversities: Iterable[float], which: Literal["x", "y"]) -> None:
    """Numbers of tasks on an axis of powers of two, a tick each."""
    axis = getattr(ax, f"{which}axis")
    getattr(ax, f"set_{which}scale")("log", base=2)
    axis.set_ticks(list(diversities))
    axis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
    axis.set_minor_locator(NullLocator())


def edges(
    values: Float[np.ndarray, " _"], to: Callable[[Any], Any], back: Callable[[Any], Any]
) -> Float[np.ndarray, " _"]:
    """The borders of cells around values: half way between them on the scale `to`, and as far beyond the ends."""
    scaled = np.asarray(to(values), dtype=np.float64)
    middle = (scaled[1:] + scaled[:-1]) / 2
    first, last = (scaled[1] - scaled[0], scaled[-1] - scaled[-2]) if len(scaled) > 1 else (1.0, 1.0)
    ends = np.concatenate([[scaled[0] - first / 2], middle, [scaled[-1] + last / 2]])
    return np.asarray(back(np.maximum(ends, 0.0) if to is root else ends), dtype=np.float64)


def mean_of_seeds(values: Float[np.ndarray, "seed *rest"]) -> Float[np.ndarray, "*rest"]:
    """The mean over the seeds that have a value; NaN where none has."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0).sum(0), known.sum(0)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def range_of_seeds(values: Float[np.ndarray, "seed *rest"]) -> tuple[Float[np.ndarray, "*rest"], ...]:
    """The smallest and the largest value over seeds; NaN where none has one."""
    least, most = np.where(np.isnan(values), np.inf, values).min(0), np.where(np.isnan(values), -np.inf, values).max(0)
    return tuple(np.asarray(np.where(np.isfinite(end), end, np.nan)) for end in (least, most))


def chosen_columns(
    known: Float[np.ndarray, " diversity"], wanted: Iterable[float | int] | None, most: int = FEW
) -> Int[np.ndarray, " _"]:
    """The places of the wanted diversities; by default at most `most`, evenly spread, both ends among them."""
    if wanted is None:
        return np.unique(np.rint(np.linspace(0, len(known) - 1, min(most, len(known)))).astype(int))
    asked = [float(diversity) for diversity in wanted]
    if missing := [diversity for diversity in asked if diversity not in known]:
        raise ValueError(f"Got the diversity {missing[0]:g}, expected some of {', '.join(f'{d:g}' for d in known)}.")
    return np.array([int(np.flatnonzero(known == diversity)[0]) for diversity in asked], dtype=int)


def colours_of(n: int) -> list[Any]:
    """Colours for n diversities, small ones dark: viridis, whose order can be told without colour."""
    return [mpl.colormaps["viridis"](place) for place in np.linspace(0.02, 0.88, max(n, 1))]


def beside(ax: Axes) -> Axes:
    """Give the right half of an axes' place to a new one, and return that; both share their scales."""
    spec = ax.get_subplotspec()
    if spec is not None:
        both = spec.subgridspec(1, 2, width_ratios=[1, 1.16])  # the right one holds a colour bar too
        ax.set_subplotspec(both[0])
        return ax.figure.add_subplot(both[1], sharex=ax, sharey=ax)
    x, y, width, height = ax.get_position().bounds
    ax.set_position((x, y, 0.46 * width, height))
    return ax.figure.add_axes((x + 0.54 * width, y, 0.46 * width, height), sharex=ax, sharey=ax)
