"""A drawing of a circuit: heads as boxes where they are, what they do to each other as arrows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.text import Text

from mechicl.labels import _inside, _shared
from mechicl.views import BLUE, INK, PALE, VERMILION, _axes, _legend_on_top, _require
from mechicl.wording import number

BENDS = (0.0, 0.12, -0.12, 0.24, -0.24, 0.38, -0.38, 0.55, -0.55)  # how far an arrow may leave the straight line
ALONG = (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82)  # where on its arrow a number may stand
SIGNS: tuple[tuple[int, str, Any, str], ...] = ((1, BLUE, "-", "raises"), (-1, VERMILION, (0, (4, 1.5)), "lowers"))


def plot_circuit(
    nodes: pd.DataFrame,
    edges: pd.DataFrame,
    *,
    roles: Sequence[str] | None = None,
    unit: str = "nats",
    digits: int = 2,
    ax: Axes | None = None,
) -> Axes:
    """Draw the paths that survived: nodes by layer (upwards, first layer at the bottom) and role (from left to right).

    ``nodes``: name (unique, such as "12.3"), layer (a number; -inf is labelled "input", inf "output") and role.
    Only layers that occur have a row. ``edges``: source, target (names) and effect (in ``unit``): arrows as wide as the
    effect is large, solid blue where it is above 0, dashed vermilion where it is below, with its number. ``roles``: the
    columns, by default in order of appearance.
    """
    _require(nodes, ["name", "layer", "role"], "nodes")
    _require(edges, ["source", "target", "effect"], "edges")
    columns = list(roles if roles is not None else dict.fromkeys(nodes["role"]))
    places = _places(nodes, columns)
    lost = sorted({str(n) for n in (*edges["source"], *edges["target"]) if n not in places})
    if lost or not np.isfinite(edges["effect"].to_numpy(float)).all():
        raise ValueError(
            f"Got edges with unknown nodes {lost} or effects that are not finite; expected names of nodes."
        )
    rows = sorted(set(nodes["layer"]))
    right = max((x for x, _ in places.values()), default=0.0)
    with _axes(ax, (float(np.clip(2.6 + 1.25 * right, 4.2, 11)), float(np.clip(1.9 + 0.85 * len(rows), 3, 10)))) as ax:
        ax.hlines(range(len(rows)), 0, 1, PALE, linewidth=0.8, transform=ax.get_yaxis_transform(), zorder=0)
        ax.set_yticks(range(len(rows)), [_layer_name(float(layer)) for layer in rows])
        centres = {
            role: [places[n][0] for n, r in zip(nodes["name"], nodes["role"], strict=True) if r == role]
            for role in columns
        }
        used = {role: float(np.mean([min(at), max(at)])) for role, at in centres.items() if at}
        ax.set_xticks(list(used.values()), list(used))
        ax.set(xlim=(-0.9, right + 0.9), ylim=(-0.5, len(rows) - 0.65), ylabel="Layer")
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.spines["bottom"].set(visible=True, color=PALE)
        boxes = {name: _box_at(ax, *place, name) for name, place in places.items()}
        present = [s for s in SIGNS if (edges["effect"] * s[0] > 0).any()]
        for _, colour, style, verb in present:
            ax.add_line(
                Line2D([], [], color=colour, linestyle=style, linewidth=2, label=f"{verb} the measure ({unit})")
            )
        if present:
            _legend_on_top(ax, bounds=(0.0, len(rows) - 1.0))
        ax.figure.figure.draw_without_rendering()
        _draw_edges(ax, edges, boxes, digits)
    return ax


@dataclass(frozen=True)
class _Course:
    """Where an arrow runs, in pixels."""

    bend: float
    points: np.ndarray


def _places(nodes: pd.DataFrame, columns: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Each node's x and y: roles side by side, as wide as their fullest layer; nodes of one layer beside each other."""
    if nodes["name"].duplicated().any() or nodes["layer"].isna().any() or not set(nodes["role"]) <= set(columns):
        raise ValueError("Got nodes with repeated names, missing layers or roles that are not among the columns.")
    rank = {layer: i for i, layer in enumerate(sorted(set(nodes["layer"])))}
    places, left = {}, 0.0
    for role in columns:
        here = nodes[nodes["role"] == role]
        width = max((len(group) for _, group in here.groupby("layer")), default=0)
        for layer, group in here.groupby("layer"):
            for i, name in enumerate(group["name"]):
                # A shift by layer, so that an arrow to the next row but one does not run through the row between.
                x = left + (width - len(group)) / 2 + i
                places[str(name)] = (x, float(rank[layer]))
        left += width + 0.25 if width else 0
    return places


