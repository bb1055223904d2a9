"""The crossed bootstrap against a naive loop, scipy, closed forms, and its coverage in simulated samples."""

import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from mechicl.crossed import crossed_draws, crossed_intervals, leave_one_verb_out
from mechicl.crossed_sample import CrossedSample
from mechicl.resampling import cluster_mean_interval
from mechicl.stats import leave_one_out_slopes
from mechicl.verb_weights import mean_weights, slope_weights


def sample(n_heads: int = 3, n_verbs: int = 7, n_targets: int = 9, n: int = 60, seed: int = 0):
    """Values, verbs and targets of an unbalanced design, and a bias of each verb."""
    rng = np.random.default_rng(seed)
    verb = np.concatenate([np.arange(n_verbs), rng.integers(n_verbs, size=n - n_verbs)])
    target = rng.integers(n_targets, size=n)
    names = np.array([f"verb{i}" for i in range(n_verbs)])
    x = dict(zip(names.tolist(), rng.uniform(size=n_verbs).tolist(), strict=True))
    values = rng.normal(size=(n_heads, n)) + rng.normal(size=(n_heads, n_verbs))[:, verb]
    return values, pd.Series(names[verb]), pd.Series(target), x


def copied(values, verb, target, x, verb_counts: pd.Series, target_counts: pd.Series) -> float:
    """The statistic of one head with every item written out as often as it counts; refitted by numpy."""
    times = (verb.map(verb_counts).to_numpy() * target.map(target_counts).to_numpy()).astype(int)
    frame = pd.DataFrame({"verb": verb, "y": values}).loc[np.repeat(np.arange(len(verb)), times)]
    if x is None:
        return frame["y"].mean()
    means = frame.groupby("verb")["y"].mean()
    points = np.repeat(means.index, verb_counts[means.index].astype(int))
    return np.polyfit([x[v] for v in points], means[points], 1)[0]


@pytest.mark.parametrize("with_x", [True, False])
def test_statistic_equals_copying_items(with_x: bool) -> None:
    values, verb, target, x = sample()
    biases = x if with_x else None
    whole = CrossedSample.of(values, verb, target, biases, False)
    rng = np.random.default_rng(1)
    verbs, targets = sorted(x), list(dict.fromkeys(target))  # targets count in order of appearance
    verb_counts = rng.multinomial(7, [1 / 7] * 7, size=20).astype(float)
    target_counts = rng.multinomial(len(targets), [1 / len(targets)] * len(targets), size=20).astype(float)
    found = whole.statistic(verb_counts, target_counts)
    for b in range(20):
        counts = pd.Series(verb_counts[b], verbs), pd.Series(target_counts[b], targets)
        expected = [copied(row, verb, target, biases, *counts) for row in values]
        np.testing.assert_allclose(found[b], expected, atol=1e-10)


@pytest.mark.parametrize("adjusted", [True, False])
def test_estimates_are_the_contractions(adjusted: bool) -> None:
    values, verb, target, x = sample()
    slope = crossed_intervals(values, verb, target, x=pd.Series(x), adjusted=adjusted, n_boot=100)
    np.testing.assert_array_equal(slope.estimate, values @ slope_weights(x, verb, target, adjusted=adjusted))
    mean = crossed_intervals(values, verb, target, adjusted=adjusted, n_boot=100)
    np.testing.assert_array_equal(mean.estimate, values @ mean_weights(verb))
    assert (slope.n_verbs, slope.n_targets, slope.method) == (7, 9, "bca")
    # Counts of 1 are the sample itself, so that the draws surround the estimate.
    whole = CrossedSample.of(values, verb, target, x, adjusted)
    np.testing.assert_allclose(whole.statistic(np.ones((1, 7)), np.ones((1, 9)))[0], slope.estimate, atol=1e-12)


def test_what_targets_do_to_all_verbs_leaves_adjusted_slopes_alone() -> None:
    values, verb, target, x = sample()
    shift = 10 * np.random.default_rng(5).normal(size=9)[target]
    before = crossed_intervals(values, verb, target, x=x, n_boot=200)
    after = crossed_intervals(values + shift, verb, target, x=x, n_boot=200)
    for name in ("estimate", "low", "high", "se"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-9)
    plain = crossed_intervals(values + shift, verb, target, x=x, adjusted=False, n_boot=200)
    assert (plain.se > 2 * before.se).all(), "the control: plain means feel the targets"


