"""Axes and averages of pictures of training, and what is drawn over sizes of models."""

from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from mechicl.views import strategies as views
from mechicl.views.strategy_axes import chosen_columns, edges, mean_of_seeds, range_of_seeds, root


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


def test_a_parameter_over_sizes() -> None:
    frame = pd.DataFrame({"size": [512, 32, 256], "parameter": "beta", "estimate": [0.2, 0.4, 0.3]})
    ax = views.plot_sizes(frame.assign(low=0.1, high=0.5), axis="d_mlp")
    np.testing.assert_allclose(np.transpose(ax.lines[0].get_data()), [[32, 0.4], [256, 0.3], [512, 0.2]])
    assert ax.get_ylabel() == "Fitted beta" and ax.get_xlabel() == "Width of the MLP (neurons)"
    with pytest.raises(ValueError, match="Got the parameter 'alpha', expected one of"):
        views.plot_sizes(frame.assign(low=0.1, high=0.5), axis="d_mlp", parameter="alpha")


def test_means_ranges_and_edges() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan]])
    np.testing.assert_array_equal(mean_of_seeds(values), [2, 5, np.nan])
    np.testing.assert_array_equal(range_of_seeds(values), [[1, 5, np.nan], [3, 5, np.nan]])
    np.testing.assert_allclose(edges(np.array([1.0, 9.0, 25.0]), root, np.square), [0, 4, 16, 36])
    np.testing.assert_allclose(edges(np.array([4.0, 16.0]), np.log2, np.exp2), [2, 8, 32])
    np.testing.assert_allclose(edges(np.array([4.0]), np.log2, np.exp2), [2**1.5, 2**2.5])
    known = np.arange(1.0, 12.0)
    assert chosen_columns(known, None).tolist() == [0, 2, 4, 6, 8, 10] and len(chosen_columns(known[:3], None)) == 3