def _layer_name(layer: float) -> str:
    return {np.inf: "output", -np.inf: "input"}.get(layer) or f"{layer:g}"


def _box_at(ax: Axes, x: float, y: float, name: str) -> Text:
    style = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": INK, "linewidth": 1.1}
    return ax.text(x, y, name, ha="center", va="center", fontsize=9, zorder=4, bbox=style)


def _draw_edges(ax: Axes, edges: pd.DataFrame, boxes: dict[str, Text], digits: int) -> None:
    """Arrows, the widest first, and their numbers once all arrows are known."""
    patches: dict[str, Any] = {name: box.get_bbox_patch() for name, box in boxes.items()}
    extents = {name: np.array(patch.get_window_extent().extents) for name, patch in patches.items()}
    largest = edges["effect"].abs().max() or 1.0
    ordered = edges.loc[edges["effect"].abs().sort_values(ascending=False, kind="stable").index]
    to_data = ax.transData.inverted().transform
    courses: list[_Course] = []
    for source, target, effect in zip(ordered["source"], ordered["target"], ordered["effect"], strict=True):
        course = _course(str(source), str(target), extents, courses, ax)
        courses.append(course)
        _, colour, style, _ = SIGNS[0] if effect >= 0 else SIGNS[1]
        ax.add_patch(
            FancyArrowPatch(
                tuple(to_data(course.points[0])), tuple(to_data(course.points[-1])),
                connectionstyle=f"arc3,rad={course.bend}", arrowstyle="-|>", mutation_scale=9, color=colour,
                linestyle=style, linewidth=0.8 + 3 * abs(effect) / largest, shrinkA=0, shrinkB=1, zorder=2,
                patchA=patches[str(source)], patchB=patches[str(target)],
            )
        )  # fmt: skip
    taken = list(extents.values())
    for course, effect in zip(courses, ordered["effect"], strict=True):
        taken.append(_write_number(ax, course, number(effect, digits), taken, courses))


def _course(source: str, target: str, extents: dict[str, np.ndarray], others: list[_Course], ax: Axes) -> _Course:
    """As straight as it can run without crossing other boxes, lying on another arrow or leaving the axes."""
    start, end = (extents[name].reshape(2, 2).mean(axis=0) for name in (source, target))
    frame = ax.get_window_extent()
    foreign = [box for name, box in extents.items() if name not in (source, target)]

    def cost(course: _Course) -> float:
        hits = sum(_inside(box, course.points, margin=8.0) for box in foreign)
        outside = len(course.points) - _inside(np.array(frame.extents), course.points, margin=0.0)
        near = sum(_lies_on(course.points, other.points) for other in others)
        return 10.0 * (hits + outside) + 2.0 * near + 4 * abs(course.bend)

    return min((_Course(bend, _curve(start, end, bend)) for bend in BENDS), key=cost)


def _curve(start: np.ndarray, end: np.ndarray, bend: float) -> np.ndarray:
    """Points of matplotlib's "arc3" connection: a quadratic Bezier curve whose control point lies beside the middle."""
    away = end - start
    control = (start + end) / 2 + bend * np.array([away[1], -away[0]])
    t = np.linspace(0, 1, 41)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def _lies_on(points: np.ndarray, others: np.ndarray) -> int:
    gaps = np.linalg.norm(points[8:-8, None] - others[None, 8:-8], axis=-1)
    return int((gaps.min(axis=1) < 6).sum())


def _write_number(ax: Axes, course: _Course, words: str, taken: list[np.ndarray], courses: list[_Course]) -> np.ndarray:
    """Write an effect on its arrow where it covers least; return its box."""
    text = ax.text(0, 0, words, ha="center", va="center", fontsize=7.5, color=INK, zorder=5)
    text.set_bbox({"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none"})
    extent = text.get_window_extent()  # the text's: its box has no size before it is drawn
    half = np.array([extent.width, extent.height]) / 2 + 0.3 * extent.height
    foreign = np.concatenate([c.points for c in courses if c is not course] or [np.empty((0, 2))])

    def box(t: float) -> np.ndarray:
        at = course.points[round(t * (len(course.points) - 1))]
        return np.array([*(at - half), *(at + half)])

    def cost(t: float) -> float:
        covered = _shared(box(t), np.array(taken))
        return covered.sum() + 300 * (covered > 0).sum() + 25 * _inside(box(t), foreign, margin=1.0) + 40 * abs(t - 0.5)

    best = box(min(ALONG, key=cost))
    text.set_position(tuple(ax.transData.inverted().transform(best.reshape(2, 2).mean(axis=0))))
    return best
