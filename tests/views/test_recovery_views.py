"""The pictures of a recovery study show its counts."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from mechicl.analyses.recovery.study import COLUMNS, RecoveryStudy, outcome_of
from mechicl.provenance import Provenance


@pytest.fixture
def study():
    """Three kinds, seven organisms, two levels of noise."""
    truth = {"a": ("GD", "gradient"), "b": ("RBF", "kernel"), "c": ("zero", "baseline")}
    named = [*zip("aaabbcc", ("gradient", "gradient", "kernel", "kernel", "none", "none", "none"), strict=True)]
    rows = [
        dict.fromkeys(COLUMNS, np.nan)
        | {
            "kind": kind, "truth_account": truth[kind][0], "truth_family": truth[kind][1], "family": family,
            "account": family, "share": 0.9, "rivals": "", "outcome": outcome_of(*truth[kind], family, ()),
        }
        for kind, family in named
    ]  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    noise = pd.concat([frame[frame["kind"] != "c"].assign(noise=level) for level in (0.0, 0.3)], ignore_index=True)
    yield RecoveryStudy(frame, noise, 0.95, Provenance.of())
    plt.close("all")


def test_cells_hold_the_counts_and_frames_the_right_ones(study):
    """Every number is that of the table; frames are on each family's own column, and on "none" for nulls."""
    ax = study.plot()
    shown = {tuple(map(round, text.get_position()[::-1])): text.get_text() for text in ax.texts}
    columns = ["gradient", "kernel", "none"]
    table = study.confusion[columns].to_numpy()
    assert shown == {(i, j): str(table[i, j]) for i, j in np.ndindex(*table.shape)}
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [round(patch.get_x() + 0.46) for patch in frames] == [0, 1, 2]
    assert ax.get_xlabel() == "Attributed to"


def test_kinds_have_rows_of_their_own(study):
    """Drawn on axes that were given."""
    _, ax = plt.subplots()
    assert study.plot_kinds(ax=ax) is ax
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    assert sum(int(text.get_text()) for text in ax.texts) == len(study.frame)


def test_noise_is_drawn_as_shares(study):
    """Rates of each level; a study without noise has no such picture."""
    ax = study.plot_noise()
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["a (3 a level)"], [2 / 3, 2 / 3])
    np.testing.assert_allclose(lines["b (2 a level)"], [1 / 2, 1 / 2])
    without = RecoveryStudy(study.frame, study.noise.iloc[:0], 0.95, Provenance.of())
    with pytest.raises(ValueError, match="n_noise_draws"):
        without.plot_noise()
