"""Pictures of the Bayesian account: what the results hold is what is drawn, and what they lack is not."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.quiver import Quiver

from mechicl.strategies.posterior_odds import OddsParameters, OddsTerms
from mechicl.strategies.vector_field import strategy_field
from mechicl.views import strategies as views

STEPS, DIVERSITIES = np.array([1.0, 16.0, 49.0, 100.0, 169.0, 256.0]), np.array([4.0, 8.0, 16.0, 64.0])
SHAPE = (2, len(STEPS), len(DIVERSITIES))


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


@pytest.fixture
def fit() -> Any:
    rng = np.random.default_rng(0)
    advantage = np.broadcast_to(0.8 / np.sqrt(DIVERSITIES), (2, 4)).copy()
    terms = OddsTerms(STEPS, DIVERSITIES, advantage, 512 * np.tile(DIVERSITIES, (2, 1)), np.full((2, 4), 300.0))
    estimate = OddsParameters(0.4, 0.25, 0.6)
    kept = np.array([False, True, True, True, True, True])
    fitted = np.zeros(SHAPE[1:], dtype=bool)
    fitted[1:4, :3] = True
    d_rel, predicted, residual = rng.uniform(size=(3, *SHAPE))
    d_rel[:, 2:, 0], d_rel[:, 1:, 3] = 0.9, 0.1  # so that the line of .5 lies somewhere
    d_rel[1, 3, 2] = np.nan
    return SimpleNamespace(
        terms=terms,
        estimate=estimate,
        kept=kept,
        fitted=fitted,
        d_rel=d_rel,
        predicted=predicted,
        residual=residual,
        log_odds=terms.log_odds(estimate),
        best_log_odds=rng.normal(size=SHAPE),
    )


def meshes(ax: Any) -> list[Any]:
    return [artist for artist in ax.collections if isinstance(artist, QuadMesh)]


def drawn(ax: Any, label: str) -> Any:
    (line,) = [line for line in ax.lines if line.get_label() == label]
    return line


def test_maps_hold_means_over_seeds(fit: Any) -> None:
    fit.d_rel[:, 4, 1] = np.nan  # both seeds
    ax = views.plot_strategy_fit(fit)
    other = ax.figure.axes[1]
    for panel, values in ((ax, fit.d_rel), (other, fit.predicted)):
        (mesh,) = meshes(panel)
        expected = np.ma.masked_invalid([[np.mean([v for v in values[:, i, j] if v == v] or [np.nan])
                                          for i in range(6)] for j in range(4)])  # fmt: skip
        np.testing.assert_allclose(mesh.get_array().filled(-1), expected.filled(-1))
        assert mesh.get_clim() == (0, 1)
    assert meshes(ax)[0].get_array()[1, 4] is np.ma.masked
    (residual,) = meshes(views.plot_residual_map(fit))
    np.testing.assert_allclose(residual.get_array(), fit.residual.mean(0).T)
    (half,) = meshes(views.plot_phase_diagram(fit, predicted=True))
    np.testing.assert_allclose(half.get_array(), fit.predicted.mean(0).T)


def test_the_line_goes_around_fitted_cells_and_hatches_over_what_was_left_out(fit: Any) -> None:
    ax = views.plot_phase_diagram(fit)
    x = (np.sqrt(STEPS)[1:] + np.sqrt(STEPS)[:-1]) / 2
    y = (np.log2(DIVERSITIES)[1:] + np.log2(DIVERSITIES)[:-1]) / 2
    (outline,) = [a for a in ax.collections if isinstance(a, LineCollection) and a.get_label() == "fitted inside"]
    points = np.concatenate(outline.get_segments())
    ends = np.sqrt(points[:, 0]).min(), np.sqrt(points[:, 0]).max(), np.log2(points[:, 1]).min()
    np.testing.assert_allclose(ends, (x[0], x[3], 1.5), atol=1e-9)  # the first diversity's cell begins at 2^1.5
    np.testing.assert_allclose(np.log2(points[:, 1]).max(), y[2])
    assert len(outline.get_segments()) == 3 + 3 + 3 + 3
    (hatched,) = [p for p in ax.patches if isinstance(p, Rectangle) and p.get_label() == "before the threshold"]
    np.testing.assert_allclose(hatched.get_x() + hatched.get_width(), x[0] ** 2)
    fit.kept[:], fit.fitted[:] = True, False
    plain = views.plot_phase_diagram(fit)
    labels = {a.get_label() for a in (*plain.patches, *plain.collections)}
    assert not labels & {"before the threshold", "fitted inside"}


def test_pictures_go_where_they_are_told_and_change_nothing_else(fit: Any) -> None:
    before = dict(mpl.rcParams)
    figure = Figure()
    places = figure.add_subplot(2, 1, 1), figure.add_axes((0.1, 0.1, 0.8, 0.3))
    for ax in places:
        assert views.plot_strategy_fit(fit, ax=ax) is ax
    right = figure.axes[-2].get_position()  # of the second picture; its colour bar comes last
    assert places[1].get_position().x1 < right.x0 and right.x1 <= 0.9 + 1e-9
    assert dict(mpl.rcParams) == before and not plt.get_fignums()


def test_transience_shows_means_and_where_the_model_was_fitted(fit: Any) -> None:
    ax = views.plot_transience(fit, diversities=(8, 64))
    marks = drawn(ax, "D = 8")
    np.testing.assert_allclose(marks.get_xdata(), STEPS[1:])
    np.testing.assert_allclose(marks.get_ydata(), fit.d_rel[:, 1:, 1].mean(0))
    solid, dashed, never, held_out = [line for line in ax.lines if line.get_label() == "_model"]
    model = fit.predicted.mean(0)
    shown = np.isfinite(solid.get_ydata())
    assert shown.tolist() == [False, True, True, True, False, False] and solid.get_linestyle() == "-"
    np.testing.assert_allclose(solid.get_ydata()[shown], model[1:4, 1])
    assert np.isfinite(dashed.get_ydata()).tolist() == [False, False, False, True, True, True]
    assert not np.isfinite(never.get_ydata()).any() and held_out.get_linestyle() == "--"
    np.testing.assert_allclose(held_out.get_ydata()[1:], model[1:, 3])
    with pytest.raises(ValueError, match="Got the diversity 5, expected some of 4, 8, 16, 64"):
        views.plot_transience(fit, diversities=(5,))


@pytest.mark.parametrize("against", ["steps", "scaled", "odds"])
def test_what_d_rel_is_drawn_over(fit: Any, against: str) -> None:
    ax = views.plot_collapse(fit, against=against, diversities=(16,))
    x = {"steps": STEPS, "scaled": STEPS**0.6}.get(against, STEPS)[1:]
    expected = fit.log_odds[:, 1:, 2] if against == "odds" else np.tile(x, (2, 1))
    marks = drawn(ax, "D = 16")
    np.testing.assert_allclose(marks.get_xdata(), expected.ravel())
    np.testing.assert_allclose(marks.get_ydata(), fit.d_rel[:, 1:, 2].ravel())
    with pytest.raises(ValueError, match="Got 'time', expected one of: steps, scaled, odds"):
        views.plot_collapse(fit, against="time")


def test_odds_are_prior_and_evidence(fit: Any) -> None:
    ax = views.plot_posterior_odds(fit, diversities=(8,))
    prior, evidence, posterior = [line.get_ydata() for line in ax.lines if line.get_label() == "_part"]
    np.testing.assert_allclose(prior, -np.log(2) * ((512 * 8.0) ** 0.25 - 300.0**0.25))
    np.testing.assert_allclose(evidence, 0.6 * STEPS**0.6 * 0.8 / np.sqrt(8))
    np.testing.assert_allclose(posterior, prior + evidence)
    np.testing.assert_allclose(drawn(ax, "D = 8").get_ydata()[1:], fit.best_log_odds[:, 1:, 1].mean(0))
    fit.best_log_odds[:, 2, 1] = 30.0, 25.0  # one strategy has all of the weight
    marks = drawn(views.plot_posterior_odds(fit, diversities=(8,)), "D = 8").get_ydata()
    assert np.isnan(marks).tolist() == [True, False, True, False, False, False]


def test_losses_stand_beside_those_of_both_strategies() -> None:
    losses = pd.DataFrame({"seed": [0, 0, 1, 1], "step": [1.0, 100.0] * 2, "diversity": 8.0})
    losses = losses.assign(loss=[2.0, 1.0, 2.2, 1.2], fresh_loss=[2.4, 1.6, 2.4, 1.8])
    levels = {"memorising": 0.9, "generalising": 1.4, "fresh_memorising": 5.0, "fresh_generalising": 1.3}
    strategies = pd.DataFrame({"seed": [0, 1], "diversity": 8.0} | {k: [v - 0.1, v + 0.1] for k, v in levels.items()})
    ax = views.plot_training(losses, strategies, diversity=8, unit="squared error")
    np.testing.assert_allclose(drawn(ax, "training tasks").get_ydata(), [2.1, 1.1])
    np.testing.assert_allclose(drawn(ax, "fresh tasks").get_ydata(), [2.4, 1.7])
    for label, level in (("memorising, training", 0.9), ("generalising, training", 1.4), ("generalising, fresh", 1.3)):
        np.testing.assert_allclose(drawn(ax, label).get_ydata(), level)
    assert "memorising, fresh" not in ax.get_legend_handles_labels()[1], "far above both curves"
    assert ax.get_ylabel() == "Loss (squared error)"
    with pytest.raises(ValueError, match="Got the diversity 9, expected one of 8"):
        views.plot_training(losses, strategies, diversity=9)
    with pytest.raises(ValueError, match="fresh_loss"):
        views.plot_training(losses.drop(columns="fresh_loss"), strategies, diversity=8)


def test_the_diversity_threshold_is_that_of_one_checkpoint(fit: Any) -> None:
    for step, at in ((None, 5), (95.0, 3)):
        ax = views.plot_diversity_threshold(fit, step=step)
        np.testing.assert_allclose(drawn(ax, "transformers").get_ydata(), np.nanmean(fit.d_rel, axis=0)[at])
        np.testing.assert_allclose(drawn(ax, "model of training").get_ydata(), fit.predicted.mean(0)[at])
        assert ax.get_title(loc="left") == f"After {STEPS[at]:,.0f} steps"


def transition_frames(observed: list[float]) -> Any:
    times = pd.DataFrame({"diversity": DIVERSITIES, "predicted": [10.0, 40.0, 160.0, np.inf], "observed": observed})
    for kind in ("predicted", "observed"):
        times[f"{kind}_low"], times[f"{kind}_high"] = times[kind] / 2, times[kind] * 2
    rows = [("predicted", 2.0, 1.8, 2.2), ("observed", np.nan, np.nan, np.nan)]
    return SimpleNamespace(times=times, scaling=pd.DataFrame(rows, columns=["time", "slope", "low", "high"]))


def test_transition_times_are_drawn_where_there_are_any() -> None:
    ax = views.plot_transitions(transition_frames([np.nan, 44.0, 150.0, np.nan]))
    predicted = drawn(ax, "predicted: exponent 2.00 [1.80, 2.20]")
    np.testing.assert_allclose(predicted.get_ydata(), [10, 40, 160])
    np.testing.assert_allclose(np.transpose(drawn(ax, "observed").get_data()), [[8, 44], [16, 150]])
    np.testing.assert_allclose(drawn(ax, "in proportion to D").get_ydata(), [10, 20, 40])
    assert ax.get_xscale() == ax.get_yscale() == "log" and len(ax.get_legend_handles_labels()[1]) == 3
    with_model = transition_frames([np.nan, 44.0, 150.0, np.nan])
    with_model.times["modelled"] = [np.nan, 42.0, 170.0, np.nan]
    np.testing.assert_allclose(
        drawn(views.plot_transitions(with_model), "d_rel of the model at .5").get_ydata(), [np.nan, 42, 170, np.nan]
    )
    none = views.plot_transitions(transition_frames([np.nan] * 4))
    assert drawn(none, "observed: at no diversity").get_xdata().size == 0
    nothing = transition_frames([np.nan] * 4)
    nothing.times["predicted"] = np.nan
    views.plot_transitions(nothing).figure.draw_without_rendering()  # a log axis would find nothing to show


def test_ablations_and_what_they_are_to_be_compared_with() -> None:
    table = pd.DataFrame({"ablation": ["model", "alpha = 0", "beta = 1"], "held_out_loss": [0.01, 0.02, 0.5]})
    table = table.assign(held_out_excess_low=[0, 0.005, 0.4], held_out_excess_high=[0, 0.015, 0.6],
                         held_out_d_rel=[0.99, 0.9, np.nan])  # fmt: skip
    frame = SimpleNamespace(to_frame=lambda: table)
    baselines = pd.DataFrame({"baseline": ["constant", "model", "free"], "held_out_loss": [0.3, 0.01, 0.005]})
    ax = views.plot_ablations(frame, baselines=baselines)
    points = [line for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose([line.get_xdata()[0] for line in points], table["held_out_loss"])
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True, True]
    bars = next(a for a in ax.collections if isinstance(a, LineCollection))
    np.testing.assert_allclose(np.array(bars.get_segments())[:, :, 0], [[0.015, 0.025], [0.41, 0.61]])
    assert drawn(ax, "one weight for all cells").get_xdata()[0] == 0.3 and ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.texts] == ["0.99", "0.90", "n/a", "r of d_rel"]
    only_fitted = table.rename(columns=lambda name: name.replace("held_out", "fitted"))
    assert "fitted cells" in views.plot_ablations(SimpleNamespace(to_frame=lambda: only_fitted)).get_xlabel()


def test_arrows_point_to_where_odds_grow(fit: Any) -> None:
    field = strategy_field(fit.terms, fit.estimate)
    ax = views.plot_vector_field(field)
    (arrows,) = [artist for artist in ax.collections if isinstance(artist, Quiver)]
    along, across, at = (np.reshape(values, (4, -1)) for values in (arrows.U, arrows.V, arrows.X))
    at = np.searchsorted(STEPS, at[0])
    assert {0, len(STEPS) - 1} <= set(at)
    by_step, by_diversity = field.by_log_step[at].T, field.by_log_diversity[at].T
    np.testing.assert_allclose(along * by_diversity, across * by_step, atol=1e-12)
    size = np.hypot(by_step, by_diversity)
    np.testing.assert_allclose(np.hypot(along, across), np.sqrt(size / size.max()))
    assert (along > 0).all() and (across < 0).all(), "longer training and fewer tasks speak for memorising"
    np.testing.assert_allclose(meshes(ax)[0].get_array(), 1 / (1 + np.exp(-fit.log_odds.mean(0).T)))
