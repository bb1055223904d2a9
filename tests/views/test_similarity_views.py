"""Pictures of the comparison with gradient descent: what the frame holds is what is drawn."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mechicl.views.similarity import plot_alignment, plot_item_effects

CONTROLS = ["random init", "shuffled labels", "random update"]


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


@pytest.fixture
def result() -> Any:
    rng = np.random.default_rng(0)
    rows = []
    for variant in ("key_value", "all"):
        for control in ("none", *CONTROLS):
            for layer in ("all", *map(str, range(6))):
                value = rng.uniform(-0.2, 0.6)
                rows.append((variant, "SimAOU", layer, control, value, value - 0.1, value + 0.1))
            value = rng.uniform(-0.2, 0.6)
            rows.append((variant, "effect correlation", "all", control, value, value - 0.2, value + 0.2))
    columns = ["variant", "measure", "layer", "control", "estimate", "low", "high"]
    items = pd.DataFrame(
        {
            "variant": np.repeat(["key_value", "all"], 12),
            "icl_effect": rng.normal(size=24),
            "tuned_effect": rng.normal(size=24),
            "label": np.tile(["positive", "negative"], 12),
        }
    )
    return SimpleNamespace(frame=pd.DataFrame(rows, columns=columns), items=items, level=0.95)


def drawn(ax: Any, label: str) -> Any:
    return next(line for line in ax.lines if str(line.get_label()).startswith(label))


def test_curves_are_the_frames(result: Any) -> None:
    ax = plot_alignment(result, variant="all")
    rows = result.frame[(result.frame["variant"] == "all") & (result.frame["measure"] == "SimAOU")]
    for name, control in [("fine-tuned on the demonstrations", "none"), *zip(CONTROLS, CONTROLS, strict=True)]:
        own = rows[(rows["control"] == control) & (rows["layer"] != "all")]
        np.testing.assert_allclose(drawn(ax, name).get_ydata(), own["estimate"])
        np.testing.assert_allclose(drawn(ax, name).get_xdata(), range(6), atol=0.3)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    whole = rows[(rows["control"] == "random init") & (rows["layer"] == "all")].iloc[0]
    assert any(f"{abs(whole['estimate']):.2f} [" in text for text in texts if text.startswith("random init"))
    assert len({(line.get_marker(), line.get_linestyle()) for line in ax.lines if len(line.get_xdata()) == 6}) == 4


def test_controls_can_be_chosen(result: Any) -> None:
    ax = plot_alignment(result, controls=["random update"])
    assert len(ax.get_legend().get_texts()) == 2
    with pytest.raises(ValueError, match="Got the control 'magic'"):
        plot_alignment(result, controls=["magic"])
    with pytest.raises(ValueError, match="Got the measure 'SimAM', expected one of"):
        plot_alignment(result, measure="SimAM")
    with pytest.raises(ValueError, match="Got the variant 'lora'"):
        plot_alignment(result, variant="lora")


def test_points_are_the_items(result: Any) -> None:
    result.items.loc[3, "tuned_effect"] = np.nan  # a learner that diverged
    ax = plot_item_effects(result)
    own = result.items[(result.items["variant"] == "key_value") & result.items["tuned_effect"].notna()]
    for label in ("positive", "negative"):
        part = own[own["label"] == label]
        np.testing.assert_allclose(drawn(ax, label).get_xdata(), part["icl_effect"])
        np.testing.assert_allclose(drawn(ax, label).get_ydata(), part["tuned_effect"])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any(text.startswith("correlation ") for text in texts) and "equal effects" in texts
    assert all(any(text.startswith(f"{control}: ") for text in texts) for control in CONTROLS)


def test_many_labels_share_a_mark(result: Any) -> None:
    result.items["label"] = [f"label {i}" for i in range(24)]
    ax = plot_item_effects(result, variant="all")
    assert len(drawn(ax, "queries").get_xdata()) == 12


def test_axes_and_settings_are_the_callers(result: Any) -> None:
    before = dict(mpl.rcParams)
    ax = plt.subplots()[1]
    assert plot_alignment(result, ax=ax) is ax
    assert plot_item_effects(result).figure is not ax.figure
    assert dict(mpl.rcParams) == before


def test_nothing_to_draw_is_said(result: Any) -> None:
    result.items["tuned_effect"] = np.nan
    with pytest.raises(ValueError, match="no prompt with finite effects"):
        plot_item_effects(result)
    result.frame = result.frame.drop(columns="low")
    with pytest.raises(ValueError, match=r"without the columns \['low'\]"):
        plot_alignment(result)
