import numpy as np
import pytest

from mechicl.strategies import profiles as module
from mechicl.strategies.curves import Curves, lowest
from mechicl.strategies.profiles import strategy_profiles


def naive(made, log_odds, *, distance, cell, weights=None):
    """The profile, distances and d_rel of the mixture at one cell, item by item."""
    seed, _, diversity = cell
    h, m, g = made.predictions[cell], made.memorising[seed, diversity], made.generalising[seed, diversity]
    p = log_odds_mixture(m, g, log_odds)
    times = np.ones(len(h)) if weights is None else weights[made.clusters]

    def mean(values):
        return float((times * values).sum() / times.sum())

    if distance == "kl":
        return mean([(a * np.log(a / b)).sum() for a, b in zip(h, p, strict=True)]), lambda a, b: mean(
            [((x - y) * np.log(x / y)).sum() / 2 for x, y in zip(a, b, strict=True)]
        )
    return mean(((h - p) ** 2).mean(-1)), lambda a, b: mean(((a - b) ** 2).mean(-1))


def log_odds_mixture(m, g, log_odds):
    weight = 1 / (1 + np.exp(-np.asarray(log_odds)))
    return weight * m + (1 - weight) * g


@pytest.mark.parametrize(("distance", "labels"), [("kl", 4), ("mse", 1)])
def test_tables_are_the_exact_values(training, distance, labels):
    made = training(labels=labels, spread=0.05, n_steps=5)
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(8, np.full(8, 1 / 8)).astype(float)
    profiles = strategy_profiles(*made.arguments[:3], clusters=made.clusters, distance=distance)
    for weights in (None, drawn):
        average = profiles.average(weights)
        for scale in (2.0, 12.0):
            odds = rng.normal(size=made.predictions.shape[:3]) * scale
            value, slope = (part.reshape(odds.shape) for part in average.profiles.at(odds.ravel()))
            near = average.profiles.at(odds.ravel() + 1e-4)[0].reshape(odds.shape)
            predicted = average.predicted(odds)
            for cell in [(0, 0, 0), (1, 3, 5), (0, 4, 2)]:
                exact, between = naive(made, odds[cell], distance=distance, cell=cell, weights=weights)
                assert value[cell] == pytest.approx(exact, abs=1e-6)
                assert slope[cell] == pytest.approx((near[cell] - value[cell]) / 1e-4, abs=1e-4)
                h, m, g = made.predictions[cell], made.memorising[cell[::2]], made.generalising[cell[::2]]
                assert average.to_memorising[cell] == pytest.approx(between(h, m), abs=1e-9)
                assert average.to_generalising[cell] == pytest.approx(between(h, g), abs=1e-9)
                assert average.between[cell[::2]] == pytest.approx(between(m, g), abs=1e-12)
                p = log_odds_mixture(m, g, odds[cell])
                d_rel = ((between(p, g) - between(p, m)) / between(m, g) + 1) / 2
                assert predicted[cell] == pytest.approx(d_rel, abs=1e-5)


def test_offsets_move_the_odds_of_every_item(training):
    rng = np.random.default_rng(0)
    for distance, labels in (("kl", 3), ("mse", 1)):
        made = training(labels=labels, spread=0.05, n_steps=3, n_diversities=2, n_clusters=2)
        offsets = rng.normal(size=made.memorising.shape[:3]) * 3
        average = strategy_profiles(*made.arguments[:3], distance=distance, offsets=offsets).average()
        found = average.profiles.at(np.full(2 * 3 * 2, 0.7))[0].reshape(2, 3, 2)
        weight = 1 / (1 + np.exp(-0.7 - offsets))[:, None, ..., None]
        p = weight * made.memorising[:, None] + (1 - weight) * made.generalising[:, None]
        h = made.predictions
        exact = (h * np.log(h / p)).sum(-1) if distance == "kl" else ((h - p) ** 2).mean(-1)
        np.testing.assert_allclose(found, exact.mean(-1), atol=1e-6)


