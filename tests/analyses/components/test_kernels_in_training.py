"""The ideal kernel over training: a model that turns from the kernel to its memory is seen to do so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mechicl.analyses.components.training_kernels import (
    classifiers_of,
    kernels_in_training,
    spread_steps,
    t_interval,
)
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.training import train_grid
from mechicl.predictors.classification import bandwidth, generalising, generalising_weights, memorising

POINT = GridPoint("classification", 16, context=9, dim=4)


class Mixed:
    """Follows the generalising predictor to a share, in what it says and in where it looks; else memory, and chance."""

    def __init__(self, share: float, point: GridPoint = POINT) -> None:
        self.share, self.task = share, point.task

    def query_attention(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).standard_normal(x.shape[:2])
        ideal = np.log(generalising_weights(query, x, noise=self.task.noise))
        return np.exp(self.share * ideal + (1 - self.share) * noise)[:, None]

    def probabilities(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
        memory = memorising(query, self.task.pool, self.task.pool_labels, noise=self.task.noise)
        return self.share * generalising(query, x, y, noise=self.task.noise) + (1 - self.share) * memory


def test_the_kernel_falls_as_the_model_turns_to_memory() -> None:
    steps = {1: 1.0, 5: 0.5, 9: 0.0}
    found = kernels_in_training(((POINT, step, Mixed(share)) for step, share in steps.items()), n_contexts=60)
    table: Any = found.frame.set_index("step")
    assert table.loc[1, "r2"] == pytest.approx(1, abs=1e-9)
    assert table.loc[1, "bandwidth"] == pytest.approx(bandwidth(4, noise=POINT.task.noise)) == table.loc[1, "known"]
    np.testing.assert_allclose(table.loc[[1, 9], "d_rel"], [0, 1], atol=1e-12)
    np.testing.assert_allclose(table.loc[[1, 9], "residual"], 0, atol=1e-12)
    assert table.loc[1, "unique_r2"] > table.loc[5, "unique_r2"] > table.loc[9, "unique_r2"]
    assert table.loc[9, "unique_r2"] < 0.02 and (table["control"] < 0.02).all()
    together: Any = found.together.iloc[0]
    assert together["rho"] == pytest.approx(1) == together["low"]
    assert np.isnan(found.across["rho"]) and found.across["n_models"] == 1
    assert together["kernel_peak"] == together["generalising_peak"] == 1
    assert ((table["unique_r2_low"] <= table["unique_r2"]) & (table["unique_r2"] <= table["unique_r2_high"])).all()


def test_models_that_are_near_neither_strategy_do_not_count() -> None:
    class Lost(Mixed):
        def probabilities(self, x: np.ndarray, y: np.ndarray, query: np.ndarray) -> np.ndarray:
            right = memorising(query, self.task.pool, self.task.pool_labels, noise=self.task.noise)
            return right[:, ::-1].copy()

    found = kernels_in_training([(POINT, 1, Lost(0.0)), (POINT, 2, Mixed(0.2)), (POINT, 3, Mixed(0.9))], n_contexts=60)
    assert found.frame["residual"].iloc[0] > 1
    assert found.together["n_checkpoints"].iloc[0] == 2 and found.together["rho"].isna().all()


def test_correlations_over_models() -> None:
    points = [GridPoint("classification", diversity, context=9, dim=4) for diversity in (8, 16, 32)]
    models = [(point, 1, Mixed(share, point)) for point, share in zip(points, (0.1, 0.5, 1.0), strict=True)]
    found = kernels_in_training(models, n_contexts=60)
    assert found.across["n_models"] == 3 and found.across["rho"] == pytest.approx(1) == found.across["low"]


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
