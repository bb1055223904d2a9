"""Pictures hold the data they are given: points, lines, intervals, names; nothing global changes."""

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from mechicl.labels import place_labels
from mechicl.views import estimand_label, plot_forest, plot_ife_scatter, plot_verb_effects

VERBS = ["bring", "draw", "find", "get", "give", "keep", "leave", "make", "send", "throw"]


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


@pytest.fixture
def result():
    rng = np.random.default_rng(3)
    n = len(VERBS)
    x = rng.uniform(0.1, 0.9, n)
    verbs = pd.DataFrame({"verb": VERBS, "bias": x, "bias_logit": np.log(x / (1 - x))})
    for form, start, slope in (("PD", 0.8, 0.0), ("DO", 0.6, -0.2), ("neutral", 0.7, -0.1)):
        verbs[f"y_{form}"] = start + slope * x + rng.normal(0, 0.02, n)
        verbs[f"L_{form}"] = np.log(verbs[f"y_{form}"] / (1 - verbs[f"y_{form}"]))
    rows = [
        {"scale": scale, "estimand": f"slope_{form}", "estimate": -0.25, "low": -0.375, "high": -0.125}
        for scale in ("probability", "logit")
        for form in ("PD", "DO", "neutral")
    ]
    effects = pd.DataFrame(
        [("PD vs DO", "nats", 1.1, 0.9, 1.3), ("PD vs DO", "probability", 0.2, 0.1, 0.3)],
        columns=["contrast", "scale", "estimate", "low", "high"],
    )
    estimate = rng.normal(1, 0.5, n)
    verb_effects = pd.DataFrame(
        {"verb": VERBS, "contrast": "PD vs DO", "scale": "nats", "estimate": estimate}
        | {"low": estimate - 0.7, "high": estimate + 0.9}
    )
    return SimpleNamespace(
        forms=("PD", "DO"),
        level=0.95,
        verbs=verbs,
        estimates=pd.DataFrame(rows),
        effects=effects,
        verb_effects=verb_effects,
    )


def points(ax, i):
    return [line for line in ax.lines if line.get_label() == "_points"][i]


def lines(ax):
    return [line for line in ax.lines if line.get_label() == "_line"]


@pytest.mark.parametrize(("scale", "x", "letter"), [("probability", "bias", "y"), ("logit", "bias_logit", "L")])
def test_scatter_draws_every_verb_and_the_least_squares_line(result, scale, x, letter):
    ax = plot_ife_scatter(result, scale=scale)
    for i, form in enumerate(result.forms):
        y = result.verbs[f"{letter}_{form}"].to_numpy()
        drawn = points(ax, i).get_xydata()
        np.testing.assert_array_equal(drawn, np.column_stack([result.verbs[x], y]))
        slope, intercept = np.polyfit(result.verbs[x], y, 1)
        ends = lines(ax)[i].get_xydata()[[0, -1]]
        np.testing.assert_allclose(ends[:, 0], [result.verbs[x].min(), result.verbs[x].max()])
        np.testing.assert_allclose(ends[:, 1], intercept + slope * ends[:, 0], atol=1e-12)
    assert sorted(t.get_text() for t in ax.texts) == sorted(VERBS)
    unit = "probability" if scale == "probability" else "nats"
    assert unit in ax.get_xlabel() and unit in ax.get_ylabel()
    assert "PD" in ax.get_xlabel() and "PD" in ax.get_ylabel()


def test_scatter_band_is_the_t_interval_of_the_mean(result):
    ax = plot_ife_scatter(result)
    x, y = result.verbs["bias"].to_numpy(), result.verbs["y_DO"].to_numpy()
    grid = lines(ax)[1].get_xdata()
    fit = sm.OLS(y, sm.add_constant(x)).fit()
    expected = fit.get_prediction(sm.add_constant(grid)).conf_int(alpha=0.05)
    bands = [
        c
        for c in ax.collections
        if hasattr(c, "get_paths") and to_rgba("#D55E00", 0.13) in map(tuple, c.get_facecolor())
    ]
    corners = bands[0].get_paths()[0].vertices
    for at, (low, high) in ((grid[0], expected[0]), (grid[-1], expected[-1])):
        here = corners[np.isclose(corners[:, 0], at), 1]
        assert here.min() == pytest.approx(low) and here.max() == pytest.approx(high)


