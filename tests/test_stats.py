import warnings
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import statsmodels.api as sm
from statsmodels.stats.multitest import multipletests

from mechicl import stats


def sample(n: int, slope: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=n)
    return x, slope * x + 0.1 * rng.normal(size=n)


# Least squares


def test_ols_equals_the_hand_formula_and_statsmodels() -> None:
    x, y = sample(22, slope=-0.2)
    fit = stats.ols(x, y, level=0.9)
    assert fit.slope == pytest.approx(np.cov(x, y)[0, 1] / np.var(x, ddof=1), abs=1e-14)
    assert fit.intercept == pytest.approx(y.mean() - fit.slope * x.mean(), abs=1e-14)
    other = sm.OLS(y, sm.add_constant(x)).fit()
    np.testing.assert_allclose([fit.intercept, fit.slope], other.params, atol=1e-12)
    np.testing.assert_allclose([fit.se, fit.p], [other.bse[1], other.pvalues[1]], rtol=1e-9)
    np.testing.assert_allclose([fit.low, fit.high], other.conf_int(0.1)[1], atol=1e-12)
    assert fit.n == 22


def test_ols_of_a_line_and_of_a_constant() -> None:
    x = np.array([0.1, 0.2, 0.4, 0.8])
    line = stats.ols(x, 0.5 - 0.25 * x)
    assert (line.slope, line.intercept) == (pytest.approx(-0.25), pytest.approx(0.5)) and line.p < 1e-9
    flat = stats.ols(x, np.full(4, 0.3))
    assert (flat.slope, flat.se, flat.low, flat.high, flat.p, flat.intercept) == (0, 0, 0, 0, 1, 0.3)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([0.1, 0.2], [1.0, 2.0], "slope undefined with 2 verbs"),
        ([0.3, 0.3, 0.3], [1.0, 2.0, 3.0], r"slope undefined: x is 0\.3 for all 3 verbs"),
        ([0.1, 0.2, np.nan], [1.0, 2.0, 3.0], "not finite"),
        ([0.1, 0.2, 0.3], [1.0, np.inf, 3.0], "not finite"),
    ],
)
@pytest.mark.parametrize(
    "estimate", [stats.ols, stats.slope_interval, stats.slope_permutation_p, stats.leave_one_out_slopes]
)
def test_slopes_that_are_undefined(estimate, x, y, message) -> None:
    with pytest.raises(ValueError, match=message):
        estimate(np.array(x), np.array(y))


def test_slopes_over_resamples_equal_a_loop_and_are_nan_without_variation() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 9)), rng.normal(size=(2, 5, 9))
    loop = [[np.polyfit(x[i, j], y[i, j], 1)[0] for j in range(5)] for i in range(2)]
    np.testing.assert_allclose(stats.slopes(x, y), loop, atol=1e-12)
    x[1, 2], y[0, 0] = 0.1, 0.7
    assert np.isnan(stats.slopes(x, y)[1, 2]) and np.isfinite(stats.slopes(x, y)).sum() == 9
    assert stats.slopes(x, y)[0, 0] == 0


def test_leave_one_out_slopes_equal_deleting() -> None:
    x, y = sample(6, slope=1.0)
    by_deletion = [np.polyfit(np.delete(x, i), np.delete(y, i), 1)[0] for i in range(6)]
    np.testing.assert_allclose(stats.leave_one_out_slopes(x, y), by_deletion, atol=1e-12)
    assert np.isnan(stats.leave_one_out_slopes(np.array([0.0, 0.0, 1.0]), np.array([0.0, 1.0, 2.0]))).tolist() == [
        False,
        False,
        True,
    ]


# Bootstrap


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_interval_agrees_with_scipy(method: str) -> None:
    """Other resamples, same distribution: limits agree up to simulation noise, far below the interval's width."""
    x, y = sample(22, slope=-0.2, seed=3)
    y = y + 0.3 * x**4  # skewed, so that BCa and percentile differ
    ours = stats.slope_interval(x, y, method=method, level=0.9, n_boot=40_000)
    theirs = scipy.stats.bootstrap(
        (x, y),
        lambda a, b, axis: stats.slopes(np.moveaxis(a, axis, -1), np.moveaxis(b, axis, -1)),
        paired=True,
        method="BCa" if method == "bca" else "percentile",
        confidence_level=0.9,
        n_resamples=40_000,
        rng=np.random.default_rng(1),
    )
    width = ours.high - ours.low
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, atol=0.03 * width)
    assert ours.se == pytest.approx(theirs.standard_error, rel=0.03)
    assert ours.estimate == pytest.approx(stats.ols(x, y).slope) and ours.method == method


