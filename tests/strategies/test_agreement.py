import numpy as np
import pytest
from scipy.stats import spearmanr

from mechicl.strategies.agreement import draw_sample, prediction_agreement
from mechicl.strategies.profiles import cluster_members


def sampled(training, **options):
    made = training(n_steps=4, n_diversities=3, spread=0.1, **options)
    return made, draw_sample(*made.arguments[:3], cluster_members(made.clusters, len(made.clusters)))


@pytest.mark.parametrize("labels", [4, 1])
def test_measures_are_those_of_scipy_and_numpy(training, labels):
    made, sample = sampled(training, labels=labels)
    odds = np.random.default_rng(0).normal(size=(2, 4, 3))
    cells = np.ones((4, 3), bool)
    cells[0] = False
    found = prediction_agreement(sample, odds, cells).measures(np.ones(2), np.ones(8))
    items = sample.items
    h, p = (values[:, cells][..., items, :] for values in (made.predictions, made.mixed(odds)))
    assert found["spearman"] == pytest.approx(spearmanr(h.ravel(), p.ravel())[0], abs=1e-12)
    assert found["r2"] == pytest.approx(1 - ((h - p) ** 2).sum() / ((h - h.mean()) ** 2).sum(), abs=1e-12)
    if labels == 1:
        assert np.isnan(found["agreement"])
    else:
        assert found["agreement"] == pytest.approx((h.argmax(-1) == p.argmax(-1)).mean(), abs=1e-12)


def test_drawing_a_cluster_twice_is_having_it_twice(training):
    _, sample = sampled(training)
    odds, cells = np.zeros((2, 4, 3)), np.ones((4, 3), bool)
    seeds, clusters = np.array([2.0, 1.0]), np.array([1.0, 0, 3, 1, 1, 1, 1, 0])
    found = prediction_agreement(sample, odds, cells).measures(seeds, clusters)
    where_s, where_c = np.repeat([0, 1], [2, 1]), np.repeat(np.arange(8), clusters.astype(int))
    items = np.concatenate([np.flatnonzero(sample.clusters == c) for c in where_c])
    h, p = (values[where_s][..., items, :] for values in (sample.predictions, sample.mixture(odds)))
    assert found["r2"] == pytest.approx(1 - ((h - p) ** 2).sum() / ((h - h.mean()) ** 2).sum(), abs=1e-12)
    assert found["agreement"] == pytest.approx((h.argmax(-1) == p.argmax(-1)).mean(), abs=1e-12)


def test_a_sample_takes_as_many_items_of_every_cluster(training):
    made = training(n_steps=2, n_diversities=2, n_clusters=40, n_items=5)
    sample = draw_sample(*made.arguments[:3], cluster_members(made.clusters, 200))
    assert len(sample.items) == 40
    np.testing.assert_array_equal(made.clusters[sample.items], sample.clusters)
    np.testing.assert_array_equal(sample.predictions, made.predictions[..., sample.items, :])


def test_predictions_that_have_nothing_to_do_with_the_model_agree_by_chance(training):
    _, sample = sampled(training, n_clusters=20)
    order = np.random.default_rng(1).permutation(len(sample.items))
    other = type(sample)(
        sample.predictions[..., order, :],
        *(getattr(sample, name) for name in ("memorising", "generalising", "offsets", "items", "clusters")),
    )
    found = prediction_agreement(other, np.zeros((2, 4, 3)), np.ones((4, 3), bool)).measures(np.ones(2), np.ones(20))
    assert abs(found["spearman"]) < 0.1
    assert found["r2"] < 0
    assert abs(found["agreement"] - 0.25) < 0.1
