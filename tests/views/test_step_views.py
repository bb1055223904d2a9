"""Pictures of gradient steps hold the numbers they are given, legibly; nothing global changes."""

from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.text import Text

from mechicl.views.steps import plot_item_match, plot_training

FORMS = ("PD", "DO")


@pytest.fixture(autouse=True)
def _agg():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def match(n_verbs: int = 6, baseline: str = "neutral") -> Any:
    rng = np.random.default_rng(0)
    verbs = [f"verb{i}" for i in range(n_verbs)]
    items = pd.concat(
        [pd.DataFrame({"prime_verb": np.repeat(verbs, 5), "form": form,
                       "context_effect": rng.normal(1, 0.5, 5 * n_verbs),
                       "gradient_effect": rng.normal(0.1, 0.05, 5 * n_verbs)}) for form in FORMS]
    )  # fmt: skip
    levels = ["items", "within targets", "beyond verb and target", "between verbs"]
    matches = pd.DataFrame(
        [(form, level, 0.5 + 0.1 * i, 0.31, 0.92) for form in FORMS for i, level in enumerate(levels)],
        columns=["form", "level", "r", "low", "high"],
    )
    return SimpleNamespace(items=items, matches=matches, baseline=baseline)


def trained(worse: int = 1, steps: int = 1) -> Any:
    rng = np.random.default_rng(1)
    training = pd.DataFrame({"context": np.repeat([*FORMS, "neutral"], 8), "loss_before": rng.uniform(3, 4, 24)})
    training["loss_after"] = training["loss_before"] - 0.5
    training.loc[: worse - 1, "loss_after"] += 0.9
    return SimpleNamespace(training=training, steps=steps, learning_rate=0.03)


def drawn(ax: Any, start: str) -> list[np.ndarray]:
    return [line.get_xydata() for line in ax.lines if line.get_label().startswith(start)]


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_item_and_the_means_of_verbs_are_drawn() -> None:
    result = match()
    ax = plot_item_match(result)
    for i, form in enumerate(FORMS):
        own = result.items[result.items["form"] == form]
        columns = ["gradient_effect", "context_effect"]
        np.testing.assert_array_equal(drawn(ax, "_items")[i], own[columns].to_numpy())
        np.testing.assert_allclose(drawn(ax, form)[0], own.groupby("prime_verb")[columns].mean().to_numpy())
    items, means = (next(line for line in ax.lines if line.get_label().startswith(s)) for s in ("_items", "PD"))
    assert means.get_markersize() > 2 * items.get_markersize() and means.get_zorder() > items.get_zorder()
    assert "gradient steps" in ax.get_xlabel() and "in context" in ax.get_ylabel()
    assert all("(nats)" in label and "a neutral prime" in label for label in (ax.get_xlabel(), ax.get_ylabel()))
    assert "from no prime" in plot_item_match(match(baseline="unprimed")).get_xlabel()


def test_the_legend_has_r_of_items_and_of_verbs() -> None:
    texts = legend(plot_item_match(match()))
    assert texts == [f"{form} primes: r of items 0.50 [0.31, 0.92],\nr of verbs 0.80 [0.31, 0.92]" for form in FORMS]
    result = match()
    result.matches[["low", "high"]] = np.nan
    assert "r of items 0.50,\nr of verbs 0.80" in legend(plot_item_match(result))[0]
    result.matches = result.matches.iloc[:0]
    assert legend(plot_item_match(result)) == ["PD primes", "DO primes"]


def test_forms_are_told_apart_without_colour() -> None:
    lines = [line for line in plot_item_match(match()).lines if line.get_label().startswith(FORMS)]
    assert len({line.get_marker() for line in lines}) == 2
    lines = [line for line in plot_training(trained()).lines if " primes" in str(line.get_label())]
    assert len({line.get_marker() for line in lines}) == 3


def test_losses_stand_over_losses_with_the_line_of_no_change() -> None:
    result = trained(worse=2, steps=3)
    ax = plot_training(result)
    for context, own in result.training.groupby("context"):
        np.testing.assert_array_equal(drawn(ax, str(context))[0], own[["loss_before", "loss_after"]].to_numpy())
    (line,) = drawn(ax, "no change")
    np.testing.assert_array_equal(line[:, 0], line[:, 1])
    values = result.training[["loss_before", "loss_after"]].to_numpy()
    assert (line.min(), line.max()) == (values.min(), values.max())
    assert legend(ax) == ["PD primes: 25% with a higher loss", "DO primes: 0% with a higher loss",
                          "neutral primes: 0% with a higher loss", "no change"]  # fmt: skip
    assert ax.get_ylabel() == "Loss after 3 steps, learning rate 0.03"
    assert "one step" in plot_training(trained()).get_ylabel()


@pytest.mark.parametrize(("view", "result"), [(plot_item_match, match()), (plot_training, trained())])
def test_axes_are_used_and_settings_kept(view: Any, result: Any) -> None:
    before = dict(mpl.rcParams)
    figure = Figure(figsize=(6, 5), layout="constrained")
    ax = figure.subplots()
    assert view(result, ax=ax) is ax and not plt.get_fignums()
    assert dict(mpl.rcParams) == before
    assert view(result).figure is not figure and len(plt.get_fignums()) == 1
    figure.draw_without_rendering()
    shown = [ax.xaxis.label, ax.yaxis.label, *ax.get_legend().get_texts()]
    frame = figure.bbox
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 and b.y1 <= frame.y1
               for b in map(Text.get_window_extent, shown))  # fmt: skip
    # The legend lies above the points.
    bottom = ax.get_legend().get_window_extent().y0
    lines = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) > 2]
    points = ax.transData.transform(np.concatenate(lines))
    assert points[:, 1].max() <= bottom + 1


def test_what_cannot_be_drawn_is_refused() -> None:
    result = match()
    result.items = result.items.drop(columns="context_effect")
    with pytest.raises(ValueError, match="`items` without the columns"):
        plot_item_match(result)
    result = match()
    result.items["context_effect"] = np.nan
    with pytest.raises(ValueError, match="no item with finite effects"):
        plot_item_match(result)
    tuned = trained()
    tuned.training = tuned.training.drop(columns="loss_after")
    with pytest.raises(ValueError, match="`training` without the columns"):
        plot_training(tuned)
    tuned = trained()
    tuned.training["loss_after"] = np.inf
    with pytest.raises(ValueError, match="no prime with finite losses"):
        plot_training(tuned)


def test_items_without_a_value_are_left_out() -> None:
    result = match()
    result.items.iloc[0, result.items.columns.get_loc("gradient_effect")] = np.nan
    assert len(drawn(plot_item_match(result), "_items")[0]) == 29
