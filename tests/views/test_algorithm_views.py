"""Pictures of algorithms beside a model: what is drawn, how it is told apart without colour, what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mechicl.views.algorithms import plot_algorithm_fit, plot_conditions, plot_interpolation, plot_lines, plot_probes


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def legend_of(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def line_of(ax, label):
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line


FIT = pd.DataFrame(
    {
        "family": ["newton", "gradient_descent", "least_squares"],
        "steps": [3.0, 1.0, np.nan],
        "score": [0.1, 1e-30, 200.0],
        "low": [0.05, 1e-31, 100.0],
        "high": [0.2, 1e-29, 300.0],
        "task_error": [0.3, 0.5, 0.0],
    }
)


def test_the_nearest_algorithm_is_on_top_and_extremes_stay_inside() -> None:
    ax = plot_algorithm_fit(FIT, model_error=0.4)
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["least squares", "newton, 3 steps", "gradient descent, 1 step"]
    score = line_of(ax, "distance to the model")
    np.testing.assert_allclose(score.get_xdata(), [3.0, 0.1, 1e-6])
    task = line_of(ax, "error on the task")
    np.testing.assert_allclose(task.get_xdata(), [1e-6, 0.3, 0.5])
    assert score.get_marker() != task.get_marker() and task.get_markerfacecolor() == "white"
    assert line_of(ax, "model's error on the task").get_xdata()[0] == 0.4
    low, high = ax.get_xlim()
    assert low < 1e-6 and high > 3 and ax.get_xscale() == "log"
    with pytest.raises(ValueError, match="task_error"):
        plot_algorithm_fit(FIT.drop(columns="task_error"))


def test_conditions_are_marks_with_intervals_the_first_filled() -> None:
    frame = pd.DataFrame(
        {"condition": ["model", "untrained"], "estimate": [0.9, np.nan], "low": [0.8, np.nan], "high": [1.0, np.nan]}
    )
    ax = plot_conditions(frame, label="Cosine")
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert float(marks[0].get_xdata()[0]) == 0.9
    assert marks[0].get_markerfacecolor() != "white" == marks[1].get_markerfacecolor()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["model", "untrained"]
    assert [text.get_text() for text in ax.texts] == ["0.900", "n/a"]
    assert ax.get_xlabel() == "Cosine"
    np.testing.assert_allclose(ax.collections[0].get_segments()[0], [[0.8, 1], [1.0, 1]])


def test_lines_are_told_apart_by_marks_and_styles() -> None:
    frame = pd.DataFrame(
        {"n": [1, 2, 1, 2], "error": [1.0, 0.5, 0.8, 0.2], "who": ["a", "a", "b", "b"], "low": 0.1, "high": 1.0}
    )
    own = plt.subplots()[1]
    before = dict(plt.rcParams)
    ax = plot_lines(frame, x="n", y="error", by="who", x_label="n", y_label="error", ax=own)
    assert ax is own and dict(plt.rcParams) == before
    np.testing.assert_allclose(line_of(ax, "b").get_ydata(), [0.8, 0.2])
    assert legend_of(ax) == ["a", "b"]
    assert len({(line.get_marker(), line.get_linestyle()) for line in ax.lines}) == 2
    logarithmic = plot_lines(frame, x="n", y="error", by="who", x_label="n", y_label="error", log=True)
    assert ax.get_yscale() == "linear" and logarithmic.get_yscale() == "log"
    many = pd.concat([frame.assign(who=str(i)) for i in range(7)])
    with pytest.raises(ValueError, match="at most 6"):
        plot_lines(many, x="n", y="error", by="who", x_label="n", y_label="error")


def test_the_way_between_weights_stands_beside_its_controls() -> None:
    frame = pd.DataFrame(
        {"share": [0.0, 1.0], "half_mse": [0.2, 0.21], "low": 0.1, "high": 0.3, "unscaled": 0.2, "random": [0.2, 0.9]}
    )
    ax = plot_interpolation(frame)
    np.testing.assert_allclose(line_of(ax, "trained to random").get_ydata(), [0.2, 0.9])
    np.testing.assert_allclose(line_of(ax, "trained to hand-made").get_ydata(), [0.2, 0.21])
    assert ax.get_ylim()[0] == 0 and len(legend_of(ax)) == 3


def test_probes_have_a_line_a_layer_and_a_ring_at_the_best_step() -> None:
    rows = [
        ("newton", layer, steps, r2, -0.01)
        for layer, values in ((0, (0.0, 0.01)), (1, (0.9, 0.4)))
        for steps, r2 in zip((1, 2), values, strict=True)
    ]
    frame = pd.DataFrame(rows, columns=["target", "layer", "steps", "r2", "untrained"]).assign(low=0.0, high=1.0)
    ax = plot_probes(frame)
    assert legend_of(ax) == ["embedding", "layer 1", "untrained, last layer"]
    np.testing.assert_allclose(line_of(ax, "layer 1").get_ydata(), [0.9, 0.4])
    rings = [line for line in ax.lines if line.get_markersize() == 10]
    assert [(float(ring.get_xdata()[0]), float(ring.get_ydata()[0])) for ring in rings] == [(1, 0.9)]  # none on nothing
    assert "untrained, last layer" not in legend_of(plot_probes(frame.assign(untrained=np.nan)))
    with pytest.raises(ValueError, match="newton"):
        plot_probes(frame, target="ridge")
