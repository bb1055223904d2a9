"""Faithfulness and its areas against closed forms and numpy."""

import numpy as np
import pytest

from mechicl.circuit_scores import (
    SHARES,
    circuit_model_distance,
    circuit_performance_ratio,
    faithfulness,
    kept_counts,
)

GRID = np.array(SHARES)


def test_a_perfect_circuit_has_the_published_values() -> None:
    ones = np.ones(len(GRID))
    assert circuit_performance_ratio(GRID, ones).estimate == pytest.approx(0.999, abs=1e-12)
    assert circuit_model_distance(GRID, ones).estimate == 0


def test_random_heads_that_all_carry_the_same_share_equally() -> None:
    """f = k is integrated exactly by trapezoids: (1 - .001^2) / 2, and what is left to f = 1 beside it."""
    assert circuit_performance_ratio(GRID, GRID).estimate == pytest.approx((1 - 1e-6) / 2, abs=1e-12)
    assert circuit_model_distance(GRID, GRID).estimate == pytest.approx(0.999 - (1 - 1e-6) / 2, abs=1e-12)
    assert circuit_performance_ratio(GRID, 0 * GRID).estimate == 0  # and nothing where nothing is carried


def test_beyond_the_whole_model_raises_one_area_and_counts_as_distance_in_the_other() -> None:
    f = np.full(len(GRID), 1.5)
    assert circuit_performance_ratio(GRID, f).estimate == pytest.approx(1.5 * 0.999)
    assert circuit_model_distance(GRID, f).estimate == pytest.approx(0.5 * 0.999)


def test_faithfulness_of_one_sample_and_of_draws() -> None:
    kept = np.array([2.0, 3.0, 6.0, 8.0])
    np.testing.assert_allclose(faithfulness(kept, 2.0, 6.0), [0, 0.25, 1, 1.5])
    np.testing.assert_allclose(faithfulness(-kept, -2.0, -6.0), [0, 0.25, 1, 1.5])  # a sign does not matter
    rng = np.random.default_rng(0)
    empty, whole = rng.normal(size=5), rng.normal(size=5) + 9
    draws = rng.normal(size=(5, 4))
    expected = [[(draws[b, k] - empty[b]) / (whole[b] - empty[b]) for k in range(4)] for b in range(5)]
    np.testing.assert_allclose(faithfulness(draws, empty, whole), expected)


def test_intervals_are_quantiles_of_the_draws_areas() -> None:
    rng = np.random.default_rng(1)
    f = np.sqrt(GRID)
    draws = f + rng.normal(size=(200, len(f)))
    for area, height in ((circuit_performance_ratio, draws), (circuit_model_distance, abs(1 - draws))):
        found = area(GRID, f, draws=draws, level=0.8)
        loop = [sum((a + b) / 2 * w for a, b, w in zip(h, h[1:], np.diff(GRID), strict=False)) for h in height]
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(loop, [0.1, 0.9])))
        assert found.estimate == area(GRID, f).estimate
        assert np.isnan([area(GRID, f).low, area(GRID, f).high]).all()


def test_kept_counts_rise_to_all_heads() -> None:
    assert kept_counts(1000).tolist() == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert kept_counts(72).tolist() == [1, 4, 7, 14, 36, 72]
    assert kept_counts(1).tolist() == [1]
    for bad in ((0, SHARES), (10, ()), (10, (0.0, 1.0)), (10, (0.5, 2.0))):
        with pytest.raises(ValueError, match="expected at least 1"):
            kept_counts(*bad)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"the same measure, 0\.3"):
        faithfulness(np.ones(3), 0.3, 0.1 + 0.2)
    with pytest.raises(ValueError, match="the same measure"):
        faithfulness(np.ones((2, 3)), np.array([0.0, 1.0]), np.array([1.0, 1.0]))
    with pytest.raises(ValueError, match="not finite"):
        faithfulness(np.array([1.0, np.nan]), 0.0, 1.0)
    for share in ([0.5], [0.5, 0.5], [0.2, 0.1], [-0.1, 0.5], [0.5, 1.1]):
        with pytest.raises(ValueError, match="expected at least 2, rising"):
            circuit_performance_ratio(np.array(share), np.ones(len(share)))
    with pytest.raises(ValueError, match="not finite"):
        circuit_model_distance(GRID, GRID, draws=np.full((2, len(GRID)), np.inf))
    with pytest.raises(ValueError, match="level=95"):
        circuit_performance_ratio(GRID, GRID, level=95.0)