def test_bca_is_exactly_scipys_on_the_same_draws() -> None:
    """scipy accepts ready draws: the correction itself must agree to rounding."""
    values = np.random.default_rng(0).exponential(size=15)
    n_boot, seed = 2_000, 7
    chosen = np.random.default_rng(seed).integers(15, size=(n_boot, 15))
    draws = values[chosen].mean(-1)
    ready = scipy.stats.bootstrap((values,), np.mean, n_resamples=9, method="percentile")
    ready.bootstrap_distribution = draws
    theirs = scipy.stats.bootstrap((values,), np.mean, n_resamples=0, bootstrap_result=ready, method="BCa")
    ours = stats.cluster_mean_interval(values, np.arange(15), n_boot=n_boot, seed=seed)
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, atol=1e-12)


def test_bootstrap_of_a_constant_is_the_constant() -> None:
    interval = stats.cluster_mean_interval(np.full(20, 0.25), np.repeat(np.arange(5), 4))
    assert (interval.estimate, interval.low, interval.high, interval.se) == (0.25, 0.25, 0.25, 0.0)


def test_cluster_mean_weights_clusters_by_size_and_resamples_clusters() -> None:
    values, labels = np.array([0.0, 0.0, 0.0, 4.0]), ["a", "a", "a", "b"]
    interval = stats.cluster_mean_interval(values, labels, method="percentile", level=0.5)
    assert interval.estimate == 1.0
    # Resamples: aa (mean 0), ab or ba (mean 1), bb (mean 4), at 1:2:1.
    assert interval.se == pytest.approx(np.std([0, 1, 1, 4]), rel=0.05)
    wide = stats.cluster_mean_interval(np.repeat(values, 50), np.repeat(labels, 50), method="percentile", level=0.5)
    assert (wide.low, wide.high, wide.se) == (interval.low, interval.high, interval.se)  # repeats add no information


def test_resamples_without_variation_are_left_out_and_told() -> None:
    x, y = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.2, 1.0, 1.4])
    with pytest.warns(RuntimeWarning, match=r"of 10000 resamples of 4 clusters had no defined statistic"):
        interval = stats.slope_interval(x, y)
    # All four from one half: 2 * (1/2)^4 of the resamples.
    assert interval.n_undefined == pytest.approx(10_000 / 8, rel=0.1)
    assert np.isfinite([interval.low, interval.high, interval.se]).all() and interval.method == "bca"


def test_bca_that_is_undefined_becomes_percentile_and_is_told() -> None:
    undefined = pytest.warns(RuntimeWarning, match="BCa is undefined for these 3 clusters")
    with undefined, pytest.warns(RuntimeWarning, match="had no defined statistic"):
        interval = stats.slope_interval(np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.1, 1.0]))
    assert interval.method == "percentile" and np.isfinite([interval.low, interval.high]).all()


def test_no_interval_where_there_is_none() -> None:
    with pytest.raises(ValueError, match=r"got 1 cluster\(s\), expected at least 2"):
        stats.cluster_mean_interval(np.array([1.0, 2.0]), ["a", "a"])
    with pytest.raises(ValueError, match="nan on the whole sample"):
        stats.cluster_bootstrap(lambda chosen: np.full(chosen.shape[:-1], np.nan), 5)
    with pytest.raises(ValueError, match="undefined on 10000 of 10000 resamples"):
        stats.cluster_bootstrap(lambda chosen: np.asarray(0.0 if chosen.ndim == 1 else np.full(len(chosen), np.nan)), 5)
    with pytest.raises(ValueError, match="2 values and 1 cluster labels"):
        stats.cluster_mean_interval(np.array([1.0, 2.0]), ["a"])
    with pytest.raises(ValueError, match="1 values that are not finite"):
        stats.cluster_mean_interval(np.array([1.0, np.nan]), ["a", "b"])
    with pytest.raises(ValueError, match="label is missing"):
        stats.cluster_mean_interval(np.array([1.0, 2.0]), np.array(["a", None], dtype=object))
    for options, message in [({"level": 95.0}, "level=95"), ({"n_boot": 9}, "n_boot=9"), ({"method": "t"}, "'t'")]:
        with pytest.raises(Exception, match=message):  # beartype may refuse the method first
            stats.cluster_bootstrap(lambda chosen: chosen.mean(-1), 5, **options)


def test_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sample(30, slope=0.3)
    whole = stats.slope_interval(x, y, n_boot=500), stats.slope_permutation_p(x, y, n_permutations=500)
    monkeypatch.setattr("mechicl.resampling._CELLS", 30 * 70)
    parts = stats.slope_interval(x, y, n_boot=500), stats.slope_permutation_p(x, y, n_permutations=500)
    assert parts == whole


def test_seeds() -> None:
    x, y = sample(12)
    values, labels = np.repeat(y, 2), np.repeat(np.arange(12), 2)
    for estimate in (
        lambda seed: stats.slope_interval(x, y, seed=seed, n_boot=200),
        lambda seed: stats.cluster_mean_interval(values, labels, seed=seed, n_boot=200),
        lambda seed: stats.slope_permutation_p(x, y, seed=seed, n_permutations=200),
        lambda seed: stats.cluster_mean_p(values - y.mean() / 2, labels, seed=seed, n_permutations=200),
    ):
        assert estimate(3) == estimate(3) != estimate(4)


