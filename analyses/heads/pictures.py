"""From a head map to pictures: all heads, curves, what lies behind a head, what it attends to, the circuit.

Each function draws on ``ax`` (or on a new figure) and returns the Axes. Attention over single texts is in
`mechicl.analyses.heads.viewer`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import scipy.stats
from matplotlib.axes import Axes

from mechicl.analyses.heads.map import HeadMap
from mechicl.views.heads import plot_circuit, plot_faithfulness, plot_head_attention, plot_head_map, plot_head_scatter

KINDS = {"keep": "keep only", "ablate": "cumulative ablation"}
CONFIRMED_SET = "confirmed"  # the row of `random_sets` that is no random set
OUTPUT = "output"
ATTENDING = 6  # heads whose attention fits into one picture
QUERY_WORDS = {"last": "the last token before the forms part"}


def confirmed_rows(head_map: HeadMap) -> pd.DataFrame:
    """The rows of `heads` that were confirmed, strongest first."""
    if head_map.heads.empty:
        return head_map.heads
    rows = head_map.heads[head_map.heads["confirmed"].astype(bool)]
    return rows.loc[rows["confirm_effect"].abs().sort_values(ascending=False, kind="stable").index]


def draw_map(head_map: HeadMap, ax: Axes | None = None) -> Axes:
    """Every head's effect on the selection split, layers by heads; the confirmed ones are marked and named."""
    _refuse_gated(head_map)
    marked = head_map.grid("confirmed") > 0
    return plot_head_map(head_map.grid(), significant=marked, unit=head_map.unit, label="Change of the effect", ax=ax)


def draw_curves(head_map: HeadMap, ax: Axes | None = None) -> Axes:
    """What is left of the effect with the strongest heads replaced, and what they carry alone; random sets beside."""
    curves = faithfulness_curves(head_map)
    return plot_faithfulness(curves, random=_random_band(head_map), ax=ax)


def draw_scatter(head_map: HeadMap, name: str, ax: Axes | None = None) -> Axes:
    """What lies behind one confirmed head: change of every item's outcome over the bias of the prime's verb."""
    items = head_map.confirmed_effects[head_map.confirmed_effects["name"] == name]
    if items.empty:
        known = ", ".join(confirmed_rows(head_map)["name"]) if len(head_map.heads) else ""
        raise ValueError(f"Got the head {name!r}, expected one that was confirmed: {known or 'there is none'}.")
    verbs = items.groupby("prime_verb", sort=True).agg(
        bias=("bias", "first"), effect=("d_effect", "mean"), sd=("d_effect", "std"), n=("d_effect", "size")
    )
    quantile = scipy.stats.t.ppf((1 + head_map.level) / 2, np.maximum(verbs["n"] - 1, 1))
    margin = quantile * verbs["sd"] / np.sqrt(verbs["n"])
    row = head_map.heads[head_map.heads["name"] == name]
    estimate, low, high = (float(row[f"confirm_{part}"].iloc[0]) for part in ("effect", "low", "high"))
    return plot_head_scatter(
        verbs["bias"].to_numpy(float),
        verbs["effect"].to_numpy(float),
        head=name,
        names=[str(verb) for verb in verbs.index],
        low=(verbs["effect"] - margin).to_numpy(float),
        high=(verbs["effect"] + margin).to_numpy(float),
        item_x=items["bias"].to_numpy(float),
        item_effect=items["d_effect"].to_numpy(float),
        slope=(estimate, low, high) if head_map.over == "slope" else None,
        unit=head_map.unit.split(" per ")[0],
        level=head_map.level,
        ax=ax,
    )


def draw_attention(head_map: HeadMap, query: str | None = None, ax: Axes | None = None) -> Axes:
    """What the strongest confirmed heads attend to, by context, from one part of the text: see `attention_queries`."""
    queries = attention_queries(head_map)
    if not queries or (query is not None and query not in queries):
        raise ValueError(f"Got the query {query!r}, expected one of {queries}; only confirmed heads have attention.")
    query = query or queries[0]
    rows = head_map.attention[head_map.attention["query"] == query]
    rows = rows[rows.groupby("key")["share"].transform("max") > 0]  # what comes later cannot be seen from there
    keys = sorted(dict.fromkeys(rows["key"]), key=lambda key: key != "bos")  # BOS first, the rest as in the text
    names = [name for name in confirmed_rows(head_map)["name"] if name in set(rows["name"])][:ATTENDING]
    order = [(name, context) for name in names for context in dict.fromkeys(rows["context"])]
    share = rows.pivot_table(index=["name", "context"], columns="key", values="share").reindex(order)[keys]
    labels = [f"{name}, {context}" for name, context in order]
    return plot_head_attention(share.to_numpy(float), labels, keys, query=QUERY_WORDS.get(query, query), ax=ax)


