"""Pictures of implicit updates: what is drawn, how it is told apart without colour, what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from mechicl.views.dual import (
    plot_demo_shares,
    plot_error_scatter,
    plot_sizes_by_layer,
    plot_spectra,
    plot_update_map,
)


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def legend_of(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_map_has_a_cell_a_head_and_begins_at_zero() -> None:
    values = np.array([[0.0, 1.5, np.nan], [0.2, 0.1, 0.4]])
    ax = plot_update_map(values)
    (mesh,) = [c for c in ax.collections if isinstance(c, QuadMesh)]
    np.testing.assert_array_equal(np.ma.filled(mesh.get_array(), np.nan).reshape(2, 3), values)
    assert mesh.get_clim() == (0, 1.5)
    shares = plot_update_map(values[1:], measure="alpha")
    (mesh,) = [c for c in shares.collections if isinstance(c, QuadMesh)]
    assert mesh.get_clim() == (0, 1)  # attention is a share of 1
    assert plot_update_map(np.zeros((1, 2))).has_data()
    with pytest.raises(ValueError, match="expected sizes"):
        plot_update_map(np.array([[-1.0]]))


def test_spectra_are_shares_of_the_largest() -> None:
    ax = plot_spectra(np.array([[4.0, 2.0, 1.0], [1.0, 0.0, 0.0]]), ["0.0", "0.1"])
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines], [[1, 0.5, 0.25], [1, 0, 0]])
    assert legend_of(ax) == ["head 0.0", "head 0.1"]
    assert len({(line.get_marker(), line.get_linestyle()) for line in ax.lines}) == 2
    assert plot_spectra(np.ones((20, 3)), [str(i) for i in range(20)]).get_legend() is None
    assert plot_spectra(np.zeros((1, 3)), ["none"]).has_data()
    with pytest.raises(ValueError, match="one name each"):
        plot_spectra(np.ones((2, 3)), ["0.0"])


def test_shares_are_bars_with_intervals_and_those_below_zero_are_hatched() -> None:
    share = np.array([0.7, 0.5, -0.2])
    ax = plot_demo_shares(share, share - 0.1, share + 0.1, names=["a", "b", "c"], head="1.2")
    bars = ax.patches
    np.testing.assert_allclose([bar.get_height() for bar in bars], share)
    assert [bar.get_hatch() or "" for bar in bars] == ["", "", "////"] and "head 1.2" in ax.get_ylabel()
    segments = ax.collections[0].get_segments()
    np.testing.assert_allclose([s[:, 1] for s in segments], np.stack([share - 0.1, share + 0.1], 1))
    with pytest.raises(ValueError, match="as many"):
        plot_demo_shares(share, share, share, names=["a"])


def test_sizes_by_layer_have_a_line_a_kind() -> None:
    ax = plot_sizes_by_layer({"residual": np.array([0.1, 0.3]), "attention": np.array([0.0, 0.2])})
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines], [[0.1, 0.3], [0.0, 0.2]])
    assert legend_of(ax) == ["residual", "attention"] and ax.get_ylim()[0] == 0


def test_the_scatter_has_verbs_as_marks_and_a_line_a_form() -> None:
    rows = [
        {"verb": verb, "form": form, "error": error + shift, "icl": 2 * (error + shift) + (form == "DO")}
        for verb, error in (("give", 0.2), ("send", 0.9), ("throw", 1.4))
        for form in ("PD", "DO")
        for shift in (-0.1, 0.1)
    ]
    own = ax = plt.subplots()[1]
    before = dict(plt.rcParams)
    assert plot_error_scatter(pd.DataFrame(rows), "icl", slope=(2.0, 1.9, 2.1), ax=ax) is own
    assert dict(plt.rcParams) == before
    lines = {line.get_label(): line for line in ax.lines}
    np.testing.assert_allclose(sorted(lines["primes"].get_xdata()), sorted(row["error"] for row in rows))
    points = [line for line in ax.lines if line.get_label() == "_points"]
    np.testing.assert_allclose([p.get_xdata() for p in points], [[0.2, 0.9, 1.4]] * 2)
    np.testing.assert_allclose(points[1].get_ydata() - points[0].get_ydata(), 1)
    drawn = [line for line in ax.lines if line.get_label() == "_line"]
    for line in drawn:
        np.testing.assert_allclose(np.polyfit(line.get_xdata(), line.get_ydata(), 1)[0], 2)
    assert legend_of(ax)[-1] == "slope within forms 2.000 [1.900, 2.100]"
    assert "DO primes, verbs" in legend_of(ax)
    with pytest.raises(ValueError, match=r"without the columns \['icl'\]"):
        plot_error_scatter(pd.DataFrame(rows).drop(columns="icl"), "icl")
    with pytest.raises(ValueError, match="no prime with finite"):
        plot_error_scatter(pd.DataFrame(rows).assign(icl=np.nan), "icl")