@pytest.mark.parametrize("with_x", [True, False])
def test_bca_is_scipys_formula_on_the_same_draws(with_x: bool) -> None:
    """Limits recomputed by hand from the draws, with a jackknife that deletes rows."""
    values, verb, target, x = sample(seed=4)
    values = np.exp(values)  # skewed: the acceleration matters
    biases = x if with_x else None
    options = {"x": biases, "adjusted": False, "n_boot": 500, "seed": 2}
    found = crossed_intervals(values, verb, target, **options, level=0.9)
    draws = crossed_draws(values, verb, target, **options)
    rest = {"x": biases, "adjusted": False, "n_boot": 100}
    for head in range(3):
        cubes = squares = 0.0
        for labels in (verb, target):
            names = sorted(labels.unique())
            left = []
            for name in names:
                keep = (labels != name).to_numpy()
                kept = crossed_intervals(values[head : head + 1, keep], verb[keep], target[keep], **rest)
                left.append(kept.estimate[0])
            influence = (len(names) - 1) * (np.mean(left) - np.array(left)) / len(names)
            cubes, squares = cubes + (influence**3).sum(), squares + (influence**2).sum()
        a = cubes / squares**1.5 / 6
        z0 = scipy.stats.norm.ppf((draws[:, head] < found.estimate[head]).mean())
        z = z0 + scipy.stats.norm.ppf([0.05, 0.95])
        limits = np.quantile(draws[:, head], scipy.stats.norm.cdf(z0 + z / (1 - a * z)))
        np.testing.assert_allclose([found.low[head], found.high[head]], limits, atol=1e-10)
        assert found.se[head] == pytest.approx(draws[:, head].std(ddof=1)) and found.is_bca[head]
    plain = crossed_intervals(values, verb, target, **options, level=0.9, method="percentile")
    np.testing.assert_allclose([plain.low, plain.high], np.quantile(draws, [0.05, 0.95], axis=0), atol=1e-12)


def test_variance_of_a_balanced_mean_is_owens() -> None:
    """Of a full table R x C with mean squares of rows, columns and rest: variance of the draws in closed form."""
    rows, columns = 8, 12
    table = np.random.default_rng(0).normal(size=(rows, columns)) + np.random.default_rng(1).normal(size=(rows, 1))
    row, column = (axis.ravel() for axis in np.indices(table.shape))
    draws = crossed_draws(table.reshape(1, -1), row, column, n_boot=40_000)
    centred = table - table.mean()
    by_row, by_column = centred.mean(1), centred.mean(0)
    rest = centred - by_row[:, None] - by_column
    expected = (by_row**2).sum() / rows**2 + (by_column**2).sum() / columns**2 + (rest**2).sum() / (rows * columns) ** 2
    assert draws.var() == pytest.approx(expected, rel=0.03)


def test_one_common_target_leaves_the_bootstrap_over_verbs() -> None:
    values, verb, _, _ = sample(n_heads=1, n_verbs=15, n=200)
    crossed = crossed_intervals(values, verb, np.zeros(200, dtype=int), n_boot=20_000)
    verbs = cluster_mean_interval(values[0], verb, n_boot=20_000, seed=1)
    width = verbs.high - verbs.low
    np.testing.assert_allclose([crossed.low[0], crossed.high[0]], [verbs.low, verbs.high], atol=0.04 * width)
    assert crossed.se[0] == pytest.approx(verbs.se, rel=0.03) and crossed.n_targets == 1


@pytest.mark.parametrize("per_verb", [1, 5])
def test_targets_of_one_verb_or_one_item_only(per_verb: int) -> None:
    rng = np.random.default_rng(0)
    verb = np.repeat(np.arange(12), per_verb)
    x = dict(enumerate(np.linspace(0, 1, 12)))
    values = np.array([x[v] for v in verb]) + 0.05 * rng.normal(size=(2, len(verb)))
    found = crossed_intervals(values, verb, np.arange(len(verb)), x=x, n_boot=500)
    assert (found.low < 1).all() and (found.high > 1).all() and (found.low > 0.6).all() and found.n_undefined == 0


def test_silent_and_constant_heads() -> None:
    values, verb, target, x = sample()
    values[0], values[1] = 0.0, 0.25
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mean = crossed_intervals(values, verb, target, n_boot=200)
        slope = crossed_intervals(values, verb, target, x=x, n_boot=200)
    for found in (mean, slope):
        assert (found.estimate[0], found.low[0], found.high[0], found.se[0]) == (0, 0, 0, 0) and found.is_bca[0]
    np.testing.assert_allclose([mean.low[1], mean.high[1]], 0.25, atol=1e-12)
    np.testing.assert_allclose([slope.low[1], slope.high[1]], 0, atol=1e-12)


def test_undefined_draws_are_counted_told_and_too_many_refused() -> None:
    rng = np.random.default_rng(0)
    verb, target = (axis.ravel() for axis in np.indices((5, 3)))
    values = rng.normal(size=(2, 15))
    two_values = {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.9, 4: 0.9}
    with pytest.warns(RuntimeWarning, match="no defined statistic"):
        found = crossed_intervals(values, verb, target, x=two_values, n_boot=1_000)
    # All five draws from the three low verbs, or all from the two high ones.
    assert found.n_undefined / 1_000 == pytest.approx(0.6**5 + 0.4**5, abs=0.03)
    draws = crossed_draws(values, verb, target, x=two_values, n_boot=1_000)
    assert np.isnan(draws).all(axis=1).sum() == found.n_undefined == np.isnan(draws).any(axis=1).sum()
    one_apart = {0: 0.1, 1: 0.1, 2: 0.9}
    with pytest.raises(ValueError, match="undefined on"):
        crossed_intervals(values[:, :3], [0, 1, 2], [0, 1, 2], x=one_apart, n_boot=1_000)
    # Without the only verb apart there is no slope, so no acceleration.
    lone = {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.1, 4: 0.9}
    with (
        pytest.warns(RuntimeWarning, match="no defined statistic"),
        pytest.warns(RuntimeWarning, match="BCa is undefined for 2 of 2 heads"),
    ):
        fallen = crossed_intervals(values, verb, target, x=lone, n_boot=1_000)
    assert not fallen.is_bca.any() and fallen.method == "bca"
    plain = crossed_draws(values, verb, target, x=lone, n_boot=1_000)
    np.testing.assert_allclose(fallen.low, np.nanquantile(plain, 0.025, axis=0))


