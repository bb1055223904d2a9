"""Readings of a run: the same numbers one model at a time, and grids that are no full crossing."""

from dataclasses import replace

import numpy as np
import pytest

from mechicl.analyses.strategies import readings
from mechicl.analyses.strategies.descriptions import constant_bits, task_bits
from mechicl.analyses.strategies.readings import crossed_points, item_index, median_of_means, read_run
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.predictions import each_checkpoint, held_out
from mechicl.organisms.grid.training import train_grid
from mechicl.predictors.bayes import predict_strategies, prediction_losses
from mechicl.tasks.urns import UrnTask

TINY = GridPoint(
    "balls_and_urns", 4, context=6, dim=3, d_mlp=8, d_model=8, steps=9, batch=4, warmup=0, n_checkpoints=3, init=0.3
)
POINTS = [replace(TINY, diversity=diversity, seed=seed) for diversity in (8, 2) for seed in (1, 0)]
SMALL = {"n_sequences": 5, "n_positions": 4, "n_losses": 50, "progress": False}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train_grid(POINTS, tmp_path_factory.mktemp("readings") / "run", progress=False)


def test_readings_are_those_of_each_model_alone(run):
    found = read_run(run, **SMALL)
    assert found.predictions.shape == (2, 3, 2, 20, 3)
    assert (found.diversities.tolist(), found.seeds.tolist(), found.steps.tolist()) == ([2, 8], [0, 1], [1, 4, 9])
    point = next(p for p in POINTS if p.diversity == 8 and p.seed == 1)
    batch = held_out(point, 5, part=readings.JUDGING)
    strategies, fresh = predict_strategies(point.task, batch), held_out(point, 5, part=readings.JUDGING, fresh=True)
    at = dict(each_checkpoint(run, point, batch))[4]
    for item in range(20):
        sequence, position = found.clusters[item], found.positions[item]
        np.testing.assert_allclose(found.predictions[1, 1, 1, item], at[sequence, position], atol=1e-6)
        np.testing.assert_array_equal(found.memorising[1, 1, item], strategies.memorising[sequence, position])
        np.testing.assert_array_equal(found.generalising[1, 1, item], strategies.generalising[sequence, position])
        assert found.truth[1, 1, item] == strategies.truth[sequence, position]
    assert found.loss[1, 1, 1] == pytest.approx(prediction_losses(at, strategies.truth).mean(), abs=1e-6)
    elsewhere = prediction_losses(
        dict(each_checkpoint(run, point, fresh))[4], predict_strategies(point.task, fresh).truth
    )
    assert found.fresh_loss[1, 1, 1] == pytest.approx(elsewhere.mean(), abs=1e-6)
    many = held_out(point, 50, part=readings.LOSSES)
    losses = prediction_losses(predict_strategies(point.task, many).memorising, many.tokens[:, 1:]).mean(1)
    assert found.strategy_losses("memorising")[1, 1] == pytest.approx(median_of_means(losses))
    assert found.bits_memorising[1, 1] > found.bits_memorising[1, 0] > found.bits_generalising[1, 0]
    ratio = np.log(strategies.memorising / strategies.generalising)
    before = [ratio[0, t, strategies.truth[0, t]] for t in range(found.positions[2])]  # of item 2, in sequence 0
    assert found.evidence[1, 1, 2] == pytest.approx(sum(before))
    assert found.evidence[1, 1, 0] == 0
    assert found.distance == "kl"
    assert len(found.to_frame()) == 12


def test_a_result_comes_back_from_its_folder(run, tmp_path):
    found = read_run(run, **SMALL)
    found.save(tmp_path / "kept")
    assert readings.GridReadings.load(tmp_path / "kept") == found


def test_grids_that_are_no_full_crossing_are_refused():
    with pytest.raises(ValueError, match="expected every pair"):
        crossed_points(POINTS[:3], {})
    with pytest.raises(ValueError, match=r"choose one by .*'d_mlp': \[8, 16\]"):
        crossed_points([*POINTS, replace(TINY, d_mlp=16)], {})
    assert crossed_points([*POINTS, replace(TINY, d_mlp=16)], {"d_mlp": 16}) == [replace(TINY, d_mlp=16)]
    with pytest.raises(ValueError, match="width"):
        crossed_points(POINTS, {"width": 3})
    with pytest.raises(ValueError, match="n_sequences=0"):
        read_run("nowhere", n_sequences=0)


def test_items_are_positions_evenly_spread_and_the_first():
    clusters, positions = item_index(64, 4, 2)
    assert positions.tolist() == [0, 21, 42, 63] * 2
    assert clusters.tolist() == [0] * 4 + [1] * 4
    assert item_index(1, 16, 3)[1].tolist() == [0, 0, 0]


def test_only_memorising_pays_for_the_pool():
    (small, code), (large, same) = (task_bits(UrnTask(diversity=d)) for d in (64, 128))
    assert code == same
    assert code < constant_bits(UrnTask(diversity=64)) + 8 * 64 < small
    assert (large - small) / (64 * 8 * 64) == pytest.approx(0.93, abs=0.07)  # bits a number, of 64


def test_a_median_of_means_is_not_moved_by_one_far_value():
    values = np.ones(100)
    values[3] = 1e6
    assert median_of_means(values) == 1
    assert median_of_means(np.arange(4.0)) == 1.5
