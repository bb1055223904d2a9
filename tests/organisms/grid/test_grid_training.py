"""Training over a grid: against torch's own loop, and after stops, torn files and other grids."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from mechicl.organisms.grid import store, training
from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.predictions import each_checkpoint, held_out
from mechicl.organisms.grid.scales import SCALES, grid_points
from mechicl.organisms.grid.settings import SETTINGS
from mechicl.organisms.grid.stack import Stack, run
from mechicl.organisms.grid.store import BrokenCheckpoint, checkpoint_steps, read_checkpoint, read_grid
from mechicl.organisms.grid.training import StackTraining, train_grid

URNS = GridPoint(
    "balls_and_urns", 4, context=6, dim=3, d_mlp=8, d_model=8, steps=12, batch=4, warmup=3, n_checkpoints=4, init=0.2
)
POINTS = [replace(URNS, diversity=diversity, seed=seed) for diversity in (2, 8) for seed in (0, 1)]


def weights_of(folder, points=POINTS):
    return {
        (point.name, step): read_checkpoint(folder / point.name, step) for point in points for step in point.schedule
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, weights in one.items():
        assert all(torch.equal(weights[name], other[key][name]) for name in weights), key


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train_grid(POINTS, tmp_path_factory.mktemp("grid") / "run", progress=False)


def test_steps_are_those_of_torchs_own_loop():
    point = replace(POINTS[2], clip=0.05)  # so small that every gradient is cut
    ours = StackTraining([replace(point, diversity=5), point])
    stack = Stack(point.config, 1)
    stack.randomise([point.seed], spread=point.init)
    named = {name: torch.nn.Parameter(weight.detach().clone()) for name, weight in stack.named.items()}
    optimizer = torch.optim.AdamW(named.values(), lr=0.0, weight_decay=0.0)
    for step in range(point.steps):
        tokens = torch.from_numpy(point.task.sample(point.batch, step=step).tokens)[None]
        outputs = run(named, tokens[..., :-1], point.config, stack.rotation)
        loss = cross_entropy(outputs.flatten(0, 2), tokens[..., 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(named.values(), point.clip)
        optimizer.param_groups[0]["lr"] = point.rate_at(step)
        optimizer.step()
        assert ours.step()[1] == pytest.approx(float(loss.detach()), abs=1e-5)
    for name, weight in ours.stack.model_weights(1).items():
        assert torch.allclose(weight, named[name][0], atol=1e-5)


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_learns(setting, tmp_path):
    point = GridPoint(
        setting, 2, context=8, dim=3, d_mlp=32, d_model=16, steps=80, warmup=0, learning_rate=1e-2, init=0.1,
        n_checkpoints=2,
    )  # fmt: skip
    model = StackTraining([point])
    losses = [model.step()[0] for _ in range(point.steps)]
    assert np.mean(losses[-10:]) < np.mean(losses[:3]) * 0.97


def test_weights_do_not_depend_on_the_stack(trained, tmp_path):
    assert_same(weights_of(trained), weights_of(train_grid(POINTS, tmp_path / "run", stack=3, progress=False)))


def test_a_run_that_is_killed_anywhere_ends_with_the_same_weights(trained, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    for after in (1, 9, 17, 31):  # writes, of which a checkpoint takes three and a state one
        count = 0
        write = store.write_bytes

        def counted(file, data):
            nonlocal count
            count += 1
            if count > after:  # noqa: B023
                file.with_name(file.name + ".partial").write_bytes(data[: len(data) // 2])
                raise Killed
            write(file, data)  # noqa: B023

        with monkeypatch.context() as patch:
            patch.setattr(store, "write_bytes", counted)
            patch.setattr(training, "write_bytes", counted)
            with pytest.raises(Killed):
                train_grid(POINTS, tmp_path / str(after), stack=3, progress=False)
        assert_same(weights_of(trained), weights_of(train_grid(POINTS, tmp_path / str(after), stack=3, progress=False)))


def test_what_is_whole_is_left_and_what_is_torn_is_trained_again(trained, tmp_path, monkeypatch, capsys):
    run = train_grid(POINTS, tmp_path / "run", progress=False)
    torn = run / POINTS[1].name / store.file_name(POINTS[1].schedule[1])
    torn.write_bytes(torn.read_bytes()[:-1])
    with pytest.raises(BrokenCheckpoint, match="torn or was changed"):
        read_checkpoint(torn.parent, POINTS[1].schedule[1])
    done = []
    once = training.train_stack
    monkeypatch.setattr(training, "train_stack", lambda points, *a, **k: (done.extend(points), once(points, *a, **k)))
    train_grid(POINTS, run)
    assert done == [POINTS[1]]
    assert "3 of 4 models are there already" in capsys.readouterr().out
    assert_same(weights_of(trained), weights_of(run))


def test_checkpoints_of_other_code_are_trained_again(tmp_path, monkeypatch):
    run = train_grid(POINTS[:1], tmp_path / "run", progress=False)
    file = run / POINTS[0].name / store.CHECKPOINTS
    known = json.loads(file.read_text(encoding="utf-8"))
    known["1"]["code"] = "another"
    file.write_text(json.dumps(known), encoding="utf-8")
    assert not store.is_whole(run, POINTS[0])
    train_grid(POINTS[:1], run, progress=False)
    assert store.is_whole(run, POINTS[0])


def test_a_state_that_is_torn_or_of_other_code_is_not_gone_on_from(tmp_path, monkeypatch):
    first = StackTraining(POINTS[:2])
    first.step()
    file = tmp_path / "state"
    first.save(file)
    again = StackTraining(POINTS[:2])
    assert again.resume(file)
    assert again.done == 1
    assert not StackTraining(POINTS[1:3]).resume(file)  # of other points
    monkeypatch.setattr(training, "code_version", lambda: "another")
    assert not StackTraining(POINTS[:2]).resume(file)
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:-5])
    fresh = StackTraining(POINTS[:2])
    assert not fresh.resume(file)
    assert fresh.done == 0


def test_comments_and_docstrings_are_not_code(monkeypatch):
    texts = {"a": '"""One."""\ndef f():\n    """Two."""\n    return 1  # three\n'}
    monkeypatch.setattr(store, "CODE", ("a",))
    monkeypatch.setattr(store, "import_module", lambda name: name)
    monkeypatch.setattr(store, "getsource", lambda name: texts[name])
    versions = []
    for text in (texts["a"], "def f():\n    return 1\n", "def f():\n    return 2\n"):
        texts["a"] = text
        versions.append(store.code_version.__wrapped__())
    assert versions[0] == versions[1] != versions[2]


def test_folders_of_another_grid_or_of_other_files_are_refused(trained, tmp_path):
    with pytest.raises(ValueError, match="holds another grid"):
        train_grid(POINTS[:2], trained, progress=False)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="other files"):
        train_grid(POINTS, tmp_path, progress=False)
    with pytest.raises(ValueError, match="same name"):
        train_grid([POINTS[0], replace(POINTS[0], steps=13)], tmp_path / "new", progress=False)
    with pytest.raises(ValueError, match="no grid"):
        read_grid(tmp_path)
    with pytest.raises(ValueError, match="stack=0"):
        train_grid(POINTS, tmp_path / "new", stack=0)


def test_points_and_steps_can_be_read_back(trained):
    assert sorted(p.name for p in read_grid(trained)) == sorted(p.name for p in POINTS)
    place = trained / POINTS[0].name
    assert store.read_point(place) == POINTS[0]
    assert checkpoint_steps(place) == list(POINTS[0].schedule)
    with pytest.raises(BrokenCheckpoint, match="nearest is after 12"):
        read_checkpoint(place, 11)
    with pytest.raises(BrokenCheckpoint, match="holds no checkpoints"):
        read_checkpoint(trained / "nothing")
    with pytest.raises(ValueError, match="no model"):
        store.read_point(trained)


@pytest.mark.parametrize("setting", SETTINGS)
def test_predictions_are_of_sequences_that_training_never_drew(setting, tmp_path):
    point = GridPoint(
        setting, 2, context=5, dim=3, d_mlp=8, d_model=8, steps=4, batch=4, warmup=0, n_checkpoints=2, init=0.2
    )
    train_grid([point], tmp_path / "run", progress=False)
    batch, other = held_out(point, 300), held_out(point, 300, part=1)
    found = dict(each_checkpoint(tmp_path / "run", point, batch))
    assert list(found) == [1, 4]
    n_pos = 1 if setting == "classification" else 5
    n_labels = {"linear_regression": 1, "classification": 2}.get(setting, 3)
    assert found[4].shape == (300, n_pos, n_labels)
    assert not np.allclose(found[1], found[4])
    if n_labels > 1:
        np.testing.assert_allclose(found[4].sum(-1), 1, atol=1e-6)
    inputs = SETTINGS[setting].encode(batch)[0]
    assert not torch.equal(inputs, SETTINGS[setting].encode(other)[0])
    drawn = torch.cat([SETTINGS[setting].encode(point.task.sample(4, step=step))[0] for step in range(4)])
    if n_labels != 3:  # real numbers never fall together
        assert not any(torch.equal(one, two) for one in inputs for two in drawn)


def test_scales_give_the_papers_sizes():
    points = grid_points("balls_and_urns", "paper")
    assert len(points) == 11 * 3 * 3 * 3
    assert {point.steps for point in points} == {100_000}
    assert {(p.batch, p.n_layers) for p in grid_points("linear_regression", "paper")} == {(128, 8)}
    reduced = grid_points("balls_and_urns")
    assert (len(reduced), reduced[0].diversity, reduced[8].diversity, reduced[9].seed) == (27, 4, 1024, 1)
    assert all(grid_points(setting, scale) for scale in SCALES for setting in SETTINGS)
    with pytest.raises(ValueError, match="seeds"):
        grid_points("balls_and_urns", seeds=())
    with pytest.raises(ValueError, match="each once"):
        grid_points("balls_and_urns", diversities=(4, 4))
    with pytest.raises(ValueError, match="huge"):
        grid_points("balls_and_urns", "huge")
