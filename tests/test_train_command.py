"""`mechicl train`: trains, goes on, and refuses what cannot be."""

import pytest

from mechicl.__main__ import main
from mechicl.organisms.grid.store import read_grid

SMALL = ["train", "--scale", "small", "--diversities", "2", "4", "--contexts", "6", "--steps", "3"]


def test_a_small_grid_is_trained_and_gone_on_with(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert main([*SMALL, *out, "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "2 models in" in said
    assert f"mechicl strategies --results {tmp_path / 'run'}" in said
    points = read_grid(tmp_path / "run")
    assert {(p.diversity, p.context, p.dim, p.steps, p.d_mlp) for p in points} == {(2, 6, 4, 3, 128), (4, 6, 4, 3, 128)}
    assert main([*SMALL, *out]) == 0
    assert "2 of 2 models are there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--diversities", "0"], "diversity=0"),
        (["--diversities", "1000000"], "a pool holds 65536"),
        (["--contexts", "0"], "context=0"),
        (["--seeds", "1", "1"], "each once"),
        (["--stack", "0"], "stack=0"),
    ],
)
def test_mistakes_are_said_in_a_line(more, words, tmp_path, capsys):
    assert main([*SMALL, *more, "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
