"""The drawing of a circuit: nodes where they are, every effect once, nothing covered."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.text import Text

from mechicl.views.circuit import plot_circuit

MINUS = "\N{MINUS SIGN}"


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def circuit() -> tuple[pd.DataFrame, pd.DataFrame]:
    nodes = [
        ("verb", -np.inf, "prime"), ("3.4", 3, "prime"), ("7.1", 7, "prime"), ("12.3", 12, "target"),
        ("12.8", 12, "target"), ("17.0", 17, "target"), ("logits", np.inf, "last"),
    ]  # fmt: skip
    edges = [
        ("verb", "3.4", 0.4), ("verb", "7.1", 0.2), ("3.4", "12.3", 0.3), ("3.4", "7.1", -0.08), ("7.1", "12.8", -0.1),
        ("12.3", "17.0", 0.2), ("12.3", "logits", 0.17), ("17.0", "logits", 0.11), ("12.8", "logits", -0.12),
    ]  # fmt: skip
    return (
        pd.DataFrame(nodes, columns=["name", "layer", "role"]),
        pd.DataFrame(edges, columns=["source", "target", "effect"]),
    )


def overlaps(texts) -> int:
    boxes = [Text.get_window_extent(t) for t in texts]
    return sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_circuit_holds_nodes_where_they_are_and_every_effect():
    nodes, edges = circuit()
    ax = plot_circuit(nodes, edges)
    at = {t.get_text(): t.get_position() for t in ax.texts}
    rows = {"verb": 0, "3.4": 1, "7.1": 2, "12.3": 3, "12.8": 3, "17.0": 4, "logits": 5}
    assert {name: at[name][1] for name in rows} == rows
    assert at["12.3"][0] < at["12.8"][0] and max(at["3.4"][0], at["7.1"][0]) < at["12.3"][0] < at["logits"][0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["input", "3", "7", "12", "17", "output"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["prime", "target", "last"]
    numbers = sorted(t.get_text() for t in ax.texts if t.get_text() not in rows)
    assert numbers == sorted(f"{e:.2f}".replace("-", MINUS) for e in edges["effect"])


def test_circuit_arrows_tell_size_by_width_and_sign_by_style():
    nodes, edges = circuit()
    arrows = [p for p in plot_circuit(nodes, edges).patches if hasattr(p, "get_arrowstyle")]
    ordered = edges.sort_values("effect", key=abs, ascending=False, kind="stable")["effect"].to_numpy()
    widths = [a.get_linewidth() for a in arrows]
    assert len(arrows) == len(edges) and widths == sorted(widths, reverse=True)
    np.testing.assert_allclose(np.corrcoef(widths, abs(ordered))[0, 1], 1)
    styles = {
        (bool(e > 0), to_rgba(a.get_edgecolor()), str(a.get_linestyle())) for a, e in zip(arrows, ordered, strict=True)
    }
    assert len(styles) == 2 and len({s[2] for s in styles}) == 2


def test_circuit_text_does_not_overlap_and_arrows_stay_inside():
    nodes, edges = circuit()
    ax = plot_circuit(nodes, edges)
    ax.figure.draw_without_rendering()
    assert overlaps(ax.texts) == 0
    frame = ax.get_window_extent()
    for arrow in (p for p in ax.patches if hasattr(p, "get_arrowstyle")):
        box = arrow.get_window_extent()
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_an_arrow_goes_round_a_node_that_it_does_not_join():
    nodes = pd.DataFrame({"name": ["a", "between", "b"], "layer": [1, 2, 3], "role": "one"})
    edges = pd.DataFrame({"source": ["a"], "target": ["b"], "effect": [1.0]})
    ax = plot_circuit(nodes, edges)
    arrow = next(p for p in ax.patches if hasattr(p, "get_arrowstyle"))
    path = arrow.get_transform().transform(arrow.get_path().interpolated(20).vertices)
    box = next(t for t in ax.texts if t.get_text() == "between").get_bbox_patch().get_window_extent()
    assert not any(box.contains(*point) for point in path)
    straight = plot_circuit(nodes.drop(index=1), edges).patches
    assert next(p for p in straight if hasattr(p, "get_arrowstyle")).get_connectionstyle().rad == 0


def test_numbers_of_crossing_arrows_make_way_for_each_other():
    nodes = pd.DataFrame({"name": ["a", "b", "c", "d"], "layer": [1, 1, 2, 2], "role": ["x", "y", "x", "y"]})
    edges = pd.DataFrame({"source": ["a", "b"], "target": ["d", "c"], "effect": [1.0, -2.0]})
    ax = plot_circuit(nodes, edges)
    ax.figure.draw_without_rendering()
    numbers = [t for t in ax.texts if t.get_text() in ("1.00", f"{MINUS}2.00")]
    assert len(numbers) == 2 and overlaps(numbers) == 0


def test_circuit_without_edges_and_with_wrong_ones():
    nodes, edges = circuit()
    assert len(plot_circuit(nodes, edges.iloc[:0]).texts) == len(nodes)
    swapped = plot_circuit(nodes, edges, roles=["last", "target", "prime"])
    assert [t.get_text() for t in swapped.get_xticklabels()] == ["last", "target", "prime"]
    with pytest.raises(ValueError, match=r"unknown nodes \['9\.9'\]"):
        plot_circuit(nodes, edges.replace("3.4", "9.9"))
    with pytest.raises(ValueError, match="repeated names"):
        plot_circuit(pd.concat([nodes, nodes]), edges)
    with pytest.raises(ValueError, match="not among the columns"):
        plot_circuit(nodes, edges, roles=["prime"])
    with pytest.raises(ValueError, match="'effect'"):
        plot_circuit(nodes, edges.drop(columns="effect"))
