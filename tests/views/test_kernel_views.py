"""Pictures of the kernel account: what the result holds is what is drawn, and wrong names are refused."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from mechicl.views.kernels import (
    plot_demo_attention,
    plot_head_kinds,
    plot_kernel_curves,
    plot_kernel_layers,
    plot_kernel_map,
    plot_rebuilt,
)

LAYERS, HEADS = 3, 4


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


@pytest.fixture
def result() -> Any:
    rng = np.random.default_rng(0)
    n = LAYERS * HEADS
    heads = pd.DataFrame({"layer": np.repeat(range(LAYERS), HEADS), "head": np.tile(range(HEADS), LAYERS)})
    heads["unique_r2"] = rng.uniform(-0.2, 0.9, n)
    heads["agreement_label"] = rng.uniform(0.3, 0.8, n)
    heads["recency"] = rng.uniform(-1, 1, n)
    heads["slope"] = rng.uniform(0.5, 3, n)
    heads["kernel"] = "rbf ask 1"
    heads["kind"] = ["constant", "kernel", "recency", "label"] * LAYERS
    heads.loc[0, ["unique_r2", "slope"]] = np.nan
    kernels = pd.DataFrame(
        [(kind, place, layer) for place in ("ask", "alone") for layer in range(LAYERS + 1) for kind in ("rbf", "dot")]
        + [("prediction", "alone", -1)],
        columns=["kind", "place", "layer"],
    )
    cells = rng.uniform(-0.5, 0.9, (LAYERS, HEADS, len(kernels)))
    cells[0, 0] = np.nan
    curves = pd.DataFrame({"layer": np.repeat([1, 2], 5), "head": np.repeat([1, 3], 5)})
    curves = curves.assign(
        kernel="rbf ask 1", log_kernel=rng.normal(size=10), log_attention=rng.normal(size=10), se=0.1
    )
    rebuilt = pd.DataFrame({"name": ["best head", "words", "majority"], "chosen": ["L1H1 sum", "scale 1", ""]})
    for name in ("agreement", "accuracy"):
        rebuilt[name] = rng.uniform(0.4, 0.9, 3)
        prefix = "accuracy_" if name == "accuracy" else ""
        rebuilt[f"{prefix}low"], rebuilt[f"{prefix}high"] = rebuilt[name] - 0.1, rebuilt[name] + 0.1
    rebuilt["chance"] = rng.uniform(0.4, 0.6, 3)
    return SimpleNamespace(
        task="toy", n_demos=8, heads=heads, kernels=kernels, r2=cells, unique_r2=cells / 2, curves=curves,
        rebuilt=rebuilt, named={"agreement": ((2, 3),), "kernel": ((1, 1), (2, 3))},
        accuracy={"estimate": 0.8, "low": 0.7, "high": 0.9, "chance": 0.5},
    )  # fmt: skip


def line(ax: Any, label: str) -> Any:
    return next(line for line in ax.lines if str(line.get_label()).startswith(label))


def texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def cells_of(ax: Any) -> Any:
    mesh = next(child for child in ax.collections if isinstance(child, QuadMesh))
    return np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(LAYERS, HEADS)


def test_maps_hold_the_heads(result: Any) -> None:
    ax = plot_kernel_map(result)
    expected = np.clip(result.heads["unique_r2"].to_numpy().reshape(LAYERS, HEADS), 0, 1)
    np.testing.assert_allclose(cells_of(ax), expected)
    kernel, votes = line(ax, "named for its kernel"), line(ax, "named for its votes")
    np.testing.assert_array_equal(kernel.get_xydata(), [[1, 1], [3, 2]])
    np.testing.assert_array_equal(votes.get_xydata(), [[3, 2]])
    assert {"1.1", "2.3"} <= {text.get_text() for text in ax.texts} and "no kernel" in texts(ax)


def test_agreement_is_centred_on_chance_and_recency_on_0(result: Any) -> None:
    for value, centre in (("agreement_label", 0.5), ("recency", 0.0)):
        ax = plot_kernel_map(result, value)
        low, high = next(c for c in ax.collections if isinstance(c, QuadMesh)).get_clim()
        assert (low + high) / 2 == pytest.approx(centre)
        np.testing.assert_allclose(cells_of(ax).ravel(), result.heads[value])


def test_a_map_without_effect_is_pale(result: Any) -> None:
    for largest, end in ((0.9, 0.9), (0.01, 0.1), (-0.2, 0.1)):
        result.heads["unique_r2"] = np.linspace(-0.5, largest, LAYERS * HEADS)
        mesh = next(c for c in plot_kernel_map(result).collections if isinstance(c, QuadMesh))
        assert mesh.get_clim() == pytest.approx((0.0, end))


def test_every_kind_is_drawn_and_counted(result: Any) -> None:
    ax = plot_head_kinds(result)
    boxes = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_width() == 1 and p.get_height() == 1]
    assert len(boxes) == 9, "constant heads have no colour"
    colours = {tuple(round(float(c), 3) for c in p.get_facecolor()) for p in boxes if p.get_x() == 0.5}
    assert len(colours) == 1, "one kind a column, one colour"
    assert "a kernel (3)" in texts(ax) and "all demonstrations alike (3)" in texts(ax)


@pytest.mark.parametrize("head", [None, (1, 2)])
def test_layers_hold_each_kind_of_kernel(result: Any, head: Any) -> None:
    ax = plot_kernel_layers(result, head, value="r2")
    rows = (result.kernels["kind"] == "dot") & (result.kernels["place"] == "alone")
    own = result.r2[1, 2] if head else np.nanmax(result.r2, axis=(0, 1))
    drawn = line(ax, "dot, text run alone")
    np.testing.assert_allclose(drawn.get_ydata(), np.clip(own[rows], 0, None))
    np.testing.assert_array_equal(drawn.get_xdata(), result.kernels["layer"][rows])
    assert line(ax, "predictions").get_ydata()[0] == pytest.approx(max(own[-1], 0))
    assert any(str(one.get_label()) == "input of L1H2" for one in ax.lines) == bool(head)


def test_curves_are_over_the_kernel_in_nats(result: Any) -> None:
    ax = plot_kernel_curves(result)
    rows = result.curves[result.curves["layer"] == 1].sort_values("log_kernel")
    slope = result.heads.set_index(["layer", "head"]).loc[(1, 1), "slope"]
    np.testing.assert_allclose(line(ax, "L1H1").get_xdata(), slope * rows["log_kernel"])
    np.testing.assert_allclose(line(ax, "L1H1").get_ydata(), rows["log_attention"])
    same = line(ax, "attention = kernel")
    np.testing.assert_allclose(same.get_xdata(), same.get_ydata())


def test_one_curve_has_its_slope_and_its_errors(result: Any) -> None:
    ax = plot_kernel_curves(result, (2, 3))
    rows = result.curves[result.curves["layer"] == 2].sort_values("log_kernel")
    np.testing.assert_allclose(line(ax, "L2H3").get_xdata(), rows["log_kernel"])
    x, y = line(ax, "slope").get_data()
    slope = result.heads.set_index(["layer", "head"]).loc[(2, 3), "slope"]
    assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(slope)
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(rows["log_attention"].max() + 0.2, abs=1e-9)


def test_rebuilt_answers_stand_beside_chance(result: Any) -> None:
    ax = plot_rebuilt(result)
    np.testing.assert_allclose(line(ax, "agreement with").get_xdata(), result.rebuilt["agreement"])
    drawn = next(one for one in ax.lines if one.get_label() == "accuracy")
    np.testing.assert_allclose(drawn.get_xdata(), result.rebuilt["accuracy"])
    chance = next(c for c in ax.collections if c.get_label() == "agreement by chance")
    np.testing.assert_allclose([segment[0, 0] for segment in chance.get_segments()], result.rebuilt["chance"])
    assert [label.get_text() for label in ax.get_yticklabels()][:2] == ["best head (L1H1 sum)", "words"]
    assert "accuracy of the model: 0.80 [0.70, 0.90]" in texts(ax)


def test_demonstrations_have_a_bar_each_in_their_labels_colour() -> None:
    shares = {"attention": np.array([0.5, 0.3, 0.2]), "kernel": np.array([0.4, 0.4, 0.2])}
    ax = plot_demo_attention(shares, ["a", "b", "a"], texts=["one", "two", "x" * 80], query="three", answer="a")
    by_row = {
        round(bar.get_y() + bar.get_height() / 2): bar for bar in ax.patches if bar.get_width() in (0.5, 0.3, 0.2)
    }
    np.testing.assert_allclose([by_row[i].get_width() for i in range(3)], shares["attention"])
    assert by_row[0].get_facecolor() == by_row[2].get_facecolor() != by_row[1].get_facecolor()
    np.testing.assert_allclose(line(ax, "kernel").get_xdata(), shares["kernel"])
    assert ax.get_title(loc="right").startswith("three")
    assert len(ax.get_yticklabels()[2].get_text()) < 60, "long texts are cut"


def test_wrong_names_are_refused(result: Any) -> None:
    for call, message in (
        (lambda: plot_kernel_map(result, "slop"), "'slop', expected one of"),
        (lambda: plot_kernel_map(result, "kernel"), "expected one of"),
        (lambda: plot_kernel_layers(result, value="p"), "expected 'unique_r2' or 'r2'"),
        (lambda: plot_kernel_layers(result, (9, 0)), "the model has 3 x 4"),
        (lambda: plot_kernel_curves(result, (0, 0)), "expected one with a curve"),
        (lambda: plot_demo_attention({"a": np.array([0.5, 0.6])}, ["x", "y"]), "expected 2 shares"),
        (lambda: plot_demo_attention({}, ["x", "y"]), "0 kinds of shares"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_without_any_kernel_there_is_no_curve(result: Any) -> None:
    result.curves = result.curves.iloc[:0]
    with pytest.raises(ValueError, match="no named head follows a kernel"):
        plot_kernel_curves(result)
