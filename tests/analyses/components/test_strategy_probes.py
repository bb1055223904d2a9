"""Probes of states: what is planted is read, what is shuffled is not, and the targets are what they say."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from mechicl.analyses.components import probes
from mechicl.analyses.components.held_out import HeldOut
from mechicl.analyses.components.hooked_runs import HookedRun
from mechicl.analyses.components.probes import probe_strategies, ridge_errors
from mechicl.analyses.components.targets import probe_targets, read_positions
from mechicl.organisms.grid.opened import open_checkpoint
from mechicl.organisms.grid.points import GridPoint

Run = tuple[Path, GridPoint]


def found_targets(setting: str) -> tuple[HeldOut, dict[tuple[str, str], np.ndarray]]:
    held = HeldOut.of(GridPoint(setting, 4, context=7, dim=3), 9)
    return held, {(target.strategy, target.name): target.values for target in probe_targets(held)}


@pytest.mark.parametrize("setting", ["balls_and_urns", "markov_chains"])
def test_counts_and_posterior_make_the_predictions(setting: str) -> None:
    held, found = found_targets(setting)
    counts = found["generalising", "counts"]
    general = (counts + 1) / (counts.sum(-1, keepdims=True) + 3)
    at = 0 if setting == "balls_and_urns" else 1  # the first state of a chain is uniform
    np.testing.assert_allclose(general[:, at:], held.generalising[:, at:], atol=1e-12)
    np.testing.assert_allclose(found["generalising", "prediction"], np.log(held.generalising))
    posterior, pool = found["memorising", "posterior"], held.point.task.pool
    np.testing.assert_allclose(posterior.sum(-1), 1)
    if setting == "balls_and_urns":
        memory = posterior @ pool
    else:
        memory = np.einsum("btk,kbtv->btv", posterior[:, 1:], pool[:, held.truth[:, :-1]])
    np.testing.assert_allclose(memory, held.memorising[:, at:], atol=1e-12)


def test_the_posterior_over_items_makes_the_label() -> None:
    held, found = found_targets("classification")
    share = (found["memorising", "posterior"] * held.point.task.pool_labels).sum(-1)
    np.testing.assert_allclose(share.clip(1e-5, 1 - 1e-5), held.memorising[..., 1], atol=1e-9)
    assert found["memorising", "prediction"].shape == (9, 1, 1)
    _, regression = found_targets("linear_regression")
    assert set(regression) == {("generalising", "prediction"), ("memorising", "prediction")}


def test_errors_are_those_of_ridges_that_did_not_see_the_sequence() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3, 2, 2)), rng.normal(size=(8, 3, 2))
    fold = np.arange(8) % 2
    errors, around = ridge_errors(x, y, fold, 0.7)
    scaled = x / np.sqrt((x**2).mean((0, 1)))
    for held_out in (0, 1):
        train, test = fold != held_out, fold == held_out
        rows = y[train].reshape(-1, 2)
        np.testing.assert_allclose(around[test], ((y[test] - rows.mean(0)) ** 2).sum(1))
        for head in range(2):
            ridge = Ridge(alpha=0.7).fit(scaled[train][:, :, head].reshape(-1, 2), rows)
            said = ridge.predict(scaled[test][:, :, head].reshape(-1, 2)).reshape(-1, 3, 2)
            np.testing.assert_allclose(errors[test, head], ((said - y[test]) ** 2).sum(1))


def test_what_is_planted_is_read_and_nothing_else(tiny_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """States that are the generalising predictor's log-probabilities, and noise at one place."""
    folder, point = tiny_run
    run = HookedRun.of(open_checkpoint(folder / point.name), HeldOut.of(point, 60))
    rng, calls = np.random.default_rng(1), []

    def planted(held: HeldOut, states: object) -> np.ndarray:
        calls.append(states)
        noise = rng.normal(size=(len(held), 8, 4))
        return noise if len(calls) % 4 == 1 else np.log(held.generalising)  # attention output is noise

    monkeypatch.setattr(probes, "read_positions", planted)
    found = probe_strategies([(3, run)], n_boot=100, penalty=1e-6).frame
    table: Any = found.set_index(["place", "strategy", "target"]).sort_index()
    general: Any = table.loc[("stream after block", "generalising", "prediction")]
    assert general["r2"] == pytest.approx(1, abs=1e-6) and general["low"] == pytest.approx(1, abs=1e-6)
    assert general["unique_r2"] > 0.1 and general["control"] < 0.5
    memory: Any = table.loc[("stream after block", "memorising", "prediction")]
    assert memory["r2"] > 0.3  # both strategies say much the same,
    assert memory["unique_r2"] == pytest.approx(0, abs=1e-3)  # but these states hold nothing else of it
    noise = table.loc["attention output"]
    assert (noise["unique_r2"] < 0.01).all() and (noise["unique_control"] < 0.01).all()
    assert (found["step"] == 3).all()


def test_some_positions_serve() -> None:
    assert probes._positions(9, 3).tolist() == [0, 4, 8]
    assert probes._positions(5, None).tolist() == probes._positions(5, 99).tolist() == [0, 1, 2, 3, 4]


def test_rises_are_the_first_steps_at_half(tiny_run: Run) -> None:
    folder, point = tiny_run
    held = HeldOut.of(point, 150)
    steps = point.schedule[::3]
    found = probe_strategies(
        ((step, HookedRun.of(open_checkpoint(folder / point.name, step), held)) for step in steps), n_boot=100
    )
    assert sorted(found.frame["step"].unique()) == list(steps)
    assert ((found.frame["low"] <= found.frame["r2"]) & (found.frame["r2"] <= found.frame["high"])).mean() > 0.9
    for _, row in found.rises.iterrows():
        own = found.frame[
            (found.frame[["place", "target", "strategy"]] == row[["place", "target", "strategy"]]).all(axis=1)
        ]
        assert row["largest"] == own["unique_r2"].max()
        if np.isfinite(row["step"]):
            reached = own["unique_r2"] >= (own["unique_r2"].iloc[0] + row["largest"]) / 2
            assert row["step"] == own.loc[reached, "step"].iloc[0]
            assert row["step_low"] <= row["step"]
    assert found.rises["step"].notna().any()


def test_positions_that_predict() -> None:
    import torch

    held = HeldOut.of(GridPoint("linear_regression", 4, context=7, dim=3), 4)
    states = torch.arange(4 * 13 * 2).view(4, 13, 2)
    np.testing.assert_array_equal(read_positions(held, states), states[:, [0, 2, 4, 6, 8, 10, 12]])
    classes = HeldOut.of(GridPoint("classification", 4, context=7, dim=3), 4)
    assert read_positions(classes, states).tolist() == states[:, -1:].tolist()


def test_bad_input_is_refused(tiny_run: Run) -> None:
    folder, point = tiny_run
    model = open_checkpoint(folder / point.name)
    one, two = (HookedRun.of(model, HeldOut.of(point, 12)) for _ in range(2))
    with pytest.raises(ValueError, match="no checkpoints"):
        probe_strategies([])
    with pytest.raises(ValueError, match="other sequences"):
        probe_strategies([(1, one), (2, two)], n_boot=100)
    with pytest.raises(ValueError, match="12 sequences for 7 folds"):
        probe_strategies([(1, one)], n_folds=7)
    with pytest.raises(ValueError, match="n_folds=1"):
        probe_strategies([(1, one)], n_folds=1)
