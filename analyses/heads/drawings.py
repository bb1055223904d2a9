"""The pictures of a head map in a report, each with its caption and size."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd

from mechicl.analyses.heads import pictures
from mechicl.analyses.heads.map import HeadMap
from mechicl.analyses.pages.section import Drawing
from mechicl.wording import percent

SCATTERS = 4  # heads whose items are drawn


def drawings_of(head_map: HeadMap, slug: str, paths: pd.DataFrame | None = None) -> list[Drawing]:
    """All that there is to draw: the map always, the rest where a head was confirmed; nothing where the gate closed."""
    if head_map.heads.empty:
        return []
    n_confirmed = len(head_map.confirmed)
    drawings = [_map(head_map, slug)]
    if pictures.has_curves(head_map):
        drawings.append(_curves(head_map, slug))
    if n_confirmed:
        drawings += _scatters(head_map, slug)
    if len(head_map.attention):
        drawings.append(_attention(head_map, slug))
    if paths is not None and len(paths) and paths["survives"].any():
        drawings.append(_paths(head_map, slug, paths))
    elif n_confirmed > 1:  # one head and one arrow say no more than the table
        drawings.append(_circuit(head_map, slug))
    return drawings


def _map(head_map: HeadMap, slug: str) -> Drawing:
    layers, heads = head_map.grid().shape
    marked = "Dots and names: the heads that were confirmed on the other half. " if head_map.confirmed else ""
    caption = (
        f"Change of the effect ({head_map.unit}) when one head's output is replaced, for every head, on the selection "
        f"half. {marked}{_direction(head_map)}"
    )
    size = min(2.3 + 0.27 * heads, 8.0), min(1.6 + 0.17 * layers, 7.5)
    return Drawing(f"{slug}_map", caption, (max(size[0], 4.2), max(size[1], 2.8)), partial(pictures.draw_map, head_map))


def _curves(head_map: HeadMap, slug: str) -> Drawing:
    n_random = int((head_map.random_sets["exact"].astype(bool)).sum()) - 1 if len(head_map.random_sets) else 0
    beside = (
        f" Hatched: the middle {percent(head_map.level)} of {n_random} random sets of as many heads as were confirmed, "
        "replaced together."
        if n_random > 0
        else ""
    )
    caption = (
        "How much of the effect is left, on the confirmation half, when the strongest heads are replaced (solid), and "
        "how much they carry by themselves, all others replaced (dashed). 1: the whole model; 0: all heads replaced. "
        f"Heads are ordered by the selection half; bands are {percent(head_map.level)} intervals.{beside}"
    )
    return Drawing(f"{slug}_curves", caption, (6.4, 4.4), partial(pictures.draw_curves, head_map))


def _scatters(head_map: HeadMap, slug: str) -> list[Drawing]:
    names = pictures.confirmed_rows(head_map)["name"].tolist()
    left = f" The other {len(names) - SCATTERS} are in the table of items." if len(names) > SCATTERS else ""
    shown = names[:SCATTERS]
    slope = " The slope is the one that was tested." if head_map.over == "slope" else ""
    explained = (
        ": change of the outcome when this head is replaced, over the bias of the prime's verb, on the confirmation "
        f"half. Pale: items; dark: verbs' means, {percent(head_map.level)} intervals over items.{slope}"
    )
    drawings = []
    for place, name in enumerate(shown):
        caption = f"Behind {name}{explained}" if place == 0 else f"The same behind {name}."
        draw = partial(pictures.draw_scatter, head_map, name)
        drawings.append(Drawing(f"{slug}_{name}", caption, (5.2, 4.2), draw, half=len(shown) > 1))
    drawings[-1] = replace(drawings[-1], caption=drawings[-1].caption + left)
    return drawings


def _attention(head_map: HeadMap, slug: str) -> Drawing:
    query = pictures.attention_queries(head_map)[0]
    names = pictures.confirmed_rows(head_map)["name"].tolist()[: pictures.ATTENDING]
    rows = head_map.attention
    n_contexts, n_keys = rows["context"].nunique(), rows["key"].nunique()
    more = f" The {len(names)} strongest heads." if len(names) < len(head_map.confirmed) else ""
    caption = (
        f"What the confirmed heads attend to from {pictures.QUERY_WORDS.get(query, query)}, after primes in each "
        f"context: mean share of attention on the confirmation half. What falls on other tokens is not shown.{more}"
    )
    size = 2.4 + 0.62 * n_keys, 1.7 + 0.27 * len(names) * n_contexts
    return Drawing(f"{slug}_attention", caption, size, partial(pictures.draw_attention, head_map, query))


def _circuit(head_map: HeadMap, slug: str) -> Drawing:
    n_rows = len({layer for layer, _ in head_map.confirmed}) + 1
    caption = (
        f"What each confirmed head adds to the effect ({head_map.unit}, confirmation half): the effect as it is, less "
        "the effect with the head replaced. These are total effects: part of one may pass through another head."
    )
    size = 4.6, min(1.9 + 0.7 * n_rows, 7.5)
    return Drawing(f"{slug}_circuit", caption, size, lambda ax: pictures.draw_circuit(head_map, ax=ax))


def _paths(head_map: HeadMap, slug: str, paths: pd.DataFrame) -> Drawing:
    lost = len(paths) - int(paths["survives"].sum())
    layers = {layer for layer, _ in head_map.confirmed}
    caption = (
        f"By which paths the confirmed heads act ({head_map.unit}, pairs of the confirmation half): what a head adds "
        "to the effect straight into the output or into another confirmed head, all other heads held as they were. "
        f"Drawn are paths whose {percent(head_map.level)} interval excludes zero; {lost} of {len(paths)} do not."
    )
    size = 5.2, min(1.9 + 0.7 * (len(layers) + 1), 7.5)
    return Drawing(f"{slug}_paths", caption, size, lambda ax: pictures.draw_circuit(head_map, paths, ax=ax))


def _direction(head_map: HeadMap) -> str:
    """Which colour means that a head drives the effect."""
    positive = head_map.gate["estimate"].iloc[0] > 0
    drives, against = ("Below", "above") if positive else ("Above", "below")
    return f"{drives} 0 the head drives the effect; {against} 0 it works against it."
