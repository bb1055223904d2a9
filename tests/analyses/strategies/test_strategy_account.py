"""The account from a folder to a verdict, on transformers that were trained in a second."""

from dataclasses import replace

import numpy as np
import pytest

from mechicl.analyses.strategies.account import StrategyAccount, measure_strategies, readings_data
from mechicl.analyses.strategies.readings import read_run
from mechicl.analyses.strategies.sizes import measure_sizes
from mechicl.analyses.strategies.transience import measure_transience
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.training import train_grid
from mechicl.strategies.fit import fit_data, fit_strategies

FIT = {"n_boot": 0, "n_permutations": 0, "threshold": 1.0}
READ = {"n_sequences": 12, "n_positions": 6, "n_losses": 100, "progress": False}


def points(setting, **own):
    point = GridPoint(
        setting, 4, context=8, dim=3, d_mlp=16, d_model=16, steps=60, batch=16, warmup=0, learning_rate=1e-2,
        n_checkpoints=7, init=0.1,
    )  # fmt: skip
    return [replace(point, diversity=d, seed=seed, **own) for seed in (0, 1) for d in (2, 8, 64)]


@pytest.fixture(scope="module")
def urns(tmp_path_factory):
    return train_grid(points("balls_and_urns"), tmp_path_factory.mktemp("account") / "run", progress=False)


@pytest.fixture(scope="module")
def readings(urns):
    return read_run(urns, **READ)


@pytest.fixture(scope="module")
def account(urns):
    return measure_strategies(urns, **FIT, **READ)


def test_the_account_is_its_parts(account, readings, tmp_path):
    found = account
    losses = tuple(readings.strategy_losses(name) for name in ("memorising", "generalising"))
    alone = fit_strategies(
        readings.predictions, readings.memorising, readings.generalising, losses,
        (readings.bits_memorising, readings.bits_generalising), steps=readings.steps,
        diversities=readings.diversities, clusters=readings.clusters, **FIT,
    )  # fmt: skip
    assert alone == found.fit
    assert found.setting == "balls_and_urns"
    assert found.sizes == {"dim": 3, "context": 8, "d_mlp": 16, "n_layers": 1}
    assert found.three is not None
    assert found.context is not None
    assert set(found.ablations.table["ablation"]) > {"model", "alpha = 0", "linear K"}
    assert len(found.to_frame()) == 2 * 7 * 3
    assert found.verdict
    found.save(tmp_path / "kept")
    assert StrategyAccount.load(tmp_path / "kept") == found


@pytest.mark.parametrize("setting", ["linear_regression", "classification", "markov_chains"])
def test_every_setting_has_an_account(setting, tmp_path):
    run = train_grid(points(setting), tmp_path / "run", progress=False)
    found = measure_strategies(run, **FIT, **READ)
    assert found.fit.distance == ("mse" if setting == "linear_regression" else "kl")
    assert (found.three is None) == (setting != "markov_chains")
    assert np.isfinite(found.fit.d_rel[..., 1:]).all()  # two items may have one label: then both strategies are one
    assert found.losses["fresh_loss"].gt(0).all()


def test_transience_is_read_off_the_kept_checkpoints(account, readings):
    fit = account.fit
    path = np.array([0.9, 0.1, 0.8, 0.2, 0.3, 0.4, 0.7])
    d_rel = np.broadcast_to(path[None, :, None], fit.d_rel.shape)
    kept = np.array([False, False, True, True, True, True, True])
    residual = np.zeros_like(fit.residual)
    residual[1] = 0.9  # near neither strategy: whatever d_rel says there is no sign of generalising
    rows = measure_transience(replace(fit, d_rel=d_rel, kept=kept, residual=residual), readings)
    assert len(rows) == 6
    row = rows.iloc[0]
    assert (row["lowest"], row["last"], row["lowest_step"]) == (0.2, 0.7, readings.steps[3])
    assert row["rise"] == pytest.approx(0.5)
    assert rows.loc[rows["seed"] == 1, ["lowest", "lowest_step", "rise"]].isna().all(axis=None)
    assert row["fresh_best"] == readings.fresh_loss[0, 2:, 0].min()
    assert row["fresh_rise"] == readings.fresh_loss[0, -1, 0] - row["fresh_best"]


def test_sizes_are_fitted_one_by_one(tmp_path):
    both = [p for mlp in (4, 16) for p in points("balls_and_urns", d_mlp=mlp) if p.seed == 0]
    run = train_grid(both, tmp_path / "run", progress=False)
    found = measure_sizes(run, "d_mlp", n_boot=0, threshold=1.0, **READ)
    readings = read_run(run, d_mlp=4, **READ)
    alone = fit_data(readings_data(readings, threshold=1.0), n_boot=0, n_permutations=0)
    rows = found.frame[found.frame["size"] == 4].set_index("parameter")["estimate"]
    assert rows.to_dict() == alone.parameters.set_index("parameter")["estimate"].to_dict()
    assert found.last.query("size == 16 and diversity == 2")["d_rel"].size == 1
    with pytest.raises(ValueError, match="1 sizes of context"):
        measure_sizes(run, "context")
    with pytest.raises(ValueError, match="axis='seed'"):
        measure_sizes(run, "seed")