def test_a_transformer_that_is_a_strategy_has_its_d_rel(training):
    made = training(n_steps=3)
    for name, expected in (("memorising", 1.0), ("generalising", 0.0)):
        made.predictions = np.repeat(getattr(made, name)[:, None], 3, axis=1)
        average = strategy_profiles(*made.arguments[:3]).average()
        np.testing.assert_allclose(average.d_rel, expected, atol=1e-12)
        best, least = lowest(average.profiles, (made.predictions[..., 0, 0].size,))
        np.testing.assert_allclose(least, 0.0, atol=1e-6)
        assert (np.sign(best) == (1 if expected else -1)).all()


def test_many_clusters_join_without_a_change_of_the_mean(training, monkeypatch):
    made = training(n_steps=3, spread=0.05)
    whole = strategy_profiles(*made.arguments[:3])
    monkeypatch.setattr(module, "MOST_CLUSTERS", 5)
    joined = strategy_profiles(*made.arguments[:3])
    assert len(joined.counts) == 5
    assert joined.counts.sum() == whole.counts.sum() == 24
    odds = np.zeros(made.predictions[..., 0, 0].size)
    np.testing.assert_allclose(joined.average().profiles.at(odds)[0], whole.average().profiles.at(odds)[0], atol=1e-12)


def test_unequal_clusters_weigh_by_their_items(training):
    made = training(n_steps=3, spread=0.05)
    made.clusters = np.array([0] * 10 + [1] * 3 + [2] * 11)[::-1].copy()
    average = strategy_profiles(*made.arguments[:3], clusters=made.clusters).average(np.array([0.0, 2.0, 1.0]))
    weights = np.array([1.0, 2.0, 0.0])  # in the order of the labels, not of appearance
    exact, _ = naive(made, 0.3, distance="kl", cell=(1, 2, 3), weights=weights)
    found = average.profiles.at(np.full(2 * 3 * 6, 0.3))[0].reshape(2, 3, 6)
    assert found[1, 2, 3] == pytest.approx(exact, abs=1e-6)


def test_curves_are_flat_outside_their_grid():
    curves = Curves.through(-5.0, np.tanh(np.arange(-5, 5.5, 0.5))[None])
    value, slope = curves.at(np.array([40.0]))
    assert value == pytest.approx(np.tanh(5.0), abs=1e-12)
    assert slope == 0.0


def spoilt(made, name, how):
    values = getattr(made, name).copy()
    if how == "nan":
        values[0, 0, 0, 0] = np.nan
    elif how == "negative":
        values[0, 0, 0, 0] -= 2
    elif how == "sum":
        values[0, 1] *= 1.1
    elif how == "zero":
        values[0, 0, 0] = np.eye(4)[0]
    elif how == "items":
        values = values[..., :-1, :]
    return values


@pytest.mark.usefixtures("as_users_run")
@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("predictions", "nan", r"predictions\[0, 0, 0\] .*not finite"),
        ("predictions", "negative", "expected probabilities"),
        ("predictions", "sum", r"predictions\[0, 1, 0\] .*sum to 1"),
        ("memorising", "zero", "probability of 0"),
        ("generalising", "sum", r"generalising\[0, 1\]"),
        ("memorising", "items", r"memorising of shape .* expected \(2, 6, 24, 4\)"),
    ],
)
def test_predictions_that_are_none_are_refused(training, name, how, said):
    made = training(n_steps=3)
    setattr(made, name, spoilt(made, name, how))
    with pytest.raises(ValueError, match=said):
        strategy_profiles(*made.arguments[:3])


def test_options_that_make_no_sense_are_refused(training):
    made = training(n_steps=3)
    with pytest.raises(ValueError, match="expected 'kl'"):
        strategy_profiles(*made.arguments[:3], distance="l1")
    with pytest.raises(ValueError, match="offsets that are not finite"):
        strategy_profiles(*made.arguments[:3], offsets=np.full((2, 6, 24), np.inf))
    with pytest.raises(ValueError, match="clamp them"):
        strategy_profiles(*made.arguments[:3], offsets=np.full((2, 6, 24), 1e3))
