"""Distances between predictions; relative distance and residual are tested with the classification predictors."""

import numpy as np
import pytest

from mechicl.predictors.distances import distance, divergence, squared_distance


def test_the_squared_distance_of_means():
    p, q = np.array([[1.0, 2.0], [0.0, 3.0]]), np.array([[1.0, 4.0], [1.0, 2.0]])
    assert squared_distance(p, q).tolist() == [4.0, 2.0]
    assert squared_distance(p, p).tolist() == [0.0, 0.0]
    assert squared_distance(p[..., None], q[..., None]).tolist() == [[0.0, 4.0], [1.0, 1.0]]
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="not finite"):
            squared_distance(p, q * wrong)


def test_each_setting_has_its_distance():
    assert distance("linear_regression") is squared_distance
    for setting in ("balls_and_urns", "markov_chains", "classification"):
        assert distance(setting) is divergence
    with pytest.raises(ValueError, match="got setting='urns'; expected one of balls_and_urns, "):
        distance("urns")


def test_predictions_that_are_no_probabilities_are_refused():
    p = np.full((2, 4), 0.25)
    for wrong in (p * 1.01, p * np.nan, np.eye(4)[:2]):
        for pair in ((wrong, p), (p, wrong)):
            with pytest.raises(ValueError, match="sum to 1 over the last axis"):
                divergence(*pair)
