"""Pictures of heads hold the numbers they are given, legibly; nothing global changes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from mechicl.stats import ols
from mechicl.views.heads import (
    DIVERGING,
    RISING,
    plot_circuit,
    plot_faithfulness,
    plot_head_attention,
    plot_head_map,
    plot_head_scatter,
)

MINUS = "\N{MINUS SIGN}"


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def effects(layers: int = 6, heads: int = 5) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(layers, heads))


def curves() -> tuple[pd.DataFrame, pd.DataFrame]:
    k = np.array([0.01, 0.1, 0.5, 1.0])
    kinds = {"keep only": 1 - np.exp(-9 * k), "cumulative ablation": np.exp(-9 * k)}
    frame = pd.concat(
        [pd.DataFrame({"k": k, "f": f, "low": f - 0.1, "high": f + 0.2, "kind": n}) for n, f in kinds.items()]
    )
    band = pd.concat([pd.DataFrame({"k": k, "low": k - 0.05, "high": k + 0.05, "kind": kind}) for kind in kinds])
    return frame.sample(frac=1, random_state=0), band


def names_in(ax) -> set[str]:
    return {t.get_text() for t in ax.texts}


def overlaps(texts) -> int:
    boxes = [Text.get_window_extent(t) for t in texts]
    return sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


# The map


@pytest.mark.parametrize("shape", [(30, 9), (18, 4), (12, 12), (32, 32)])
def test_map_holds_every_head_with_layer_0_at_the_bottom(shape):
    values = effects(*shape)
    significant = np.zeros(shape, dtype=bool)
    significant[[1, 2, shape[0] - 1], [0, 3, 2]] = True
    ax = plot_head_map(values, significant=significant, unit="nats", label="Effect on the IFE")
    mesh = next(c for c in ax.collections if isinstance(c, QuadMesh))
    np.testing.assert_array_equal(mesh.get_array(), values)
    assert mesh.norm.vmin == -mesh.norm.vmax == -abs(values).max()
    assert ax.get_ylim()[0] < ax.get_ylim()[1] and (ax.get_xlabel(), ax.get_ylabel()) == ("Head", "Layer")
    assert ax.figure.axes[1].get_ylabel() == "Effect on the IFE\n(nats)"
    assert names_in(ax) == {"1.0", "2.3", f"{shape[0] - 1}.2"}
    ax.figure.draw_without_rendering()
    assert overlaps(ax.texts) == 0
    frame = ax.figure.bbox
    shown = [*ax.texts, ax.xaxis.label, ax.yaxis.label, ax.figure.axes[1].yaxis.label, *ax.get_legend().get_texts()]
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1
               for b in (Text.get_window_extent(t) for t in shown))  # fmt: skip
    ticks = [t for t in ax.get_yticks() if -0.5 <= t <= ax.get_ylim()[1]]
    assert all(t == round(t) and t < shape[0] for t in ticks) and len(ticks) >= 4


def test_map_marks_signs_apart_without_colour():
    values = effects()
    ax = plot_head_map(values, significant=abs(values) > 0.7)
    marks = {line.get_label(): line for line in ax.lines}
    for words, chosen in (("above 0", values > 0.7), ("below 0", values < -0.7)):
        drawn = marks[f"significant, {words}"].get_xydata()
        np.testing.assert_array_equal(drawn, np.argwhere(chosen)[:, ::-1])
    assert len({to_rgba(line.get_markerfacecolor()) for line in marks.values()}) == 2
    assert [t.get_text() for t in ax.get_legend().get_texts()] == list(marks)


def test_map_names_only_a_few_and_without_significance_marks_nothing():
    values = effects(12, 12)
    assert not plot_head_map(values, significant=abs(values) > 1).texts
    plain = plot_head_map(values)
    assert not plain.lines and not plain.texts and plain.get_legend() is None
    none = plot_head_map(values, significant=np.zeros((12, 12), dtype=bool))
    assert not none.lines and none.get_legend() is None


def test_cells_without_a_value_are_hatched_and_never_marked():
    values = effects()
    values[2, 1] = np.nan
    ax = plot_head_map(values, significant=np.isnan(values))
    mesh = next(c for c in ax.collections if isinstance(c, QuadMesh))
    np.testing.assert_array_equal(np.ma.getmaskarray(mesh.get_array()), np.isnan(values))
    assert any(p.get_hatch() for p in ax.patches) and not ax.lines
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["not measured"]
    assert plot_head_map(np.full((2, 2), np.nan)) and plot_head_map(np.zeros((3, 2)))  # nothing to scale by


def test_colours_are_balanced_and_rise():
    def lightness(colours):
        return colours @ np.array([0.299, 0.587, 0.114])

    both = lightness(DIVERGING(np.linspace(0, 1, 101))[:, :3])
    assert np.argmax(both) == 50 and abs(both - both[::-1]).max() < 0.13
    assert (np.diff(both[:51]) > 0).all() and (np.diff(lightness(RISING(np.linspace(0, 1, 101))[:, :3])) < 0).all()


# Behind a cell


def test_scatter_holds_verbs_items_intervals_and_the_line():
    rng = np.random.default_rng(0)
    x = rng.uniform(size=8)
    y = -0.3 * x + 0.05 * rng.normal(size=8)
    item_x, item_y = np.repeat(x, 5), np.repeat(y, 5) + rng.normal(size=40)
    names = [f"verb{i}" for i in range(8)]
    ax = plot_head_scatter(
        x, y, head="12.3", names=names, low=y - 0.1, high=y + 0.2, item_x=item_x, item_effect=item_y, unit="nats"
    )
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_array_equal(lines["verbs"].get_xydata(), np.column_stack([x, y]))
    np.testing.assert_array_equal(lines["items"].get_xydata(), np.column_stack([item_x, item_y]))
    fit = ols(x, y)
    words = f"slope {MINUS}{abs(fit.slope):.3f} [{MINUS}{abs(fit.low):.3f}, "
    drawn = next(line for name, line in lines.items() if name.startswith(words))
    np.testing.assert_allclose(drawn.get_ydata(), fit.intercept + fit.slope * drawn.get_xdata(), atol=1e-12)
    stems = next(c for c in ax.collections if c.get_label() == "_intervals").get_segments()
    np.testing.assert_allclose(stems, [[[a, b - 0.1], [a, b + 0.2]] for a, b in zip(x, y, strict=True)])
    assert names_in(ax) == set(names) and ax.get_ylabel() == "Effect of head 12.3 (nats)"


def test_scatter_takes_the_slope_it_is_given_and_needs_no_names():
    x = np.array([0.1, 0.5, 0.9])
    ax = plot_head_scatter(x, x**2, head="0.1", slope=(-0.5, -0.75, 0.25))
    assert f"slope {MINUS}0.500 [{MINUS}0.750, 0.250]" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert not ax.texts
    level = plot_head_scatter(np.full(3, 0.5), x, head="0.1")  # no slope exists
    assert not any("slope" in t.get_text() for t in level.get_legend().get_texts())


# Faithfulness


def test_faithfulness_draws_each_kind_in_order_beside_random_sets():
    frame, band = curves()
    ax = plot_faithfulness(frame, random=band)
    drawn = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    assert len(drawn) == 2 and len({(d.get_marker(), d.get_linestyle()) for d in drawn}) == 2
    for line in drawn:
        kind = "keep only" if line.get_label().startswith("only") else "cumulative ablation"
        rows = frame[frame["kind"] == kind].sort_values("k")
        np.testing.assert_allclose(line.get_xydata(), rows[["k", "f"]])
    hatches = [c.get_hatch() for c in ax.collections if c.get_hatch()]
    assert len(hatches) == len(set(hatches)) == 2, "bands of random heads differ without colour"
    assert ax.get_xscale() == "log" and len(ax.get_legend().get_texts()) == 4
    level = {line.get_ydata()[0] for line in ax.lines if line.get_marker() in ("None", "")}
    assert level == {0, 1}


def test_faithfulness_bands_end_where_the_frames_say():
    frame, band = curves()
    ax = plot_faithfulness(frame[frame["kind"] == "keep only"], random=band.drop(columns="kind").iloc[:4])
    heights = [c.get_paths()[0].vertices for c in ax.collections]
    for vertices, rows in zip(heights, (band.iloc[:4], frame[frame["kind"] == "keep only"]), strict=True):
        at = vertices[np.isclose(vertices[:, 0], 0.1), 1]
        row = rows[rows["k"] == 0.1].iloc[0]
        assert (at.min(), at.max()) == pytest.approx((row["low"], row["high"]))
    assert "random heads" in [t.get_text() for t in ax.get_legend().get_texts()]
    assert len(plot_faithfulness(frame).get_legend().get_texts()) == 2
    with pytest.raises(ValueError, match=r"outside \(0, 1\]"):
        plot_faithfulness(frame.assign(k=frame["k"] * 30))
    with pytest.raises(ValueError, match="'kind'"):
        plot_faithfulness(frame.drop(columns="kind"))


# Attention


def test_attention_prints_every_share_legibly():
    share = np.array([[0.1, 0.9, 0.0], [0.25, np.nan, 0.5]])
    ax = plot_head_attention(share, ["12.3", "7.1"], ["prime verb", "target verb", "BOS"], query="the last token")
    assert sorted(t.get_text() for t in ax.texts) == ["0.00", "0.10", "0.25", "0.50", "0.90"]
    for text in ax.texts:
        column, row = text.get_position()
        assert f"{share[int(row), int(column)]:.2f}" == text.get_text()
        ground, ink = (
            np.array(c[:3]) @ [0.299, 0.587, 0.114]
            for c in (RISING(share[int(row), int(column)]), to_rgba(text.get_color()))
        )
        assert abs(ground - ink) > 0.4, "the number must stand out from its cell"
    assert [t.get_text() for t in ax.get_yticklabels()] == ["12.3", "7.1"] and ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["prime verb", "target verb", "BOS"]
    assert "from the last token" in ax.get_xlabel()
    mesh = next(c for c in ax.collections if isinstance(c, QuadMesh))
    assert (mesh.norm.vmin, mesh.norm.vmax) == (0, 1)
    with pytest.raises(ValueError, match="expected 0 to 1"):
        plot_head_attention(2 * share, ["a", "b"], ["c", "d", "e"])
    with pytest.raises(ValueError, match="3 names"):
        plot_head_attention(share, ["a", "b", "c"], ["c", "d", "e"])


def test_settings_and_foreign_axes_are_left_alone(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("a view called show()"))
    frame, band = curves()
    draw = [
        lambda ax: plot_head_map(effects(), significant=effects() > 1, ax=ax),
        lambda ax: plot_head_scatter(np.arange(4.0), np.arange(4.0) ** 2, head="1.2", ax=ax),
        lambda ax: plot_faithfulness(frame, random=band, ax=ax),
        lambda ax: plot_head_attention(np.full((2, 2), 0.5), ["a", "b"], ["c", "d"], ax=ax),
        lambda ax: plot_circuit(
            pd.DataFrame({"name": ["a", "b"], "layer": [0, 1], "role": ["x", "x"]}),
            pd.DataFrame({"source": ["a"], "target": ["b"], "effect": [0.5]}),
            ax=ax,
        ),
    ]
    before = dict(mpl.rcParams)
    for view in draw:
        own = Figure().add_subplot()
        assert view(own) is own
    assert plt.get_fignums() == [], "drawing on a given Axes must not open another figure"
    for view in draw:
        view(None)
    assert len(plt.get_fignums()) == len(draw)
    assert dict(mpl.rcParams) == before
