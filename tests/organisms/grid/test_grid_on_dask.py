"""A Dask cluster takes the stacks of a grid unchanged: two worker processes, and the same files to the last bit."""

import hashlib
import os

import joblib
import pytest

from mechicl.organisms.grid.points import GridPoint
from mechicl.organisms.grid.training import train_grid

distributed = pytest.importorskip("distributed", reason="distributed is absent: pip install distributed")

SIZES = {"context": 6, "dim": 3, "d_mlp": 8, "d_model": 8, "steps": 6, "batch": 4, "n_checkpoints": 3, "warmup": 2}
POINTS = [
    GridPoint(setting, diversity, **SIZES)
    for setting in ("balls_and_urns", "classification")
    for diversity in (2, 4, 8, 16)
]


def files(folder):
    """The checksum of every file of a run."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_dask_cluster_trains_the_same_models(tmp_path):
    here = files(train_grid(POINTS, tmp_path / "here", stack=2, n_jobs=1, progress=False))
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=str(tmp_path)
        ) as cluster,
        distributed.Client(cluster) as client,
        distributed.get_task_stream(client) as tasks,
        joblib.parallel_config("dask"),
    ):
        there = files(train_grid(POINTS, tmp_path / "there", stack=2, progress=False))
        processes = client.run(os.getpid)
    assert there == here
    assert sum(name.endswith(".safetensors") for name in here) == 3 * len(POINTS)
    assert {task["worker"] for task in tasks.data} == processes.keys()  # both workers trained
    assert len({*processes.values(), os.getpid()}) == 3