def test_batches_seeds_and_other_heads_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values, verb, target, x = sample()
    whole = crossed_draws(values, verb, target, x=x, n_boot=300, seed=3)
    one = crossed_draws(values[1:2], verb, target, x=x, n_boot=300, seed=3)
    np.testing.assert_allclose(one[:, 0], whole[:, 1], atol=1e-12)
    assert not np.allclose(crossed_draws(values, verb, target, x=x, n_boot=300, seed=4), whole)
    limits = crossed_intervals(values, verb, target, x=x, n_boot=300).low
    monkeypatch.setattr("mechicl.resampling._CELLS", 60 * 11)
    np.testing.assert_allclose(crossed_draws(values, verb, target, x=x, n_boot=300, seed=3), whole, atol=1e-12)
    np.testing.assert_allclose(crossed_intervals(values, verb, target, x=x, n_boot=300).low, limits, atol=1e-12)


def test_coverage_is_near_nominal_where_verbs_alone_cover_too_little() -> None:
    """Each head is another sample of 30 verbs and 20 targets whose true mean and slope are 0."""
    hits: dict[str, list[float]] = {"mean": [], "slope": [], "verbs alone": []}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        verb, target = np.repeat(np.arange(30), 8), np.concatenate([rng.permutation(20)[:8] for _ in range(30)])
        verb_effects, target_effects = rng.normal(size=(150, 30)), rng.normal(size=(150, 20))
        values = verb_effects[:, verb] + target_effects[:, target] + rng.normal(size=(150, 240))
        x = dict(enumerate(rng.uniform(size=30)))
        for name, found in (
            ("mean", crossed_intervals(values, verb, target, n_boot=500, seed=seed)),
            ("slope", crossed_intervals(values, verb, target, x=x, n_boot=500, seed=seed)),
            ("verbs alone", crossed_intervals(values, verb, np.zeros(240, dtype=int), n_boot=500, seed=seed)),
        ):
            hits[name] += list((found.low <= 0) & (found.high >= 0))
    spread = np.sqrt(0.95 * 0.05 / 450)
    assert np.mean(hits["mean"]) > 0.95 - 4 * spread and np.mean(hits["slope"]) > 0.95 - 4 * spread
    assert np.mean(hits["slope"]) < 0.99 and np.mean(hits["verbs alone"]) < 0.85


def test_leaving_out_each_verb() -> None:
    effects, x = np.random.default_rng(0).normal(size=(4, 9)), np.random.default_rng(1).uniform(size=9)
    found = leave_one_verb_out(effects, x)
    np.testing.assert_allclose(found, [leave_one_out_slopes(x, row) for row in effects], atol=1e-12)
    by_hand = [[np.delete(row, v).mean() for v in range(9)] for row in effects]
    np.testing.assert_allclose(leave_one_verb_out(effects), by_hand, atol=1e-14)
    lone = leave_one_verb_out(np.ones((1, 4)), np.array([0.0, 0.0, 0.0, 1.0]))
    assert np.isnan(lone[0]).tolist() == [False, False, False, True] and np.nanmax(abs(lone)) < 1e-12
    for arguments, message in [
        ((effects, x[:-1]), "one x a verb|type-?check"),  # jaxtyping may see the lengths first
        ((effects[:, :1],), "got 1 verbs"),
        ((effects[:, :2], x[:2]), "with 2 verbs"),
        ((effects, np.ones(9)), "for all 9 verbs"),
    ]:
        with pytest.raises(Exception, match=f"(?i){message}"):
            leave_one_verb_out(*arguments)


def test_bad_input_is_named() -> None:
    values, verb, target, x = sample()
    for change, message in [
        ({"values": values[:, :-1]}, "values of 59 items and 60 prime verbs"),
        ({"targets": target[:-1]}, "60 prime verbs and 59 targets"),
        ({"values": np.where(values > 2, np.inf, values)}, "not finite"),
        ({"verbs": ["verb1"] * 60}, r"1 verb\(s\)"),
        ({"x": {**x, "verb2": np.nan}}, "verb2"),
        ({"x": dict.fromkeys(x, 0.5)}, "for all 7 verbs"),
        ({"n_boot": 9}, "n_boot=9"),
        ({"level": 95.0}, "level=95"),
    ]:
        with pytest.raises(ValueError, match=message):
            crossed_intervals(**{"values": values, "verbs": verb, "targets": target, "x": x, **change})