def test_scatter_legend_gives_slopes_with_intervals(result):
    entries = [t.get_text() for t in plot_ife_scatter(result).get_legend().get_texts()]
    minus = "\N{MINUS SIGN}"
    numbers = f"slope {minus}0.250 [{minus}0.375, {minus}0.125]"
    assert entries == [f"{who} primes: {numbers}" for who in ("PD", "DO", "neutral")]


def test_scatter_falls_back_to_least_squares_intervals(result):
    table = result.estimates.assign(low=np.nan, high=np.nan, ols_low=-0.5, ols_high=0.5)
    ax = plot_ife_scatter(SimpleNamespace(**{**vars(result), "estimates": table}))
    assert "[\N{MINUS SIGN}0.500, 0.500]" in ax.get_legend().get_texts()[0].get_text()


def test_the_forms_differ_in_marker_filling_and_line_style_not_only_in_colour(result):
    ax = plot_ife_scatter(result)
    first, second = points(ax, 0), points(ax, 1)
    assert first.get_marker() != second.get_marker()
    assert first.get_markerfacecolor() != second.get_markerfacecolor()
    assert lines(ax)[0].get_linestyle() != lines(ax)[1].get_linestyle()
    luminance = [np.dot(to_rgba(line.get_color())[:3], [0.299, 0.587, 0.114]) for line in (first, second)]
    assert max(luminance) < 0.6, "a mark too pale to be seen on white paper"


def test_neutral_line_is_dotted_and_only_where_there_is_a_baseline(result):
    ax = plot_ife_scatter(result)
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert len(dotted) == 1
    slope, intercept = np.polyfit(result.verbs["bias"], result.verbs["y_neutral"], 1)
    x, y = dotted[0].get_xydata()[-1]
    assert y == pytest.approx(intercept + slope * x)
    without = SimpleNamespace(**{**vars(result), "verbs": result.verbs.assign(y_neutral=np.nan)})
    ax = plot_ife_scatter(without)
    assert not [line for line in ax.lines if line.get_linestyle() == ":"]
    assert len(ax.get_legend().get_texts()) == 2


def test_settings_and_foreign_axes_are_left_alone(result, monkeypatch):
    monkeypatch.setattr(plt, "show", lambda *a, **k: pytest.fail("a view called show()"))
    before = dict(mpl.rcParams)
    own = Figure().add_subplot()
    assert plot_ife_scatter(result, ax=own) is own
    own = Figure().add_subplot()
    assert plot_verb_effects(result, ax=own) is own
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == [], "drawing on a given Axes must not open another figure"
    plot_verb_effects(result)
    assert len(plt.get_fignums()) == 1


def test_the_interactive_mode_that_a_notebook_turns_on_with_the_first_figure_stays_on(result, monkeypatch):
    subplots = plt.subplots

    def as_in_a_notebook(*arguments, **options):
        mpl.interactive(True)
        return subplots(*arguments, **options)

    monkeypatch.setattr(plt, "subplots", as_in_a_notebook)
    before = mpl.rcParams["font.size"]
    try:
        plot_verb_effects(result)
        assert mpl.is_interactive(), "no later figure would show"
        assert mpl.rcParams["font.size"] == before
    finally:
        mpl.interactive(False)


def test_verb_effects_are_sorted_with_their_intervals(result):
    ax = plot_verb_effects(result)
    table = result.verb_effects.sort_values("estimate")
    assert [t.get_text() for t in ax.get_yticklabels()] == list(table["verb"])
    segments = next(c for c in ax.collections if c.get_label() == "_intervals").get_segments()
    for i, (low, high) in enumerate(zip(table["low"], table["high"], strict=True)):
        np.testing.assert_allclose(segments[i], [[low, i], [high, i]])
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    drawn = np.concatenate([line.get_xydata() for line in marks])
    np.testing.assert_allclose(drawn[np.argsort(drawn[:, 1]), 0], table["estimate"])
    filled = next(line for line in marks if line.get_markerfacecolor() != "white")
    np.testing.assert_array_equal(filled.get_ydata(), np.flatnonzero((table["low"] > 0) | (table["high"] < 0)))
    upright = {line.get_linestyle(): line.get_xdata()[0] for line in ax.lines if line.get_marker() == "None"}
    assert upright == {"-": 0, "--": 1.1}
    assert any("1.10 [0.90, 1.30]" in t.get_text() for t in ax.get_legend().get_texts())
    assert "nats" in ax.get_xlabel()


