"""Pictures of updates hold the numbers they are given; nothing global changes."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import QuadMesh

from mechicl.views.updates import plot_update_map, plot_update_norms, plot_update_trajectory, plot_update_transfer


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def layers(scale: float = 1.0) -> pd.DataFrame:
    rows = [
        {"layer": layer, "matrix": matrix, "measure": measure, "estimate": size, "low": 0.9 * size, "high": 1.1 * size,
         "other": size / 2, "untrained": size / 3}
        for layer in range(4)
        for matrix, size in (("W_in", 0.1 + layer / 50), ("b_out", scale * (0.2 + layer / 50)))
        for measure in ("relative", "cosine")
    ]  # fmt: skip
    return pd.DataFrame(rows).sort_values(["matrix", "layer"], ascending=[True, False])


def steps() -> pd.DataFrame:
    rows = [
        {"item": item, "order": order, "position": i, "layer": layer, "matrix": "W_in", "relative": size / i + layer}
        for item in range(2)
        for layer in range(2)
        for order, size in (("own", 1.0), ("shuffled", 2.0))
        for i in range(1, 5)
    ]
    return pd.DataFrame(rows)


def line(ax, label: str) -> np.ndarray:
    return next(one.get_ydata() for one in ax.get_lines() if one.get_label() == label)


@pytest.mark.parametrize("control", ["other", "untrained"])
def test_norms_are_drawn_beside_their_control(control):
    ax = plot_update_norms(layers(), control=control)
    np.testing.assert_allclose(line(ax, "W_in"), 0.1 + np.arange(4) / 50)
    controls = [one.get_ydata() for one in ax.get_lines() if one.get_label() == "_control"]
    np.testing.assert_allclose(controls[0], (0.1 + np.arange(4) / 50) / (2 if control == "other" else 3))
    assert len(controls) == 2 and len(ax.collections) == 2
    assert ax.get_yscale() == "linear" and ax.get_xlabel() == "Layer"


def test_norms_far_apart_are_on_a_logarithmic_scale():
    assert plot_update_norms(layers(scale=1e5)).get_yscale() == "log"


def test_the_cosine_is_drawn_once():
    assert len([one for one in plot_update_norms(layers(), measure="cosine").get_lines() if len(one.get_ydata())]) == 2


def test_a_map_holds_a_cell_a_layer_and_token():
    values = np.arange(12.0).reshape(3, 4)
    values[1, 2] = np.nan
    ax = plot_update_map(values, ["A", " $x$", "\n", "b"], layers=[0, 2, 4], label="Step of W_in")
    mesh = next(one for one in ax.collections if isinstance(one, QuadMesh))
    drawn = np.ma.getdata(mesh.get_array()).reshape(3, 4)
    assert np.ma.getmaskarray(mesh.get_array()).reshape(3, 4)[1, 2]
    np.testing.assert_allclose(drawn[~np.isnan(values)], values[~np.isnan(values)])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "2", "4"]
    ax.figure.draw_without_rendering()  # a token with $ is no formula
    assert [t.get_text() for t in ax.get_xticklabels()][1:3] == [
        "\N{OPEN BOX}\\$x\\$",
        "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}",
    ]


def test_steps_are_means_over_items_and_layers():
    ax = plot_update_trajectory(steps())
    np.testing.assert_allclose(line(ax, "W_in"), 1 / np.arange(1, 5) + 0.5)
    np.testing.assert_allclose(line(ax, "_control"), 2 / np.arange(1, 5) + 0.5)


def test_transfer_has_a_bar_a_condition_and_its_interval():
    rows = [
        ("own", 0.5, 0.3, 0.7),
        ("other", -0.1, -0.3, 0.1),
        ("own - other", 0.6, 0.2, 1.0),
        ("random", 0, -0.1, 0.1),
    ]
    ax = plot_update_transfer(pd.DataFrame(rows, columns=["condition", "estimate", "low", "high"]))
    assert [bar.get_height() for bar in ax.patches] == [0.5, -0.1, 0]
    ends = sorted(tuple(part[:, 1]) for part in ax.collections[0].get_segments())
    assert ends == [(-0.3, 0.1), (-0.1, 0.1), (0.3, 0.7)]
    assert [t.get_text() for t in ax.texts] == ["0.50", "\N{MINUS SIGN}0.10", "0.00"]


def test_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match="measure 'angle'"):
        plot_update_norms(layers(), measure="angle")
    with pytest.raises(ValueError, match="without the columns"):
        plot_update_norms(layers(), control="third")
    with pytest.raises(ValueError, match="expected a match"):
        plot_update_map(np.zeros((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="expected norms"):
        plot_update_map(-np.ones((1, 1)), ["a"])
    with pytest.raises(ValueError, match="expected some of"):
        plot_update_transfer(pd.DataFrame({"condition": ["a"], "estimate": [0.0], "low": [0.0], "high": [0.0]}))


def test_axes_are_taken_and_settings_stay():
    before = dict(mpl.rcParams)
    ax = plt.subplots()[1]
    assert plot_update_norms(layers(), ax=ax) is ax and plot_update_trajectory(steps(), ax=plt.subplots()[1])
    assert dict(mpl.rcParams) == before