def test_coverage_is_near_nominal() -> None:
    """Mean of 60 normal clusters of 3 items; .94 expected at .95, and 3 binomial standard errors of room."""
    rng, runs, hits = np.random.default_rng(0), 300, 0
    labels = np.repeat(np.arange(60), 3)
    for seed in range(runs):
        values = rng.normal(size=60)[labels] + rng.normal(size=180)
        interval = stats.cluster_mean_interval(values, labels, n_boot=500, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert abs(hits / runs - 0.94) < 3 * np.sqrt(0.94 * 0.06 / runs)


def test_items_taken_for_independent_would_cover_too_little() -> None:
    """The control of the coverage test: with each item its own cluster the same data cover far below nominal."""
    rng, runs, hits = np.random.default_rng(0), 100, 0
    labels = np.repeat(np.arange(20), 10)
    for seed in range(runs):
        values = rng.normal(size=20)[labels] + 0.1 * rng.normal(size=200)
        interval = stats.cluster_mean_interval(values, np.arange(200), n_boot=200, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert hits / runs < 0.7


# Permutation tests


def test_permutation_p_equals_all_orders_counted() -> None:
    x, y = np.array([0.0, 1.0, 2.5, 4.0, 4.5]), np.array([0.1, 0.0, 0.5, 0.3, 0.9])
    observed = abs(np.polyfit(x, y, 1)[0])
    every = [abs(np.polyfit(order, y, 1)[0]) >= observed - 1e-12 for order in permutations(x)]
    p = stats.slope_permutation_p(x, y, n_permutations=40_000)
    assert p == pytest.approx(np.mean(every), abs=4 * np.sqrt(np.mean(every) / 40_000))


def test_sign_flip_p_equals_all_signs_counted() -> None:
    values, labels = np.array([0.5, 0.7, 0.2, -0.3, 0.9, 0.1]), ["a", "a", "b", "c", "d", "d"]
    sums = np.array([1.2, 0.2, -0.3, 1.0])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1)
    every = (abs(sums @ signs) >= sums.sum() - 1e-12).mean()
    assert stats.cluster_mean_p(values, labels, n_permutations=40_000) == pytest.approx(every, abs=0.01)


def test_permutation_p_at_its_ends() -> None:
    x = np.arange(22.0)
    assert stats.slope_permutation_p(x, 2 * x, n_permutations=999) == 1 / 1000
    assert stats.slope_permutation_p(x, np.full(22, 0.1), n_permutations=999) == 1.0
    # Three verbs have two orders of six as steep as a line: ties count, so p cannot be small.
    assert stats.slope_permutation_p(np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3])) == pytest.approx(
        1 / 3, abs=0.02
    )
    assert stats.cluster_mean_p(np.zeros(6), np.arange(6), n_permutations=99) == 1.0
    with pytest.raises(ValueError, match="n_permutations=0"):
        stats.slope_permutation_p(x, x, n_permutations=0)


@pytest.mark.parametrize("test", ["ols", "permutation", "sign flip"])
def test_p_is_uniform_without_an_effect(test: str) -> None:
    p = []
    for seed in range(200):
        x, y = sample(15, seed=seed)
        if test == "ols":
            p.append(stats.ols(x, y).p)
        elif test == "permutation":
            p.append(stats.slope_permutation_p(x, y, n_permutations=300, seed=seed))
        else:
            p.append(stats.cluster_mean_p(y, np.arange(15), n_permutations=300, seed=seed))
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    x, y = sample(15, slope=0.5)
    assert stats.ols(x, y).p < 0.01 and stats.slope_permutation_p(x, y) < 0.01  # and small with one


# Many tests


def test_holm_and_benjamini_hochberg_by_hand() -> None:
    p = np.array([0.01, 0.04, np.nan, 0.03])
    np.testing.assert_allclose(stats.holm(p), [0.03, 0.06, np.nan, 0.06])
    np.testing.assert_allclose(stats.benjamini_hochberg(p), [0.03, 0.04, np.nan, 0.04])
    for adjusted in (stats.holm, stats.benjamini_hochberg):
        np.testing.assert_array_equal(adjusted(np.array([0.2])), [0.2])
        np.testing.assert_array_equal(adjusted(np.array([np.nan])), [np.nan])
    with pytest.raises(ValueError, match="expected 0 to 1"):
        stats.holm(np.array([0.1, 1.2]))


def test_corrections_agree_with_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(size=30) ** 4
    np.testing.assert_allclose(stats.holm(p), multipletests(p, method="holm")[1])
    np.testing.assert_allclose(stats.benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1])


def test_nothing_warns_on_ordinary_data() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats.slope_interval(*sample(22))
