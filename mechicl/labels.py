"""Names beside points, placed so that they cover neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation
from matplotlib.transforms import BboxBase

# Distance from the point to the label's nearest edge, in points (1/72 inch); a leader line is drawn from the third on.
DISTANCES = (3.5, 8.0, 14.0, 21.0, 30.0)
LEADER_FROM = 14.0
PASSES = 3  # every name may move again once it has seen the others
DIRECTIONS = tuple((np.cos(a), np.sin(a)) for a in np.deg2rad([90, 270, 0, 180, 45, 135, 315, 225, 68, 112, 248, 292]))


def place_labels(
    ax: Axes,
    x: Float[np.ndarray, " verb"],
    ys: Sequence[Float[np.ndarray, " verb"]],
    names: Sequence[str],
    *,
    avoid: Sequence[BboxBase] = (),
    font_size: float = 7.5,
    colour: str = "#444444",
) -> list[Annotation]:
    """Write each name once, beside one of its points (x, y for y in ``ys``), where it hides least.

    Names with the most neighbours choose first, each the candidate place with the smallest sum of overlaps with other
    names, points, lines, boxes to ``avoid`` (pixels) and the axes' frame, plus a little for distance; then all choose
    again. Call it last, once limits and sizes are settled. A name without a finite point gets no label.
    """
    points = np.array([ax.transData.transform(np.column_stack([x, y])) for y in ys])
    scale = ax.figure.figure.dpi / 72
    marks = points.reshape(-1, 2)
    scene = _Scene(
        fixed=np.array([box.extents for box in avoid]).reshape(-1, 4),
        marks=marks[np.isfinite(marks).all(axis=1)],
        lines=_line_pixels(ax),
        frame=np.array(ax.get_window_extent().extents),
        scale=scale,
    )
    sizes = {i: _size(ax, names[i], font_size) for i in _crowded_first(points)}
    places: dict[int, _Place] = {}
    for _ in range(PASSES):
        for i, size in sizes.items():
            taken = [place.box for k, place in places.items() if k != i]
            places[i] = _best_place(points[:, i], size, np.array([*scene.fixed, *taken]).reshape(-1, 4), scene)
    leader = {"arrowstyle": "-", "color": "#AAAAAA", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
    return [
        ax.annotate(
            names[i],
            xy=(x[i], ys[place.anchor][i]),
            xytext=tuple((place.box.reshape(2, 2).mean(axis=0) - points[place.anchor, i]) / scale),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=font_size,
            color=colour,
            zorder=5,
            arrowprops=leader if place.distance >= LEADER_FROM else None,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
        for i, place in places.items()
    ]


@dataclass(frozen=True)
class _Scene:
    """What labels should not hide, in pixels."""

    fixed: np.ndarray  # boxes: left, bottom, right, top
    marks: np.ndarray
    lines: np.ndarray
    frame: np.ndarray
    scale: float  # pixels a point


@dataclass(frozen=True)
class _Place:
    cost: float
    anchor: int  # which of the name's points
    distance: float
    box: np.ndarray


def _best_place(anchors: np.ndarray, size: tuple[float, float], taken: np.ndarray, scene: _Scene) -> _Place:
    options = []
    for k, distance, direction in product(range(len(anchors)), DISTANCES, DIRECTIONS):
        if np.isfinite(anchors[k]).all():
            box = _box(anchors[k], size, direction, distance * scene.scale)
            options.append(_Place(_cost(box, taken, scene) + 4 * distance * scene.scale, k, distance, box))
    return min(options, key=lambda place: place.cost)


def _crowded_first(points: Float[np.ndarray, "form verb 2"]) -> list[int]:
    """Which names can be written at all, those with the most neighbours first."""
    gaps = np.linalg.norm(points[:, :, None] - points.reshape(-1, 2), axis=-1)
    neighbours = (np.nan_to_num(gaps, nan=np.inf) < 60).sum(axis=(0, 2))
    return [int(i) for i in np.argsort(-neighbours, kind="stable") if neighbours[i] > 0]


def _size(ax: Axes, name: str, font_size: float) -> tuple[float, float]:
    probe = ax.annotate(name, xy=(0.5, 0.5), xycoords="axes fraction", fontsize=font_size)
    extent = probe.get_window_extent()
    probe.remove()
    return extent.width, extent.height


def _box(at: Any, size: tuple[float, float], direction: tuple[float, float], distance: float) -> np.ndarray:
    """Left, bottom, right, top of a label whose edge lies ``distance`` pixels from the point in ``direction``."""
    width, height = size
    centre_x = at[0] + direction[0] * (distance + width / 2)
    centre_y = at[1] + direction[1] * (distance + height / 2)
    return np.array([centre_x - width / 2, centre_y - height / 2, centre_x + width / 2, centre_y + height / 2])


def _cost(box: np.ndarray, taken: np.ndarray, scene: _Scene) -> float:
    """What a label in this box hides, in square pixels; another name, even its edge, counts most."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    names = _shared(box, taken)
    outside = area - _shared(box, scene.frame[None])[0]
    hidden = _inside(box, scene.marks, margin=3.5 * scene.scale)  # a marker's radius and a little air
    crossed = _inside(box, scene.lines, margin=0.0)
    covers = 2 * names.sum() + 4 * outside
    return float(covers + scene.scale * (100 * (names > 0).sum() + 80 * hidden + 12 * crossed))


def _inside(box: np.ndarray, points: np.ndarray, *, margin: float) -> int:
    across = (points[:, 0] > box[0] - margin) & (points[:, 0] < box[2] + margin)
    return int((across & (points[:, 1] > box[1] - margin) & (points[:, 1] < box[3] + margin)).sum())


def _line_pixels(ax: Axes) -> np.ndarray:
    """Pixels along the lines already drawn, so that labels may stay clear of them."""
    paths = [line.get_xydata() for line in ax.lines if line.get_linestyle() != "None"]
    points = [ax.transData.transform(np.asarray(path, dtype=float)) for path in paths if len(np.asarray(path)) > 2]
    return np.concatenate(points) if points else np.empty((0, 2))


def _shared(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The area that a box shares with each of the others."""
    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return np.clip(width, 0, None) * np.clip(height, 0, None)
