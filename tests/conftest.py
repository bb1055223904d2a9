"""Shared fixtures: one thread (two slow tiny models down), and where the real corpora lie if they are present."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real corpora and published tables; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip("the folder of real corpora is absent")
    return DATA