def test_forest_holds_every_model_and_estimand():
    rng = np.random.default_rng(0)
    models, estimands = ["small", "middle", "large"], ["slope_PD", "slope_DO", "common_shift", "pe_slope"]
    rows = [
        {"model": m, "scale": s, "estimand": e, "estimate": v, "low": v - 0.1, "high": v + 0.2}
        for m in models
        for s in ("probability", "logit")
        for e, v in zip(estimands, rng.normal(size=4), strict=True)
    ]
    comparison = SimpleNamespace(estimates=pd.DataFrame(rows))
    ax = plot_forest(comparison)
    assert [t.get_text() for t in ax.get_yticklabels()] == models
    marks = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    table = comparison.estimates.query("scale == 'probability'")
    assert len(marks) == 4 and len({m.get_marker() for m in marks}) == 4
    for mark, estimand in zip(marks, estimands, strict=True):
        np.testing.assert_allclose(mark.get_xdata(), table[table["estimand"] == estimand]["estimate"])
        assert mark.get_label() == estimand_label(estimand, ("PD", "DO"))
        np.testing.assert_array_equal(np.round(mark.get_ydata()), [0, 1, 2])
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first model stands on top"
    only = plot_forest(comparison, estimands=["slope_DO"], scale="logit")
    assert len([line for line in only.lines if line.get_marker() not in ("None", "")]) == 1
    assert "nats" in only.get_xlabel()
    with pytest.raises(ValueError, match="slope_X"):
        plot_forest(comparison, estimands=["slope_X"])


def test_unknown_scale_contrast_and_missing_columns_are_named(result):
    with pytest.raises(ValueError, match=r"'percent'.*probability, logit"):
        plot_ife_scatter(result, scale="percent")
    with pytest.raises(ValueError, match=r"PD vs neutral.*'PD vs DO' in nats"):
        plot_verb_effects(result, contrast="PD vs neutral")
    poor = SimpleNamespace(**{**vars(result), "verbs": result.verbs.drop(columns="y_DO")})
    with pytest.raises(ValueError, match="y_DO"):
        plot_ife_scatter(poor)


def box_of(label):
    return Text.get_window_extent(label)  # an Annotation's own extent would include its leader line


def overlaps(texts):
    boxes = [box_of(t) for t in texts]
    return sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def axes_with(points):
    ax = Figure(figsize=(6, 5), dpi=100).add_subplot()
    ax.plot(*points.T, "o")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    return ax


def test_labels_keep_clear_of_each_other_and_of_points():
    rng = np.random.default_rng(1)
    xy = np.column_stack([rng.uniform(0.1, 0.9, 40), rng.uniform(0.1, 0.9, 40)])
    xy[1:4] = xy[0] + [[0.01, 0], [0, 0.012], [0.008, 0.008]]  # a knot of four
    names = [f"verb{i}" for i in range(40)]
    ax = axes_with(xy)
    placed = place_labels(ax, xy[:, 0], [xy[:, 1]], names)
    assert sorted(t.get_text() for t in placed) == sorted(names)
    ax.figure.draw_without_rendering()
    assert overlaps(placed) == 0
    pixels = ax.transData.transform(xy)
    assert not any(box_of(t).contains(*p) for t in placed for p in pixels)
    frame = ax.get_window_extent()
    assert all(frame.x0 <= box_of(t).x0 and box_of(t).x1 <= frame.x1 for t in placed)
    # The control: names written straight on their points do collide, so the numbers above mean something.
    naive = axes_with(xy)
    plain = [naive.annotate(n, p, fontsize=7.5) for n, p in zip(names, xy, strict=True)]
    naive.figure.draw_without_rendering()
    assert overlaps(plain) > 3


def test_labels_skip_what_has_no_place():
    xy = np.array([[0.2, 0.2], [0.5, np.nan], [0.8, 0.8]])
    placed = place_labels(axes_with(xy), xy[:, 0], [xy[:, 1]], ["a", "b", "c"])
    assert sorted(t.get_text() for t in placed) == ["a", "c"]
