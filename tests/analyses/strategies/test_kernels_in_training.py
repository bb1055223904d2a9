"""The ideal kernel over training: a model that turns from the kernel to its memory is seen to do so."""

from pathlib import Path

import numpy as np
import pytest

from mechicl.analyses.strategies.kernels_in_training import (
    classifiers_of,
    kernels_in_training,
    spread_steps,
    t_interval,
)
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.training import train_grid
from mechicl.predictors.classification import bandwidth, generalising, generalising_weights, memorising

POINT = GridPoint("classification", 16, context=9, dim=4)
TASK = POINT.task


class Mixed:
    """Follows the generalising predictor to a share, in what it says and in where it looks; else memory, and chance."""

    def __init__(self, share: float) -> None:
        self.share = share

    def query_attention(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).standard_normal(x.shape[:2])
        ideal = np.log(generalising_weights(query, x, noise=TASK.noise))
        return np.exp(self.share * ideal + (1 - self.share) * noise)[:, None]

    def probabilities(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        memory = memorising(query, TASK.pool, TASK.pool_labels, noise=TASK.noise)
        return self.share * generalising(query, x, y, noise=TASK.noise) + (1 - self.share) * memory


def test_the_kernel_falls_as_the_model_turns_to_memory() -> None:
    steps = {1: 1.0, 5: 0.5, 9: 0.0}
    found = kernels_in_training(((POINT, step, Mixed(share)) for step, share in steps.items()), n_contexts=60)
    table = found.frame.set_index("step")
    assert table.loc[1, "r2"] == pytest.approx(1, abs=1e-9)
    assert table.loc[1, "bandwidth"] == pytest.approx(bandwidth(4, noise=TASK.noise)) == table.loc[1, "known"]
    np.testing.assert_allclose(table.loc[[1, 9], "d_rel"], [0, 1], atol=1e-12)
    np.testing.assert_allclose(table.loc[[1, 9], "residual"], 0, atol=1e-12)
    assert table.loc[1, "unique_r2"] > table.loc[5, "unique_r2"] > table.loc[9, "unique_r2"]
    assert table.loc[9, "unique_r2"] < 0.02 and (table["control"] < 0.02).all()
    together = found.together.iloc[0]
    assert together["rho"] == pytest.approx(1) == together["low"]
    assert together["kernel_peak"] == together["generalising_peak"] == 1
    assert ((table["unique_r2_low"] <= table["unique_r2"]) & (table["unique_r2"] <= table["unique_r2_high"])).all()


def test_intervals_are_students() -> None:
    from scipy import stats

    values = np.array([0.2, 0.5, 0.1, 0.9])
    own = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert t_interval(values, 0.9) == pytest.approx((values.mean(), own.low, own.high))


def test_a_run_is_opened_checkpoint_by_checkpoint(tmp_path: Path) -> None:
    points = [
        GridPoint("classification", diversity, context=6, dim=3, d_mlp=8, d_model=8, steps=6, n_checkpoints=3, batch=4)
        for diversity in (4, 8)
    ]
    folder = train_grid(points, tmp_path / "run", progress=False)
    opened = list(classifiers_of(folder, n_checkpoints=2))
    assert [(point.diversity, step) for point, step, _ in opened] == [(4, 1), (4, 6), (8, 1), (8, 6)]
    found = kernels_in_training(classifiers_of(folder, diversities=[8]), n_contexts=20, n_sets=2)
    assert list(found.frame["step"]) == list(points[1].schedule) and set(found.frame["diversity"]) == {8}
    with pytest.raises(ValueError, match=r"diversities=\[3\]"):
        list(classifiers_of(folder, diversities=[3]))
    with pytest.raises(ValueError, match="n=1"):
        spread_steps(folder / points[0].name, 1)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="n_sets=1"):
        kernels_in_training([], n_sets=1)
    with pytest.raises(ValueError, match="no models"):
        kernels_in_training([])
    with pytest.raises(ValueError, match="balls_and_urns"):
        kernels_in_training([(GridPoint("balls_and_urns", 4), 1, None)])