def attention_queries(head_map: HeadMap) -> list[str]:
    """From where attention was kept, what the localisation is about first: where heads were replaced."""
    replaced = {_side(role) for role in head_map.roles}
    return sorted(dict.fromkeys(head_map.attention["query"]), key=lambda query: _side(query) not in replaced)


def draw_circuit(head_map: HeadMap, paths: pd.DataFrame | None = None, ax: Axes | None = None) -> Axes:
    """The confirmed heads by layer, and arrows: what each adds to the effect in all, or the surviving ``paths``.

    What a head adds is F - F(with the head replaced): above 0 where it raises F. ``paths``: those of
    `paths_between_heads`, or a frame of source, target (names of heads, or "output") and effect, with that sign and in
    the unit of the head map.
    """
    rows = confirmed_rows(head_map)
    if rows.empty:
        raise ValueError("Got a head map without confirmed heads, so there is no circuit to draw.")
    if paths is None:
        paths = pd.DataFrame({"source": rows["name"], "target": OUTPUT, "effect": -rows["confirm_effect"]})
    elif "survives" in paths:
        paths = paths[paths["survives"].astype(bool)]
    rows = rows[rows["name"].isin({*paths["source"], *paths["target"]})]
    words = f"heads at {' and '.join(head_map.roles)} positions"
    nodes = pd.DataFrame({"name": rows["name"], "layer": rows["layer"].astype(float), "role": words})
    output = pd.DataFrame([{"name": OUTPUT, "layer": np.inf, "role": words}])
    return plot_circuit(pd.concat([nodes, output]), paths, unit=head_map.unit, ax=ax)


def faithfulness_curves(head_map: HeadMap) -> pd.DataFrame:
    """The curves as shares: k (of all heads), f with low and high, kind in the words of `plot_faithfulness`."""
    if not has_curves(head_map):
        raise ValueError("Got a head map without curves; there are some where an effect was localised.")
    curves = head_map.curves
    slope, intercept = _to_faithfulness(head_map)
    ends = np.sort(slope * curves[["low", "high"]].to_numpy(float) + intercept, axis=1)
    found = pd.DataFrame(
        {
            "k": curves["k"].to_numpy(float) / len(head_map.heads),
            "f": curves["faithfulness"].to_numpy(float),
            "low": ends[:, 0],
            "high": ends[:, 1],
            "kind": [KINDS.get(kind, kind) for kind in curves["kind"]],
        }
    )
    return found[found["k"] > 0].reset_index(drop=True)  # an axis of logarithms has no 0


def has_curves(head_map: HeadMap) -> bool:
    """Whether there is a faithfulness: there is none where replacing all heads changes nothing."""
    return len(head_map.curves) > 0 and bool(np.isfinite(head_map.curves["faithfulness"]).all())


def _side(role: str) -> str:
    """Prime or target; the last shared token is the target's."""
    return "target" if role == "last" else role.split(".")[0]


def _random_band(head_map: HeadMap) -> pd.DataFrame | None:
    """What is left of the effect when random sets are replaced: a bar as wide as a mark; None where none were drawn."""
    sets = head_map.random_sets
    effects = sets.loc[sets["exact"].astype(bool) & (sets["matched"] != CONFIRMED_SET), "effect"].to_numpy(float)
    if not len(effects):
        return None
    slope, _ = _to_faithfulness(head_map)
    tail = (1 - head_map.level) / 2
    low, high = np.sort(1 + slope * np.quantile(effects, [tail, 1 - tail]))
    share = len(head_map.confirmed) / len(head_map.heads)
    return pd.DataFrame({"k": [share / 1.12, min(share * 1.12, 1.0)], "low": low, "high": high})


def _to_faithfulness(head_map: HeadMap) -> tuple[float, float]:
    """Slope and intercept of the line that turns F into faithfulness."""
    slope, intercept = np.polyfit(head_map.curves["value"], head_map.curves["faithfulness"], 1)
    return float(slope), float(intercept)


def _refuse_gated(head_map: HeadMap) -> None:
    if head_map.heads.empty:
        raise ValueError(f"Got a head map without heads, so there is nothing to draw: {head_map.verdict}.")
